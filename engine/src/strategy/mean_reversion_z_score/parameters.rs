//! What `mean_reversion_z_score` declares: parameters with ranges and defaults by variant, and the relations between them.

use std::borrow::Cow;
use std::sync::OnceLock;

use serde_json::Value;

use super::super::rule_strategy::DIRECTION_FILTER;
use super::super::{BuildContext, DeclaredConstraint, ParamDefault, ParamKind, ParamLookup, ParamSpec, Variant};
use crate::units::Timeframe;

const FILTER_MODES: ParamKind = ParamKind::Choice(&["above", "below", "both", "none"]);

/// Every parameter with the range and default of variant `v2`.
pub(super) const PARAMETERS: [ParamSpec; 42] = [
    int("ema_length", 1, 30, "bars of the EMA: centre of the z-score of scenario 1, target of scenarios 1 and 3"),
    int("atr_length", 1, 14, "bars of the ATR of the stop"),
    float("atr_mult", ParamKind::above(0.0), 2.0, "stop beyond the bar's low or high, in ATR"),
    int("b_b_length", 2, 20, "bars of the Bollinger bands; the middle is the target of scenarios 2, 4, 5, 6"),
    float("std_factor", ParamKind::at_least(0.0), 2.0, "half width of the bands, in deviations"),
    int("window_length", 2, 100, "bars of the deviation of the z-scores of scenarios 1, 2, 3, 5, 6"),
    float("z_score_long", ParamKind::below(0.0), -2.5, "long at or below this z-score"),
    float("z_score_short", ParamKind::above(0.0), 2.5, "short at or above this z-score"),
    float("kalman_r", ParamKind::above(0.0), 0.01, "measurement variance; only kalman_q / kalman_r matters"),
    float("kalman_q", ParamKind::at_least(0.0), 1.0, "process variance; only kalman_q / kalman_r matters"),
    ParamSpec::new(
        "tp_min_distance",
        ParamKind::at_least(0.0),
        ParamDefault::Null,
        "smallest distance to the target in scenario 3, in price units (not pips); no default",
    ),
    ParamSpec::new(
        "htf_tf",
        ParamKind::Timeframe(&["NONE"]),
        ParamDefault::Text("D1"),
        "timeframe of the first trend filter of scenarios 2 to 6",
    ),
    int("htf_ema", 1, 100, "bars of its EMA"),
    ParamSpec::new(
        "htf_filter",
        FILTER_MODES,
        ParamDefault::Text("both"),
        "above: trades of either side only while its close is above its EMA; below: while below; both, none: always",
    ),
    ParamSpec::new(
        "extra_htf_tf",
        ParamKind::Timeframe(&["AUTO", "NONE"]),
        ParamDefault::Text("AUTO"),
        "timeframe of the second trend filter; AUTO: H1 for M5, H4 for M15 and M30, else none",
    ),
    int("extra_htf_ema", 1, 50, "bars of its EMA"),
    ParamSpec::new("extra_htf_filter", FILTER_MODES, ParamDefault::Text("both"), "as htf_filter"),
    ParamSpec::new(
        "trend_min_filters_required",
        ParamKind::Int { min: 0, max: i64::MAX },
        ParamDefault::Null,
        "how many of the active trend filters must pass; null: all",
    )
    .or_null(),
    float("garch_alpha", fraction(), 0.05, "weight of the last squared return; garch_alpha + garch_beta < 1"),
    float("garch_beta", fraction(), 0.90, "weight of the last variance"),
    ParamSpec::new("garch_omega", ParamKind::at_least(0.0), ParamDefault::Null, "constant term; null: automatic")
        .or_null(),
    ParamSpec::new(
        "garch_use_log_returns",
        ParamKind::Bool,
        ParamDefault::Bool(true),
        "log returns instead of simple ones",
    ),
    float("garch_scale", ParamKind::above(0.0), 100.0, "factor applied to returns"),
    int("garch_min_periods", 0, 50, "returns before the first value"),
    float("garch_sigma_floor", ParamKind::at_least(0.0), 1e-6, "smallest deviation, in scaled units"),
    int("local_z_lookback", 0, 0, "bars of the local z-score of scenario 4; 0: the whole history"),
    ParamSpec::new(
        "intraday_vol_feature",
        ParamKind::Choice(&["garch_forecast"]),
        ParamDefault::Text("garch_forecast"),
        "what is clustered in scenario 5",
    ),
    ParamSpec::new(
        "intraday_vol_cluster_window",
        ParamKind::count(1),
        ParamDefault::Null,
        "values clustered; default by primary timeframe: M5 300, M30 and H1 240, else 200",
    ),
    int("intraday_vol_cluster_k", 1, 3, "clusters"),
    int("intraday_vol_min_points", 1, 60, "values needed"),
    ParamSpec::new("intraday_vol_log_transform", ParamKind::Bool, ParamDefault::Bool(true), "cluster logarithms"),
    int("intraday_vol_garch_lookback", 2, 500, "bars of the local deviation that is clustered"),
    ParamSpec::new(
        "intraday_vol_allowed",
        ParamKind::TextList,
        ParamDefault::Texts(&["low", "mid"]),
        "clusters in which scenario 5 trades: low, mid, high, very_high, extreme, cluster_5, …",
    ),
    int("cluster_hysteresis_bars", 0, 0, "last labels that must agree; 0 and 1 mean the same"),
    ParamSpec::new(
        "scenario6_mode",
        ParamKind::Choice(&["all", "any"]),
        ParamDefault::Text("all"),
        "how many timeframes of the chain must agree",
    ),
    ParamSpec::new(
        "scenario6_timeframes",
        ParamKind::TextList,
        ParamDefault::Texts(&[]),
        "timeframes of the chain, PRIMARY for the primary one; empty: scenario 6 never fires",
    ),
    ParamSpec::new(
        "scenario6_params",
        ParamKind::Object,
        ParamDefault::Null,
        "per timeframe, optionally per direction: window_length, b_b_length, std_factor, kalman_r, kalman_q, z_score_long, \
         z_score_short, z_score; also as flat keys scenario6_<TF>_<long|short>_<key>",
    ),
    DIRECTION_FILTER,
    ParamSpec::new(
        "enabled_scenarios",
        ParamKind::IntList { min: 1, max: 6 },
        ParamDefault::Ints(&[]),
        "scenarios that may open a position; empty: all six",
    ),
    ParamSpec::new(
        "use_position_manager",
        ParamKind::Bool,
        ParamDefault::Bool(false),
        "close positions after max_holding_minutes",
    ),
    ParamSpec::new(
        "max_holding_minutes",
        ParamKind::Int { min: 0, max: i64::MAX },
        ParamDefault::Null,
        "longest holding time; 0 and null: no limit",
    )
    .or_null(),
    ParamSpec::new(
        "overrides",
        ParamKind::Object,
        ParamDefault::Null,
        "parameters per \"<SYMBOL or *>/<TF or *>\", optionally per direction",
    ),
];

/// Parameters that decide about the strategy as a whole and may not be overridden.
pub(super) const NOT_OVERRIDABLE: [&str; 5] =
    ["enabled_scenarios", "direction_filter", "use_position_manager", "max_holding_minutes", "overrides"];

const fn int(name: &'static str, min: i64, default: i64, doc: &'static str) -> ParamSpec {
    ParamSpec::new(name, ParamKind::count(min), ParamDefault::Int(default), doc)
}

const fn float(name: &'static str, kind: ParamKind, default: f64, doc: &'static str) -> ParamSpec {
    ParamSpec::new(name, kind, ParamDefault::Float(default), doc)
}

/// A number in `[0, 1)`.
const fn fraction() -> ParamKind {
    ParamKind::Float { min: 0.0, min_inclusive: true, max: 1.0, max_inclusive: false }
}

/// Ranges and defaults of one run: those of its variant and primary timeframe.
///
/// Settings of a search ask this each: in `v2` there are three answers, kept.
pub(super) fn parameters_in(context: &BuildContext) -> Cow<'static, [ParamSpec]> {
    static IN_V2: [OnceLock<Vec<ParamSpec>>; 3] = [const { OnceLock::new() }; 3];
    if context.variant == Variant::V1Parity {
        return Cow::Owned(make_parameters(context));
    }
    let of_window = match cluster_window(context.primary) {
        300 => 0,
        240 => 1,
        _ => 2,
    };
    Cow::Borrowed(IN_V2[of_window].get_or_init(|| make_parameters(context)))
}

fn make_parameters(context: &BuildContext) -> Vec<ParamSpec> {
    let mut specs = PARAMETERS.to_vec();
    for spec in &mut specs {
        match spec.name {
            "intraday_vol_cluster_window" => spec.default = ParamDefault::Int(cluster_window(context.primary)),
            _ if context.variant == Variant::V1Parity => as_in_v1(spec, context),
            _ => {}
        }
    }
    specs
}

fn as_in_v1(spec: &mut ParamSpec, context: &BuildContext) {
    match spec.name {
        "z_score_long" | "z_score_short" => spec.kind = ParamKind::number(),
        "tp_min_distance" => spec.default = ParamDefault::Float(1.0),
        // Any name but `atr_points` means GARCH.
        "intraday_vol_feature" => spec.kind = ParamKind::Text,
        // Zero and less mean 500.
        "intraday_vol_garch_lookback" => spec.kind = ParamKind::Int { min: i64::MIN, max: i64::from(u32::MAX) },
        "use_position_manager" => spec.default = ParamDefault::Bool(context.sessions_given),
        "max_holding_minutes" => spec.default = ParamDefault::Int(30),
        _ => {}
    }
}

fn cluster_window(primary: Timeframe) -> i64 {
    match primary {
        Timeframe::M5 => 300,
        Timeframe::M30 | Timeframe::H1 => 240,
        _ => 200,
    }
}

/// Relations every admissible setting satisfies.
///
/// Those on look-backs and on `tp_min_distance` hold in `v2` only: V1 runs such settings, their scenario never fires.
pub(super) const CONSTRAINTS: [DeclaredConstraint; 5] = [
    DeclaredConstraint {
        text: "garch_alpha + garch_beta < 1",
        parameters: &["garch_alpha", "garch_beta"],
        holds: |read, _| number(read, "garch_alpha") + number(read, "garch_beta") < 1.0,
    },
    DeclaredConstraint {
        text: "z_score_long < 0 < z_score_short",
        parameters: &["z_score_long", "z_score_short"],
        holds: |read, context| {
            parity(context) || (number(read, "z_score_long") < 0.0 && number(read, "z_score_short") > 0.0)
        },
    },
    DeclaredConstraint {
        text: "tp_min_distance is given when scenario 3 is enabled",
        parameters: &["tp_min_distance", "enabled_scenarios"],
        holds: |read, context| parity(context) || !enabled(read, 3) || !read("tp_min_distance").is_null(),
    },
    DeclaredConstraint {
        text: "local_z_lookback is 0 or >= garch_min_periods + 2 when scenario 4 is enabled",
        parameters: &["local_z_lookback", "garch_min_periods", "enabled_scenarios"],
        holds: |read, context| {
            let lookback = number(read, "local_z_lookback");
            parity(context)
                || !enabled(read, 4)
                || lookback == 0.0
                || lookback >= number(read, "garch_min_periods") + 2.0
        },
    },
    DeclaredConstraint {
        text: "intraday_vol_garch_lookback >= intraday_vol_min_points + garch_min_periods + 1 when scenario 5 is enabled",
        parameters: &[
            "intraday_vol_garch_lookback",
            "intraday_vol_min_points",
            "garch_min_periods",
            "enabled_scenarios",
        ],
        holds: |read, context| {
            let needed = number(read, "intraday_vol_min_points") + number(read, "garch_min_periods") + 1.0;
            parity(context) || !enabled(read, 5) || number(read, "intraday_vol_garch_lookback") >= needed
        },
    },
];

fn parity(context: &BuildContext) -> bool {
    context.variant == Variant::V1Parity
}

fn number(read: &ParamLookup<'_>, name: &str) -> f64 {
    read(name).as_f64().unwrap_or(f64::NAN)
}

fn enabled(read: &ParamLookup<'_>, scenario: u8) -> bool {
    let value = read("enabled_scenarios");
    let listed = value.as_array().map(Vec::as_slice).unwrap_or_default();
    listed.is_empty() || listed.iter().filter_map(Value::as_u64).any(|number| number == u64::from(scenario))
}
