//! The four artefacts of a run on real bars: they validate, they explain each other, and they are the same bytes twice.
//!
//! 200 random settings of every registered strategy. Everything is worked out again from the files themselves, from
//! the bars, and from the positions the run left open, which no file lists. Metrics agree to half a unit of their last
//! printed decimal, money to 1e-8 relative: sums here run in another order than in the engine.
//! Source: metrics-and-outputs specification §2 to §5, §7.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they measured")]

#[path = "support/schema.rs"]
mod schema;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use engine::backtest::walk::EquityPoint;
use engine::backtest::{Environment, Prepared, RunConfig};
use engine::data::Sources;
use engine::execution::{ExitReason, FillSide};
use engine::indicators::Unlimited;
use engine::metrics::{CATALOGUE, Counters, round_half_away};
use engine::portfolio::Trade;
use engine::strategy::{OrderType, Position, families};
use engine::units::{DAY_NS, Direction, Timeframe};
use optimizer::replay::{Provenance, replay};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use schema::{Artefacts, RunSchemas};
use serde_json::{Value, json};
use support::market::{EURUSD, instant};
use support::metrics::{Facts, recompute};
use support::settings::{COSTS, MIN_STOP_PIPS, SCALES, Scale, record, setting};

/// Settings per strategy.
const SETTINGS: usize = 200;

/// Real bars for one of [`SCALES`].
struct Place {
    scale: Scale,
    symbol: &'static str,
    /// Below the data folder.
    root: &'static str,
    dates: [&'static str; 2],
    window: [&'static str; 2],
}

const PLACES: [Place; 3] = [
    Place {
        scale: SCALES[0],
        symbol: "EURUSD",
        root: ".",
        dates: ["2025-04-14", "2025-04-18"],
        window: ["2025-04-15T06:00:00Z", "2025-04-17T00:00:00Z"],
    },
    Place {
        scale: SCALES[1],
        symbol: "XAGUSD",
        root: ".",
        dates: ["2014-06-02", "2014-06-20"],
        window: ["2014-06-05T06:00:00Z", "2014-06-17T00:00:00Z"],
    },
    Place {
        scale: SCALES[2],
        symbol: "EURUSD",
        root: "long",
        dates: ["2012-03-01", "2012-05-15"],
        window: ["2012-03-10T06:00:00Z", "2012-05-01T00:00:00Z"],
    },
];

const XAGUSD: &str = "XAGUSD: {contract_size: 5000, tick_size: 0.001, pip_size: 0.01, volume_min: 0.01, \
    volume_step: 0.01, volume_max: 200, base_currency: XAG, quote_currency: USD}\n";

impl Place {
    /// A random document of the generated bars, moved to the real ones.
    fn moved(&self, mut document: Value) -> RunConfig {
        document["symbol"] = json!(self.symbol);
        document["start_date"] = json!(self.dates[0]);
        document["end_date"] = json!(self.dates[1]);
        document["timeframes"]["additional"] = json!([self.scale.longer.as_str()]);
        if !document["trade_window"].is_null() {
            document["trade_window"] = json!({"start": self.window[0], "end": self.window[1]});
        }
        support::config(&document)
    }

    fn open(&self, data: &Path, folder: &Path, costs: usize, config: &RunConfig) -> Environment {
        let sources = Sources {
            parquet_root: data.join(self.root),
            cache_dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-cache"),
            ..support::sources(folder)
        };
        fs::write(&sources.costs_file, COSTS[costs]).unwrap();
        let spec = if self.symbol == "XAGUSD" { XAGUSD } else { EURUSD };
        let spec = spec.replace('}', &format!(", min_sl_distance_pips: {MIN_STOP_PIPS}}}"));
        fs::write(&sources.specs_file, spec).unwrap();
        let timeframes: [Timeframe; 1] = [self.scale.longer];
        let environment = Environment::open(config, &timeframes, &sources, Arc::new(Unlimited));
        environment.unwrap_or_else(|error| panic!("{}: {error}", self.symbol))
    }
}

/// One test per strategy.
macro_rules! strategies {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                if let Some(data) = support::data_root(stringify!($name)) {
                    check_strategy(stringify!($name), &data);
                }
            }
        )*

        #[test]
        fn every_registered_strategy_is_checked() {
            let mut checked = [$(stringify!($name)),*];
            checked.sort_unstable();
            let mut registered: Vec<&str> = families().iter().map(|family| family.name()).collect();
            registered.sort_unstable();
            assert_eq!(checked[..], registered[..]);
        }
    };
}

strategies! { donchian_breakout mean_reversion_z_score rsi_reversion sma_cross }

fn check_strategy(name: &'static str, data: &Path) {
    let schemas = RunSchemas::load();
    let folder = tempfile::tempdir().unwrap();
    let mut environments: BTreeMap<(usize, usize), Environment> = BTreeMap::new();
    let mut runner = TestRunner::deterministic();
    let (mut trades, mut open, mut silent) = (0, 0, 0);
    for k in 0..SETTINGS {
        let place = k % PLACES.len();
        let drawn = setting(name, PLACES[place].scale).new_tree(&mut runner).unwrap().current();
        let config = PLACES[place].moved(drawn.document.clone());
        let environment = environments
            .entry((place, drawn.costs))
            .or_insert_with(|| PLACES[place].open(data, folder.path(), drawn.costs, &config));
        let prepared = support::prepare(environment, &config);
        let run = Checked::write(environment, &prepared, &config, &schemas, folder.path());
        run.check();
        trades += run.trades.len();
        open += run.open.len();
        silent += usize::from(run.trades.is_empty());
    }
    println!("{name}: {trades} trades, {open} positions open at the end, {silent} settings without a trade");
    assert!(
        trades > 5 * SETTINGS && open > 5 && silent < SETTINGS / 2,
        "{trades} trades, {open} open, {silent} silent"
    );
}

/// A run read back from its files.
struct Checked<'a> {
    prepared: &'a Prepared,
    config: &'a RunConfig,
    files: Artefacts,
    trades: Vec<Trade>,
    equity: Vec<EquityPoint>,
    /// Left open by the run.
    open: Vec<Position>,
}

impl<'a> Checked<'a> {
    /// Writes the artefacts twice, from two walks, and reads them back.
    fn write(
        environment: &Environment,
        prepared: &'a Prepared,
        config: &'a RunConfig,
        schemas: &RunSchemas,
        folder: &Path,
    ) -> Self {
        let rng_seed = config.rng_seed.unwrap();
        let provenance = Provenance { config, source: Some("case.json"), rng_seed, environment };
        let [first, second] = ["first", "second"].map(|place| {
            let folder = folder.join(place).join(provenance.run_id());
            replay(prepared).unwrap().write(&folder, prepared, provenance).unwrap();
            folder
        });
        for name in ["meta.json", "trades.json", "equity.csv", "metrics.json"] {
            let text = |folder: &Path| fs::read_to_string(folder.join(name)).unwrap();
            let lasting = |text: String| -> Vec<String> {
                text.lines().filter(|line| !line.contains("\"generated_at")).map(str::to_owned).collect()
            };
            assert_eq!(lasting(text(&first)), lasting(text(&second)), "{name} is written differently");
        }
        let files = schemas.read(&first);
        fs::remove_dir_all(folder.join("first")).unwrap();
        fs::remove_dir_all(folder.join("second")).unwrap();

        let bars = &prepared.market().data.bars;
        let trades = files.trades.as_array().unwrap().iter().map(|trade| parse(trade, &bars.open_time)).collect();
        let equity = files.equity.iter().map(|(_, time_ns, [equity, balance, drawdown, high_water])| EquityPoint {
            time_ns: *time_ns,
            equity: *equity,
            balance: *balance,
            drawdown: *drawdown,
            high_water: *high_water,
        });
        let equity = equity.collect();
        let run = record(prepared);
        let closed: Vec<u64> = run.trades().iter().map(|trade| trade.position_id).collect();
        let open = run.entered.iter().filter(|position| !closed.contains(&position.id)).cloned().collect();
        Self { prepared, config, files, trades, equity, open }
    }

    fn check(&self) {
        self.check_meta();
        self.check_trades();
        self.check_equity();
        self.check_metrics();
    }

    fn check_meta(&self) {
        let meta = &self.files.meta;
        let counters = &meta["execution"]["counters"];
        let count = |key: &str| usize::try_from(counters[key].as_u64().unwrap()).unwrap();
        assert_eq!(count("open_positions_at_end"), self.open.len());
        assert_eq!(count("fills"), 2 * self.trades.len() + self.open.len());
        assert_eq!(count("signals"), self.trades.len() + self.open.len() + count("orders_rejected"));
        assert_eq!(count("pending_orders_at_end") + count("orders_dropped_no_slot"), 0, "only market orders");
        assert_eq!(meta["rng"]["seed"].as_u64(), self.config.rng_seed);
        assert_eq!(meta["account"]["unit_value"].as_f64(), Some(self.prepared.account().unit_value));
        assert_eq!(support::config(&meta["config"]["snapshot"]), *self.config);
        let (bars, plan) = (&self.prepared.market().data.bars, self.prepared.plan());
        let dataset = &meta["dataset"];
        assert_eq!(dataset["start_time_ns"].as_i64(), Some(bars.open_time[plan.bars.start]));
        assert_eq!(dataset["end_time_ns"].as_i64(), Some(bars.open_time[plan.bars.end - 1]));
        for (text, ns) in [("start_time", "start_time_ns"), ("end_time", "end_time_ns")] {
            assert_eq!(instant(dataset[text].as_str().unwrap()), dataset[ns].as_i64().unwrap());
        }
    }

    fn check_trades(&self) {
        let records = self.files.trades.as_array().unwrap();
        let key = |trade: &Trade| (trade.exit_time_ns, trade.entry_time_ns);
        assert!(self.trades.is_sorted_by_key(key));
        for (trade, record) in self.trades.iter().zip(records) {
            for (text, ns) in [("entry_time", trade.entry_time_ns), ("exit_time", trade.exit_time_ns)] {
                assert_eq!(instant(record[text].as_str().unwrap()), ns);
            }
            assert_eq!(record["symbol"], self.config.symbol.as_str());
            assert_eq!(record["meta"]["in_entry_candle"], trade.entry_bar == trade.exit_bar);
            let d = trade.direction.sign();
            let expected = trade
                .initial_stop_loss
                .map(|s| d * (trade.exit_price - trade.entry_price) / (trade.entry_price - s).abs());
            assert_eq!(trade.r_multiple, expected);
            self.near(
                trade.result,
                self.gain(trade.direction, trade.entry_price, trade.exit_price, trade.lots),
                "result",
            );
        }
    }

    fn gain(&self, direction: Direction, entry: f64, price: f64, lots: f64) -> f64 {
        let unit_value = self.files.meta["account"]["unit_value"].as_f64().unwrap();
        direction.sign() * (price - entry) * lots * unit_value
    }

    /// Money that went through the books is what small differences are small to.
    fn near(&self, found: f64, expected: f64, what: &str) {
        let moved: f64 = self.trades.iter().map(|trade| trade.result.abs()).sum();
        let scale = moved + self.config.account.initial_balance;
        assert!((found - expected).abs() <= 1e-12 * scale.max(1e4), "{what}: {found} against {expected}");
    }

    fn entry_fee(&self, position: &Position) -> f64 {
        self.prepared.plan().terms.fees.fee(FillSide::Entry, position.entry_price, position.lots)
    }

    /// Equity is balance plus open profit at every bar, both from the trades and the positions still open.
    fn check_equity(&self) {
        let (bars, plan) = (&self.prepared.market().data.bars, self.prepared.plan());
        assert_eq!(self.equity.len(), plan.bars.len());
        let mut peak = self.config.account.initial_balance;
        for ((i, point), (stamp, ..)) in plan.bars.clone().zip(&self.equity).zip(&self.files.equity) {
            assert_eq!(point.time_ns, bars.open_time[i]);
            assert_eq!(instant(stamp), point.time_ns);
            let mid = f64::midpoint(bars.bid.close[i], bars.ask.close[i]);
            let (mut balance, mut open_profit) = (self.config.account.initial_balance, 0.0);
            for trade in self.trades.iter().filter(|trade| trade.entry_bar <= i) {
                balance -= trade.entry_fee;
                if trade.exit_bar <= i {
                    balance += trade.result - trade.exit_fee;
                } else {
                    open_profit += self.gain(trade.direction, trade.entry_price, mid, trade.lots);
                }
            }
            for position in self.open.iter().filter(|position| position.entry_bar <= i) {
                balance -= self.entry_fee(position);
                open_profit += self.gain(position.direction, position.entry_price, mid, position.lots);
            }
            self.near(point.balance, balance, "balance");
            self.near(point.equity, balance + open_profit, "equity");
            peak = peak.max(point.equity);
            assert_eq!(point.high_water, peak);
            let drawdown = if peak > 0.0 { ((peak - point.equity) / peak).min(1.0) } else { 0.0 };
            assert_eq!(point.drawdown, drawdown);
        }
    }

    /// `trades.json` and `equity.csv` give every number of `metrics.json`.
    fn check_metrics(&self) {
        let facts = Facts {
            trades: &self.trades,
            equity: &self.equity,
            counters: &Counters::default(),
            initial_balance: self.config.account.initial_balance,
            risk: self.config.account.risk_per_trade,
            open_entry_fees: self.open.iter().map(|position| self.entry_fee(position)).sum(),
        };
        let recomputed = recompute(&facts);
        let mut day_ends: BTreeMap<i64, f64> = BTreeMap::new();
        for point in &self.equity {
            day_ends.insert(point.time_ns.div_euclid(DAY_NS), point.equity);
        }
        // A day after one that ended without money has no return.
        let returns = day_ends.values().rev().skip(1).filter(|equity| **equity > 0.0).count();
        let metrics = &self.files.metrics["metrics"];
        for def in CATALOGUE.iter().filter(|def| def.in_artefact) {
            let samples = if def.key.contains("trade_r") { self.trades.len() } else { returns };
            let found = &metrics[def.key];
            match recomputed[def.key] {
                None if def.text_when_undefined && samples < 2 => assert_eq!(found, "n/a", "{}", def.key),
                None => assert_eq!(found.as_f64(), Some(0.0), "{}", def.key),
                Some(expected) => {
                    let found = found.as_f64().unwrap_or_else(|| panic!("{}: {found}", def.key));
                    let half = match def.unit.decimals() {
                        0 => 0.5,
                        2 => 0.005,
                        _ => 0.000_000_5,
                    };
                    let slack = 1e-9 * expected.abs().max(1.0);
                    assert!((found - expected).abs() <= half + slack, "{}: {found}, recomputed {expected}", def.key);
                    assert_eq!(found.to_bits(), round_half_away(found, def.unit.decimals()).to_bits(), "{}", def.key);
                }
            }
        }
    }
}

/// A trade as `trades.json` tells it; the bars of its times.
fn parse(record: &Value, open_time: &[i64]) -> Trade {
    let number = |key: &str| record[key].as_f64();
    let bar = |key: &str| open_time.binary_search(&record[key].as_i64().unwrap()).unwrap();
    let reasons = [
        ExitReason::TakeProfit,
        ExitReason::StopLoss,
        ExitReason::Timeout,
        ExitReason::Manual,
        ExitReason::Signal,
        ExitReason::WindowEnd,
    ];
    let (entry_bar, exit_bar) = (bar("entry_time_ns"), bar("exit_time_ns"));
    assert_eq!(record["order_type"], "market");
    Trade {
        position_id: 0,
        direction: if record["direction"] == "long" { Direction::Long } else { Direction::Short },
        order_type: OrderType::Market,
        scenario_id: u8::try_from(record["scenario_id"].as_u64().unwrap()).unwrap(),
        rule: 0,
        entry_bar,
        exit_bar,
        entry_time_ns: open_time[entry_bar],
        exit_time_ns: open_time[exit_bar],
        entry_price: number("entry_price").unwrap(),
        exit_price: number("exit_price").unwrap(),
        initial_stop_loss: number("initial_stop_loss"),
        stop_loss: number("stop_loss"),
        take_profit: number("take_profit"),
        lots: number("size").unwrap(),
        result: number("result").unwrap(),
        entry_fee: number("entry_fee").unwrap(),
        exit_fee: number("exit_fee").unwrap(),
        r_multiple: number("r_multiple"),
        reason: reasons.into_iter().find(|reason| record["reason"] == reason.as_str()).unwrap(),
    }
}
