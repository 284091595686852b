"""Sweeps: the same bytes as the command line, rows read back, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import omega_bt
import pytest

import bt
from conftest import lasting

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def write(grid: dict[str, Any]) -> Path:
    """The grid as a file: JSON is YAML."""
    path = Path("small.yaml")
    path.write_text(json.dumps(grid))
    return path


def test_the_command_line_writes_the_same_bytes(grid: dict[str, Any], omega_opt: Command) -> None:
    path = write(grid)
    report = json.loads(omega_opt("sweep", str(path), "--out", "cli", "--threads", "1", "--json", "--quiet").stdout)
    board = bt.sweep(path, out="python", threads=2, memory="1GB")
    assert board.path.name == Path(report["folder"]).name
    ours, theirs = lasting(board.path), lasting(Path(report["folder"]))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert len([name for name in ours if name.startswith("chunks/")]) == 6
    assert board.report is not None and board.report["result"] == report["result"]
    omega_opt("verify", str(board.path))


def test_a_path_a_text_and_a_dict_are_one_grid(grid: dict[str, Any]) -> None:
    path = write(grid)
    boards = [
        bt.sweep(path, out="path"),
        bt.sweep(str(path), out="name"),
        bt.sweep(json.dumps(grid, indent=1), out="text"),
        bt.sweep(grid, out="dict", memory=200_000_000),
    ]
    files = [lasting(board.path) for board in boards]
    assert all(file == files[0] for file in files)


def test_set_changes_axes_and_config(grid: dict[str, Any]) -> None:
    fewer = bt.sweep(grid, set={"fast_length": [5, 10], "costs.enabled": False, "direction_filter": "long"})
    assert len(fewer) == 6 and fewer.config()["costs"]["enabled"] is False
    same = bt.sweep(grid, set=["fast_length=[5, 10]", "costs.enabled=false", "direction_filter=long"])
    assert same.path == fewer.path and same.report is not None and same.report["cached"] == 6


def test_a_leaderboard(grid: dict[str, Any]) -> None:
    board = bt.sweep(grid)
    assert len(board) == len(board.table) == 24 and sum(board.status.values()) == 24
    assert board.columns[:4] == ["rank", "trial", "config_hash", "rules_hash"]
    best = board.best()
    assert best["rank"] == 1 and best == board.row(1) == board.row(f"t{best['trial']}")
    assert set(best["params"]) == {"fast_length", "slow_length", "direction_filter"}
    assert repr(board).startswith("<bt.Leaderboard small-") and "24 rows" in repr(board)
    page = board._repr_html_()
    assert page.count("<tr>") == 11 and "fast_length" in page and "<script" not in page
    with pytest.raises(ValueError, match="no such rank"):
        board.row(25)
    opened = bt.Leaderboard(board.path)
    assert opened.report is None and opened.best() == best
    with pytest.raises(FileNotFoundError):
        bt.Leaderboard("nowhere")


def test_a_row_replayed_and_run_is_the_row(grid: dict[str, Any]) -> None:
    board = bt.sweep(grid)
    best = board.best()
    result = board.replay(1, "replayed", include=["metrics", "trades"])
    assert result["metrics"]["total_trades"] == best["metrics"]["total_trades"] == len(result["trades"])
    assert result["meta"]["config"]["hash"] == best["config_hash"]
    assert "equity_curve" not in result
    again = bt.run_backtest(config_dict=board.config(1), artifacts=False)
    assert again["metrics"] == result["metrics"] and again["meta"]["run_id"] == result["meta"]["run_id"]
    replayed = lasting(Path("replayed") / result["meta"]["run_id"])
    assert replayed == lasting(board.path / "top" / "1")


def test_faults_are_told_before_anything_is_written(grid: dict[str, Any]) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({**grid, "parameterz": {}}, r"E4002 parameterz: .*parameters"),
        ({**grid, "parameters": {"fast_lenght": [1, 2]}}, r"E4002 parameters.fast_lenght: .*fast_length"),
        ({**grid, "parameters": {"fast_length": [0]}}, r"E4002 parameters.fast_length"),
        ({**grid, "gates": ["total_tradez > 1"]}, r"E4002 gates.*total_trades"),
    ]
    for wrong, told in cases:
        with pytest.raises(ValueError, match=told):
            bt.sweep(wrong)
    Path("wrong.yaml").write_text("name: wrong\nconfig: nowhere.json\n")
    with pytest.raises(ValueError, match=r"E4002 config: .*no such file.*\[wrong.yaml:2:9\]"):
        bt.sweep("wrong.yaml")
    with pytest.raises(ValueError, match="E4002 .*nowhere.yaml: cannot be read: no such file"):
        bt.sweep("nowhere.yaml")
    with pytest.raises(ValueError, match="E4002 memory: the memory cap of"):
        bt.sweep(grid, memory="1kB")
    with pytest.raises(ValueError, match="E4002 memory"):
        bt.sweep(grid, memory="much")
    with pytest.raises(ValueError, match="E4002 threads: must be >= 1"):
        bt.sweep(grid, threads=0)
    with pytest.raises(TypeError, match="grid: must be a path"):
        bt.sweep(7)  # type: ignore[arg-type]
    assert not Path("results").exists()


def test_data_errors_and_failures_of_every_trial_are_exceptions(grid: dict[str, Any]) -> None:
    del grid["config"]["data"]
    with pytest.raises(bt.DataError, match="^E4100 EURUSD/EURUSD_H1_BID.parquet") as caught:
        bt.sweep(grid)
    assert (caught.value.code, caught.value.category) == ("E4100", "market_data")
    assert caught.value.details["timeframe"] == "H1" and isinstance(caught.value, ValueError)
    grid["config"]["data"] = {"source": "synthetic", "seed": 7, "bars": 3000}
    grid["parameters"]["slow_length"] = [150, 160]
    with pytest.raises(bt.EngineError, match="^E4003 .*warmup_bars") as failed:
        bt.sweep(grid)
    assert failed.value.details == {"trials": 16} and failed.value.category == "runtime"


def test_a_folder_in_use(grid: dict[str, Any]) -> None:
    board = bt.sweep(grid)
    fcntl = pytest.importorskip("fcntl")
    with (board.path / "logs" / "owner.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="in use by another omega-opt"):
            bt.sweep(grid)


@pytest.fixture
def walking(grid: dict[str, Any]) -> dict[str, Any]:
    """The grid with windows."""
    return {**grid, "walk_forward": {"mode": "rolling", "train": "60d", "test": "20d"}}


def test_a_walk_forward_writes_the_bytes_of_the_command_line(walking: dict[str, Any], omega_opt: Command) -> None:
    path = write(walking)
    report = json.loads(
        omega_opt("walkforward", str(path), "--out", "cli", "--threads", "1", "--json", "--quiet").stdout
    )
    run = bt.walk_forward(path, out="python", threads=2)
    ours, theirs = lasting(run.path), lasting(Path(report["folder"]))
    assert ours.keys() == theirs.keys() and {"windows.parquet", "equity.csv", "summary.json"} <= ours.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert run.summary["designs"] == report["designs"]


def test_a_walk_forward_is_read_back(walking: dict[str, Any], grid: dict[str, Any]) -> None:
    run = bt.walk_forward(walking)
    assert run.report is not None and run.report["trials"] == 24
    assert repr(run).endswith(": rolling, 1 design>")
    windows = run.table("windows")
    assert len(windows) >= 2 and "window" in windows.column_names
    assert len(run.table("equity")) > len(windows)
    assert bt.WalkForward(run.path).summary == run.summary
    with pytest.raises(ValueError, match="E4002 .*walk_forward"):
        bt.walk_forward(grid)
    with pytest.raises(FileNotFoundError):
        bt.WalkForward("nowhere")


def test_a_plan_writes_no_run(grid: dict[str, Any], omega_opt: Command) -> None:
    told = bt.plan(grid)
    assert told["trials"] == 24 and told["name"] == "small" and not Path("results").exists()
    theirs = json.loads(omega_opt("plan", str(write(grid)), "--json").stdout)
    assert told.keys() == theirs.keys() and told["axes"] == theirs["axes"]
    with pytest.raises(ValueError, match="E4002 parameterz"):
        bt.plan({**grid, "parameterz": {}})


# Work for many seconds on a fast machine: three waves and a bit.
HEAVY: dict[str, Any] = {
    "name": "heavy",
    "config": {
        "strategy_name": "mean_reversion_z_score",
        "symbol": "EURUSD",
        "start_date": "2020-09-01",
        "end_date": "2020-12-31",
        "data": {"source": "synthetic", "seed": 7, "bars": 75000},
        "timeframes": {"primary": "M5", "additional": ["H1", "H4", "D1"]},
        "warmup_bars": 200,
        "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0},
        "strategy_parameters": {"enabled_scenarios": [1]},
    },
    "parameters": {
        "window_length": "40..145:5",
        "atr_mult": {"min": 1.0, "max": 3.0, "step": 0.25},
        "ema_length": [20, 30, 50],
        "z_score_long": "-2.5..-1.0:0.01",
    },
    "limits": {"chunk": 32},
    "output": {"top": 1},
}


def test_a_time_limit_keeps_what_is_finished() -> None:
    with pytest.raises(bt.SweepStopped, match="time limit reached") as stopped:
        bt.sweep(HEAVY, set={"limits.time": "1s"})
    assert stopped.value.report["end"] == "deadline"
    assert list((Path(stopped.value.folder) / "chunks").glob("*.parquet"))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_stops_after_the_wave_and_the_same_call_continues() -> None:
    Path("heavy.yaml").write_text(json.dumps(HEAVY))
    script = (
        "import bt, signal\n"
        # A job in the background of a shell inherits that Ctrl-C is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n"
        "    bt.sweep('heavy.yaml', progress=True)\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(42)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(Path("results").glob("heavy-*/chunks/*.parquet")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=120)
    assert running.returncode == 42, told
    assert "stopping after the running wave" in told
    (folder,) = Path("results").glob("heavy-*")
    finished = {path.name: path.stat().st_mtime_ns for path in folder.glob("chunks/*.parquet")}
    assert finished and not (folder / "leaderboard.parquet").exists()
    meter = omega_bt.Meter()
    assert meter.read()[0] == 0 and meter.folder is None
    with pytest.raises(bt.SweepStopped):
        bt.sweep("heavy.yaml", set={"limits.time": "1s"})
    again = {path.name: path.stat().st_mtime_ns for path in folder.glob("chunks/*.parquet")}
    assert finished.items() <= again.items(), "finished chunks are not touched"


def test_events_are_written_and_progress_is_a_line(grid: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    board = bt.sweep(grid, progress=True)
    capsys.readouterr()
    events = [json.loads(line) for line in (board.path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events][0] == "start" and events[-1]["event"] == "end"
    bt.sweep(grid)
    assert capsys.readouterr() == ("", ""), "nobody watches"
