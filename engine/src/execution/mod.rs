//! From an intent to a fill, from a position to its exit: prices, sizes, costs.

mod costs;
mod exit;
mod sizing;
mod slippage;
mod terms;

pub use costs::{FeeRate, Fees, FillSide};
pub use exit::{ExitReason, LevelExit, Levels, level_exit};
pub use sizing::{VolumeGrid, lots_for_risk};
pub use slippage::{DrawTable, Slippage, uniform};
pub(crate) use terms::r_multiples;
pub use terms::{Entry, Refusal, Terms, r_multiple};
