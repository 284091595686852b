//! Lattice points, constraints and trial numbers against brute force.

use std::sync::{Arc, LazyLock};

use engine::strategy::ParamKind;
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::axis::{Member, Values};
use super::constraint::{Origin, Slot, Test};
use super::index::FeasibleIndex;
use super::value::{ValueKind, ValueType};
use super::*;
use crate::expression::{Expression, Type};
use crate::search::{Search, Trials};

/// Axes `a0`, `a1`, … with the values 0, 1, ….
pub(crate) fn space(lens: &[u32], constraints: &[&str]) -> Space {
    let axes = lens
        .iter()
        .enumerate()
        .map(|(number, len)| Axis {
            members: vec![Member {
                name: format!("a{number}"),
                target: Target::Parameter(format!("a{number}")),
                value_type: ValueType {
                    kind: ValueKind::Param(ParamKind::Int { min: 0, max: i64::MAX }),
                    nullable: false,
                },
                values: Values::lattice(Decimal::ZERO, Decimal::from(len - 1), Decimal::ONE, true).unwrap(),
            }],
        })
        .collect();
    let space = Space::new(axes).unwrap();
    let bound = constraints
        .iter()
        .map(|text| {
            let expression = Expression::parse(text, "axis", &|_| Ok(Type::Number)).unwrap();
            let slots = expression
                .names()
                .iter()
                .map(|name| {
                    let (axis, member) = space.find(name).unwrap();
                    Slot::Axis { axis, member }
                })
                .collect();
            let test = Test::Expression { expression, slots };
            Constraint::new((*text).to_owned(), Origin::Grid, None, test, space.axes())
        })
        .collect();
    space.with_constraints(bound)
}

fn brute_force(space: &Space) -> Vec<u128> {
    (0..space.size()).filter(|index| space.is_feasible(&space.value_index(*index))).collect()
}

#[test]
fn the_last_axis_is_fastest() {
    let space = space(&[2, 3], &[]);
    let values: Vec<String> = (0..6)
        .map(|index| space.values(&space.setting(0, index)).iter().map(Value::to_string).collect::<String>())
        .collect();
    assert_eq!(values, ["00", "01", "02", "10", "11", "12"]);
}

#[test]
fn a_setting_is_put_into_the_config() {
    let space = space(&[4, 5], &[]);
    let mut config = serde_json::json!({"symbol": "EURUSD", "strategy_parameters": {"a1": 9, "x": 1}});
    space.apply(&space.setting(7, 13), &mut config);
    assert_eq!(config.to_string(), r#"{"strategy_parameters":{"a0":2,"a1":3,"x":1},"symbol":"EURUSD"}"#);
    let target = Target::Config("trade_management.rules.max_holding_time.max_holding_minutes".to_owned());
    let mut config = serde_json::json!({"trade_management": {"rules": []}});
    put(&mut config, &target, Value::from(30));
    assert_eq!(config.to_string(), r#"{"trade_management":{"rules":{"max_holding_time":{"max_holding_minutes":30}}}}"#);
}

#[test]
fn lattices_of_128_bits_are_addressed_and_larger_ones_refused() {
    let large = space(&[10_000_000; 5], &[]);
    assert_eq!(large.size(), 10_u128.pow(35));
    let index = 98_765_432_109_876_543_210_987_654_321_012_345;
    assert_eq!(large.lattice_index(&large.value_index(index)), index);
    let axes = (0..6).map(|_| large.axes()[0].clone()).collect();
    assert!(Space::new(axes).is_none());
}

#[test]
fn free_axes_are_not_counted() {
    // Only the two axes in the middle are read: a core of 10^4 points stands for 10^16.
    let space = space(&[1_000_000, 100, 100, 1_000_000], &["a1 < a2"]);
    let index = FeasibleIndex::new(&space).unwrap();
    assert_eq!(index.feasible(), 4950 * 10_u128.pow(12));
    assert_eq!(index.broken(), [5050 * 10_u128.pow(12)]);
    let lattice = index.lattice_index(&space, 4_123_456_789_012_345).unwrap();
    assert!(space.is_feasible(&space.value_index(lattice)));
    assert_eq!(index.trial_of(&space, lattice), Some(4_123_456_789_012_345));
}

#[test]
fn a_constraint_over_many_points_is_not_tabulated_and_still_counted() {
    // 2100^2 combinations exceed the table; the count must agree with the closed form.
    let space = space(&[2100, 2100], &["a0 < a1"]);
    assert_eq!(space.constraints()[0].broken_combinations(), None);
    let index = FeasibleIndex::new(&space).unwrap();
    assert_eq!((index.feasible(), index.broken()), (2100 * 2099 / 2, &[2100 * 2101 / 2][..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Number → point → number, in canonical order, exactly the feasible points.
    #[test]
    fn prop_trials_are_the_feasible_points_in_order(
        lens in prop::collection::vec(1_u32..9, 2..5),
        pick in 0_usize..5,
    ) {
        let texts: [&[&str]; 5] =
            [&[], &["a0 <= a1"], &["a1 != 2", "a0 + a1 > 1"], &["a0 * 3 >= a1 or a1 == 4"], &["a1 < 2"]];
        let space = Arc::new(space(&lens, texts[pick]));
        let expected = brute_force(&space);
        let Ok(trials) = Trials::new(Arc::clone(&space), Search::Grid, 0) else {
            prop_assert!(expected.is_empty());
            return Ok(());
        };
        prop_assert_eq!(trials.len(), expected.len() as u64);
        for (trial, index) in expected.iter().enumerate() {
            let setting = trials.setting(trial as u64).unwrap();
            prop_assert_eq!(setting.lattice_index, *index);
            prop_assert_eq!(space.lattice_index(&setting.value_index), *index);
            prop_assert_eq!(trials.trial_of(*index), Some(trial as u64));
        }
        prop_assert_eq!(trials.setting(trials.len()), None);
        let walked: Vec<u128> = trials.settings(0..u64::MAX).map(|setting| setting.lattice_index).collect();
        prop_assert_eq!(&walked, &expected);
        let from = trials.len() / 2;
        let later: Vec<u64> = trials.settings(from..trials.len()).map(|setting| setting.trial).collect();
        prop_assert_eq!(later, (from..trials.len()).collect::<Vec<_>>());
        let infeasible = (0..space.size()).find(|index| !expected.contains(index));
        if let Some(index) = infeasible {
            prop_assert_eq!(trials.trial_of(index), None);
        }
    }

    /// Many blocks: the rank has a closed form.
    #[test]
    fn prop_large_cores_are_found_by_block(trial in 0_u64..7 * 499_500) {
        static COUNTED: LazyLock<(Space, FeasibleIndex)> = LazyLock::new(|| {
            let space = space(&[7, 1000, 1000], &["a1 < a2"]);
            let index = FeasibleIndex::new(&space).unwrap();
            (space, index)
        });
        let (space, index) = &*COUNTED;
        let lattice = index.lattice_index(space, trial).unwrap();
        prop_assert_eq!(index.trial_of(space, lattice), Some(trial));
        let point = space.value_index(lattice);
        let (x, y) = (u64::from(point[1]), u64::from(point[2]));
        let rank = x * 999 - x * x.saturating_sub(1) / 2 + (y - x - 1);
        prop_assert_eq!(u64::from(point[0]) * 499_500 + rank, trial);
    }
}
