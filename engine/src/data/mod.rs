//! Bars in: reading, checking, aligning, identifying and keeping market data (`data-contract` rules).
//!
//! [`load`] is the way in: files → columns (`read`) → row checks (`validate`) → common bars (`align`) → the mapped
//! `store` → window and warm-up → gap statistics ([`gaps()`]). Beside it stand the YAML files (`instrument`), the
//! calendar (`news`), sessions, rates, the identity of it all (`manifest`) and made-up bars ([`synthetic`]).

mod aggregate;
mod align;
mod bars;
mod gaps;
pub mod import;
mod instrument;
mod load;
mod manifest;
mod map;
mod memory;
mod news;
mod rates;
mod read;
mod sessions;
mod store;
pub mod synthetic;
mod validate;
mod write;
mod yaml;

pub use align::Alignment;
pub use bars::{Bars, MarketData, Quotes};
pub use gaps::{Gaps, gaps};
pub use instrument::{CostFile, CostSpec, FeeSchema, FeeSide, SymbolSpec, SymbolSpecs};
pub use load::{
    ByTimeframe, CheckedPair, Counts, DataRequest, Governance, LoadedData, Sources, SyntheticSource, check_pair, load,
};
pub use manifest::{InputFile, Manifest, sha256_hex};
pub use memory::MemoryBars;
pub use news::{Impact, NewsCalendar, NewsEvent, NewsFilter};
pub use rates::{Conversion, Leg, Rates};
pub use sessions::{Session, open_at, session_mask};
pub use validate::Filler;
