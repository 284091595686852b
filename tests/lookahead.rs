//! A future that is cut off or changed leaves the past alone, to the last bit.
//!
//! For every registered strategy with random settings, higher-timeframe filters, volatility clusters, local z-scores and
//! timeframe chains included. Of other timeframes only what had ended by the cut is kept unchanged: the bar that is still
//! forming belongs to the future. Design law 5; execution specification §2, indicators §4.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests fail loudly and talk"
)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they measured")]

mod support;

use std::path::Path;

use engine::portfolio::Trade;
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

fn run(setting: &Setting, bars: &Path) -> Run {
    in_folder(|folder| {
        let environment = setting.open(bars, folder);
        record(&support::prepare(&environment, &setting.config()))
    })
}

/// The first tradable bar and the run.
fn whole_run(setting: &Setting) -> (usize, Run) {
    in_folder(|folder| {
        let environment = setting.open(&setting.bars(), folder);
        let prepared = support::prepare(&environment, &setting.config());
        (prepared.plan().bars.start, record(&prepared))
    })
}

/// The run with another future from `share` of its tradable bars on; the number of tradable bars before.
fn with_future(setting: &Setting, whole: &Run, share: f64, future: Future) -> (usize, Run) {
    let kept = ((whole.equity.len() - 1) as f64 * share) as usize + 1;
    let now = whole.equity[kept - 1].time_ns + setting.scale.primary.duration_ns();
    in_folder(|folder| {
        future.write(&setting.bars(), folder, setting.scale, now);
        (kept, run(setting, folder))
    })
}

fn assert_same_past(setting: &Setting, share: f64, future: Future) {
    let (first, whole) = whole_run(setting);
    let (mut kept, other) = with_future(setting, &whole, share, future);
    let windowed = !setting.document["trade_window"].is_null();
    if windowed && future == Future::Missing {
        // What is open is closed on the last bar there is, which belongs to the cut.
        kept -= 1;
    }
    let closed = |run: &Run| -> Vec<Trade> {
        run.trades().iter().filter(|trade| trade.exit_bar < first + kept).copied().collect()
    };
    assert_eq!(closed(&whole), closed(&other), "trades before bar {}", first + kept);
    let entered = |run: &Run| -> Vec<_> {
        run.entered.iter().filter(|position| position.entry_bar < first + kept).cloned().collect()
    };
    assert_eq!(entered(&whole), entered(&other), "entries before bar {}", first + kept);
    assert_eq!(whole.equity[..kept], other.equity[..kept], "equity before bar {}", first + kept);
    if future == Future::Missing && !windowed {
        assert_eq!(other.equity.len(), kept);
        assert_eq!(closed(&whole).len(), other.trades().len(), "an exact prefix");
    }
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
        let (_, whole) = whole_run(&setting);
        if whole.trades().len() < 4 {
            continue;
        }
        trading += 1;
        let (_, other) = with_future(&setting, &whole, 0.3, Future::Other(seed));
        changed += usize::from(whole.equity.last().map(|p| p.equity) != other.equity.last().map(|p| p.equity));
    }
    assert!(trading >= 20 && changed + 2 >= trading, "{changed} of {trading} runs changed");
}
