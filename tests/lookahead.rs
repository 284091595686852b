//! A future that is cut off or changed leaves the past alone, to the last bit.
//!
//! Columns, late guards, entries, trades and equity of every registered strategy with random settings, higher-timeframe filters, volatility clusters, local z-scores and
//! timeframe chains included. Of other timeframes only what had ended by the cut is kept unchanged: the bar that is still
//! forming belongs to the future. Design law 5; execution specification §2, indicators §4.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they measured")]

mod support;

use std::path::{Path, PathBuf};

use engine::backtest::Prepared;
use engine::portfolio::Trade;
use engine::strategy::Position;
use engine::units::Timeframe;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::candles::Candles;
use support::in_folder;
use support::market::Run;
use support::settings::{Scale, Setting, any_setting, cases, record};

/// What happens to the bars after the cut.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Future {
    /// They never come.
    Missing,
    /// Other prices, some bars left out.
    Other(u64),
}

/// SplitMix64: uniform in [0, 1).
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

impl Future {
    /// Bars that end by `now` stay; both sides are treated alike.
    fn apply(self, candles: &Candles, timeframe: Timeframe, now: i64) -> Candles {
        let past = |time: i64| time + timeframe.duration_ns() <= now;
        let Self::Other(seed) = self else { return candles.filter(|candles, row| past(candles.time[row])) };
        let mut changed = candles.clone();
        let mut left_out = vec![false; candles.time.len()];
        for row in (0..candles.time.len()).filter(|&row| !past(candles.time[row])) {
            let mut state = seed ^ candles.time[row] as u64 ^ timeframe.minutes() as u64;
            left_out[row] = draw(&mut state) < 0.1;
            let factor = 0.98 + 0.04 * draw(&mut state);
            for column in [&mut changed.open, &mut changed.high, &mut changed.low, &mut changed.close] {
                column[row] *= factor;
            }
        }
        changed.filter(|_, row| !left_out[row])
    }

    fn write(self, from: &Path, to: &Path, scale: Scale, now: i64) {
        for timeframe in [scale.primary, scale.longer] {
            for side in ["BID", "ASK"] {
                let name = format!("EURUSD/EURUSD_{timeframe}_{side}.parquet");
                self.apply(&Candles::read(&from.join(&name)), timeframe, now).write(&to.join(name));
            }
        }
    }
}

/// A run and what it read.
struct Seen {
    prepared: Prepared,
    run: Run,
}

impl Seen {
    fn new(setting: &Setting, bars: &Path, folder: &Path) -> Self {
        let environment = setting.open(bars, folder);
        let prepared = support::prepare(&environment, &setting.config());
        let run = record(&prepared);
        Self { prepared, run }
    }

    /// The run on the bars as they were generated.
    fn whole(setting: &Setting, folder: &Path) -> Self {
        Self::new(setting, &setting.bars(), folder)
    }

    /// The run with another future from `share` of its tradable bars on; the number of tradable bars before.
    fn other(&self, setting: &Setting, folder: &Path, share: f64, future: Future) -> (usize, Self) {
        let equity = &self.run.equity;
        let kept = ((equity.len() - 1) as f64 * share) as usize + 1;
        let now = equity[kept - 1].time_ns + setting.scale.primary.duration_ns();
        future.write(&setting.bars(), folder, setting.scale, now);
        (kept, Self::new(setting, folder, folder))
    }

    fn first(&self) -> usize {
        self.prepared.plan().bars.start
    }

    /// Every column up to bar `end`, to the bit.
    fn columns(&self, end: usize) -> Vec<(String, Vec<u64>)> {
        let keys = self.prepared.columns();
        let columns = self.prepared.market().columns.get_all(keys).unwrap();
        let bits = |values: &[f64]| values[..end].iter().map(|value| value.to_bits()).collect();
        keys.iter().zip(&columns).map(|(key, column)| (key.to_string(), bits(column))).collect()
    }

    /// Answers of every late guard on the last bars before `end`.
    fn guards(&self, end: usize) -> Vec<Vec<bool>> {
        let rules = self.prepared.strategy().rules().unwrap();
        let guards = rules.rules.iter().flat_map(|rule| &rule.guards);
        let answers = guards.map(|guard| {
            let evaluator = self.prepared.market().guards.evaluator(guard).unwrap();
            (end.saturating_sub(10)..end).map(|bar| evaluator.holds(bar)).collect()
        });
        answers.collect()
    }

    fn closed_before(&self, end: usize) -> Vec<Trade> {
        self.run.trades().iter().filter(|trade| trade.exit_bar < end).copied().collect()
    }

    fn entered_before(&self, end: usize) -> Vec<Position> {
        self.run.entered.iter().filter(|position| position.entry_bar < end).cloned().collect()
    }
}

fn assert_same_past(setting: &Setting, share: f64, future: Future) {
    in_folder(|folder| {
        let whole = Seen::whole(setting, &new_folder(folder, "whole"));
        let (mut kept, other) = whole.other(setting, &new_folder(folder, "other"), share, future);
        let end = whole.first() + kept;
        for ((name, found), (_, expected)) in other.columns(end).iter().zip(&whole.columns(end)) {
            let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
            assert_eq!(differs, None, "{name} before bar {end}");
        }
        assert_eq!(whole.guards(end), other.guards(end), "late guards before bar {end}");

        let windowed = !setting.document["trade_window"].is_null();
        if windowed && future == Future::Missing {
            // What is open is closed on the last bar there is, which belongs to the cut.
            kept -= 1;
        }
        let end = whole.first() + kept;
        assert_eq!(whole.closed_before(end), other.closed_before(end), "trades before bar {end}");
        assert_eq!(whole.entered_before(end), other.entered_before(end), "entries before bar {end}");
        assert_eq!(whole.run.equity[..kept], other.run.equity[..kept], "equity before bar {end}");
        if future == Future::Missing && !windowed {
            assert_eq!(other.run.equity.len(), kept);
            assert_eq!(whole.closed_before(end), other.run.trades(), "an exact prefix");
        }
    });
}

fn new_folder(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}

/// The same setting in the variant of the reference: other timeframes are read stepwise, by either rule.
fn as_parity(setting: &Setting, mode: &str, stale: u64) -> Setting {
    let mut document = setting.document.clone();
    document["execution_variant"] = json!("v1_parity");
    document["trade_window"] = Value::Null;
    document["timeframes"]["additional"] = json!([setting.scale.longer.as_str()]);
    document["parity"] = json!({"entry_timestamp_mode": mode, "stale_bar_limit_bars": stale});
    if let Value::Object(parameters) = &mut document["strategy_parameters"] {
        parameters.remove("trend_min_filters_required");
    }
    Setting { document, ..setting.clone() }
}

fn only(name: &'static str) -> BoxedStrategy<Setting> {
    any_setting().prop_filter("strategy", move |setting| setting.document["strategy_name"] == name).boxed()
}

mod property_tests {
    use super::*;

    proptest! {
        #![proptest_config(cases(64))]

        #[test]
        fn prop_cut_data_leave_an_exact_prefix_of_trades(setting in any_setting(), share in 0.02..1.0_f64) {
            assert_same_past(&setting, share, Future::Missing);
        }

        #[test]
        fn prop_changed_bars_change_nothing_before_them(
            setting in any_setting(),
            share in 0.02..1.0_f64,
            seed in any::<u64>(),
        ) {
            assert_same_past(&setting, share, Future::Other(seed));
        }
    }

    proptest! {
        #![proptest_config(cases(32))]

        #[test]
        fn prop_the_reference_variant_does_not_look_ahead(
            setting in only("mean_reversion_z_score"),
            mode in prop_oneof![Just("open"), Just("close")],
            stale in 0..5_u64,
            share in 0.02..1.0_f64,
            seed in any::<u64>(),
        ) {
            let setting = as_parity(&setting, mode, stale);
            assert_same_past(&setting, share, Future::Missing);
            assert_same_past(&setting, share, Future::Other(seed));
        }
    }
}

/// A change that reaches no run would make the tests above empty.
#[test]
fn another_future_is_another_future() {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut trading, mut changed) = (0, 0);
    for seed in 0..40 {
        let setting = any_setting().new_tree(&mut runner).unwrap().current();
        in_folder(|folder| {
            let whole = Seen::whole(&setting, &new_folder(folder, "whole"));
            if whole.run.trades().len() < 4 {
                return;
            }
            trading += 1;
            let (_, other) = whole.other(&setting, &new_folder(folder, "other"), 0.3, Future::Other(seed));
            let earned = |seen: &Seen| seen.run.outcome.walked.ledger.balance();
            changed += usize::from(earned(&whole) != earned(&other));
        });
    }
    assert!(trading >= 20 && changed + 2 >= trading, "{changed} of {trading} runs changed");
}
