//! Scenarios asked at single bars made by hand: each inequality at equality, every operand undefined, levels.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{BuildContext, ColumnView, Strategy, Variant};
use super::statements::{build_in, context};
use crate::indicators::ColumnKey;
use crate::rules::{BoundRules, Hit, LateGuard};
use crate::units::{Direction, Timeframe};

/// One bar: values by column name.
#[derive(Clone)]
struct Bar(BTreeMap<String, f64>);

struct View(BTreeMap<ColumnKey, Vec<f64>>);

impl ColumnView for View {
    fn column(&self, key: &ColumnKey) -> Option<&[f64]> {
        self.0.get(key).map(Vec::as_slice)
    }
}

impl Bar {
    fn new(values: &[(&str, f64)]) -> Self {
        Self(values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
    }

    fn with(&self, name: &str, value: f64) -> Self {
        assert!(self.0.contains_key(name), "no column {name}");
        let mut bar = self.clone();
        bar.0.insert(name.to_owned(), value);
        bar
    }

    /// What the strategy does at the bar, all late guards passing.
    fn ask(&self, strategy: &dyn Strategy) -> Option<Hit> {
        let columns = strategy.columns().into_iter().map(|key| {
            let name = key.to_string();
            let value = self.0.get(&name).unwrap_or_else(|| panic!("the bar has no {name}"));
            (key, vec![*value])
        });
        let view = View(columns.collect());
        let mut rules = strategy.rules().unwrap().clone();
        rules.rules.iter_mut().for_each(|rule| rule.guards.clear());
        BoundRules::bind(&rules, &view, None).unwrap().first(0)
    }

    /// A signal as it is, none with any one column undefined.
    fn needs_every_column(&self, strategy: &dyn Strategy) {
        assert!(self.ask(strategy).is_some());
        for name in self.0.keys() {
            assert_eq!(self.with(name, f64::NAN).ask(strategy), None, "{name} undefined");
        }
    }
}

fn build(mut parameters: Value) -> Box<dyn Strategy> {
    let small =
        json!({"ema_length": 3, "window_length": 4, "atr_length": 5, "b_b_length": 6, "kalman_r": 1, "kalman_q": 1});
    parameters.as_object_mut().unwrap().extend(small.as_object().unwrap().clone());
    let context = BuildContext { additional: Vec::new(), ..context(Variant::V2) };
    build_in(&parameters, &context).unwrap()
}

const Z1: &str = "z_ema(window 4, ema 3)@M5:bid";
const Z2: &str = "kalman_z(window 4, r 1, q 1)@M5:bid";
const CLOSE: &str = "close@M5:bid";

/// Exactly on every boundary of scenario 2: z at its threshold, close on the band.
fn on_the_edge(direction: Direction) -> Bar {
    let d = direction.sign();
    let extreme = if direction == Direction::Long { "low@M5:bid" } else { "high@M5:bid" };
    Bar::new(&[
        (Z2, -2.5 * d),
        (CLOSE, 10.0 - d),
        ("rolling_mean(6)@M5:bid", 10.0),
        ("rolling_sd(6)@M5:bid", 0.5),
        (extreme, 10.0 - 2.0 * d),
        ("atr(5)@M5:bid", 0.25),
    ])
}

fn scenario(number: u8, direction: Direction, more: Value) -> Box<dyn Strategy> {
    let mut parameters = json!({"enabled_scenarios": [number], "direction_filter": direction.as_str()});
    parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    build(parameters)
}

/// The next number towards the mean, where a condition of `direction` must fail.
fn inwards(value: f64, direction: Direction) -> f64 {
    if direction == Direction::Long { value.next_up() } else { value.next_down() }
}

const BOTH: [Direction; 2] = [Direction::Long, Direction::Short];

#[test]
fn scenario_2_includes_its_boundaries_and_needs_every_column() {
    for direction in BOTH {
        let strategy = scenario(2, direction, json!({}));
        let (bar, d) = (on_the_edge(direction), direction.sign());
        let hit = bar.ask(&*strategy).unwrap();
        assert_eq!((hit.stop, hit.target), (Some(10.0 - 2.5 * d), Some(10.0)));
        for (name, edge) in [(Z2, -2.5 * d), (CLOSE, 10.0 - d)] {
            assert_eq!(bar.with(name, inwards(edge, direction)).ask(&*strategy), None, "{name}");
        }
        for infinite in [f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(bar.with(Z2, infinite).ask(&*strategy), None);
        }
        bar.needs_every_column(&*strategy);
    }
}

/// The stop of a short is the only level that hangs on the ask: its ATR.
#[test]
fn scenario_1_short_takes_the_atr_of_the_ask() {
    let bar = Bar::new(&[
        (Z1, 2.5),
        ("ema(3)@M5:bid", 9.0),
        ("low@M5:bid", 9.5),
        ("high@M5:bid", 11.0),
        ("atr(5)@M5:bid", 0.25),
        ("atr(5)@M5:ask", 0.75),
    ]);
    let both = build(json!({"enabled_scenarios": [1]}));
    let hit = bar.ask(&*both).unwrap();
    assert_eq!((hit.rule, hit.stop, hit.target), (0, Some(12.5), Some(9.0)));
    let hit = bar.with(Z1, -2.5).ask(&*both).unwrap();
    assert_eq!((hit.rule, hit.stop, hit.target), (1, Some(9.0), Some(9.0)));
    for direction in BOTH {
        let strategy = scenario(1, direction, json!({}));
        let at = bar.with(Z1, -2.5 * direction.sign());
        assert!(at.ask(&*strategy).is_some());
        assert_eq!(bar.with(Z1, 2.5 * direction.sign()).ask(&*strategy), None, "the other side is filtered out");
        assert_eq!(at.with(Z1, inwards(-2.5 * direction.sign(), direction)).ask(&*strategy), None);
        assert_eq!(at.with("ema(3)@M5:bid", f64::NAN).ask(&*strategy), None);
    }
    assert_eq!(bar.with("atr(5)@M5:ask", f64::NAN).ask(&*both), None);
}

#[test]
fn scenario_3_wants_more_than_the_distance() {
    for direction in BOTH {
        let strategy = scenario(3, direction, json!({"tp_min_distance": 0.5}));
        let d = direction.sign();
        let mut bar = on_the_edge(direction);
        let close = 10.0 - d;
        if direction == Direction::Long {
            bar.0.insert("close@M5:ask".to_owned(), close);
        }
        bar.0.insert("ema(3)@M5:bid".to_owned(), close + 0.5 * d);
        assert_eq!(bar.ask(&*strategy), None, "exactly the distance is too near");
        let further = if direction == Direction::Long { 9.5_f64.next_up() } else { 10.5_f64.next_down() };
        let far = bar.with("ema(3)@M5:bid", further);
        assert_eq!(far.ask(&*strategy).unwrap().target, Some(further));
        far.needs_every_column(&*strategy);
    }
}

#[test]
fn scenario_4_reads_its_own_z() {
    let z = "kalman_garch_z(r 1, q 1, alpha 0.05, beta 0.9, min_periods 50)@M5:bid";
    for direction in BOTH {
        let strategy = scenario(4, direction, json!({}));
        let mut bar = on_the_edge(direction);
        bar.0.remove(Z2);
        bar.0.insert(z.to_owned(), -2.5 * direction.sign());
        bar.needs_every_column(&*strategy);
        assert_eq!(bar.with(z, inwards(-2.5 * direction.sign(), direction)).ask(&*strategy), None);
        let local = scenario(4, direction, json!({"local_z_lookback": 60}));
        assert!(bar.ask(&*local).is_some());
        let guard = &local.rules().unwrap().rules[0].guards[0];
        assert!(matches!(guard, LateGuard::LocalKalmanGarchZ { lookback: 60, .. }), "{guard:?}");
    }
}

#[test]
fn scenario_5_asks_its_guard_last() {
    for direction in BOTH {
        let strategy = scenario(5, direction, json!({}));
        assert!(on_the_edge(direction).ask(&*strategy).is_some());
        let guard = &strategy.rules().unwrap().rules[0].guards[0];
        assert!(matches!(guard, LateGuard::VolCluster { window: 300, .. }), "{guard:?}");
    }
}

#[test]
fn trend_filters_exclude_equality_and_do_not_depend_on_the_side() {
    for direction in BOTH {
        for (mode, passing) in [("above", 2.0), ("below", 0.5)] {
            let strategy = scenario(2, direction, json!({"htf_filter": mode}));
            let mut bar = on_the_edge(direction);
            bar.0.insert("close@D1:bid".to_owned(), passing);
            bar.0.insert("ema(100)@D1:bid".to_owned(), 1.0);
            bar.needs_every_column(&*strategy);
            assert_eq!(bar.with("close@D1:bid", 1.0).ask(&*strategy), None, "equal is neither");
        }
    }
}

/// Overlays at equality; one failing timeframe stops `all` and not `any`.
#[test]
fn scenario_6_joins_timeframes() {
    for direction in BOTH {
        let d = direction.sign();
        let mut bar = on_the_edge(direction);
        for timeframe in [Timeframe::H1, Timeframe::H4] {
            for (name, value) in [
                ("kalman_z(window 4, r 1, q 1)", -2.5 * d),
                ("close", 20.0 - d),
                ("rolling_mean(6)", 20.0),
                ("rolling_sd(6)", 0.5),
            ] {
                bar.0.insert(format!("{name}@{timeframe}:bid"), value);
            }
        }
        let chain =
            |mode: &str| scenario(6, direction, json!({"scenario6_mode": mode, "scenario6_timeframes": ["H1", "H4"]}));
        let (all, any) = (chain("all"), chain("any"));
        bar.needs_every_column(&*all);
        for (name, edge) in [("kalman_z(window 4, r 1, q 1)@H4:bid", -2.5 * d), ("close@H4:bid", 20.0 - d)] {
            let one_fails = bar.with(name, inwards(edge, direction));
            assert_eq!(one_fails.ask(&*all), None);
            assert!(one_fails.ask(&*any).is_some());
            let both_fail = one_fails.with("close@H1:bid", f64::NAN);
            assert_eq!(both_fail.ask(&*any), None);
        }
    }
}

/// A rule whose level is undefined gives way to the next one.
#[test]
fn an_undefined_level_lets_the_next_scenario_try() {
    let strategy = build(json!({"enabled_scenarios": [1, 2], "direction_filter": "long"}));
    let mut bar = on_the_edge(Direction::Long);
    bar.0.insert(Z1.to_owned(), -3.0);
    bar.0.insert("ema(3)@M5:bid".to_owned(), 9.0);
    assert_eq!(bar.ask(&*strategy).unwrap().rule, 0);
    assert_eq!(bar.with("ema(3)@M5:bid", f64::NAN).ask(&*strategy).unwrap().rule, 1);
}
