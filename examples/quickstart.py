# %% [markdown]
# # Quickstart
#
# One backtest, then every setting of a small grid, on synthetic bars that are made on the spot from a seed. Run it in the
# folder of the repository: costs and instruments are read from `configs/`.

# %%
import bt

config = {
    "strategy_name": "mean_reversion_z_score",
    "symbol": "EURUSD",
    "start_date": "2020-01-06",
    "end_date": "2020-12-31",
    "data": {"source": "synthetic", "seed": 7, "bars": 75000},
    "timeframes": {"primary": "M5", "additional": ["H1", "H4", "D1"]},
    "warmup_bars": 200,
    "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0},
    "strategy_parameters": {"enabled_scenarios": [1], "window_length": 100, "ema_length": 30},
}

# %% [markdown]
# ## One backtest
#
# The result is a dict; the four artefacts are in `results/<run_id>/`. `include` leaves the equity curve, an object per bar,
# out of the dict.

# %%
result = bt.run_backtest(config_dict=config, include=["metrics", "trades"])
for key in ("total_trades", "win_rate", "profit_net", "max_drawdown", "sharpe_equity_daily"):
    print(f"{key:<22}{result['metrics'][key]:>12}")
print(result["trades"][0]["entry_time"], result["trades"][0]["direction"], result["trades"][0]["result"])

# %% [markdown]
# ## Every setting of a grid
#
# The same call as `omega-opt sweep`, with the same bytes in the run folder. Ctrl-C (or stopping the cell) keeps what is
# finished, and the same call continues.

# %%
grid = {
    "name": "quickstart-python",
    "config": config,
    "parameters": {
        "window_length": [60, 100, 140],
        "atr_mult": {"min": 1.0, "max": 3.0, "step": 1.0},
        "direction_filter": ["long", "short", "both"],
    },
    "gates": ["total_trades >= 20"],
    "output": {"top": 3},
}
board = bt.sweep(grid)
board

# %%
best = board.best()
print(best["rank"], best["params"], best["metrics"]["profit_net"])

# %% [markdown]
# Any row can be walked again; its metrics are the same to the last bit.

# %%
again = board.replay(1, include=["metrics"])
assert again["metrics"]["total_trades"] == best["metrics"]["total_trades"]
print(len(board), "rows in", board.path.name)

# %% [markdown]
# ## As a table
#
# A leaderboard is read without a copy by everything that knows Arrow: `polars.DataFrame(board)`, `pyarrow.table(board)`,
# `pandas.DataFrame.from_arrow(board)`, `duckdb.sql("select * from board")`.

# %%
try:
    import polars as pl
except ImportError:
    print("polars is not installed")
else:
    print(pl.DataFrame(board).select("rank", "objective", "total_trades", "profit_net", "max_drawdown").head(3))
