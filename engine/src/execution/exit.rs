//! Where a position leaves: hit tests and exit prices of one bar.

use std::hint::select_unpredictable;

use crate::data::Bars;
use crate::strategy::{OrderType, Variant};
use crate::units::Direction;

/// Why a trade ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExitReason {
    /// Target reached.
    TakeProfit,
    /// Stop reached.
    StopLoss,
    /// Limit of time or bars.
    Timeout,
    /// Closed by the strategy's `manage_position`.
    Manual,
    /// Exit condition of the rule.
    Signal,
    /// Open on the last bar of a trade window.
    WindowEnd,
    /// `v1_parity`: a stop that had been moved was reached, outside the entry bar.
    BreakEvenStopLoss,
}

impl ExitReason {
    /// Text of the artefacts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TakeProfit => "take_profit",
            Self::StopLoss => "stop_loss",
            Self::Timeout => "timeout",
            Self::Manual => "manual",
            Self::Signal => "signal",
            Self::WindowEnd => "window_end",
            Self::BreakEvenStopLoss => "break_even_stop_loss",
        }
    }
}

/// A level that was reached, and the price before slippage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelExit {
    /// Stop or target.
    pub reason: ExitReason,
    /// Price before slippage.
    pub base_price: f64,
}

/// Levels of an open position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levels {
    /// Side.
    pub direction: Direction,
    /// Stop now.
    pub stop: Option<f64>,
    /// Target now.
    pub target: Option<f64>,
    /// Filled on this bar, by a pending order of this type. (A market position is not tested on its entry bar.)
    pub triggered_now: Option<OrderType>,
}

/// Tests stop and target of a position on bar `i`.
///
/// Long positions leave on the bid: stop hit when `Bl ≤ S + buf`, target when `Bh ≥ T − buf`; shorts on the ask,
/// mirrored. The stop wins a tie. `v2` leaves at the bar's open where that lies beyond the level, except on the entry
/// bar, whose open precedes the position; `v1_parity` at the level. On the entry bar of a pending order the target
/// counts only if the close lies strictly beyond it (`v1_parity`: limit orders only). Comparisons are made as written,
/// without a tolerance: prices, levels and buffer share a decimal grid and ties are common.
/// Source: execution specification §5.
#[inline(always)]
pub fn level_exit(bars: &Bars, i: usize, levels: Levels, buffer: f64, variant: Variant) -> Option<LevelExit> {
    let Levels { direction, stop, target, triggered_now } = levels;
    let gap_aware = variant == Variant::V2 && triggered_now.is_none();
    let needs_close_beyond = match (variant, triggered_now) {
        (_, None) => false,
        (Variant::V2, Some(_)) => true,
        (Variant::V1Parity, Some(order_type)) => order_type == OrderType::Limit,
    };
    let quotes = match direction {
        Direction::Long => &bars.bid,
        Direction::Short => &bars.ask,
    };
    let (open, high, low) = (quotes.open[i], quotes.high[i], quotes.low[i]);
    let stopped = stop.map(|s| match direction {
        Direction::Long => (low <= s + buffer, if gap_aware { s.min(open) } else { s }),
        Direction::Short => (high >= s - buffer, if gap_aware { s.max(open) } else { s }),
    });
    let taken = target.map(|t| match direction {
        Direction::Long => (
            high >= t - buffer && (!needs_close_beyond || quotes.close[i] > t),
            if gap_aware { t.max(open) } else { t },
        ),
        Direction::Short => {
            (low <= t + buffer && (!needs_close_beyond || quotes.close[i] < t), if gap_aware { t.min(open) } else { t })
        }
    });
    let ((stopped, stop_price), (taken, target_price)) = (stopped.unwrap_or_default(), taken.unwrap_or_default());
    // Which of the two it is, nobody can guess.
    let (reason, base_price) =
        select_unpredictable(stopped, (ExitReason::StopLoss, stop_price), (ExitReason::TakeProfit, target_price));
    (stopped || taken).then_some(LevelExit { reason, base_price })
}
