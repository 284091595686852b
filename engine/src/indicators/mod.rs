//! The numeric columns a strategy reads: formulas, warm-up, higher timeframes, and the cache shared by all trials.
//!
//! Formulas are pure functions on slices, one file per family. [`compute`] turns a [`ColumnKey`] into values on the
//! primary bars; [`ColumnCache`] does the same once per key for every thread that asks.

mod cache;
mod cluster;
mod compute;
mod dmi;
mod ewm;
mod garch;
mod kalman;
mod key;
mod momentum;
mod mtf;
mod range;
mod rolling;
mod shelf;
mod zones;
mod zscore;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod worked_examples;

pub use cache::{Budget, CacheStats, Column, ColumnCache, Reservation, Unlimited};
pub(crate) use cluster::cluster_rank;
pub use cluster::{ClusterOutcome, ClusterSettings, ClusterState, Clustering, cluster_label, cluster_state, kmeans};
pub use compute::{check_warmup, compute, first_index, warmup_needed};
pub use dmi::{Movement, adx, directional};
pub use ewm::{ema, ewm, macd_line, macd_signal};
pub use garch::{garch_sigma, garch_sigma_local, kalman_garch_z, kalman_garch_z_local, mask_min_periods, returns};
pub use kalman::{kalman_gains, kalman_last, kalman_mean};
pub use key::{ColumnKey, GarchKey, HtfMethod, Series};
pub use momentum::{roc, rsi};
pub use mtf::{MtfOptions, NO_BAR, StaleLimit, Visibility, visible_bars};
pub use range::{atr, choppiness, true_range};
pub use rolling::{rolling_max, rolling_mean, rolling_min, rolling_sd};
pub(crate) use shelf::{Keep, Shared, Shelf};
pub(crate) use zones::Extremes;
pub use zones::{ZONE, Zones};
pub use zscore::residual_z;
