//! One backtest from configuration to result.

pub mod artefact;
mod blocks;
pub mod canonical;
pub mod config;
mod reader;
pub mod walk;

pub use config::{Parsed, RunConfig, RunMode};
