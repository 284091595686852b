"""Backtests and sweeps of rule-based trading strategies, with receipts.

One call in, one result out: ``run_backtest`` for a single run, ``sweep`` for every setting of a grid, ``indicators`` for
the columns they are made of. All work happens in the extension ``omega_bt``, without the interpreter lock.

A configuration that is wrong raises ``ValueError`` with every fault in it; a run that fails on its way returns
``{"ok": False, "error": …}``.
"""

from bt._backend import get_active_backend, is_rust_strategy_available
from bt._bars import BarStore
from bt._errors import DataError, EngineError, SweepStopped
from bt._run import (
    config_schema,
    load_config,
    run_backtest,
    strategies,
    validate_config,
    write_artifacts,
)
from bt._sweep import Leaderboard, WalkForward, plan, sweep, walk_forward

__all__ = [
    "BarStore",
    "DataError",
    "EngineError",
    "Leaderboard",
    "SweepStopped",
    "WalkForward",
    "config_schema",
    "get_active_backend",
    "is_rust_strategy_available",
    "load_config",
    "plan",
    "run_backtest",
    "strategies",
    "sweep",
    "validate_config",
    "walk_forward",
    "write_artifacts",
]
