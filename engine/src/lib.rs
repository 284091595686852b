//! One backtest: what would this strategy have earned?
//!
//! Pure: no clock, no printing, no threads of its own, no unseeded randomness. Dependencies point one way:
//! data → indicators → rules → strategy → execution → portfolio → metrics → backtest.

pub mod backtest;
pub mod data;
pub mod error;
pub mod execution;
pub mod indicators;
pub mod metrics;
pub mod portfolio;
pub mod rules;
mod simd;
pub mod strategy;
pub mod units;

pub use error::{Error, Result, Violation};
