//! One backtest from configuration to result.

pub mod artefact;
mod blocks;
pub mod canonical;
pub mod config;
mod fingerprint;
mod pending;
mod reader;
pub mod result;
mod setup;
pub mod walk;

pub use config::{Parsed, RunConfig, RunMode};
pub use setup::{AccountTerms, Environment, Market, Outcome, Prepared};
