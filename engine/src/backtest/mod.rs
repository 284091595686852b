//! One backtest from configuration to result.

pub mod artefact;
mod blocks;
pub mod canonical;
pub mod config;
mod exits;
mod fingerprint;
mod jump;
mod landmarks;
mod paths;
mod pending;
mod reader;
pub mod result;
mod runner;
mod settle;
mod setup;
pub mod tile;
pub mod walk;

pub use config::{Parsed, RunConfig, RunMode};
pub use setup::{AccountTerms, Base, Environment, Market, Outcome, Prepared};
