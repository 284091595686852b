//! Many backtests, judged.

pub mod atomic;
pub mod chunk;
pub mod cli;
pub mod diagnostic;
pub mod document;
pub mod driver;
pub mod error;
pub mod expression;
pub mod fingerprint;
pub mod grid;
pub mod leaderboard;
pub mod objective;
mod parquet_file;
pub mod plan;
pub mod progress;
pub mod replay;
pub mod resume;
pub mod row;
pub mod rows;
pub mod run_folder;
pub mod search;
pub mod single;
pub mod space;
pub mod stored;
pub mod sweep;
pub mod trial;
pub mod walkforward;
