//! One backtest from configuration to result.

mod blocks;
pub mod config;
mod reader;
pub mod walk;

pub use config::{Parsed, RunConfig, RunMode};
