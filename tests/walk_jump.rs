//! Both ways of running a backtest give the same trades and the same metrics, to the last bit; which one ran is asserted.
//!
//! Design law 1 and §4.1. Every registered strategy with random settings on bars that trend, stand still, jump and share
//! highs and lows; alone and in tiles that share conditions, exit tables and windows.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they measured")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use engine::backtest::tile::{Evaluated, Job, WalkReason, Workspace};
use engine::backtest::walk::Nobody;
use engine::backtest::{Outcome, Prepared};
use engine::error::Error;
use engine::execution::ExitReason;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use support::candles::Candles;
use support::in_folder;
use support::settings::{Scale, Setting, cases, on_the_same_bars};

/// What the bars look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// As generated.
    Plain,
    /// Rising or falling throughout.
    Trending(bool),
    /// On a coarse price grid: bars without a range, equal highs and lows, levels hit exactly.
    Coarse,
    /// Bars left out, and prices that open elsewhere.
    Gapped,
}

const SHAPES: [Shape; 5] = [Shape::Plain, Shape::Trending(true), Shape::Trending(false), Shape::Coarse, Shape::Gapped];

fn scatter(row: usize) -> usize {
    row.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}

impl Shape {
    fn apply(self, candles: &Candles) -> Candles {
        let mut changed = candles.clone();
        let rows = candles.time.len();
        let factor: Vec<f64> = match self {
            Self::Plain | Self::Coarse => vec![1.0; rows],
            Self::Trending(up) => (0..rows).map(|row| 1.0 + if up { 4e-5 } else { -4e-5 } * row as f64).collect(),
            Self::Gapped => {
                let mut level = 1.0;
                let step = |row: usize| (scatter(row) % 200) as f64 / 100.0 - 1.0;
                (0..rows)
                    .map(|row| {
                        level *= if row % 23 == 0 { 1.0 + 0.004 * step(row) } else { 1.0 };
                        level
                    })
                    .collect()
            }
        };
        for column in [&mut changed.open, &mut changed.high, &mut changed.low, &mut changed.close] {
            column.iter_mut().zip(&factor).for_each(|(price, factor)| *price *= factor);
            if self == Self::Coarse {
                column.iter_mut().for_each(|price| *price = (*price * 2000.0).round() / 2000.0);
            }
        }
        match self {
            Self::Gapped => changed.filter(|_, row| !scatter(row + 7).is_multiple_of(9)),
            _ => changed,
        }
    }

    /// A folder of such bars, made once.
    fn write(self, from: &Path, scale: Scale) -> PathBuf {
        if self == Self::Plain {
            return from.to_owned();
        }
        let name = format!("{}_{self:?}", from.file_name().unwrap().to_string_lossy());
        let root = from.with_file_name(name);
        if !root.exists() {
            let fresh = tempfile::tempdir_in(from.parent().unwrap()).unwrap();
            for timeframe in [scale.primary, scale.longer] {
                for side in ["BID", "ASK"] {
                    let name = format!("EURUSD/EURUSD_{timeframe}_{side}.parquet");
                    self.apply(&Candles::read(&from.join(&name))).write(&fresh.path().join(name));
                }
            }
            // Another process may have been faster; the bytes are the same.
            if std::fs::rename(fresh.path(), &root).is_ok() {
                let _ = fresh.keep();
            }
        }
        root
    }
}

/// How often each thing was seen, so that the test says what it covered.
static SEEN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

fn seen(what: impl Into<String>, count: u64) {
    *SEEN.lock().unwrap().entry(what.into()).or_default() += count;
}

fn walk(setting: &Prepared, job: &Job<'_>) -> Result<Outcome, Error> {
    let mut plan = setting.plan().clone();
    plan.bars = job.bars.clone();
    plan.close_at_end = job.close_at_end;
    setting.judge(setting.walk_on(&plan, Vec::new(), &mut Nobody)?)
}

/// Every number by its bits.
fn bits(evaluated: &Evaluated) -> Vec<(&'static str, Option<u64>)> {
    let values = evaluated.values.iter();
    values.map(|(metric, value)| (metric.def().key, value.map(f64::to_bits))).collect()
}

fn same(expected: &Result<Outcome, Error>, found: &Result<Evaluated, Error>, what: &dyn Fn() -> String) {
    match (expected, found) {
        (Ok(walked), Ok(jumped)) => {
            let walked = Evaluated { values: walked.summary.values, counters: walked.walked.counters };
            assert_eq!(jumped.counters, walked.counters, "{}", what());
            assert_eq!(bits(jumped), bits(&walked), "{}", what());
        }
        (Err(walked), Err(jumped)) => assert_eq!(walked.to_string(), jumped.to_string(), "{}", what()),
        _ => panic!("walked {expected:?}, jumped {found:?}, {}", what()),
    }
}

/// What must jump by design §4.1: the registered strategies are all rules without a management of their own.
fn expected_reason(setting: &Setting) -> Option<WalkReason> {
    (setting.document["account"]["max_positions"] != 1).then_some(WalkReason::SeveralPositions)
}

/// Some settings again under the costs and the account of others: equal rules, hence equal exits, under other terms.
fn with_twins(settings: &[Setting]) -> Vec<Setting> {
    let twins = settings.iter().zip(settings.iter().skip(1)).step_by(5).map(|(setting, other)| {
        let mut twin = setting.clone();
        for section in ["costs", "account"] {
            twin.document[section] = other.document[section].clone();
        }
        twin
    });
    settings.iter().cloned().chain(twins).collect()
}

fn check(settings: &[Setting], shape: Shape, cuts: &[(u16, u16, bool)], folder: &Path) {
    let settings = &with_twins(settings)[..];
    let bars = shape.write(&settings[0].bars(), settings[0].scale);
    let environment = settings[0].open(&bars, folder);
    let prepared: Vec<Prepared> =
        settings.iter().map(|setting| support::prepare(&environment, &setting.config())).collect();
    let mut jobs: Vec<(usize, Job<'_>)> = Vec::new();
    for (at, setting) in prepared.iter().enumerate() {
        jobs.push((at, Job::whole(setting)));
        let plan = setting.plan();
        let first = environment.data().market.first_tradable;
        let len = environment.data().market.bars.len() - first;
        for (from, length, close_at_end) in cuts.iter().skip(at % 2) {
            let start = first + usize::from(*from) * len / (1 << 16);
            let end = (start + 1 + usize::from(*length) * len / (1 << 17)).min(first + len);
            jobs.push((at, Job { setting, bars: start..end, close_at_end: *close_at_end }));
        }
        assert_eq!(setting.why_walk(), expected_reason(&settings[at]));
        seen(if plan.terms.slippage.is_fixed() { "fixed slippage" } else { "random slippage" }, 1);
    }
    let tile: Vec<Job<'_>> = jobs.iter().map(|(_, job)| job.clone()).collect();
    let mut workspace = Workspace::default();
    // Half of the conditions as whole masks, the others piece by piece.
    let together = workspace.run(&tile, &|condition| condition.finite);
    let jumping = tile.iter().filter(|job| job.setting.why_walk().is_none()).count() as u64;
    assert_eq!((workspace.work().jumped, workspace.work().walked), (jumping, tile.len() as u64 - jumping));
    seen("jobs jumped", jumping);
    for ((at, job), found) in jobs.iter().zip(&together) {
        let what = || format!("job {:?} of {shape:?}: {:?}", job.bars, settings[*at]);
        let expected = walk(&prepared[*at], job);
        same(&expected, found, &what);
        match (workspace.jump_with_trades(job), job.setting.why_walk()) {
            (Some(alone), None) => {
                let (evaluated, trades) = match alone {
                    Ok((evaluated, trades)) => (Ok(evaluated), trades),
                    Err(error) => (Err(error), Vec::new()),
                };
                same(&expected, &evaluated, &what);
                if let Ok(walked) = &expected {
                    assert_eq!(trades, walked.walked.trades, "{}", what());
                    count(&walked.walked.trades, walked);
                }
            }
            (None, Some(_)) => {}
            (alone, reason) => panic!("{reason:?} but {alone:?}, {}", what()),
        }
    }
}

fn count(trades: &[engine::portfolio::Trade], outcome: &Outcome) {
    let counters = &outcome.walked.counters;
    seen("trades", trades.len() as u64);
    seen("refused", counters.orders_rejected);
    seen("open at the end", counters.open_positions_at_end);
    for reason in
        [ExitReason::TakeProfit, ExitReason::StopLoss, ExitReason::Timeout, ExitReason::Signal, ExitReason::WindowEnd]
    {
        seen(reason.as_str(), trades.iter().filter(|trade| trade.reason == reason).count() as u64);
    }
}

mod property_tests {
    use super::*;

    proptest! {
        #![proptest_config(cases(96))]

        #[test]
        fn prop_walk_and_jump_agree_to_the_bit(
            settings in on_the_same_bars(60),
            shape in prop::sample::select(SHAPES.to_vec()),
            cuts in prop::collection::vec(any::<(u16, u16, bool)>(), 6),
        ) {
            in_folder(|folder| check(&settings, shape, &cuts, folder));
        }
    }

    /// Runs after the property has been tried (tests of a binary may run at once, so it tries it on its own).
    #[test]
    fn the_cases_cover_every_way_out() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for shape in SHAPES {
            let settings = on_the_same_bars(60).new_tree(&mut runner).unwrap().current();
            let cuts = [(0, 30_000, true), (20_000, 60_000, false), (40_000, 9_000, true), (65_000, 65_535, true)];
            in_folder(|folder| check(&settings, shape, &cuts, folder));
        }
        let seen = SEEN.lock().unwrap();
        println!("{seen:?}");
        for what in [
            "take_profit",
            "stop_loss",
            "timeout",
            "signal",
            "window_end",
            "refused",
            "open at the end",
            "fixed slippage",
            "random slippage",
        ] {
            assert!(seen.get(what).is_some_and(|count| *count > 20), "{what}: {seen:?}");
        }
    }
}
