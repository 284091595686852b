//! The numeric columns a strategy reads: formulas, warm-up, higher timeframes, and the cache shared by all trials.

mod key;

pub use key::{ColumnKey, GarchKey, HtfMethod, Series};
