//! The terms of trade of one run: everything money depends on, resolved once before the first bar.

use pulp::{Scalar, Simd};

use crate::execution::costs::{Fees, FillSide};
use crate::execution::exit::ExitReason;
use crate::execution::sizing::{VolumeGrid, lots_at_risk, lots_for_risk};
use crate::execution::slippage::{DrawTable, Slippage};
use crate::strategy::{OrderType, Variant};
use crate::units::Direction;

/// Resolved terms. Prices in quote currency, money in account currency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Semantics.
    pub variant: Variant,
    /// Pip size `p`.
    pub pip: f64,
    /// Pip buffer `p·β` of the hit tests.
    pub buffer: f64,
    /// Smallest stop distance in pips (`v2`).
    pub min_stop_pips: f64,
    /// Slippage per fill.
    pub slippage: Slippage,
    /// Fees per fill.
    pub fees: Fees,
    /// Volume grid.
    pub volume: VolumeGrid,
    /// Money risked per trade.
    pub risk: f64,
    /// Money per pip and lot.
    pub pip_value: f64,
    /// Money per price unit and lot.
    pub unit_value: f64,
}

/// Why an order was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Stop too near or on the wrong side.
    StopGuard,
    /// Smaller than the smallest lot.
    BelowSmallestLot,
}

/// A filled entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Fill price.
    pub price: f64,
    /// Volume.
    pub lots: f64,
    /// Fee booked.
    pub fee: f64,
}

impl Terms {
    /// Price of a market entry: `E + d·s·p`, always adverse. `k` is the number of the fill.
    /// Source: execution specification §3.
    #[inline(always)]
    pub fn market_price(&self, direction: Direction, requested: f64, k: u64, draws: &DrawTable) -> f64 {
        self.slipped(Scalar::new(), requested, direction.sign(), self.slippage.pips(k, draws))
    }

    /// `price + d·s·p`; an exit slips by `−d`.
    #[inline(always)]
    pub(crate) fn slipped<S: Simd>(&self, simd: S, price: S::f64s, sign: S::f64s, pips: S::f64s) -> S::f64s {
        simd.add_f64s(price, simd.mul_f64s(simd.mul_f64s(sign, pips), simd.splat_f64s(self.pip)))
    }

    /// Price of a pending entry triggered on a bar that opens at `open` of the entry side.
    ///
    /// `v2`: a stop order fills at the worse of `E` and the open, a limit order at the better, then slippage is added;
    /// `v1_parity`: at `E`. Source: execution specification §4.
    pub fn pending_price(
        &self,
        direction: Direction,
        order_type: OrderType,
        requested: f64,
        open: f64,
        k: u64,
        draws: &DrawTable,
    ) -> f64 {
        if self.variant == Variant::V1Parity {
            return requested;
        }
        let base = match (direction, order_type) {
            (Direction::Long, OrderType::Stop) | (Direction::Short, OrderType::Limit) => requested.max(open),
            (Direction::Long, _) | (Direction::Short, _) => requested.min(open),
        };
        self.market_price(direction, base, k, draws)
    }

    /// Refuses a stop that is too near, or in `v2` on the wrong side of the price.
    ///
    /// `v2`: `d·(F − S) < m_sl·p − 1e-12`, every order type; `v1_parity`: `|F − S| < 0.00001`, market orders only.
    /// Source: execution specification §6.
    ///
    /// # Errors
    /// [`Refusal::StopGuard`].
    #[inline(always)]
    pub fn guard(
        &self,
        direction: Direction,
        order_type: OrderType,
        price: f64,
        stop: Option<f64>,
    ) -> Result<(), Refusal> {
        let Some(stop) = stop else { return Ok(()) };
        let too_near = match self.variant {
            Variant::V2 => direction.sign() * (price - stop) < self.min_stop_pips * self.pip - 1e-12,
            Variant::V1Parity => order_type == OrderType::Market && (price - stop).abs() < 0.000_01,
        };
        if too_near { Err(Refusal::StopGuard) } else { Ok(()) }
    }

    /// Sizes and charges an entry filled at `price`: explicit lots, else by risk from the filled distance.
    /// Source: execution specification §10.2, §9.1.
    ///
    /// # Errors
    /// [`Refusal::BelowSmallestLot`]; then nothing is missed by a later fill, since `k` does not advance.
    #[inline(always)]
    pub fn open(&self, price: f64, stop: Option<f64>, explicit_lots: Option<f64>) -> Result<Entry, Refusal> {
        let raw = self.raw_lots(price, stop, explicit_lots);
        let lots = self.volume.quantise(raw, self.variant).ok_or(Refusal::BelowSmallestLot)?;
        Ok(Entry { price, lots, fee: self.fees.fee(FillSide::Entry, price, lots) })
    }

    #[inline(always)]
    fn raw_lots(&self, price: f64, stop: Option<f64>, explicit_lots: Option<f64>) -> f64 {
        match (explicit_lots, stop) {
            (Some(lots), _) => lots,
            (None, Some(stop)) => lots_for_risk(self.risk, price, stop, self.pip, self.pip_value),
            (None, None) => f64::NAN,
        }
    }

    /// A market order of `v2` filled at `price` is refused: by [`Terms::guard`], or because it is too small.
    #[inline(always)]
    pub(crate) fn refuses(&self, direction: Direction, price: f64, stop: Option<f64>, lots: Option<f64>) -> bool {
        self.guard(direction, OrderType::Market, price, stop).is_err()
            || !self.is_amply_sized(price, stop, lots) && self.volume.is_below(self.raw_lots(price, stop, lots))
    }

    /// The risk pays for more than twice the smallest volume, so that no rounding of [`lots_for_risk`] makes it less than
    /// that; told without its two divisions.
    #[inline(always)]
    fn is_amply_sized(&self, price: f64, stop: Option<f64>, lots: Option<f64>) -> bool {
        let Some(stop) = stop.filter(|_| lots.is_none()) else { return false };
        self.risk * self.pip > 2.0 * self.volume.min * self.pip_value * (price - stop).abs()
    }

    /// Volumes of market orders of `v2` that are not refused. `lots`: explicit, undefined for sizing by risk.
    #[inline(always)]
    pub(crate) fn lots<S: Simd>(&self, simd: S, price: S::f64s, stop: S::f64s, lots: S::f64s) -> S::f64s {
        let by_risk = lots_at_risk(simd, self.risk, (price, stop), self.pip, self.pip_value);
        let raw = simd.select_f64s(simd.equal_f64s(lots, lots), lots, by_risk);
        self.volume.largest_up_to(simd, raw)
    }

    /// Exit price after slippage.
    ///
    /// `v2`: adverse, `X = base − d·s·p`, for every reason. `v1_parity`: `X = base + d·s·p` for stop and target (a
    /// defect of the reference kept for comparison), none for the rest.
    #[inline(always)]
    pub fn exit_price(&self, direction: Direction, reason: ExitReason, base: f64, k: u64, draws: &DrawTable) -> f64 {
        let d = direction.sign();
        match (self.variant, reason) {
            (Variant::V2, _) => self.slipped(Scalar::new(), base, -d, self.slippage.pips(k, draws)),
            (Variant::V1Parity, ExitReason::StopLoss | ExitReason::TakeProfit | ExitReason::BreakEvenStopLoss) => {
                base + d * self.slippage.pips(k, draws) * self.pip
            }
            (Variant::V1Parity, _) => base,
        }
    }

    /// Fee of an exit; `v1_parity` books none for a timeout, which passes its cost layer by.
    #[inline(always)]
    pub fn exit_fee(&self, reason: ExitReason, price: f64, lots: f64) -> f64 {
        let level = matches!(reason, ExitReason::StopLoss | ExitReason::TakeProfit | ExitReason::BreakEvenStopLoss);
        if self.variant == Variant::V1Parity && !level {
            return 0.0;
        }
        self.fees.fee(FillSide::Exit, price, lots)
    }

    /// Result before fees: `((d·(X − F))·L)·uv` in `v2`, `R·risk` in `v1_parity`.
    #[inline(always)]
    pub fn result(&self, direction: Direction, entry: f64, exit: f64, lots: f64, r_multiple: Option<f64>) -> f64 {
        match self.variant {
            Variant::V2 => self.gain(direction, entry, exit, lots),
            Variant::V1Parity => r_multiple.unwrap_or(0.0) * self.risk,
        }
    }

    /// Money gained by a move from `entry` to `price`: `((d·(price − entry))·L)·uv`, in this order of operations.
    #[inline(always)]
    pub fn gain(&self, direction: Direction, entry: f64, price: f64, lots: f64) -> f64 {
        self.gains(Scalar::new(), direction.sign(), (entry, price), lots)
    }

    /// [`Terms::gain`] in every lane.
    #[inline(always)]
    pub(crate) fn gains<S: Simd>(
        &self,
        simd: S,
        sign: S::f64s,
        (entry, price): (S::f64s, S::f64s),
        lots: S::f64s,
    ) -> S::f64s {
        let points = simd.mul_f64s(sign, simd.sub_f64s(price, entry));
        simd.mul_f64s(simd.mul_f64s(points, lots), simd.splat_f64s(self.unit_value))
    }
}

/// `d·(X − F)/|F − S₀|`; 0 for a zero distance, none without a stop. Source: execution specification §9.2.
#[inline(always)]
pub fn r_multiple(direction: Direction, entry: f64, exit: f64, initial_stop: Option<f64>) -> Option<f64> {
    Some(r_multiples(Scalar::new(), direction.sign(), (entry, exit), initial_stop?))
}

/// [`r_multiple`] in every lane.
#[inline(always)]
pub(crate) fn r_multiples<S: Simd>(
    simd: S,
    sign: S::f64s,
    (entry, exit): (S::f64s, S::f64s),
    initial_stop: S::f64s,
) -> S::f64s {
    let zero = simd.splat_f64s(0.0);
    let distance = simd.abs_f64s(simd.sub_f64s(entry, initial_stop));
    let multiple = simd.div_f64s(simd.mul_f64s(sign, simd.sub_f64s(exit, entry)), distance);
    simd.select_f64s(simd.equal_f64s(distance, zero), zero, multiple)
}
