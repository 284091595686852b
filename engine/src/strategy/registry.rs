//! Which strategies exist.

use super::{DonchianBreakout, Family, MeanReversionZScore, RsiReversion, SmaCross};
use crate::error::{Error, nearest};

static FAMILIES: [&dyn Family; 4] = [&MeanReversionZScore, &SmaCross, &DonchianBreakout, &RsiReversion];

/// Every registered strategy, in the order in which they are shown.
pub fn families() -> &'static [&'static dyn Family] {
    &FAMILIES
}

/// The strategy of that name.
///
/// # Errors
/// [`Error::StrategyNotFound`] with every name and the nearest one.
pub fn find(name: &str) -> Result<&'static dyn Family, Error> {
    FAMILIES.iter().copied().find(|family| family.name() == name).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.name()).collect();
        Error::StrategyNotFound {
            name: name.to_owned(),
            nearest: nearest(name, known.iter().copied()).map(str::to_owned),
            known: known.into_iter().map(str::to_owned).collect(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_told_the_nearest() {
        let error = find("mean_reversion_zscore").err().unwrap();
        assert_eq!(error.code(), "E4001");
        assert_eq!(error.hint().as_deref(), Some("did you mean `mean_reversion_z_score`?"));
        assert_eq!(
            error.to_string(),
            "strategy `mean_reversion_zscore` is not registered; known: mean_reversion_z_score, sma_cross, \
             donchian_breakout, rsi_reversion"
        );
    }

    /// What `omega-opt strategies` shows is complete, and declarations agree with themselves.
    #[test]
    fn declarations_are_sound() {
        for family in families() {
            assert_eq!(find(family.name()).unwrap().name(), family.name());
            assert!(!family.summary().is_empty() && !family.version().is_empty());
            let mut names: Vec<&str> = family.parameters().iter().map(|spec| spec.name).collect();
            for spec in family.parameters() {
                assert!(!spec.doc.is_empty(), "{} {}", family.name(), spec.name);
                let default = spec.default.to_value();
                if !default.is_null() {
                    super::super::check_value(spec, &default).unwrap();
                }
            }
            for constraint in family.constraints() {
                assert!(constraint.parameters.iter().all(|name| names.contains(name)), "{}", constraint.text);
            }
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), family.parameters().len(), "{}: a name twice", family.name());
        }
    }
}

#[cfg(test)]
mod property_tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::strategy::{BuildContext, Variant};
    use crate::units::Timeframe;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3_i64..400).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-3.0..3.0).prop_map(Value::from),
            proptest::sample::select(vec!["", "long", "above", "none", "H1", "AUTO", "low", "any", "atr_points", "é_"])
                .prop_map(Value::from),
            proptest::sample::select(vec![
                json!([]),
                json!([1]),
                json!([3, 6]),
                json!(["H1", "PRIMARY"]),
                json!(["cluster_5", "mid"]),
                json!({}),
                json!({"H1": {"long": {"z_score": 1}}, "PRIMARY": {"std_factor": 0}}),
                json!({"*/*": {"long": {"ema_length": 5}}, "EURUSD/M5": {"scenario6_timeframes": ["D1"]}}),
                json!({"x": 1}),
            ]),
        ]
    }

    fn any_key() -> impl Strategy<Value = String> {
        let mut keys: Vec<String> =
            families().iter().flat_map(|family| family.parameters()).map(|spec| spec.name.to_owned()).collect();
        for more in [
            "scenario6_H1_long_std_factor",
            "SCENARIO6_primary_SHORT_Z_SCORE",
            "scenario6_H1_long_",
            "scenario6_é_long_z_score",
            "overrides.*/*.short.atr_mult",
            "overrides./.",
            "overrides.EURUSD/M5.long.scenario6_mode",
            "",
        ] {
            keys.push(more.to_owned());
        }
        proptest::sample::select(keys)
    }

    proptest! {
        /// Whatever is given, the answer is a strategy with rules over declared columns, or violations.
        #[test]
        fn prop_any_parameters_build_or_are_refused(
            given in proptest::collection::btree_map(any_key(), any_value(), 0..8),
            parity in any::<bool>(),
            number in 0_usize..4,
        ) {
            let given: Map<String, Value> = given.into_iter().collect();
            let context = BuildContext {
                symbol: "EURUSD".to_owned(),
                primary: Timeframe::M5,
                additional: vec![Timeframe::H1],
                variant: if parity { Variant::V1Parity } else { Variant::V2 },
                sessions_given: false,
            };
            let family = families()[number];
            family.warnings(&given, &context);
            for (key, value) in &given {
                let _ = family.check_parameter(key, value, &context);
            }
            match family.build(&given, &context) {
                Ok(strategy) => {
                    let rules = strategy.rules().unwrap();
                    prop_assert!(!rules.rules.is_empty());
                    prop_assert!(strategy.columns().is_sorted());
                    let loaded = |timeframe| {
                        timeframe == Timeframe::M5
                            || context.additional.contains(&timeframe)
                            || strategy.timeframes().contains(&timeframe)
                    };
                    let read = strategy.columns().into_iter().chain(strategy.note_columns());
                    for key in read {
                        prop_assert!(loaded(key.timeframe), "{key} of a timeframe nobody loads");
                    }
                }
                Err(Error::Config(violations)) => prop_assert!(!violations.is_empty()),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
