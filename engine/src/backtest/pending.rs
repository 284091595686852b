//! Limit and stop entries between placement and fill.

use std::collections::VecDeque;

use crate::data::Bars;
use crate::strategy::{OrderType, TradeSignal};
use crate::units::Direction;

/// An entry waiting for its price. Good till cancelled: there is no expiry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PendingOrder {
    /// What was asked for.
    pub(super) signal: TradeSignal,
    /// Bar of placement; the order never triggers on it.
    pub(super) placed_bar: usize,
}

/// Orders waiting, in order of placement.
#[derive(Debug, Default)]
pub(super) struct PendingBook(VecDeque<PendingOrder>);

impl PendingBook {
    pub(super) fn place(&mut self, order: PendingOrder) {
        self.0.push_back(order);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes out the first order, from position `*from` on, that bar `i` triggers; `*from` moves behind those that
    /// stay.
    pub(super) fn next_triggered(&mut self, bars: &Bars, i: usize, from: &mut usize) -> Option<PendingOrder> {
        while let Some(order) = self.0.get(*from) {
            if order.placed_bar < i && triggers(&order.signal, bars, i) {
                return self.0.remove(*from);
            }
            *from += 1;
        }
        None
    }
}

/// The entry side reaches the price. Source: execution specification §4.
fn triggers(signal: &TradeSignal, bars: &Bars, i: usize) -> bool {
    let price = signal.entry_price;
    match (signal.order_type, signal.direction) {
        (OrderType::Limit, Direction::Long) => bars.ask.low[i] <= price,
        (OrderType::Limit, Direction::Short) => bars.bid.high[i] >= price,
        (OrderType::Stop, Direction::Long) => bars.ask.high[i] >= price,
        (OrderType::Stop, Direction::Short) => bars.bid.low[i] <= price,
        (OrderType::Market, _) => false,
    }
}
