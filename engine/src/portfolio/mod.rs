//! Positions, closed trades and the money they move.

use pulp::{Scalar, Simd};

use crate::execution::ExitReason;
use crate::strategy::{OrderType, Position};
use crate::units::{Direction, EpochNs};

/// A closed round trip. Prices in quote currency, money in account currency, times are bar-open times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trade {
    /// Number of the position within the run, from 1.
    pub position_id: u64,
    /// Side.
    pub direction: Direction,
    /// Kind of the entry order.
    pub order_type: OrderType,
    /// Scenario number, 0 = none.
    pub scenario_id: u8,
    /// Rule that opened it; 0 for strategies that are not rules.
    pub rule: u16,
    /// Bar of the entry fill.
    pub entry_bar: usize,
    /// Bar of the exit fill.
    pub exit_bar: usize,
    /// Open time of the entry bar; in `v1_parity` that of the bar a pending order was placed on.
    pub entry_time_ns: EpochNs,
    /// Open time of the exit bar.
    pub exit_time_ns: EpochNs,
    /// Fill price of the entry.
    pub entry_price: f64,
    /// Fill price of the exit.
    pub exit_price: f64,
    /// Stop at entry.
    pub initial_stop_loss: Option<f64>,
    /// Stop at exit.
    pub stop_loss: Option<f64>,
    /// Target at exit.
    pub take_profit: Option<f64>,
    /// Volume.
    pub lots: f64,
    /// Before fees.
    pub result: f64,
    /// Fee of the entry.
    pub entry_fee: f64,
    /// Fee of the exit.
    pub exit_fee: f64,
    /// Price move over initial stop distance; none without a stop.
    pub r_multiple: Option<f64>,
    /// Why it ended.
    pub reason: ExitReason,
}

/// An open position with what closing it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenPosition {
    /// What strategies see of it.
    pub position: Position,
    /// Kind of the entry order.
    pub order_type: OrderType,
    /// Rule that opened it; 0 for strategies that are not rules.
    pub rule: u16,
    /// Fee booked at entry.
    pub entry_fee: f64,
}

/// Cash of the account.
///
/// `balance = initial_balance + Σ result − Σ fees`, booked fill by fill in processing order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ledger {
    balance: f64,
    fees_total: f64,
}

impl Ledger {
    /// An account with its initial balance.
    pub fn new(initial_balance: f64) -> Self {
        Self { balance: initial_balance, fees_total: 0.0 }
    }

    /// Cash now.
    #[inline]
    pub fn balance(&self) -> f64 {
        self.balance
    }

    /// All fees booked, entries still open included.
    pub fn fees_total(&self) -> f64 {
        self.fees_total
    }

    /// Books the fee of an entry.
    pub fn book_entry(&mut self, fee: f64) {
        (self.balance, self.fees_total) = after_fee(Scalar::new(), (self.balance, self.fees_total), fee);
    }

    /// Books the fee and the result of an exit, in this order: the reference charges an order when it fills and books
    /// the result once the position is closed. The order decides the last bit of the balance.
    pub fn book_exit(&mut self, result: f64, fee: f64) {
        (self.balance, self.fees_total) = after_exit(Scalar::new(), (self.balance, self.fees_total), result, fee);
    }
}

/// Balance and fees after a fee.
#[inline(always)]
pub(crate) fn after_fee<S: Simd>(simd: S, (balance, fees): (S::f64s, S::f64s), fee: S::f64s) -> (S::f64s, S::f64s) {
    (simd.sub_f64s(balance, fee), simd.add_f64s(fees, fee))
}

/// Balance and fees after an exit.
#[inline(always)]
pub(crate) fn after_exit<S: Simd>(
    simd: S,
    before: (S::f64s, S::f64s),
    result: S::f64s,
    fee: S::f64s,
) -> (S::f64s, S::f64s) {
    let (balance, fees) = after_fee(simd, before, fee);
    (simd.add_f64s(balance, result), fees)
}
