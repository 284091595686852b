//! The run configuration, schema 2: read, normalised, default-filled, every violation collected with its path.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::backtest::reader::Reader;
use crate::data::{Impact, NewsFilter, Rates, Session};
use crate::error::Violation;
use crate::strategy::{BuildContext, Variant, Visibility};
use crate::units::{DAY_NS, EpochNs, Timeframe};

/// Whether randomness is fixed by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunMode {
    /// Seed 42 unless given.
    Dev,
    /// Seed from the operating system unless given.
    Prod,
}

/// `account`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountConfig {
    /// Money at the start, > 0.
    pub initial_balance: f64,
    /// Three letters, upper case.
    pub currency: String,
    /// Money risked per trade, > 0; never a fraction.
    pub risk_per_trade: f64,
    /// Open positions allowed at once, ≥ 1.
    pub max_positions: usize,
}

/// `costs`.
#[derive(Debug, Clone, PartialEq)]
pub struct CostsConfig {
    /// False: no fees, no slippage, spread unchanged.
    pub enabled: bool,
    /// Factor on fees and minimum fees.
    pub fee_multiplier: f64,
    /// Factor on slippage.
    pub slippage_multiplier: f64,
    /// Factor on the distance of ask from bid; ignored when costs are off.
    pub spread_multiplier: f64,
    /// Overrides the pip size of the symbol.
    pub pip_size: Option<f64>,
    /// Overrides the pip-buffer factor of the cost file.
    pub pip_buffer_factor: Option<f64>,
}

/// `trade_management`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ManagementConfig {
    /// As stated; none: decided by the strategy's `use_position_manager`.
    pub enabled: Option<bool>,
    /// The holding-time rule.
    pub holding_enabled: bool,
    /// Its limit; none: the strategy's. 0 = off.
    pub max_holding_minutes: Option<i64>,
    /// Scenarios it applies to; empty: all.
    pub only_scenarios: Vec<u8>,
}

/// `parity`; read in `v1_parity` only.
#[derive(Debug, Clone, PartialEq)]
pub struct ParityConfig {
    /// Rule C or O.
    pub visibility: Visibility,
    /// Timeframes whose stamps are close stamps.
    pub close_stamped: Vec<Timeframe>,
    /// 0 = automatic.
    pub stale_bar_limit_bars: usize,
}

/// A normalised run configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// Registry name.
    pub strategy_name: String,
    /// Upper case.
    pub symbol: String,
    /// First instant of the window, inclusive on open times.
    pub start_ns: EpochNs,
    /// Last instant of the window, inclusive on open times.
    pub end_ns: EpochNs,
    /// Randomness.
    pub run_mode: RunMode,
    /// Semantics.
    pub variant: Variant,
    /// Seed of the slippage stream; none: drawn by the caller (`prod`).
    pub rng_seed: Option<u64>,
    /// Bars per timeframe before the first tradable one.
    pub warmup_bars: usize,
    /// Half-open tradable window inside the dates.
    pub trade_window: Option<(EpochNs, EpochNs)>,
    /// Generated bars instead of files: seed and number of primary bars.
    pub synthetic: Option<(u64, usize)>,
    /// Timeframe traded.
    pub primary: Timeframe,
    /// Further timeframes named.
    pub additional: Vec<Timeframe>,
    /// Entry windows; none: always open.
    pub sessions: Option<Vec<Session>>,
    /// Account.
    pub account: AccountConfig,
    /// Costs.
    pub costs: CostsConfig,
    /// Static conversion rates, `EURUSD → 1.10`.
    pub rates: Rates,
    /// News gate, if enabled.
    pub news: Option<NewsFilter>,
    /// Bars after a signal.
    pub cooldown_candles: i64,
    /// Minutes after a signal.
    pub cooldown_minutes: i64,
    /// Minutes after an exit.
    pub cooldown_minutes_trade: i64,
    /// Trade management.
    pub management: ManagementConfig,
    /// Parity switches.
    pub parity: ParityConfig,
    /// As given.
    pub strategy_parameters: Map<String, Value>,
    /// The default-filled document: what is hashed and stored.
    pub document: Value,
}

/// A configuration and what is worth a warning.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The configuration.
    pub config: RunConfig,
    /// Unknown keys that were ignored (never in strict mode).
    pub warnings: Vec<Violation>,
}

/// Keys of the top level, in the order of the specification.
pub const TOP_LEVEL_KEYS: [&str; 26] = [
    "schema_version",
    "strategy_name",
    "symbol",
    "start_date",
    "end_date",
    "run_mode",
    "data_mode",
    "execution_variant",
    "rng_seed",
    "warmup_bars",
    "trade_window",
    "data",
    "timeframes",
    "sessions",
    "account",
    "costs",
    "rates",
    "news_filter",
    "cooldown_candles",
    "cooldown_minutes",
    "cooldown_minutes_trade",
    "trade_management",
    "metrics",
    "parity",
    "strategy_parameters",
    "logging",
];

impl RunConfig {
    /// Reads a document. In `strict` mode unknown keys are violations, else warnings.
    ///
    /// # Errors
    /// Every violation, in document order of the specification.
    pub fn parse(value: &Value, strict: bool) -> Result<Parsed, Vec<Violation>> {
        let mut reader = Reader::new(strict);
        let Value::Object(given) = value else {
            return Err(vec![Violation::value("", format!("a run config must be an object, got {}", kind_of(value)))]);
        };
        let given = with_shims(given);
        let config = read(&mut reader, &given);
        let (violations, warnings) = reader.finish();
        match config {
            Some(config) if violations.is_empty() => Ok(Parsed { config, warnings }),
            _ => Err(violations),
        }
    }

    /// What a strategy is built for.
    pub fn build_context(&self) -> BuildContext {
        BuildContext {
            symbol: self.symbol.clone(),
            primary: self.primary,
            additional: self.additional.clone(),
            variant: self.variant,
            sessions_given: self.sessions.is_some(),
        }
    }

    /// The part of the document that identifies the run: without the blocks that cannot change results.
    pub fn hashed_document(&self) -> Value {
        let mut document = self.document.clone();
        if let Value::Object(map) = &mut document {
            for block in ["logging", "profiling", "observability"] {
                map.remove(block);
            }
        }
        document
    }

    /// The spread multiplier in force: 1 when costs are off.
    pub fn effective_spread_multiplier(&self) -> f64 {
        if self.costs.enabled { self.costs.spread_multiplier } else { 1.0 }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Older spellings, kept from the reference's wrapper.
fn with_shims(given: &Map<String, Value>) -> Map<String, Value> {
    let mut map = given.clone();
    rename(&mut map, "strategy_params", "strategy_parameters");
    if let Some(Value::Object(timeframes)) = map.get_mut("timeframes") {
        rename(timeframes, "htf", "additional");
    }
    if let Some(Value::Bool(enabled)) = map.get("profiling") {
        let block = json!({ "enabled": enabled });
        map.insert("profiling".to_owned(), block);
    }
    if map.get("data_mode").and_then(Value::as_str) == Some("parquet") {
        map.insert("data_mode".to_owned(), Value::from("candle"));
    }
    map
}

/// Takes `old` for `new` where `new` is absent, which null counts as.
fn rename(map: &mut Map<String, Value>, old: &str, new: &str) {
    if map.get(new).is_none_or(Value::is_null)
        && let Some(value) = map.remove(old)
    {
        map.insert(new.to_owned(), value);
    }
}

#[allow(clippy::too_many_lines, reason = "one key after the other, in the order of the specification")]
fn read(r: &mut Reader, given: &Map<String, Value>) -> Option<RunConfig> {
    let known: Vec<&str> = TOP_LEVEL_KEYS.into_iter().chain(["profiling", "observability"]).collect();
    r.known_keys("", given, &known);

    let schema = r.text(given, "", "schema_version", Some("2"));
    let schema_ok = schema.as_deref().is_none_or(|s| s == "2" || s.strip_prefix("2.").is_some_and(is_minor));
    r.require(schema_ok, "schema_version", || {
        format!("major part must be 2, got \"{}\"", schema.clone().unwrap_or_default())
    });
    let strategy_name = r.text(given, "", "strategy_name", None).map(|s| s.trim().to_owned());
    r.require(strategy_name.as_deref() != Some(""), "strategy_name", || "must not be empty".to_owned());
    let symbol = r.text(given, "", "symbol", None).map(|s| s.trim().to_ascii_uppercase());
    let symbol_ok = symbol.as_deref().is_none_or(|s| {
        (2..=16).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'.' || b == b'_')
    });
    r.require(symbol_ok, "symbol", || {
        format!("must be 2 to 16 of A-Z 0-9 . _, got \"{}\"", symbol.clone().unwrap_or_default())
    });
    let mode = r.choice(given, "", "run_mode", &["dev", "prod"], "dev");
    let data_mode = r.choice(given, "", "data_mode", &["candle", "tick"], "candle");
    r.require(data_mode != "tick", "data_mode", || "`tick` is not supported".to_owned());
    let variant_name = r.choice(given, "", "execution_variant", &["v2", "v1_parity"], "v2");
    let run_mode = if mode == "prod" { RunMode::Prod } else { RunMode::Dev };
    let variant = if variant_name == "v1_parity" { Variant::V1Parity } else { Variant::V2 };
    r.require(!(variant == Variant::V1Parity && run_mode == RunMode::Prod), "execution_variant", || {
        "`v1_parity` requires run_mode = dev".to_owned()
    });
    let rng_seed = match r.optional_u64(given, "", "rng_seed") {
        None if run_mode == RunMode::Dev => Some(42),
        seed => seed,
    };
    let warmup_bars = r.int(given, "", "warmup_bars", 500, 0, 100_000_000);

    let start = r.text(given, "", "start_date", None);
    let end = r.text(given, "", "end_date", None);
    let start_at = start.as_deref().and_then(|text| r.instant("start_date", text));
    let end_at = end.as_deref().and_then(|text| r.instant("end_date", text));
    let start_ns = start_at.as_ref().map(|at| at.first_ns);
    let end_ns = end_at.as_ref().map(|at| match variant {
        Variant::V2 if at.date_only => at.first_ns + DAY_NS - 1,
        _ => at.first_ns,
    });
    if let (Some(start_ns), Some(end_ns)) = (start_ns, end_ns) {
        r.require(start_ns <= end_ns, "end_date", || "must not lie before start_date".to_owned());
    }
    let (trade_window, trade_window_doc) = read_trade_window(r, given, variant, start_ns, end_ns);
    let (synthetic, data_doc) = read_data(r, given);
    let (primary, additional, timeframes_doc) = read_timeframes(r, given, variant);
    let (sessions, sessions_doc) = read_sessions(r, given);
    let (account, account_doc) = read_account(r, given);
    let (costs, costs_doc) = read_costs(r, given);
    let (rates, rates_doc) = read_rates(r, given);
    let (news, news_doc) = read_news(r, given);
    let cooldown_candles = r.int(given, "", "cooldown_candles", 0, 0, i64::from(u32::MAX));
    let cooldown_minutes = r.int(given, "", "cooldown_minutes", 0, 0, i64::from(u32::MAX));
    let cooldown_minutes_trade = r.int(given, "", "cooldown_minutes_trade", 0, 0, i64::from(u32::MAX));
    let (management, management_doc) = read_management(r, given);
    let metrics_doc = super::blocks::read_metrics(r, given);
    let (logging_doc, profiling_doc, observability_doc) = super::blocks::read_diagnostics(r, given);
    let (parity, parity_doc) = read_parity(r, given);
    let strategy_parameters = r.object(given, "", "strategy_parameters").unwrap_or_default();

    let document = json!({
        "schema_version": schema?,
        "strategy_name": strategy_name.clone()?,
        "symbol": symbol.clone()?,
        "start_date": start_at?.text,
        "end_date": end_at?.text,
        "run_mode": mode,
        "data_mode": data_mode,
        "execution_variant": variant_name,
        "rng_seed": rng_seed,
        "warmup_bars": warmup_bars,
        "trade_window": trade_window_doc,
        "data": data_doc,
        "timeframes": timeframes_doc,
        "sessions": sessions_doc,
        "account": account_doc,
        "costs": costs_doc,
        "rates": rates_doc,
        "news_filter": news_doc,
        "cooldown_candles": cooldown_candles,
        "cooldown_minutes": cooldown_minutes,
        "cooldown_minutes_trade": cooldown_minutes_trade,
        "trade_management": management_doc,
        "metrics": metrics_doc,
        "logging": logging_doc,
        "profiling": profiling_doc,
        "observability": observability_doc,
        "parity": parity_doc,
        "strategy_parameters": Value::Object(strategy_parameters.clone()),
    });
    Some(RunConfig {
        strategy_name: strategy_name?,
        symbol: symbol?,
        start_ns: start_ns?,
        end_ns: end_ns?,
        run_mode,
        variant,
        rng_seed,
        warmup_bars: usize::try_from(warmup_bars).ok()?,
        trade_window,
        synthetic,
        primary: primary?,
        additional,
        sessions,
        account,
        costs,
        rates,
        news,
        cooldown_candles,
        cooldown_minutes,
        cooldown_minutes_trade,
        management,
        parity,
        strategy_parameters,
        document,
    })
}

/// `1`, `0.3`: digits, in groups.
fn is_minor(text: &str) -> bool {
    text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

fn read_trade_window(
    r: &mut Reader,
    given: &Map<String, Value>,
    variant: Variant,
    start_ns: Option<EpochNs>,
    end_ns: Option<EpochNs>,
) -> (Option<(EpochNs, EpochNs)>, Value) {
    let Some(block) = r.object(given, "", "trade_window") else { return (None, Value::Null) };
    r.known_keys("trade_window", &block, &["start", "end"]);
    r.require(variant == Variant::V2, "trade_window", || "only in execution_variant = v2".to_owned());
    let from = r.text(&block, "trade_window", "start", None).and_then(|t| r.instant("trade_window.start", &t));
    let to = r.text(&block, "trade_window", "end", None).and_then(|t| r.instant("trade_window.end", &t));
    let (Some(from), Some(to)) = (from, to) else { return (None, Value::Null) };
    r.require(from.first_ns < to.first_ns, "trade_window", || "start must lie before end".to_owned());
    if let (Some(start_ns), Some(end_ns)) = (start_ns, end_ns) {
        let inside = from.first_ns >= start_ns && to.first_ns <= end_ns.saturating_add(1);
        r.require(inside, "trade_window", || "must lie inside start_date … end_date".to_owned());
    }
    (Some((from.first_ns, to.first_ns)), json!({ "start": from.text, "end": to.text }))
}

fn read_data(r: &mut Reader, given: &Map<String, Value>) -> (Option<(u64, usize)>, Value) {
    let Some(block) = r.object(given, "", "data") else { return (None, Value::Null) };
    r.known_keys("data", &block, &["source", "seed", "bars"]);
    let source = r.text(&block, "data", "source", None);
    if let Some(source) = &source {
        r.require(source == "synthetic", "data.source", || format!("must be `synthetic`, got \"{source}\""));
    }
    let seed = r.optional_u64(&block, "data", "seed").unwrap_or(0);
    let bars = r.int(&block, "data", "bars", 75_000, 1, 50_000_000);
    let synthetic = usize::try_from(bars).ok().map(|bars| (seed, bars));
    (synthetic, json!({ "source": "synthetic", "seed": seed, "bars": bars }))
}

/// Timeframes that can be traded, and those that can be read beside.
const PRIMARY: &str = "M1 M5 M15 M30 H1 H4 D1";
const ADDITIONAL: &str = "M1 M5 M15 M30 H1 H4 D1 W1";

fn read_timeframes(
    r: &mut Reader,
    given: &Map<String, Value>,
    variant: Variant,
) -> (Option<Timeframe>, Vec<Timeframe>, Value) {
    let Some(block) = r.object(given, "", "timeframes") else {
        r.require(false, "timeframes", || "is required: {\"primary\": \"M5\", \"additional\": [\"H1\"]}".to_owned());
        return (None, Vec::new(), Value::Null);
    };
    r.known_keys("timeframes", &block, &["primary", "additional", "additional_source"]);
    let primary =
        r.text(&block, "timeframes", "primary", None).and_then(|t| r.timeframe("timeframes.primary", &t, PRIMARY));
    r.require(primary != Some(Timeframe::W1), "timeframes.primary", || format!("must be one of {PRIMARY}, got W1"));
    let mut additional: Vec<Timeframe> = Vec::new();
    for (k, name) in r.texts(&block, "timeframes", "additional").unwrap_or_default().iter().enumerate() {
        let path = format!("timeframes.additional[{k}]");
        if name.trim().is_empty() {
            continue;
        }
        let Some(timeframe) = r.timeframe(&path, name, ADDITIONAL) else { continue };
        r.require(timeframe != Timeframe::W1 || variant == Variant::V2, &path, || "W1 exists in v2 only".to_owned());
        if Some(timeframe) != primary && !additional.contains(&timeframe) {
            additional.push(timeframe);
        }
    }
    let source = r.text(&block, "timeframes", "additional_source", Some("separate_parquet"));
    let source = source.map(|s| s.trim().to_ascii_lowercase());
    // None: not text, which is a violation already.
    r.require(source.as_deref().is_none_or(|s| s == "separate_parquet"), "timeframes.additional_source", || {
        format!("must be `separate_parquet`, got \"{}\"", source.clone().unwrap_or_default())
    });
    let document = json!({
        "primary": primary.map(Timeframe::as_str),
        "additional": additional.iter().map(|tf| tf.as_str()).collect::<Vec<_>>(),
        "additional_source": "separate_parquet",
    });
    (primary, additional, document)
}

fn read_sessions(r: &mut Reader, given: &Map<String, Value>) -> (Option<Vec<Session>>, Value) {
    let Some(windows) = r.array(given, "", "sessions") else { return (None, Value::Null) };
    let mut parsed = Vec::new();
    let mut document = Vec::new();
    for (k, window) in windows.iter().enumerate() {
        let path = format!("sessions[{k}]");
        let Value::Object(window) = window else {
            r.require(false, &path, || "must be an object with start and end".to_owned());
            continue;
        };
        r.known_keys(&path, window, &["start", "end"]);
        let start = r.text(window, &path, "start", None);
        let end = r.text(window, &path, "end", None);
        let (Some(start), Some(end)) = (start, end) else { continue };
        match Session::parse(&path, &start, &end) {
            Ok(session) => {
                parsed.push(session);
                document.push(json!({ "start": start, "end": end }));
            }
            Err(error) => r.refuse(error),
        }
    }
    if parsed.is_empty() { (None, Value::Null) } else { (Some(parsed), Value::Array(document)) }
}

fn read_account(r: &mut Reader, given: &Map<String, Value>) -> (AccountConfig, Value) {
    let block = r.object(given, "", "account").unwrap_or_default();
    r.known_keys("account", &block, &["initial_balance", "account_currency", "risk_per_trade", "max_positions"]);
    let initial_balance = r.positive(&block, "account", "initial_balance", 10_000.0);
    let currency = r.text(&block, "account", "account_currency", Some("EUR")).unwrap_or_else(|| "EUR".to_owned());
    let currency = currency.trim().to_ascii_uppercase();
    r.require(is_currency(&currency), "account.account_currency", || {
        format!("must be three letters, got \"{currency}\"")
    });
    let risk_per_trade = r.positive(&block, "account", "risk_per_trade", 100.0);
    let max_positions = r.int(&block, "account", "max_positions", 1, 1, 1_000_000);
    let document = json!({
        "initial_balance": initial_balance,
        "account_currency": currency,
        "risk_per_trade": risk_per_trade,
        "max_positions": max_positions,
    });
    let max_positions = usize::try_from(max_positions).unwrap_or(1);
    (AccountConfig { initial_balance, currency, risk_per_trade, max_positions }, document)
}

fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
}

fn read_costs(r: &mut Reader, given: &Map<String, Value>) -> (CostsConfig, Value) {
    let block = r.object(given, "", "costs").unwrap_or_default();
    let keys =
        ["enabled", "fee_multiplier", "slippage_multiplier", "spread_multiplier", "pip_size", "pip_buffer_factor"];
    r.known_keys("costs", &block, &keys);
    let costs = CostsConfig {
        enabled: r.boolean(&block, "costs", "enabled", true),
        fee_multiplier: r.not_negative(&block, "costs", "fee_multiplier", 1.0),
        slippage_multiplier: r.not_negative(&block, "costs", "slippage_multiplier", 1.0),
        spread_multiplier: r.not_negative(&block, "costs", "spread_multiplier", 1.0),
        pip_size: r.optional_number(&block, "costs", "pip_size", |x| x > 0.0, "must be > 0"),
        pip_buffer_factor: r.optional_number(&block, "costs", "pip_buffer_factor", |x| x >= 0.0, "must be >= 0"),
    };
    let document = json!({
        "enabled": costs.enabled,
        "fee_multiplier": costs.fee_multiplier,
        "slippage_multiplier": costs.slippage_multiplier,
        "spread_multiplier": costs.spread_multiplier,
        "pip_size": costs.pip_size,
        "pip_buffer_factor": costs.pip_buffer_factor,
    });
    (costs, document)
}

fn read_rates(r: &mut Reader, given: &Map<String, Value>) -> (Rates, Value) {
    let block = r.object(given, "", "rates").unwrap_or_default();
    r.known_keys("rates", &block, &["mode", "static"]);
    r.choice(&block, "rates", "mode", &["static"], "static");
    let mut rates = BTreeMap::new();
    for (pair, rate) in &r.object(&block, "rates", "static").unwrap_or_default() {
        let path = format!("rates.static.{pair}");
        let name_ok = pair.len() == 6 && pair.bytes().all(|b| b.is_ascii_alphabetic());
        r.require(name_ok, &path, || "a pair is six letters".to_owned());
        match rate.as_f64().filter(|rate| rate.is_finite() && *rate > 0.0) {
            Some(rate) => {
                let earlier = rates.insert(pair.to_ascii_uppercase(), rate);
                r.require(earlier.is_none(), &path, || "the pair stands here twice, in another case".to_owned());
            }
            None => r.require(false, &path, || format!("must be a number > 0, got {rate}")),
        }
    }
    let document = json!({ "mode": "static", "static": rates });
    (Rates(rates), document)
}

fn read_news(r: &mut Reader, given: &Map<String, Value>) -> (Option<NewsFilter>, Value) {
    let Some(block) = r.object(given, "", "news_filter") else { return (None, Value::Null) };
    let keys = ["enabled", "minutes_before", "minutes_after", "min_impact", "currencies"];
    r.known_keys("news_filter", &block, &keys);
    let enabled = r.boolean(&block, "news_filter", "enabled", false);
    let before = r.int(&block, "news_filter", "minutes_before", 30, 0, 1_000_000);
    let after = r.int(&block, "news_filter", "minutes_after", 30, 0, 1_000_000);
    let min_impact = r.choice(&block, "news_filter", "min_impact", &["low", "medium", "high"], "medium");
    let currencies = r.texts(&block, "news_filter", "currencies").map(|list| {
        let upper: Vec<String> = list.iter().map(|c| c.trim().to_ascii_uppercase()).collect();
        for (k, currency) in upper.iter().enumerate() {
            r.require(is_currency(currency), &format!("news_filter.currencies[{k}]"), || {
                format!("must be three letters, got \"{currency}\"")
            });
        }
        upper
    });
    let document = json!({
        "enabled": enabled,
        "minutes_before": before,
        "minutes_after": after,
        "min_impact": min_impact,
        "currencies": currencies,
    });
    let minutes = |m: i64| u32::try_from(m).unwrap_or(u32::MAX);
    let news = Impact::parse(&min_impact).map(|min_impact| NewsFilter {
        minutes_before: minutes(before),
        minutes_after: minutes(after),
        min_impact,
        currencies,
    });
    (news.filter(|_| enabled), document)
}

fn read_management(r: &mut Reader, given: &Map<String, Value>) -> (ManagementConfig, Value) {
    let default = ManagementConfig { holding_enabled: true, ..ManagementConfig::default() };
    let Some(block) = r.object(given, "", "trade_management") else { return (default, Value::Null) };
    r.known_keys("trade_management", &block, &["enabled", "stop_update_policy", "rules"]);
    // The default of `enabled` stays null in the document: filling in `false` would silence
    // `use_position_manager` when the normalised document is read again.
    let enabled = r.optional_bool(&block, "trade_management", "enabled");
    r.choice(&block, "trade_management", "stop_update_policy", &["apply_next_bar"], "apply_next_bar");
    let rules = match block.get("rules") {
        Some(Value::Array(list)) => {
            r.require(list.is_empty(), "trade_management.rules", || "must be an object, got a list".to_owned());
            Map::new()
        }
        _ => r.object(&block, "trade_management", "rules").unwrap_or_default(),
    };
    let path = "trade_management.rules";
    r.known_keys(path, &rules, &["max_holding_time"]);
    let path = "trade_management.rules.max_holding_time";
    let holding = r.object(&rules, "trade_management.rules", "max_holding_time");
    let holding_given = holding.is_some();
    let holding = holding.unwrap_or_default();
    r.known_keys(path, &holding, &["enabled", "max_holding_minutes", "only_scenarios"]);
    let holding_enabled = r.boolean(&holding, path, "enabled", true);
    let max_holding_minutes = r.optional_int(&holding, path, "max_holding_minutes", 0, i64::from(u32::MAX));
    let mut only_scenarios = Vec::new();
    for (k, scenario) in r.array(&holding, path, "only_scenarios").unwrap_or_default().iter().enumerate() {
        let number = match scenario {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_u64(),
        };
        match number.and_then(|n| u8::try_from(n).ok()).filter(|n| *n >= 1) {
            Some(n) => only_scenarios.push(n),
            None => r.require(false, &format!("{path}.only_scenarios[{k}]"), || {
                format!("must be a whole number from 1 to 255, got {scenario}")
            }),
        }
    }
    let rules_doc = if holding_given {
        json!({ "max_holding_time": {
            "enabled": holding_enabled,
            "max_holding_minutes": max_holding_minutes,
            "only_scenarios": only_scenarios,
        }})
    } else {
        json!({})
    };
    let document = json!({ "enabled": enabled, "stop_update_policy": "apply_next_bar", "rules": rules_doc });
    (ManagementConfig { enabled, holding_enabled, max_holding_minutes, only_scenarios }, document)
}

fn read_parity(r: &mut Reader, given: &Map<String, Value>) -> (ParityConfig, Value) {
    let block = r.object(given, "", "parity").unwrap_or_default();
    let keys = ["entry_timestamp_mode", "higher_tf_timestamps_mode", "stale_bar_limit_bars"];
    r.known_keys("parity", &block, &keys);
    let mode = r.choice(&block, "parity", "entry_timestamp_mode", &["open", "close"], "open");
    let mut close_stamped = Vec::new();
    let mut modes = BTreeMap::new();
    let path = "parity.higher_tf_timestamps_mode";
    for (name, stamp) in &r.object(&block, "parity", "higher_tf_timestamps_mode").unwrap_or_default() {
        let at = format!("{path}.{name}");
        let Some(timeframe) = r.timeframe(&at, name, ADDITIONAL) else { continue };
        match stamp.as_str() {
            Some("close") => close_stamped.push(timeframe),
            Some("open") => {}
            _ => r.require(false, &at, || format!("must be `open` or `close`, got {stamp}")),
        }
        modes.insert(timeframe.as_str(), stamp.clone());
    }
    let stale = r.int(&block, "parity", "stale_bar_limit_bars", 0, 0, i64::from(u32::MAX));
    let document = json!({
        "entry_timestamp_mode": mode,
        "higher_tf_timestamps_mode": modes,
        "stale_bar_limit_bars": stale,
    });
    let visibility = if mode == "close" { Visibility::Close } else { Visibility::Open };
    let stale_bar_limit_bars = usize::try_from(stale).unwrap_or(0);
    (ParityConfig { visibility, close_stamped, stale_bar_limit_bars }, document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Value {
        json!({
            "strategy_name": "sma_cross",
            "symbol": "EURUSD",
            "start_date": "2024-01-01",
            "end_date": "2024-12-31",
            "timeframes": { "primary": "M5" },
        })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut document = minimal();
        document[key] = value;
        document
    }

    fn parsed(value: &Value) -> RunConfig {
        RunConfig::parse(value, true).unwrap().config
    }

    fn refused(value: &Value) -> String {
        let violations = RunConfig::parse(value, true).unwrap_err();
        violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// config-and-errors §3, table.
    #[test]
    fn normalisation_table() {
        assert_eq!(parsed(&with("symbol", json!(" eurusd "))).symbol, "EURUSD");
        let frames = parsed(&with("timeframes", json!({"primary": "m5", "additional": ["h1", "H1", "m5", ""]})));
        assert_eq!((frames.primary, frames.additional), (Timeframe::M5, vec![Timeframe::H1]));
        let mut parity = with("execution_variant", json!("v1_parity"));
        parity["run_mode"] = json!("prod");
        assert!(refused(&parity).contains("requires run_mode = dev"));
        let mut one_day = with("start_date", json!("2024-01-02"));
        one_day["end_date"] = json!("2024-01-02");
        let one_day = parsed(&one_day);
        assert_eq!(one_day.end_ns - one_day.start_ns, DAY_NS - 1);
        let offset = parsed(&with("start_date", json!("2024-01-01T01:00:00+01:00")));
        assert_eq!(offset.start_ns, 1_704_067_200_000_000_000);
        assert!(refused(&with("account", json!({"account_currency": "EURO"}))).contains("three letters"));
        assert_eq!(parsed(&with("account", json!({"account_currency": "eur"}))).account.currency, "EUR");
        assert!(refused(&with("sessions", json!([{"start": "25:00", "end": "10:00"}]))).contains("sessions[0].start"));
        assert!(refused(&with("schema_version", json!("1.0.0"))).contains("major part"));
        assert_eq!(parsed(&with("warmup_bars", json!(0))).warmup_bars, 0);
        assert_eq!(parsed(&with("rng_seed", Value::Null)).rng_seed, Some(42));
    }

    #[test]
    fn every_violation_is_collected_and_named() {
        let text = refused(&json!({
            "strategy_name": "x", "symbol": "E", "start_date": "tomorrow", "end_date": "2024-01-01",
            "timeframes": {"primary": "M7"}, "account": {"risk_per_trade": -5, "initial_balanc": 1},
        }));
        for part in ["symbol: ", "start_date: ", "timeframes.primary: ", "account.risk_per_trade: must be > 0, got -5"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("did you mean `initial_balance`?"), "{text}");
    }

    #[test]
    fn unknown_keys_only_warn_in_a_single_run() {
        let document = with("warmup_bar", json!(5));
        let parsed = RunConfig::parse(&document, false).unwrap();
        assert_eq!(parsed.warnings.len(), 1);
        assert!(RunConfig::parse(&document, true).is_err());
    }

    #[test]
    fn the_normalised_document_reads_back_as_itself() {
        let mut document = with("trade_management", json!({"rules": []}));
        document["sessions"] = json!([{"start": "08:00", "end": "17:00"}]);
        let first = parsed(&document);
        let second = parsed(&first.document);
        assert_eq!(first, second);
    }

    #[test]
    fn the_reference_keys_are_accepted() {
        let mut document = minimal();
        document["timeframes"] = json!({"primary": "H1", "htf": ["D1"]});
        document["profiling"] = json!(true);
        document["data_mode"] = json!("parquet");
        document["strategy_params"] = json!({"fast_length": 3});
        let config = parsed(&document);
        assert_eq!(config.additional, [Timeframe::D1]);
        assert_eq!(config.strategy_parameters["fast_length"], json!(3));
    }
}
