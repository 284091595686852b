//! From trades and equity to numbers a trader compares.

mod catalogue;
mod drawdown;
mod ratios;
mod summary;

pub use catalogue::{CATALOGUE, METRIC_COUNT, Metric, MetricDef, MetricValues, Unit, round_half_away};
pub(crate) use drawdown::Below;
pub use drawdown::Drawdown;
pub(crate) use ratios::DayEnds;
pub use ratios::{DailyReturns, calmar};
pub use summary::{Counters, EquityStats, Summary, first_not_finite, summarise};
pub(crate) use summary::{EquityFacts, TradeCounts, TradeFacts, TradeSums, summarise_sums};
