//! Many backtests, judged.

pub mod diagnostic;
pub mod document;
pub mod expression;
pub mod grid;
pub mod objective;
pub mod search;
pub mod space;
