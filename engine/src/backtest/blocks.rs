//! The blocks of a run configuration that do not change a single run: sweep aggregates and diagnostics.

use serde_json::{Map, Value, json};

use super::reader::Reader;

/// `metrics`: parameters of the robustness scores of a sweep, default-filled.
pub(super) fn read_metrics(r: &mut Reader, given: &Map<String, Value>) -> Value {
    let block = r.object(given, "", "metrics").unwrap_or_default();
    r.known_keys("metrics", &block, &["robustness", "data_jitter", "timing_jitter", "ulcer"]);
    let at = "metrics.robustness";
    let robustness = r.object(&block, "metrics", "robustness").unwrap_or_default();
    r.known_keys(
        at,
        &robustness,
        &["enabled", "mode", "jitter_frac", "jitter_repeats", "dropout_frac", "dropout_runs", "cost_shock_factors"],
    );
    let robustness_doc = json!({
        "enabled": r.boolean(&robustness, at, "enabled", false),
        "mode": r.choice(&robustness, at, "mode", &["full", "fast", "off"], "full"),
        "jitter_frac": r.not_negative(&robustness, at, "jitter_frac", 0.05),
        "jitter_repeats": r.int(&robustness, at, "jitter_repeats", 5, 0, 1_000_000),
        "dropout_frac": r
            .optional_number(&robustness, at, "dropout_frac", |x| (0.0..=1.0).contains(&x), "must be from 0 to 1")
            .unwrap_or(0.10),
        "dropout_runs": r.int(&robustness, at, "dropout_runs", 1, 0, 1_000_000),
        "cost_shock_factors": numbers(r, &robustness, at, "cost_shock_factors", &[1.25, 1.5, 2.0], |x| x >= 1.0, "must be >= 1"),
    });
    let at = "metrics.data_jitter";
    let jitter = r.object(&block, "metrics", "data_jitter").unwrap_or_default();
    r.known_keys(at, &jitter, &["repeats", "atr_period", "sigma_atr", "penalty_cap", "min_price", "fraq"]);
    let jitter_doc = json!({
        "repeats": r.int(&jitter, at, "repeats", 5, 0, 1_000_000),
        "atr_period": r.int(&jitter, at, "atr_period", 14, 1, 1_000_000),
        "sigma_atr": r.not_negative(&jitter, at, "sigma_atr", 0.10),
        "penalty_cap": r.positive(&jitter, at, "penalty_cap", 0.5),
        "min_price": r.positive(&jitter, at, "min_price", 1e-9),
        "fraq": r.not_negative(&jitter, at, "fraq", 0.0),
    });
    let at = "metrics.timing_jitter";
    let timing = r.object(&block, "metrics", "timing_jitter").unwrap_or_default();
    r.known_keys(at, &timing, &["divisors", "min_months"]);
    let timing_doc = json!({
        "divisors": numbers(r, &timing, at, "divisors", &[10.0, 5.0, 20.0], |x| x > 0.0, "must be > 0"),
        "min_months": r.int(&timing, at, "min_months", 1, 0, 1_000_000),
    });
    let ulcer = r.object(&block, "metrics", "ulcer").unwrap_or_default();
    r.known_keys("metrics.ulcer", &ulcer, &["ulcer_cap"]);
    let ulcer_doc = json!({ "ulcer_cap": r.positive(&ulcer, "metrics.ulcer", "ulcer_cap", 10.0) });
    json!({ "robustness": robustness_doc, "data_jitter": jitter_doc, "timing_jitter": timing_doc, "ulcer": ulcer_doc })
}

fn numbers(
    r: &mut Reader,
    map: &Map<String, Value>,
    at: &str,
    key: &str,
    default: &[f64],
    valid: impl Fn(f64) -> bool,
    rule: &str,
) -> Vec<f64> {
    let Some(list) = r.array(map, at, key) else { return default.to_vec() };
    let mut values = Vec::with_capacity(list.len());
    for (k, item) in list.iter().enumerate() {
        match item.as_f64().filter(|x| x.is_finite() && valid(*x)) {
            Some(x) => values.push(x),
            None => r.require(false, &format!("{at}.{key}[{k}]"), || format!("{rule}, got {item}")),
        }
    }
    values
}

/// `logging`, `profiling`, `observability`.
pub(super) fn read_diagnostics(r: &mut Reader, given: &Map<String, Value>) -> (Value, Value, Value) {
    let logging = r.object(given, "", "logging").unwrap_or_default();
    r.known_keys("logging", &logging, &["enable_entry_logging", "logging_mode"]);
    let mode = r.choice(&logging, "logging", "logging_mode", &["trades_only", "off", "all", "full"], "trades_only");
    let logging_doc = json!({
        "enable_entry_logging": r.boolean(&logging, "logging", "enable_entry_logging", false),
        "logging_mode": if mode == "full" { "all".to_owned() } else { mode },
    });
    let profiling = r.object(given, "", "profiling").unwrap_or_default();
    r.known_keys("profiling", &profiling, &["enabled"]);
    let profiling_doc = json!({ "enabled": r.boolean(&profiling, "profiling", "enabled", false) });
    let observability = r.object(given, "", "observability").unwrap_or_default();
    r.known_keys("observability", &observability, &["profiling_mode"]);
    let observability_doc =
        json!({ "profiling_mode": r.boolean(&observability, "observability", "profiling_mode", false) });
    (logging_doc, profiling_doc, observability_doc)
}
