//! The run config key by key: defaults, ranges, normalisation, older spellings, and that the JSON schema says the same.
//!
//! Source: config-and-errors specification §1 to §4, in the order of its tables.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

#[path = "support/schema.rs"]
mod schema;

use engine::backtest::RunConfig;
use schema::Schema;
use serde_json::{Value, json};

fn minimal() -> Value {
    json!({
        "strategy_name": "sma_cross",
        "symbol": "EURUSD",
        "start_date": "2024-01-01",
        "end_date": "2024-12-31",
        "timeframes": {"primary": "M5"},
    })
}

/// The minimal document with `value` at a dotted path; maps on the way are made.
fn with(path: &str, value: Value) -> Value {
    let mut document = minimal();
    let mut place = &mut document;
    for key in path.split('.') {
        place = &mut place[key];
    }
    *place = value;
    document
}

fn parsed(document: &Value) -> RunConfig {
    match RunConfig::parse(document, true) {
        Ok(parsed) => parsed.config,
        Err(violations) => panic!("{violations:?}\nin {document:#}"),
    }
}

/// Paths and reasons of a refusal.
fn refused(document: &Value) -> Vec<String> {
    let violations = RunConfig::parse(document, true).expect_err(&document.to_string());
    violations.iter().map(ToString::to_string).collect()
}

fn at<'a>(document: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(document, |place, key| &place[key])
}

/// §2: every default, filled in, floats as floats and whole numbers as whole numbers.
#[test]
fn defaults() {
    let mut document = minimal();
    document["rates"] = Value::Null;
    let found = parsed(&document).document;
    let expected = json!({
        "schema_version": "2",
        "strategy_name": "sma_cross",
        "symbol": "EURUSD",
        "start_date": "2024-01-01",
        "end_date": "2024-12-31",
        "run_mode": "dev",
        "data_mode": "candle",
        "execution_variant": "v2",
        "rng_seed": 42,
        "warmup_bars": 500,
        "trade_window": null,
        "data": null,
        "timeframes": {"primary": "M5", "additional": [], "additional_source": "separate_parquet"},
        "sessions": null,
        "account": {"initial_balance": 10_000.0, "account_currency": "EUR", "risk_per_trade": 100.0, "max_positions": 1},
        "costs": {
            "enabled": true, "fee_multiplier": 1.0, "slippage_multiplier": 1.0, "spread_multiplier": 1.0,
            "pip_size": null, "pip_buffer_factor": null,
        },
        "rates": {"mode": "static", "static": {}},
        "news_filter": null,
        "cooldown_candles": 0,
        "cooldown_minutes": 0,
        "cooldown_minutes_trade": 0,
        "trade_management": null,
        "metrics": {
            "robustness": {
                "enabled": false, "mode": "full", "jitter_frac": 0.05, "jitter_repeats": 5, "dropout_frac": 0.10,
                "dropout_runs": 1, "cost_shock_factors": [1.25, 1.5, 2.0],
            },
            "data_jitter": {
                "repeats": 5, "atr_period": 14, "sigma_atr": 0.10, "penalty_cap": 0.5, "min_price": 1e-9, "fraq": 0.0,
            },
            "timing_jitter": {"divisors": [10.0, 5.0, 20.0], "min_months": 1},
            "ulcer": {"ulcer_cap": 10.0},
        },
        "logging": {"enable_entry_logging": false, "logging_mode": "trades_only"},
        "profiling": {"enabled": false},
        "observability": {"profiling_mode": false},
        "parity": {"entry_timestamp_mode": "open", "higher_tf_timestamps_mode": {}, "stale_bar_limit_bars": 0},
        "strategy_parameters": {},
    });
    assert_eq!(found, expected);
    let blocks = [
        (
            "news_filter",
            json!({"enabled": false, "minutes_before": 30, "minutes_after": 30, "min_impact": "medium", "currencies": null}),
        ),
        // `enabled` stays open: false would silence `use_position_manager` when the document is read again.
        ("trade_management", json!({"enabled": null, "stop_update_policy": "apply_next_bar", "rules": {}})),
        (
            "trade_management.rules.max_holding_time",
            json!({"enabled": true, "max_holding_minutes": null, "only_scenarios": []}),
        ),
    ];
    for (path, filled) in blocks {
        assert_eq!(*at(&parsed(&with(path, json!({}))).document, path), filled, "{path}");
    }
    let mut prod = minimal();
    prod["run_mode"] = json!("prod");
    assert_eq!((parsed(&prod).rng_seed, &parsed(&prod).document["rng_seed"]), (None, &Value::Null));
}

#[test]
fn null_is_absent_everywhere_but_where_it_is_a_value() {
    let filled = parsed(&minimal()).document;
    let map = filled.as_object().unwrap();
    let required = ["strategy_name", "symbol", "start_date", "end_date", "timeframes"];
    for key in map.keys().filter(|key| !required.contains(&key.as_str())) {
        assert_eq!(parsed(&with(key, Value::Null)).document, filled, "{key}");
    }
    for block in ["account", "costs", "rates", "logging", "profiling", "observability", "parity", "metrics.robustness"]
    {
        for key in at(&filled, block).as_object().unwrap().keys() {
            let path = format!("{block}.{key}");
            assert_eq!(parsed(&with(&path, Value::Null)).document, filled, "{path}");
        }
    }
}

/// What is given and how it is stored.
fn accepted() -> Vec<(&'static str, Value, Value)> {
    let same = |path, value: Value| (path, value.clone(), value);
    vec![
        same("schema_version", json!("2.0")),
        same("schema_version", json!("2.1.3")),
        ("strategy_name", json!(" sma_cross "), json!("sma_cross")),
        ("symbol", json!(" eurusd "), json!("EURUSD")),
        same("symbol", json!("US500")),
        same("symbol", json!("BRK.B_X")),
        ("start_date", json!("2024-01-01T01:00:00+01:00"), json!("2024-01-01T00:00:00Z")),
        ("start_date", json!("2024-01-01T01:00:00"), json!("2024-01-01T01:00:00Z")),
        same("end_date", json!("2024-01-01")),
        same("run_mode", json!("prod")),
        ("data_mode", json!("parquet"), json!("candle")),
        same("execution_variant", json!("v1_parity")),
        same("rng_seed", json!(0)),
        same("rng_seed", json!(u64::MAX)),
        same("warmup_bars", json!(0)),
        (
            "trade_window",
            json!({"start": "2024-01-01", "end": "2025-01-01"}),
            json!({"start": "2024-01-01", "end": "2025-01-01"}),
        ),
        ("data", json!({"source": "synthetic"}), json!({"source": "synthetic", "seed": 0, "bars": 75_000})),
        ("timeframes.primary", json!("m5"), json!("M5")),
        ("timeframes.additional", json!(["h1", "H1", "m5", "", " W1 "]), json!(["H1", "W1"])),
        ("timeframes.additional_source", json!(" Separate_Parquet "), json!("separate_parquet")),
        same("sessions", json!([{"start": "23:00", "end": "05:00"}, {"start": "00:00", "end": "00:00"}])),
        ("sessions", json!([]), Value::Null),
        ("account.initial_balance", json!(1), json!(1.0)),
        ("account.account_currency", json!(" eur "), json!("EUR")),
        same("account.risk_per_trade", json!(0.5)),
        same("account.max_positions", json!(7)),
        same("costs.enabled", json!(false)),
        ("costs.fee_multiplier", json!(0), json!(0.0)),
        ("costs.slippage_multiplier", json!(0), json!(0.0)),
        ("costs.spread_multiplier", json!(0), json!(0.0)),
        same("costs.pip_size", json!(0.01)),
        ("costs.pip_buffer_factor", json!(0), json!(0.0)),
        ("rates.static", json!({"eurusd": 1}), json!({"EURUSD": 1.0})),
        same("news_filter.minutes_before", json!(0)),
        same("news_filter.min_impact", json!("low")),
        ("news_filter.currencies", json!(["usd", " Eur "]), json!(["USD", "EUR"])),
        same("news_filter.currencies", json!([])),
        same("cooldown_candles", json!(3)),
        same("cooldown_minutes", json!(3)),
        same("cooldown_minutes_trade", json!(3)),
        ("trade_management.rules", json!([]), json!({})),
        same("trade_management.enabled", json!(true)),
        same("trade_management.rules.max_holding_time.max_holding_minutes", json!(0)),
        ("trade_management.rules.max_holding_time.only_scenarios", json!([1, "2", " 255 "]), json!([1, 2, 255])),
        same("metrics.robustness.mode", json!("off")),
        ("metrics.robustness.dropout_frac", json!(1), json!(1.0)),
        ("metrics.robustness.cost_shock_factors", json!([1]), json!([1.0])),
        same("metrics.data_jitter.atr_period", json!(1)),
        ("metrics.timing_jitter.divisors", json!([3]), json!([3.0])),
        same("logging.logging_mode", json!("off")),
        ("logging.logging_mode", json!("full"), json!("all")),
        ("profiling", json!(true), json!({"enabled": true})),
        same("observability.profiling_mode", json!(true)),
        same("parity.entry_timestamp_mode", json!("close")),
        (
            "parity.higher_tf_timestamps_mode",
            json!({"d1": "close", "H4": "open"}),
            json!({"D1": "close", "H4": "open"}),
        ),
        same("parity.stale_bar_limit_bars", json!(11)),
        same("strategy_parameters", json!({"fast_length": 3, "anything": [1, {"b": null}]})),
    ]
}

#[test]
fn what_is_accepted_is_stored_normalised_and_reads_back_as_itself() {
    let schema = Schema::load("run-config");
    schema.check(&minimal());
    for (path, given, stored) in accepted() {
        let document = with(path, given.clone());
        let config = parsed(&document);
        assert_eq!(*at(&config.document, path), stored, "{path}: {given}");
        assert_eq!(parsed(&config.document), config, "{path}: {given} read twice");
        schema.check(&document);
        schema.check(&config.document);
    }
}

/// What is given and the path it is refused at. A schema sees all of these.
fn refusals() -> Vec<(&'static str, Value, &'static str)> {
    let same = |path, value| (path, value, path);
    vec![
        same("schema_version", json!("1.0.0")),
        same("schema_version", json!("3")),
        same("schema_version", json!("2.")),
        same("schema_version", json!(2)),
        same("strategy_name", json!("  ")),
        same("strategy_name", Value::Null),
        same("symbol", json!("E")),
        same("symbol", json!("EUR/USD")),
        same("symbol", json!("ABCDEFGHIJKLMNOPQ")),
        same("symbol", Value::Null),
        same("start_date", json!("01.02.2024")),
        same("start_date", json!(20240101)),
        same("end_date", Value::Null),
        same("run_mode", json!("Dev")),
        same("data_mode", json!("tick")),
        same("execution_variant", json!("v1")),
        same("rng_seed", json!(-1)),
        same("rng_seed", json!(1.5)),
        same("warmup_bars", json!(-1)),
        same("warmup_bars", json!(0.5)),
        ("trade_window", json!({"start": "2024-02-01"}), "trade_window.end"),
        ("data", json!({"source": "files"}), "data.source"),
        ("data", json!({"source": "synthetic", "bars": 0}), "data.bars"),
        ("timeframes", Value::Null, "timeframes"),
        ("timeframes", json!({}), "timeframes.primary"),
        same("timeframes.primary", json!("M2")),
        same("timeframes.primary", json!("W1")),
        ("timeframes.additional", json!(["H2"]), "timeframes.additional[0]"),
        same("timeframes.additional_source", json!("aggregate_from_primary")),
        ("sessions", json!([{"start": "25:00", "end": "10:00"}]), "sessions[0].start"),
        ("sessions", json!([{"start": "08:00", "end": "24:00"}]), "sessions[0].end"),
        ("sessions", json!([{"start": "8:00", "end": "10:00"}]), "sessions[0].start"),
        ("sessions", json!([{"start": "08:00"}]), "sessions[0].end"),
        same("account.initial_balance", json!(0)),
        same("account.account_currency", json!("EURO")),
        same("account.account_currency", json!(1)),
        same("account.risk_per_trade", json!(0)),
        same("account.risk_per_trade", json!("100")),
        same("account.max_positions", json!(0)),
        same("account", json!([])),
        same("costs.enabled", json!("yes")),
        same("costs.fee_multiplier", json!(-0.1)),
        same("costs.slippage_multiplier", json!(-0.1)),
        same("costs.spread_multiplier", json!(-0.1)),
        same("costs.pip_size", json!(0)),
        same("costs.pip_buffer_factor", json!(-0.1)),
        same("rates.mode", json!("timeseries")),
        same("rates.mode", json!("composite")),
        ("rates.static", json!({"EURO": 1.1}), "rates.static.EURO"),
        ("rates.static", json!({"EURUSD": 0}), "rates.static.EURUSD"),
        same("news_filter.minutes_before", json!(-1)),
        same("news_filter.minutes_after", json!(-1)),
        same("news_filter.min_impact", json!("HIGH")),
        ("news_filter.currencies", json!(["EURO"]), "news_filter.currencies[0]"),
        same("cooldown_candles", json!(-1)),
        same("cooldown_minutes", json!(-1)),
        same("cooldown_minutes_trade", json!(-1)),
        same("trade_management.stop_update_policy", json!("apply_immediate")),
        same("trade_management.rules", json!(["max_holding_time"])),
        same("trade_management.rules.max_holding_time.max_holding_minutes", json!(-1)),
        (
            "trade_management.rules.max_holding_time.only_scenarios",
            json!([0]),
            "trade_management.rules.max_holding_time.only_scenarios[0]",
        ),
        (
            "trade_management.rules.max_holding_time.only_scenarios",
            json!(["256"]),
            "trade_management.rules.max_holding_time.only_scenarios[0]",
        ),
        same("metrics.robustness.mode", json!("slow")),
        same("metrics.robustness.jitter_frac", json!(-0.1)),
        same("metrics.robustness.jitter_repeats", json!(-1)),
        same("metrics.robustness.dropout_frac", json!(1.1)),
        same("metrics.robustness.dropout_runs", json!(-1)),
        ("metrics.robustness.cost_shock_factors", json!([0.9]), "metrics.robustness.cost_shock_factors[0]"),
        same("metrics.data_jitter.repeats", json!(-1)),
        same("metrics.data_jitter.atr_period", json!(0)),
        same("metrics.data_jitter.sigma_atr", json!(-0.1)),
        same("metrics.data_jitter.penalty_cap", json!(0)),
        same("metrics.data_jitter.min_price", json!(0)),
        same("metrics.data_jitter.fraq", json!(-0.1)),
        ("metrics.timing_jitter.divisors", json!([0]), "metrics.timing_jitter.divisors[0]"),
        same("metrics.timing_jitter.min_months", json!(-1)),
        same("metrics.ulcer.ulcer_cap", json!(0)),
        same("logging.enable_entry_logging", json!(1)),
        same("logging.logging_mode", json!("none")),
        same("profiling", json!("on")),
        same("profiling.enabled", json!("on")),
        same("observability.profiling_mode", json!(0)),
        same("parity.entry_timestamp_mode", json!("Open")),
        ("parity.higher_tf_timestamps_mode", json!({"D2": "open"}), "parity.higher_tf_timestamps_mode.D2"),
        ("parity.higher_tf_timestamps_mode", json!({"D1": "middle"}), "parity.higher_tf_timestamps_mode.D1"),
        same("parity.stale_bar_limit_bars", json!(-1)),
        same("strategy_parameters", json!([1])),
    ]
}

#[test]
fn what_is_refused_is_named_once_by_its_path() {
    let schema = Schema::load("run-config");
    for (path, given, named) in refusals() {
        let document = with(path, given.clone());
        let violations = refused(&document);
        assert_eq!(violations.len(), 1, "{path}: {given}: {violations:?}");
        assert!(violations[0].starts_with(&format!("{named}: ")), "{path}: {given}: {violations:?}");
        assert!(!schema.faults(&document).is_empty(), "the schema lets {path} = {given} pass");
    }
}

/// Rules over several keys; a schema knows only the first two.
#[test]
fn cross_field_rules() {
    let case = |changes: &[(&str, Value)]| {
        let mut document = minimal();
        for (key, value) in changes {
            document[*key] = value.clone();
        }
        refused(&document)
    };
    let window = |start: &str, end: &str| ("trade_window", json!({"start": start, "end": end}));
    let parity = ("execution_variant", json!("v1_parity"));
    let found = [
        case(&[parity.clone(), ("run_mode", json!("prod"))]),
        case(&[parity.clone(), window("2024-02-01", "2024-03-01")]),
        case(&[parity, ("timeframes", json!({"primary": "M5", "additional": ["W1"]}))]),
        case(&[("start_date", json!("2025-01-01"))]),
        case(&[window("2024-03-01", "2024-02-01")]),
        case(&[window("2024-03-01", "2024-03-01")]),
        case(&[window("2023-12-31", "2024-03-01")]),
        case(&[window("2024-03-01", "2025-01-01T00:00:01Z")]),
        case(&[("rates", json!({"static": {"EURUSD": 1.1, "eurusd": 1.2}}))]),
    ];
    let paths = [
        "execution_variant",
        "trade_window",
        "timeframes.additional[0]",
        "end_date",
        "trade_window",
        "trade_window",
        "trade_window",
        "trade_window",
        "rates.static.eurusd",
    ];
    for (violations, path) in found.iter().zip(paths) {
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert!(violations[0].starts_with(&format!("{path}: ")), "{violations:?}");
    }
    let one_day = |start: &str, end: &str| {
        let mut document = with("start_date", json!(start));
        document["end_date"] = json!(end);
        parsed(&document)
    };
    assert_eq!(
        one_day("2024-01-02", "2024-01-02").end_ns - one_day("2024-01-02", "2024-01-02").start_ns,
        86_399_999_999_999
    );
}

/// §3.1. Null counts as absent here too.
#[test]
fn older_spellings() {
    let given = json!({"fast_length": 3});
    assert_eq!(parsed(&with("strategy_params", given.clone())).document["strategy_parameters"], given);
    let mut both = with("strategy_params", given.clone());
    both["strategy_parameters"] = Value::Null;
    assert_eq!(parsed(&both).document["strategy_parameters"], given);
    both["strategy_parameters"] = json!({});
    assert_eq!(refused(&both).len(), 1, "given twice, the older one is an unknown key");
    let htf = with("timeframes.htf", json!(["H1"]));
    assert_eq!(parsed(&htf).document["timeframes"]["additional"], json!(["H1"]));
    let mut both = with("timeframes.htf", json!(["H1"]));
    both["timeframes"]["additional"] = Value::Null;
    assert_eq!(parsed(&both).document["timeframes"]["additional"], json!(["H1"]));
    for (given, enabled) in [(json!(true), true), (json!(false), false)] {
        assert_eq!(parsed(&with("profiling", given)).document["profiling"], json!({"enabled": enabled}));
    }
}

/// §1: warned about and ignored, or refused, with the nearest valid name, at every level.
#[test]
fn unknown_keys() {
    let schema = Schema::load("run-config");
    let cases = [
        ("warmup_bar", "did you mean `warmup_bars`?"),
        ("timeframes.primery", "did you mean `primary`?"),
        ("account.initial_balanc", "did you mean `initial_balance`?"),
        ("costs.fee_multiplyer", "did you mean `fee_multiplier`?"),
        ("rates.statics", "did you mean `static`?"),
        ("news_filter.minutes_befor", "did you mean `minutes_before`?"),
        ("trade_management.rule", "did you mean `rules`?"),
        ("trade_management.rules.max_holding_tim", "did you mean `max_holding_time`?"),
        ("trade_management.rules.max_holding_time.enable", "did you mean `enabled`?"),
        ("metrics.robustnes", "did you mean `robustness`?"),
        ("metrics.robustness.jitter_fraction", "did you mean `jitter_frac`?"),
        ("logging.logging_mod", "did you mean `logging_mode`?"),
        ("profiling.enable", "did you mean `enabled`?"),
        ("observability.profiling", "did you mean `profiling_mode`?"),
        ("parity.stale_bar_limit", "did you mean `stale_bar_limit_bars`?"),
    ];
    let plain = parsed(&minimal()).hashed_document();
    for (path, hint) in cases {
        let document = with(path, json!(1));
        let violations = refused(&document);
        assert_eq!(violations, [format!("{path}: unknown key ({hint})")]);
        let lenient = RunConfig::parse(&document, false).unwrap();
        assert_eq!(lenient.warnings.len(), 1, "{path}");
        assert!(!schema.faults(&document).is_empty(), "{path}");
        if !path.starts_with("news_filter") && !path.starts_with("trade_management") {
            assert_eq!(lenient.config.hashed_document(), plain, "{path} is not hashed");
        }
    }
}

/// §4 and the examples of the repository.
#[test]
fn the_examples_are_valid() {
    let schema = Schema::load("run-config");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            schema.check(&document);
            parsed(&document);
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen} examples");
}
