//! Bars in: reading, checking, aligning, identifying and keeping market data (`data-contract` rules).

mod bars;

pub use bars::{Bars, MarketData, Quotes};
