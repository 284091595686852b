//! The extension module `omega_bt`: engine and optimizer as Python calls that take JSON and give JSON.
//!
//! Every call releases the interpreter lock while it works, keeps no Python object and calls back nothing. Arguments and
//! configuration that are wrong raise `ValueError`; a run that fails gives the error document (config-and-errors
//! specification §8). What Python people see on top of it is the package `bt`.

#![allow(clippy::result_large_err, reason = "the error is the optimizer's; at most one is made per call")]

mod bars;
mod boundary;
mod indicators;
mod rows;
mod run;
mod sweep;

/// Backtests and sweeps of trading strategies.
#[pyo3::pymodule]
mod omega_bt {
    #[pymodule_export]
    use crate::bars::{Bars, load_bars};
    #[pymodule_export]
    use crate::boundary::provoke_panic;
    #[pymodule_export]
    use crate::indicators::{
        adx, atr, bollinger, choppiness, cluster_state, directional, ema, garch_sigma, garch_sigma_local,
        kalman_garch_z, kalman_garch_z_local, kalman_mean, kalman_z, kmeans, macd, roc, rolling_max, rolling_mean,
        rolling_min, rolling_sd, rsi, sma, true_range, z_score,
    };
    #[pymodule_export]
    use crate::rows::{Table, read_table, replay, row, row_config};
    #[pymodule_export]
    use crate::run::{normalise_config, run_backtest, run_config_schema, strategies, write_result};
    #[pymodule_export]
    use crate::sweep::{Meter, plan, sweep, walk_forward};

    /// Version and digest of everything that can change a result.
    #[pymodule_export]
    const ENGINE_VERSION: &str = optimizer::sweep::ENGINE_VERSION;
}
