//! Which keys of a run config a grid may vary, and why the others not.

use engine::backtest::config::TOP_LEVEL_KEYS;
use engine::strategy::ParamKind;

use crate::space::value::{ValueKind, ValueType};

/// What a grid may do with a dotted key of the run config.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigKey {
    /// It may be an axis.
    Axis(ValueType),
    /// It may not; why, and what to do instead.
    Refused {
        /// Why.
        reason: &'static str,
        /// A remedy.
        remedy: &'static str,
    },
    /// The run config has no such key.
    Unknown,
}

const fn number(min: f64, min_inclusive: bool, nullable: bool) -> ValueType {
    let kind = if min_inclusive { ParamKind::at_least(min) } else { ParamKind::above(min) };
    ValueType { kind: ValueKind::Param(kind), nullable }
}

const fn whole(min: i64, nullable: bool) -> ValueType {
    ValueType { kind: ValueKind::Param(ParamKind::Int { min, max: i64::MAX }), nullable }
}

const fn plain(kind: ParamKind, nullable: bool) -> ValueType {
    ValueType { kind: ValueKind::Param(kind), nullable }
}

/// Keys that may be axes (config-and-errors §2), with their types and ranges.
const AXES: [(&str, ValueType); 26] = [
    ("account.account_currency", plain(ParamKind::Text, false)),
    ("account.initial_balance", number(0.0, false, false)),
    ("account.max_positions", whole(1, false)),
    ("account.risk_per_trade", number(0.0, false, false)),
    ("cooldown_candles", whole(0, false)),
    ("cooldown_minutes", whole(0, false)),
    ("cooldown_minutes_trade", whole(0, false)),
    ("costs.enabled", plain(ParamKind::Bool, false)),
    ("costs.fee_multiplier", number(0.0, true, false)),
    ("costs.pip_buffer_factor", number(0.0, true, true)),
    ("costs.pip_size", number(0.0, false, true)),
    ("costs.slippage_multiplier", number(0.0, true, false)),
    ("costs.spread_multiplier", number(0.0, true, false)),
    ("news_filter.currencies", plain(ParamKind::TextList, true)),
    ("news_filter.enabled", plain(ParamKind::Bool, false)),
    ("news_filter.min_impact", plain(ParamKind::Choice(&["low", "medium", "high"]), false)),
    ("news_filter.minutes_after", whole(0, false)),
    ("news_filter.minutes_before", whole(0, false)),
    ("parity.entry_timestamp_mode", plain(ParamKind::Choice(&["open", "close"]), false)),
    ("parity.stale_bar_limit_bars", whole(0, false)),
    ("rng_seed", whole(0, true)),
    ("sessions", ValueType { kind: ValueKind::Json, nullable: true }),
    ("trade_management.enabled", plain(ParamKind::Bool, false)),
    ("trade_management.rules.max_holding_time.enabled", plain(ParamKind::Bool, false)),
    ("trade_management.rules.max_holding_time.max_holding_minutes", whole(0, true)),
    ("trade_management.rules.max_holding_time.only_scenarios", plain(ParamKind::IntList { min: 1, max: 255 }, false)),
];

const BARS: &str = "it changes the bars, and all settings of a sweep are judged on identical bars";
const BATCH: &str = "vary it in a batch (`symbols`, `timeframes`, `variants`), or use `--set` for one run";

/// First parts of keys that may not be axes.
const REFUSED: [(&str, &str, &str); 16] = [
    ("symbol", BARS, BATCH),
    ("timeframes", BARS, BATCH),
    ("start_date", BARS, BATCH),
    ("end_date", BARS, BATCH),
    ("trade_window", BARS, BATCH),
    ("warmup_bars", BARS, BATCH),
    ("data", BARS, BATCH),
    ("data_mode", BARS, BATCH),
    ("strategy_name", "a sweep searches one strategy", BATCH),
    ("execution_variant", "all settings of a sweep share the rules of execution", BATCH),
    ("run_mode", "it does not change what a setting earns", "set it in the run config"),
    ("schema_version", "it describes the document", "set it in the run config"),
    ("metrics", "it has no effect on a single run", "set it in the run config"),
    ("logging", "it cannot change results", "set it in the run config"),
    ("profiling", "it cannot change results", "set it in the run config"),
    ("observability", "it cannot change results", "set it in the run config"),
];

/// What a grid may do with `key`.
pub fn lookup(key: &str) -> ConfigKey {
    if let Some((_, value_type)) = AXES.iter().find(|(name, _)| *name == key) {
        return ConfigKey::Axis(*value_type);
    }
    if let Some(pair) = key.strip_prefix("rates.static.")
        && pair.len() == 6
        && pair.chars().all(|c| c.is_ascii_uppercase())
    {
        return ConfigKey::Axis(number(0.0, false, false));
    }
    let head = key.split('.').next().unwrap_or(key);
    match REFUSED.iter().find(|(name, ..)| *name == head) {
        Some((_, reason, remedy)) => ConfigKey::Refused { reason, remedy },
        None => ConfigKey::Unknown,
    }
}

/// The first part of `key` is a key of the run config; such a key is no strategy parameter.
pub fn is_config_key(key: &str) -> bool {
    let head = key.split('.').next().unwrap_or(key);
    TOP_LEVEL_KEYS.contains(&head) || REFUSED.iter().any(|(name, ..)| *name == head)
}

/// Names of all keys that may be axes.
pub fn axis_keys() -> impl Iterator<Item = &'static str> {
    AXES.iter().map(|(name, _)| *name)
}
