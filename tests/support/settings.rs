//! Random run configurations on generated bars: every registered strategy, every gate and every cost.

use std::fmt;
use std::path::{Path, PathBuf};

use engine::backtest::{Environment, Outcome, Prepared, RunConfig};
use engine::data::{Sources, SyntheticSource, synthetic};
use engine::strategy::{Strategy, families};
use engine::units::Timeframe;
use proptest::prelude::{BoxedStrategy, Just, ProptestConfig, Strategy as Random, any, prop, prop_oneof};
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Map, Value, json};

use super::market::{EURUSD, Recorder, Run};

/// Generated bars of a primary timeframe with one longer timeframe for filters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) primary: Timeframe,
    pub(crate) longer: Timeframe,
    pub(crate) bars: usize,
    /// Enough for every column below, on both timeframes.
    pub(crate) warmup: usize,
    /// Late enough for `warmup` bars of the longer timeframe before it.
    pub(crate) start: &'static str,
    /// A time inside the window, for trade windows.
    pub(crate) middle: [&'static str; 2],
}

pub(crate) const SCALES: [Scale; 3] = [
    Scale {
        primary: Timeframe::M5,
        longer: Timeframe::H1,
        bars: 3200,
        warmup: 120,
        start: "2020-01-14",
        middle: ["2020-01-15T06:00:00Z", "2020-01-17T00:00:00Z"],
    },
    Scale {
        primary: Timeframe::M15,
        longer: Timeframe::H4,
        bars: 3600,
        warmup: 120,
        start: "2020-02-06",
        middle: ["2020-02-10T06:00:00Z", "2020-02-20T00:00:00Z"],
    },
    Scale {
        primary: Timeframe::H1,
        longer: Timeframe::D1,
        bars: 2600,
        warmup: 60,
        start: "2020-03-25",
        middle: ["2020-04-01T06:00:00Z", "2020-05-05T00:00:00Z"],
    },
];

pub(crate) const COSTS: [&str; 4] = [
    "defaults: {schema: per_lot, per_lot: 2.5, slippage: {fixed_pips: 0.2, random_pips: 0.3}}\n",
    "defaults: {schema: per_million_notional, rate_per_million: 25, min_fee: 1, fee_ccy: USD, \
     slippage: {fixed_pips: 0.1, random_pips: 0}}\n",
    "defaults: {schema: percent_of_notional, pct: 0.00002, side: entry, slippage: {fixed_pips: 0, random_pips: 0.5}}\n",
    "defaults: {schema: per_lot, per_lot: 3, side: exit, pip_buffer_factor: 0.1}\n",
];

/// Wide enough to refuse some orders.
pub(crate) const MIN_STOP_PIPS: f64 = 4.0;

/// One random run.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) scale: Scale,
    pub(crate) seed: u64,
    /// Index in [`COSTS`].
    pub(crate) costs: usize,
    pub(crate) document: Value,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, costs {}{:#}", self.seed, COSTS[self.costs], self.document)
    }
}

impl Setting {
    pub(crate) fn config(&self) -> RunConfig {
        super::config(&self.document)
    }

    /// Folder with generated bars, made once and kept below the build folder.
    pub(crate) fn bars(&self) -> PathBuf {
        let Scale { primary, bars, .. } = self.scale;
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let root = parent.join(format!("synthetic_{primary}_{bars}_{}", self.seed));
        if !root.exists() {
            let fresh = tempfile::tempdir_in(parent).unwrap();
            let source = SyntheticSource { seed: self.seed, bars };
            synthetic::write(fresh.path(), "EURUSD", primary, source).unwrap();
            // Another process may have been faster; the bytes are the same.
            if std::fs::rename(fresh.path(), &root).is_ok() {
                let _ = fresh.keep();
            }
        }
        root
    }

    /// Opens the run's inputs with candle files from `bars`.
    pub(crate) fn open(&self, bars: &Path, folder: &Path) -> Environment {
        let sources = Sources { parquet_root: bars.to_owned(), ..super::sources(folder) };
        std::fs::write(&sources.costs_file, COSTS[self.costs]).unwrap();
        let specs = EURUSD.replace('}', &format!(", min_sl_distance_pips: {MIN_STOP_PIPS}}}"));
        std::fs::write(&sources.specs_file, specs).unwrap();
        super::open(&self.config(), &sources).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Runs, with everything written down.
pub(crate) fn record(prepared: &Prepared) -> Run {
    let mut recorder = Recorder::default();
    let outcome: Outcome = prepared.run(Vec::new(), &mut recorder).unwrap_or_else(|error| panic!("{error}"));
    Run { outcome, entered: recorder.entered, equity: recorder.equity }
}

/// The configured strategy, built anew.
pub(crate) fn build(config: &RunConfig) -> Box<dyn Strategy> {
    let family = engine::strategy::find(&config.strategy_name).unwrap();
    family.build(&config.strategy_parameters, &config.build_context()).unwrap()
}

/// A list of choices, each as likely.
fn one_of<T: Clone + fmt::Debug + 'static>(choices: &[T]) -> BoxedStrategy<T> {
    prop::sample::select(choices.to_vec()).boxed()
}

/// `null` about as often as a value.
fn or_null(value: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    prop_oneof![Just(Value::Null), value].boxed()
}

fn int(range: std::ops::RangeInclusive<i64>) -> BoxedStrategy<Value> {
    range.prop_map(Value::from).boxed()
}

/// A number with two decimals.
fn number(low: f64, high: f64) -> BoxedStrategy<Value> {
    let cents = |x: f64| (x * 100.0).round() as i64;
    (cents(low)..=cents(high)).prop_map(|cents| Value::from(cents as f64 / 100.0)).boxed()
}

/// An object of independent members.
fn object(members: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Map<String, Value>> {
    let (names, values): (Vec<_>, Vec<_>) = members.into_iter().unzip();
    values.prop_map(move |values| names.iter().map(|name| (*name).to_owned()).zip(values).collect()).boxed()
}

fn direction_filter() -> (&'static str, BoxedStrategy<Value>) {
    ("direction_filter", one_of(&[json!("both"), json!("both"), json!("long"), json!("short")]))
}

fn sma_cross() -> BoxedStrategy<Map<String, Value>> {
    let members = vec![
        ("fast_length", int(1..=15)),
        ("slow_length", int(16..=50)),
        ("atr_length", int(1..=20)),
        ("stop_atr", or_null(number(0.2, 3.0))),
        ("lots", or_null(number(0.01, 3.0))),
        direction_filter(),
    ];
    let given = |mut map: Map<String, Value>| {
        if map["lots"].is_null() && map["stop_atr"].is_null() {
            map["stop_atr"] = json!(1.5);
        }
        map
    };
    object(members).prop_map(given).boxed()
}

fn donchian_breakout() -> BoxedStrategy<Map<String, Value>> {
    object(vec![
        ("entry_length", int(1..=40)),
        ("exit_length", int(1..=20)),
        ("hold_bars", or_null(int(1..=30))),
        direction_filter(),
    ])
}

fn rsi_reversion() -> BoxedStrategy<Map<String, Value>> {
    object(vec![
        ("rsi_length", int(2..=20)),
        ("atr_length", int(1..=20)),
        ("oversold", number(15.0, 45.0)),
        ("exit_level", number(46.0, 54.0)),
        ("overbought", number(55.0, 85.0)),
        ("atr_mult", number(0.2, 4.0)),
        direction_filter(),
    ])
}

fn mean_reversion_z_score(scale: Scale) -> BoxedStrategy<Map<String, Value>> {
    let longer = scale.longer.as_str();
    let filters = ["above", "below", "both", "none"].map(Value::from);
    let scenarios =
        [json!([1]), json!([2]), json!([3]), json!([4]), json!([5]), json!([6]), json!([1, 2, 4]), json!([])];
    let chains = [json!(["PRIMARY"]), json!([longer]), json!(["PRIMARY", longer])];
    let chain_keys = format!("scenario6_{longer}_long_z_score");
    let garch = vec![
        ("garch_alpha", number(0.02, 0.15)),
        ("garch_beta", number(0.5, 0.84)),
        ("garch_omega", one_of(&[Value::Null, json!(0.0002)])),
        ("garch_use_log_returns", any::<bool>().prop_map(Value::from).boxed()),
        ("garch_min_periods", int(0..=20)),
        ("local_z_lookback", one_of(&[json!(0), json!(0), json!(40), json!(150)])),
        ("intraday_vol_cluster_window", int(20..=100)),
        ("intraday_vol_cluster_k", int(1..=4)),
        ("intraday_vol_min_points", int(5..=20)),
        ("intraday_vol_log_transform", any::<bool>().prop_map(Value::from).boxed()),
        ("intraday_vol_garch_lookback", int(45..=150)),
        ("intraday_vol_allowed", one_of(&[json!(["low", "mid"]), json!(["high"]), json!(["low", "mid", "high"])])),
        ("cluster_hysteresis_bars", int(0..=3)),
    ];
    let mut members = vec![
        ("enabled_scenarios", one_of(&scenarios)),
        ("ema_length", int(1..=40)),
        ("atr_length", int(1..=20)),
        ("atr_mult", number(0.2, 3.0)),
        ("b_b_length", int(2..=40)),
        ("std_factor", number(0.0, 1.5)),
        ("window_length", int(2..=50)),
        ("z_score_long", number(-1.5, -0.1)),
        ("z_score_short", number(0.1, 1.5)),
        ("kalman_r", number(0.01, 1.0)),
        ("kalman_q", number(0.0, 1.0)),
        ("tp_min_distance", one_of(&[json!(0.0), json!(0.0001), json!(0.0004)])),
        ("htf_tf", one_of(&[json!(longer), json!("NONE")])),
        ("htf_ema", int(1..=40)),
        ("htf_filter", one_of(&filters)),
        ("extra_htf_tf", one_of(&[json!(longer), json!("NONE")])),
        ("extra_htf_ema", int(1..=40)),
        ("extra_htf_filter", one_of(&filters)),
        ("trend_min_filters_required", or_null(int(0..=2))),
        ("scenario6_mode", one_of(&[json!("all"), json!("any")])),
        ("scenario6_timeframes", one_of(&chains)),
        ("use_position_manager", any::<bool>().prop_map(Value::from).boxed()),
        ("max_holding_minutes", or_null(int(0..=2000))),
        direction_filter(),
    ];
    members.extend(garch);
    let chain = or_null(number(-1.0, -0.1));
    (object(members), chain)
        .prop_map(move |(mut map, z)| {
            if !z.is_null() {
                map.insert(chain_keys.clone(), z);
            }
            map
        })
        .boxed()
}

/// Parameters of a registered strategy.
fn parameters(name: &str, scale: Scale) -> BoxedStrategy<Map<String, Value>> {
    match name {
        "mean_reversion_z_score" => mean_reversion_z_score(scale),
        "sma_cross" => sma_cross(),
        "donchian_breakout" => donchian_breakout(),
        "rsi_reversion" => rsi_reversion(),
        other => panic!("`{other}` is registered, but nobody wrote down what random settings of it look like"),
    }
}

/// Everything around the strategy.
fn surroundings(scale: Scale) -> BoxedStrategy<Map<String, Value>> {
    let factor = one_of(&[json!(0.0), json!(1.0), json!(1.0), json!(1.5), json!(3.0)]);
    let costs = object(vec![
        ("enabled", one_of(&[json!(true), json!(true), json!(true), json!(false)])),
        ("fee_multiplier", factor.clone()),
        ("slippage_multiplier", factor),
        ("spread_multiplier", one_of(&[json!(0.0), json!(1.0), json!(1.0), json!(1.7)])),
        ("pip_buffer_factor", one_of(&[Value::Null, json!(0.0), json!(2.0)])),
    ]);
    let account = object(vec![
        ("initial_balance", one_of(&[json!(10_000.0), json!(1e6), json!(500.0)])),
        ("account_currency", one_of(&[json!("USD"), json!("EUR")])),
        // The smaller ones are often below the smallest lot.
        ("risk_per_trade", prop_oneof![number(0.2, 2.0), number(2.0, 500.0)].boxed()),
        ("max_positions", one_of(&[json!(1), json!(1), json!(2), json!(4)])),
    ]);
    let sessions = [
        Value::Null,
        Value::Null,
        json!([{"start": "08:00", "end": "17:00"}]),
        json!([{"start": "22:00", "end": "05:00"}, {"start": "13:00", "end": "16:30"}]),
    ];
    let holding = |minutes: i64, only: Value| json!({"enabled": true, "rules": {"max_holding_time": {"max_holding_minutes": minutes, "only_scenarios": only}}});
    let management =
        [Value::Null, Value::Null, holding(37, json!([])), holding(600, json!([])), holding(60, json!([2]))];
    let [from, to] = scale.middle;
    let windows = [Value::Null, Value::Null, json!({"start": from, "end": to})];
    let object_value = |members: BoxedStrategy<Map<String, Value>>| members.prop_map(Value::Object).boxed();
    object(vec![
        ("costs", object_value(costs)),
        ("account", object_value(account)),
        ("sessions", one_of(&sessions)),
        ("trade_management", one_of(&management)),
        ("trade_window", one_of(&windows)),
        ("cooldown_candles", one_of(&[json!(0), json!(0), json!(7)])),
        ("cooldown_minutes", one_of(&[json!(0), json!(0), json!(100)])),
        ("cooldown_minutes_trade", one_of(&[json!(0), json!(0), json!(45)])),
        ("rng_seed", int(0..=1_000_000)),
    ])
}

/// A random run of any registered strategy.
pub(crate) fn any_setting() -> BoxedStrategy<Setting> {
    let names: Vec<&'static str> = families().iter().map(|family| family.name()).collect();
    // The large strategy has six times the paths of the small ones.
    let weighted: Vec<&'static str> =
        names.iter().flat_map(|name| vec![*name; if *name == "mean_reversion_z_score" { 6 } else { 1 }]).collect();
    (one_of(&weighted), one_of(&SCALES)).prop_flat_map(|(name, scale)| setting(name, scale)).boxed()
}

/// A random run of one strategy on one scale.
pub(crate) fn setting(name: &'static str, scale: Scale) -> BoxedStrategy<Setting> {
    let parts = (parameters(name, scale), surroundings(scale), 0..COSTS.len(), 1..=3_u64);
    parts
        .prop_map(move |(parameters, mut document, costs, seed)| {
            let fixed = json!({
                "strategy_name": name,
                "symbol": "EURUSD",
                "start_date": scale.start,
                "end_date": "2020-12-31",
                "warmup_bars": scale.warmup,
                "timeframes": {"primary": scale.primary.as_str()},
                "rates": {"static": {"EURUSD": 1.25}},
                "strategy_parameters": Value::Object(parameters),
            });
            if let Value::Object(fixed) = fixed {
                document.extend(fixed);
            }
            Setting { scale, seed, costs, document: Value::Object(document) }
        })
        .boxed()
}

/// Settings of several strategies that read the same files.
pub(crate) fn on_the_same_bars(count: usize) -> BoxedStrategy<Vec<Setting>> {
    let name = prop_oneof![
        6 => Just("mean_reversion_z_score"), 1 => Just("sma_cross"), 1 => Just("donchian_breakout"), 1 => Just("rsi_reversion"),
    ];
    (prop::sample::select(SCALES.to_vec()), prop::collection::vec(name, count))
        .prop_flat_map(|(scale, names)| names.into_iter().map(|name| setting(name, scale)).collect::<Vec<_>>())
        .prop_map(|mut settings: Vec<Setting>| {
            let (seed, costs) = (settings[0].seed, settings[0].costs);
            for setting in &mut settings {
                (setting.seed, setting.costs) = (seed, costs);
                // One environment holds every timeframe that any of them reads.
                setting.document["timeframes"]["additional"] = Value::from(vec![setting.scale.longer.as_str()]);
            }
            settings
        })
        .boxed()
}

/// How often a property is tried; `PROPTEST_CASES` overrides it. Failures are kept beside the test.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    let given = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: given.unwrap_or(count),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    }
}
