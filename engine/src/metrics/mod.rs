//! From trades and equity to numbers a trader compares.

mod catalogue;

pub use catalogue::{CATALOGUE, METRIC_COUNT, Metric, MetricDef, MetricValues, Unit, round_half_away};
