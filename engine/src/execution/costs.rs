//! What a fill costs beside the spread: fees.

use pulp::{Simd, bytemuck};

use crate::data::{Conversion, Leg};
use crate::units::round_decimal;

/// How a fee is reckoned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FeeRate {
    /// Money per lot.
    PerLot(f64),
    /// Money per million of notional.
    PerMillion(f64),
    /// Fraction of the notional: 0.00015 = 1.5 basis points.
    Percent(f64),
}

/// Fill a fee is charged on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillSide {
    /// Opening fill.
    Entry,
    /// Closing fill.
    Exit,
}

/// Fees of one symbol in one account.
///
/// `fee = round2(to_account·max(base·M, min_fee·M))` with `base` in the fee currency and `M = costs.fee_multiplier`.
/// Source: execution specification §9.1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fees {
    /// Schema and rate.
    pub rate: FeeRate,
    /// Smallest fee per charged fill, fee currency.
    pub min_fee: f64,
    /// `costs.fee_multiplier`.
    pub multiplier: f64,
    /// Entries are charged.
    pub on_entry: bool,
    /// Exits are charged.
    pub on_exit: bool,
    /// Units of the base asset per lot.
    pub contract_size: f64,
    /// Conversion of the notional, quote currency → fee currency.
    pub quote_to_fee: Conversion,
    /// Conversion of the fee, fee currency → account currency.
    pub fee_to_account: Conversion,
}

impl Fees {
    /// No fees at all.
    pub const NONE: Self = Self {
        rate: FeeRate::PerLot(0.0),
        min_fee: 0.0,
        multiplier: 0.0,
        on_entry: false,
        on_exit: false,
        contract_size: 1.0,
        quote_to_fee: Conversion { legs: [Leg::None, Leg::None] },
        fee_to_account: Conversion { legs: [Leg::None, Leg::None] },
    };

    /// Fee of one fill in account currency, two decimals, ≥ 0.
    ///
    /// `price`: filled price, slippage included; `lots`: volume.
    #[inline(always)]
    pub fn fee(&self, side: FillSide, price: f64, lots: f64) -> f64 {
        let charged = match side {
            FillSide::Entry => self.on_entry,
            FillSide::Exit => self.on_exit,
        };
        if charged { self.charge(price, lots) } else { 0.0 }
    }

    /// [`Fees::fee`] in every lane.
    #[inline(always)]
    pub(crate) fn fees<S: Simd>(&self, simd: S, side: FillSide, price: S::f64s, lots: S::f64s) -> S::f64s {
        let mut fees = simd.splat_f64s(0.0);
        if self.on_entry || self.on_exit {
            let (price, lots) = (std::slice::from_ref(&price), std::slice::from_ref(&lots));
            let (price, lots): (&[f64], &[f64]) = (bytemuck::cast_slice(price), bytemuck::cast_slice(lots));
            let fees: &mut [f64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut fees));
            for (lane, fee) in fees.iter_mut().enumerate() {
                *fee = self.fee(side, price[lane], lots[lane]);
            }
        }
        fees
    }

    fn charge(&self, price: f64, lots: f64) -> f64 {
        let notional = || self.quote_to_fee.apply(price * self.contract_size * lots);
        let base = match self.rate {
            FeeRate::PerLot(rate) => rate * lots,
            FeeRate::PerMillion(rate) => rate * notional() / 1e6,
            FeeRate::Percent(rate) => rate * notional(),
        };
        let fee = (base * self.multiplier).max(self.min_fee * self.multiplier);
        round_decimal(self.fee_to_account.apply(fee), 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_lot(rate: f64) -> Fees {
        Fees {
            rate: FeeRate::PerLot(rate),
            multiplier: 1.0,
            on_entry: true,
            on_exit: true,
            contract_size: 1e5,
            ..Fees::NONE
        }
    }

    /// execution §14.2, account in USD: rows of EURUSD per lot.
    #[test]
    fn per_lot_fees_round_each_order() {
        let fees = per_lot(2.5);
        for (lots, fee) in
            [(1.0, 2.50), (1.42, 3.55), (1.43, 3.57), (1.45, 3.62), (0.05, 0.12), (0.03, 0.07), (0.01, 0.03)]
        {
            assert_eq!(fees.fee(FillSide::Entry, 1.1, lots), fee, "{lots} lots");
        }
    }

    /// execution §14.2, last lines: EURUSD at 1.2, minimum 1.
    #[test]
    fn fees_on_notional_with_a_minimum() {
        let million = Fees { rate: FeeRate::PerMillion(25.0), min_fee: 1.0, ..per_lot(0.0) };
        for (lots, fee) in [(1.0, 3.0), (0.5, 1.5), (0.34, 1.02), (0.33, 1.0), (0.10, 1.0)] {
            assert_eq!(million.fee(FillSide::Exit, 1.2, lots), fee, "{lots} lots");
        }
        let percent = Fees { rate: FeeRate::Percent(0.00002), ..per_lot(0.0) };
        for (lots, fee) in [(1.0, 2.40), (0.37, 0.89), (0.10, 0.24)] {
            assert_eq!(percent.fee(FillSide::Exit, 1.2, lots), fee, "{lots} lots");
        }
    }

    /// execution §14.2: USDJPY in an EUR account, GBPAUD with multipliers.
    #[test]
    fn fees_are_converted_after_the_minimum() {
        let one_leg = |leg| Conversion { legs: [leg, Leg::None] };
        let usdjpy = Fees {
            rate: FeeRate::PerMillion(6.0),
            min_fee: 1.0,
            quote_to_fee: one_leg(Leg::Divide(150.0)),
            fee_to_account: one_leg(Leg::Divide(1.1)),
            ..per_lot(0.0)
        };
        for (lots, fee) in [(1.0, 0.91), (2.5, 1.36), (0.01, 0.91)] {
            assert_eq!(usdjpy.fee(FillSide::Entry, 150.0, lots), fee, "{lots} lots");
        }
        let gbpaud = |multiplier| Fees {
            rate: FeeRate::Percent(0.00015),
            min_fee: 1.0,
            multiplier,
            quote_to_fee: one_leg(Leg::Divide(1.65)),
            ..per_lot(0.0)
        };
        for (multiplier, fee) in [(1.0, 17.27), (1.25, 21.59), (1.5, 25.91), (2.0, 34.55), (0.0, 0.0)] {
            assert_eq!(gbpaud(multiplier).fee(FillSide::Entry, 1.9, 1.0), fee, "multiplier {multiplier}");
        }
        assert_eq!(gbpaud(1.25).fee(FillSide::Entry, 1.9, 0.01), 1.25, "the minimum scales too");
    }

    #[test]
    fn only_the_stated_side_is_charged() {
        let entry_only = Fees { on_exit: false, ..per_lot(2.5) };
        assert_eq!((entry_only.fee(FillSide::Entry, 1.1, 1.0), entry_only.fee(FillSide::Exit, 1.1, 1.0)), (2.5, 0.0));
    }
}
