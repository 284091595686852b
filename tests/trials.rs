//! Trials are pure: a result depends on data and setting only, not on what ran before, beside or instead of it.
//!
//! Design law 2 and §4.3: trials share columns, guard answers, masks and draws, and settings of equal `rules_hash` are
//! evaluated once. Both may change nothing, to the last bit.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they measured")]

mod support;

use engine::backtest::Environment;
use engine::backtest::walk::Walked;
use engine::metrics::Summary;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use support::in_folder;
use support::settings::{SCALES, Setting, cases, on_the_same_bars, record, setting};

/// What two equal runs must agree on.
fn result(environment: &Environment, setting: &Setting) -> ([u8; 8], Walked, Summary) {
    let prepared = support::prepare(environment, &setting.config());
    let outcome = record(&prepared).outcome;
    (prepared.rules_hash(), outcome.walked, outcome.summary)
}

mod property_tests {
    use super::*;

    proptest! {
        #![proptest_config(cases(32))]

        #[test]
        fn prop_trials_of_one_environment_do_not_touch_each_other(settings in on_the_same_bars(8)) {
            in_folder(|folder| {
                let bars = settings[0].bars();
                let alone: Vec<_> =
                    settings.iter().map(|setting| result(&setting.open(&bars, folder), setting)).collect();
                let shared = settings[0].open(&bars, folder);
                let (forwards, backwards) = std::thread::scope(|scope| {
                    let run = |order: Vec<usize>| {
                        let (shared, settings) = (&shared, &settings);
                        scope.spawn(move || -> Vec<_> {
                            order.into_iter().map(|k| (k, result(shared, &settings[k]))).collect()
                        })
                    };
                    let forwards = run((0..settings.len()).collect());
                    let backwards = run((0..settings.len()).rev().collect());
                    (forwards.join().unwrap(), backwards.join().unwrap())
                });
                for (k, together) in forwards.into_iter().chain(backwards) {
                    assert_eq!(together, alone[k], "setting {k}");
                }
            });
        }
    }
}

/// Keys that stand above the strategy and may differ between trials.
const AROUND: [&str; 8] = [
    "costs",
    "account",
    "sessions",
    "trade_management",
    "cooldown_candles",
    "cooldown_minutes",
    "cooldown_minutes_trade",
    "rng_seed",
];

/// `setting` with one value of `other`; none if the result is not admissible or nothing changes.
fn with_one_of(setting: &Setting, other: &Setting, key: &str) -> Option<Setting> {
    let mut changed = setting.clone();
    let (target, source) = match AROUND.contains(&key) {
        true => (&mut changed.document, &other.document),
        false => (&mut changed.document["strategy_parameters"], &other.document["strategy_parameters"]),
    };
    if target[key] == source[key] {
        return None;
    }
    target[key] = source[key].clone();
    let config = changed.config();
    let family = engine::strategy::find(&config.strategy_name).unwrap();
    family.build(&config.strategy_parameters, &config.build_context()).is_ok().then_some(changed)
}

/// Equal `rules_hash`, equal result; and what is not read is not in it.
#[test]
fn equal_rules_hash_means_equal_results() {
    let mut runner = TestRunner::deterministic();
    let (mut equal, mut different) = (0, 0);
    for _ in 0..40 {
        let pair = on_the_same_bars(1)
            .prop_flat_map(|one| {
                let name = one[0].config().strategy_name;
                let name = engine::strategy::find(&name).unwrap().name();
                (Just(one[0].clone()), setting(name, one[0].scale))
            })
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let (one, other) = pair;
        let names: Vec<String> =
            one.document["strategy_parameters"].as_object().unwrap().keys().map(String::clone).collect();
        in_folder(|folder| {
            let environment = one.open(&one.bars(), folder);
            let base = result(&environment, &one);
            for key in AROUND.into_iter().map(str::to_owned).chain(names) {
                let Some(changed) = with_one_of(&one, &other, &key) else { continue };
                let found = result(&environment, &changed);
                if found.0 == base.0 {
                    equal += 1;
                    assert_eq!(
                        found, base,
                        "`{key}` is not in rules_hash, yet changes the result\n{one:?}\n{changed:?}"
                    );
                } else {
                    different += 1;
                }
            }
        });
    }
    println!("{equal} changes that no rule reads, {different} that one does");
    assert!(equal > 100 && different > 200, "{equal} equal, {different} different");
}

/// The local z of scenario 4 restarts in a window of `local_z_lookback` closes, or of all closes so far where these are
/// fewer: 61 on the first tradable bar here. It needs `garch_min_periods + 2` of them, so up to 59 the parameter holds no
/// tradable bar back, and from 60 on it does.
#[test]
fn a_min_periods_that_every_window_satisfies_separates_no_settings() {
    let scale = SCALES[2];
    assert_eq!(scale.warmup, 60);
    let hash_of = |min_periods: u64, lookback: u64, z: f64| {
        let document = serde_json::json!({
            "strategy_name": "mean_reversion_z_score",
            "symbol": "EURUSD",
            "start_date": scale.start,
            "end_date": "2020-12-31",
            "warmup_bars": scale.warmup,
            "rng_seed": 1,
            "timeframes": {"primary": "H1"},
            "strategy_parameters": {
                "enabled_scenarios": [4], "b_b_length": 20, "std_factor": 0.5, "htf_tf": "NONE", "extra_htf_tf": "NONE",
                "z_score_long": z, "z_score_short": -z, "kalman_r": 0.4, "kalman_q": 0.1,
                "local_z_lookback": lookback, "garch_min_periods": min_periods,
            },
        });
        let setting = Setting { scale, seed: 1, costs: 0, document };
        in_folder(|folder| result(&setting.open(&setting.bars(), folder), &setting))
    };
    let base = hash_of(0, 150, -0.2);
    assert!(base.1.trades.len() > 20, "{} trades", base.1.trades.len());
    for min_periods in [1, 40, 59] {
        assert_eq!(hash_of(min_periods, 150, -0.2), base, "min_periods {min_periods}");
    }
    assert_ne!(hash_of(60, 150, -0.2).0, base.0);
    // A window of 40 closes is full long before, and bounds the parameter itself.
    let short = hash_of(0, 40, -0.2);
    assert_eq!(hash_of(38, 40, -0.2), short);
    assert_ne!(short.0, base.0);
    // The other parameters still separate.
    assert_ne!(hash_of(0, 150, -0.3).0, base.0);
}
