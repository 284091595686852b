//! The terms of trade of one run: everything money depends on, resolved once before the first bar.

use crate::execution::costs::{Fees, FillSide};
use crate::execution::exit::ExitReason;
use crate::execution::sizing::{VolumeGrid, lots_for_risk};
use crate::execution::slippage::{DrawTable, Slippage};
use crate::strategy::Variant;
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
    /// Fills a market entry: price `E + d·s·p`, stop guard on the fill, size from the filled distance, fee.
    /// `k` is the number of the fill. Source: execution specification §3, §6, §10.2.
    ///
    /// # Errors
    /// The refusal; then nothing is drawn from the stream that a later fill would miss, since `k` does not advance.
    pub fn enter(
        &self,
        direction: Direction,
        requested: f64,
        stop: Option<f64>,
        explicit_lots: Option<f64>,
        k: u64,
        draws: &DrawTable,
    ) -> Result<Entry, Refusal> {
        let d = direction.sign();
        let price = requested + d * self.slippage.pips(k, draws) * self.pip;
        if let Some(stop) = stop {
            let too_near = match self.variant {
                Variant::V2 => d * (price - stop) < self.min_stop_pips * self.pip - 1e-12,
                Variant::V1Parity => (price - stop).abs() < 0.000_01,
            };
            if too_near {
                return Err(Refusal::StopGuard);
            }
        }
        let raw = match (explicit_lots, stop) {
            (Some(lots), _) => lots,
            (None, Some(stop)) => lots_for_risk(self.risk, price, stop, self.pip, self.pip_value),
            (None, None) => f64::NAN,
        };
        let lots = self.volume.quantise(raw, self.variant).ok_or(Refusal::BelowSmallestLot)?;
        Ok(Entry { price, lots, fee: self.fees.fee(FillSide::Entry, price, lots) })
    }

    /// Exit price after slippage.
    ///
    /// `v2`: adverse, `X = base − d·s·p`, for every reason. `v1_parity`: `X = base + d·s·p` for stop and target (a
    /// defect of the reference kept for comparison), none for the rest.
    pub fn exit_price(&self, direction: Direction, reason: ExitReason, base: f64, k: u64, draws: &DrawTable) -> f64 {
        let d = direction.sign();
        match (self.variant, reason) {
            (Variant::V2, _) => base - d * self.slippage.pips(k, draws) * self.pip,
            (Variant::V1Parity, ExitReason::StopLoss | ExitReason::TakeProfit) => {
                base + d * self.slippage.pips(k, draws) * self.pip
            }
            (Variant::V1Parity, _) => base,
        }
    }

    /// Fee of an exit; `v1_parity` books none for a timeout, which passes its cost layer by.
    pub fn exit_fee(&self, reason: ExitReason, price: f64, lots: f64) -> f64 {
        let level = matches!(reason, ExitReason::StopLoss | ExitReason::TakeProfit);
        if self.variant == Variant::V1Parity && !level {
            return 0.0;
        }
        self.fees.fee(FillSide::Exit, price, lots)
    }

    /// Result before fees: `((d·(X − F))·L)·uv` in `v2`, `R·risk` in `v1_parity`.
    pub fn result(&self, direction: Direction, entry: f64, exit: f64, lots: f64, r_multiple: Option<f64>) -> f64 {
        match self.variant {
            Variant::V2 => self.gain(direction, entry, exit, lots),
            Variant::V1Parity => r_multiple.unwrap_or(0.0) * self.risk,
        }
    }

    /// Money gained by a move from `entry` to `price`: `((d·(price − entry))·L)·uv`, in this order of operations.
    #[inline]
    pub fn gain(&self, direction: Direction, entry: f64, price: f64, lots: f64) -> f64 {
        direction.sign() * (price - entry) * lots * self.unit_value
    }
}

/// `d·(X − F)/|F − S₀|`; 0 for a zero distance, none without a stop. Source: execution specification §9.2.
pub fn r_multiple(direction: Direction, entry: f64, exit: f64, initial_stop: Option<f64>) -> Option<f64> {
    let distance = (entry - initial_stop?).abs();
    Some(if distance == 0.0 { 0.0 } else { direction.sign() * (exit - entry) / distance })
}
