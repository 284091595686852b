"""What a call from Python costs beside the command line, and two threads beside one.

    OMEGA_OPT=target/release/omega-opt python benches/python_call.py

Run it with a wheel and a binary of the same profile. Inside the clock: from the config as text or dict to the result as a
dict, artefacts written; for the command line what its own profile tells (loading, indicators, walk, metrics, writing),
without the start of the process. Each figure is the median of many, taken in turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bt

REPOSITORY = Path(__file__).resolve().parents[1]
BARS = 30_000
ROUNDS = 40

CONFIG: dict[str, Any] = {
    "strategy_name": "mean_reversion_z_score",
    "symbol": "EURUSD",
    "start_date": "2020-01-06",
    "end_date": "2030-12-31",
    "data": {"source": "synthetic", "seed": 7, "bars": BARS},
    "timeframes": {"primary": "M5", "additional": ["H1", "H4", "D1"]},
    "warmup_bars": 100,
    "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0},
    "strategy_parameters": {"enabled_scenarios": [1], "direction_filter": "both"},
}


def clock(call: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def command_line() -> float:
    """Milliseconds the command line reports of itself."""
    command = [os.environ["OMEGA_OPT"], "run", "run.json", "--quiet", "--profile", "--out", "cli"]
    subprocess.run(command, check=True, capture_output=True)
    (profile,) = Path("cli").glob("*/profiling/profiling.json")
    nanoseconds: int = json.loads(profile.read_text())["metrics"]["wall_time_total_ns"]
    return nanoseconds / 1e6


def threads(count: int, calls: int) -> float:
    """Seconds of `count` threads that make `calls` calls each."""
    work = [threading.Thread(target=lambda: [call(["metrics"]) for _ in range(calls)]) for _ in range(count)]
    started = time.perf_counter()
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    return time.perf_counter() - started


def call(include: list[str] | None, **named: Any) -> dict[str, Any]:
    """One run that must succeed."""
    result = bt.run_backtest(config_dict=CONFIG, include=include, artifacts=False, **named)
    assert result["ok"], result
    return result


def main() -> None:
    """Prints the figures."""
    os.environ.setdefault("OMEGA_EXECUTION_COSTS_FILE", str(REPOSITORY / "configs" / "execution_costs.yaml"))
    os.environ.setdefault("OMEGA_SYMBOL_SPECS_FILE", str(REPOSITORY / "configs" / "symbol_specs.yaml"))
    if "OMEGA_OPT" in os.environ:
        os.environ["OMEGA_OPT"] = str(Path(os.environ["OMEGA_OPT"]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["OMEGA_CACHE_DIR"] = str(Path(folder) / "cache")
        Path("run.json").write_text(json.dumps(CONFIG))
        kinds: dict[str, Callable[[], float]] = {
            "command line, inside the process": command_line,
            "bt.run_backtest, artefacts, include=[trades, metrics]": lambda: clock(
                lambda: bt.run_backtest("run.json", output_dir="out", include=["trades", "metrics"])
            ),
            "bt.run_backtest, artefacts, include=[metrics]": lambda: clock(
                lambda: bt.run_backtest("run.json", output_dir="out", include=["metrics"])
            ),
            "trades and metrics without artefacts": lambda: clock(lambda: call(["trades", "metrics"])),
            "without artefacts, with the equity curve": lambda: clock(lambda: call(None)),
        }
        if "OMEGA_OPT" not in os.environ:
            del kinds["command line, inside the process"]
        trades = call(["metrics"])["metrics"]["total_trades"]
        print(f"{BARS:,} bars, {trades} trades, median of {ROUNDS}")
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for measure in kinds.values():
            measure()
        for _ in range(ROUNDS):
            for name, measure in kinds.items():
                times[name].append(measure())
        base = statistics.median(times[next(iter(times))])
        for name, taken in times.items():
            middle = statistics.median(taken)
            print(f"{name:<56}{middle:9.2f} ms{(middle / base - 1) * 100:+8.1f} %")
        one = min(threads(1, ROUNDS) for _ in range(3))
        two = min(threads(2, ROUNDS) for _ in range(3))
        print(f"{ROUNDS} calls on one thread {one:.2f} s, on each of two {two:.2f} s: {two / one:.2f} times")
        os.chdir(REPOSITORY)


if __name__ == "__main__":
    main()
