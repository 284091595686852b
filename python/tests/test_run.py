"""One backtest through the package: config, result, artefacts, backend, command line."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import omega_bt
import pytest

import bt
from conftest import lasting

Command = Callable[..., "subprocess.CompletedProcess[str]"]
ARTEFACTS = {"meta.json", "trades.json", "equity.csv", "metrics.json"}


def test_a_result_has_every_block_and_artefacts(config: dict[str, Any]) -> None:
    result = bt.run_backtest(config_dict=config)
    assert result["ok"] is True
    blocks = {"ok", "meta", "warnings", "trades", "metrics", "metric_definitions", "equity_curve"}
    assert set(result) == blocks
    assert len(result["trades"]) == result["metrics"]["total_trades"] > 5
    assert set(result["metrics"]) == set(result["metric_definitions"])
    point = result["equity_curve"][0]
    assert set(point) == {"timestamp_ns", "equity", "balance", "drawdown", "high_water"}
    assert point["timestamp_ns"] == result["meta"]["dataset"]["start_time_ns"]
    folder = Path("results") / result["meta"]["run_id"]
    assert {path.name for path in folder.iterdir()} == ARTEFACTS
    assert json.loads((folder / "trades.json").read_text()) == result["trades"]
    assert json.loads((folder / "meta.json").read_text()) == result["meta"]
    assert len((folder / "equity.csv").read_text().splitlines()) == len(result["equity_curve"]) + 1


def test_the_command_line_writes_the_same_bytes(config: dict[str, Any], omega_opt: Command) -> None:
    Path("run.json").write_text(json.dumps(config))
    omega_opt("run", "run.json", "--out", "cli")
    result = bt.run_backtest("run.json")
    run_id = result["meta"]["run_id"]
    assert lasting(Path("cli") / run_id) == lasting(Path("results") / run_id)
    # The text in a file, the text itself and the dict are one config.
    again = json.loads(omega_bt.run_backtest(json.dumps(config)))
    assert again["meta"]["run_id"] == run_id and again["metrics"] == result["metrics"]


def test_written_again_from_the_result(config: dict[str, Any]) -> None:
    result = bt.run_backtest(config_dict=config, output_dir="first")
    bt.write_artifacts(result, "second")
    for name in ARTEFACTS:
        assert (Path("first") / name).read_bytes() == (Path("second") / name).read_bytes(), name


def test_include_leaves_blocks_out_and_artefacts_whole(config: dict[str, Any]) -> None:
    result = bt.run_backtest(config_dict=config, output_dir="out", include=["metrics"])
    assert set(result) == {"ok", "meta", "warnings", "metrics", "metric_definitions"}
    assert {path.name for path in Path("out").iterdir()} == ARTEFACTS
    assert set(bt.run_backtest(config_dict=config, artifacts=False, include=[])) == {"ok", "meta", "warnings"}
    with pytest.raises(ValueError, match="`trades` must be a list, got nothing"):
        bt.write_artifacts(result, "again")
    assert not Path("again").exists()


def test_results_that_failed_have_no_artefacts(config: dict[str, Any]) -> None:
    config["warmup_bars"] = 100_000
    result = bt.run_backtest(config_dict=config)
    assert result["ok"] is False
    with pytest.raises(ValueError, match="only a successful run"):
        bt.write_artifacts(result, "out")
    assert not Path("out").exists()


def test_what_is_on_disk_is_not_harmed(config: dict[str, Any]) -> None:
    mine = Path("mine")
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    told = "output_dir: must be new, empty or the folder of an earlier run"
    with pytest.raises(ValueError, match=told):
        bt.run_backtest(config_dict=config, output_dir=mine)
    result = bt.run_backtest(config_dict=config, artifacts=False)
    with pytest.raises(ValueError, match=told):
        bt.write_artifacts(result, mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    (mine / "thesis.txt").unlink()
    for _ in range(2):
        bt.run_backtest(config_dict=config, output_dir=mine)
    assert {path.name for path in mine.iterdir()} == ARTEFACTS


def test_folders_that_cannot_be_written(config: dict[str, Any]) -> None:
    Path("file").write_text("")
    with pytest.raises(OSError, match="file"):
        bt.run_backtest(config_dict=config, output_dir="file/run")


def test_profiling_is_part_of_the_result_if_asked_for(config: dict[str, Any]) -> None:
    config["profiling"] = {"enabled": True}
    result = bt.run_backtest(config_dict=config, output_dir="out", include=[])
    assert result["profiling"]["metrics"]["bars_processed"] > 1000
    assert (Path("out") / "profiling" / "profiling.json").is_file()


def test_load_and_validate(config: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    config["symbol"] = " eurusd "
    config["colour"] = "red"
    Path("run.json").write_text(json.dumps(config))
    with caplog.at_level(logging.WARNING, logger="bt"):
        loaded = bt.load_config("run.json")
    assert loaded["symbol"] == "EURUSD" and loaded["rng_seed"] == 42 and "colour" not in loaded
    assert "colour" in caplog.text
    bt.validate_config(loaded, strict=True)
    assert bt.run_backtest(config_dict=loaded, artifacts=False)["ok"]
    with pytest.raises(FileNotFoundError):
        bt.load_config("nowhere.json")
    with pytest.raises(FileNotFoundError):
        bt.run_backtest("nowhere.json")
    Path("latin.json").write_bytes(b'{"symbol": "\xe9"}')
    with pytest.raises(ValueError, match="E4002 latin.json: is not UTF-8"):
        bt.load_config("latin.json")


def test_schema_and_strategies() -> None:
    schema = bt.config_schema()
    assert "strategy_name" in schema["required"]
    names = {strategy["name"] for strategy in bt.strategies()}
    assert {"sma_cross", "mean_reversion_z_score"} <= names
    assert "+" in omega_bt.ENGINE_VERSION


@pytest.mark.parametrize("value", [None, "", "auto", "AUTO", "true", "1", "yes", "on", " On "])
def test_the_rust_engine_is_the_default(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("OMEGA_USE_RUST_STRATEGY", value)
    assert bt.get_active_backend() == bt.get_active_backend("sma_cross") == "rust"
    assert bt.is_rust_strategy_available() and bt.is_rust_strategy_available("sma_cross")
    assert not bt.is_rust_strategy_available("nobody")
    with pytest.raises(RuntimeError, match="'nobody' is not registered; known: .*sma_cross"):
        bt.get_active_backend("nobody")


@pytest.mark.parametrize("value", ["false", "0", "NO", "off"])
def test_no_python_engine_is_shipped(value: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMEGA_USE_RUST_STRATEGY", value)
    for call in (bt.get_active_backend, lambda: bt.run_backtest(config_dict=config)):
        with pytest.raises(RuntimeError, match="Python backend is not available"):
            call()


def test_a_flag_that_means_nothing(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMEGA_USE_RUST_STRATEGY", "maybe")
    for call in (bt.get_active_backend, lambda: bt.run_backtest(config_dict=config)):
        with pytest.raises(ValueError, match="OMEGA_USE_RUST_STRATEGY: must be one of .*, got 'maybe'"):
            call()


def test_a_reference_engine_may_be_installed(
    config: dict[str, Any], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = desk / "site" / "reference-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reference\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[omega_bt.reference]\nengine = reference_engine:run\n")
    (desk / "site" / "reference_engine.py").write_text("import omega_bt\nrun = omega_bt.run_backtest\n")
    monkeypatch.syspath_prepend(str(desk / "site"))
    monkeypatch.setenv("OMEGA_USE_RUST_STRATEGY", "off")
    assert bt.get_active_backend() == "python"
    result = bt.run_backtest(config_dict=config, output_dir="python")
    monkeypatch.delenv("OMEGA_USE_RUST_STRATEGY")
    bt.run_backtest(config_dict=config, output_dir="rust")
    assert result["ok"] and lasting(Path("python")) == lasting(Path("rust")), "the flag never changes numbers"


def python_m_bt(*arguments: str, path: str = "", code: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "bt", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code, done
    return done


SUMMARY = [
    "total_trades",
    "win_rate",
    "profit_net",
    "max_drawdown",
    "profit_factor",
    "sharpe_equity_daily",
    "calmar_ratio",
]


def test_the_command_line_of_the_package(config: dict[str, Any], desk: Path) -> None:
    Path("run.json").write_text(json.dumps(config))
    shown = python_m_bt("run", "run.json", code=0)
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert [line[0] for line in lines[:-1]] == SUMMARY
    folder = Path(lines[-1][0])
    assert folder.parent.name == "results" and {path.name for path in folder.iterdir()} == ARTEFACTS
    assert python_m_bt("run", "run.json", "-q", "-o", "out", code=0).stdout == ""
    assert lasting(Path("out")) == lasting(folder)
    told = json.loads(python_m_bt("run", "run.json", "--json", code=0).stdout)
    assert told["ok"] and list(told["metrics"]) == SUMMARY and Path(told["output_dir"]) == folder

    assert "no such file" in python_m_bt("run", "nowhere.json", code=2).stderr
    assert "no such file" in python_m_bt("validate", "nowhere.json", code=2).stderr
    assert "valid" in python_m_bt("validate", "run.json", code=0).stdout
    Path("odd.json").write_text(json.dumps({**config, "colour": "red"}))
    assert "warning: colour" in python_m_bt("validate", "odd.json", code=0).stderr
    assert "E4002 colour" in python_m_bt("validate", "odd.json", "--strict", code=3).stderr
    assert "E4002 colour" in python_m_bt("run", "odd.json", "--strict", code=3).stderr
    assert json.loads(python_m_bt("schema", code=0).stdout) == bt.config_schema()
    Path("short.json").write_text(json.dumps({**config, "warmup_bars": 100_000}))
    assert python_m_bt("run", "short.json", code=1).stderr.startswith("E4004 ")
    assert json.loads(python_m_bt("run", "short.json", "--json", code=1).stdout)["error"]["code"] == "E4004"

    (desk / "broken").mkdir()
    (desk / "broken" / "omega_bt.py").write_text("raise ImportError('built for another machine')")
    shown = python_m_bt("run", "run.json", path=str(desk / "broken"), code=4)
    assert "built for another machine" in shown.stderr


def test_without_the_extension_the_package_says_what_is_missing(desk: Path) -> None:
    (desk / "omega_bt.py").write_text("raise ImportError('built for another machine')")
    script = (
        "import bt\n"
        "assert not bt.is_rust_strategy_available()\n"
        "for call in (bt.get_active_backend, lambda: bt.run_backtest(config_dict={})):\n"
        "    try:\n"
        "        call()\n"
        "    except RuntimeError as error:\n"
        "        assert 'built for another machine' in str(error)\n"
        "    else:\n"
        "        raise SystemExit('no error')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(desk)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
