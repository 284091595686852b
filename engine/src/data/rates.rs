//! Currency conversion at the constant rates of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `PAIR → rate`, the pair six letters (`EURUSD`), the rate in quote units per base unit (1 EUR = 1.10 USD).
/// Rates are positive and finite; the configuration refuses others, and here they count as absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rates(pub BTreeMap<String, f64>);

impl Rates {
    /// `amount` of currency `from`, in currency `to`; `None` if no rate leads there.
    pub fn convert(&self, amount: f64, from: &str, to: &str) -> Option<f64> {
        self.conversion(from, to).map(|conversion| conversion.apply(amount))
    }

    /// The way from `from` to `to`; `None` if no rate leads there.
    ///
    /// Equal currencies: unchanged. Else the pair `FROM+TO` multiplies, else `TO+FROM` divides, else two such legs
    /// by way of USD (`FROM → USD → TO`).
    pub fn conversion(&self, from: &str, to: &str) -> Option<Conversion> {
        if from == to {
            return Some(Conversion::default());
        }
        if let Some(leg) = self.one_leg(from, to) {
            return Some(Conversion { legs: [leg, Leg::None] });
        }
        Some(Conversion { legs: [self.one_leg(from, "USD")?, self.one_leg("USD", to)?] })
    }

    fn one_leg(&self, from: &str, to: &str) -> Option<Leg> {
        if let Some(rate) = self.rate(from, to) {
            return Some(Leg::Multiply(rate));
        }
        self.rate(to, from).map(Leg::Divide)
    }

    fn rate(&self, base: &str, quote: &str) -> Option<f64> {
        self.0.get(&format!("{base}{quote}")).copied().filter(|rate| rate.is_finite() && *rate > 0.0)
    }
}

impl FromIterator<(String, f64)> for Rates {
    fn from_iter<I: IntoIterator<Item = (String, f64)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

/// A currency conversion as a chain of at most two multiplications or divisions, in order: the digits of a
/// two-legged conversion depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Conversion {
    /// First and second leg.
    pub legs: [Leg; 2],
}

/// One step of a [`Conversion`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Leg {
    /// Nothing.
    #[default]
    None,
    /// `amount · rate`.
    Multiply(f64),
    /// `amount / rate`.
    Divide(f64),
}

impl Conversion {
    /// The amount in the target currency.
    pub fn apply(&self, amount: f64) -> f64 {
        self.legs.iter().fold(amount, |amount, leg| match leg {
            Leg::None => amount,
            Leg::Multiply(rate) => amount * rate,
            Leg::Divide(rate) => amount / rate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Rates {
        [("EURUSD", 1.10), ("GBPUSD", 1.25), ("USDJPY", 150.0), ("EURGBP", 0.88), ("USDCAD", 1.35)]
            .map(|(pair, rate)| (pair.to_owned(), rate))
            .into_iter()
            .collect()
    }

    /// The pip values of `execution.md` §14.3: contract size × pip, quote → account. To the six digits printed there.
    #[test]
    fn pip_values_of_the_golden_table() {
        let rows = [
            ("USD", 100_000.0 * 0.0001, 10.0, 9.090909),
            ("JPY", 100_000.0 * 0.01, 6.666667, 6.060606),
            ("GBP", 100_000.0 * 0.0001, 12.5, 11.363636),
            ("CAD", 100_000.0 * 0.0001, 7.407407, 6.734007),
            ("USD", 1.0, 1.0, 0.909091),
        ];
        for (quote, value, usd, eur) in rows {
            assert!((rates().convert(value, quote, "USD").unwrap() - usd).abs() < 5e-7, "{quote}");
            assert!((rates().convert(value, quote, "EUR").unwrap() - eur).abs() < 5e-7, "{quote}");
        }
    }

    #[test]
    fn no_road_is_none_and_bad_rates_do_not_count() {
        assert_eq!(rates().convert(1.0, "EUR", "CHF"), None);
        assert_eq!(rates().convert(1.0, "CHF", "CHF"), Some(1.0));
        assert_eq!(Rates::from_iter([("EURUSD".to_owned(), 0.0)]).convert(1.0, "USD", "EUR"), None);
    }
}
