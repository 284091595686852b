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
