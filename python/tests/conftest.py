"""What the tests share: a working folder with costs and specs in it, small configs, the command line."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(__file__).resolve().parent / "data"

#: Synthetic hourly bars and a strategy that is quick on them.
CONFIG: dict[str, Any] = {
    "strategy_name": "sma_cross",
    "symbol": "EURUSD",
    "start_date": "2020-01-06",
    "end_date": "2020-06-30",
    "data": {"source": "synthetic", "seed": 7, "bars": 3000},
    "timeframes": {"primary": "H1", "additional": []},
    "warmup_bars": 100,
    "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0},
    "strategy_parameters": {"lots": 0.1},
}

#: 24 settings of it.
GRID: dict[str, Any] = {
    "name": "small",
    "config": CONFIG,
    "parameters": {
        "fast_length": [5, 10, 20, 40],
        "slow_length": [50, 60, 80],
        "direction_filter": ["long", "both"],
    },
    "gates": ["total_trades >= 10"],
    "limits": {"chunk": 4},
    "output": {"top": 2},
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated bars, made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of its own, blind to the environment outside."""
    for name in [*os.environ]:
        if name.startswith("OMEGA_") and name not in ("OMEGA_OPT", "OMEGA_TEST_DATA"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OMEGA_CACHE_DIR", str(cache))
    monkeypatch.setenv("RAYON_NUM_THREADS", "2")
    monkeypatch.delenv("RUST_LOG", raising=False)
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs", ignore=shutil.ignore_patterns("*.json"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture
def config() -> dict[str, Any]:
    """A run config to change."""
    return copy.deepcopy(CONFIG)


@pytest.fixture
def grid() -> dict[str, Any]:
    """A grid to change."""
    return copy.deepcopy(GRID)


@pytest.fixture
def faulty(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """A config that reads the candle files of one fault below ``tests/data`` (made by ``make.py`` there)."""

    def of(name: str) -> dict[str, Any]:
        monkeypatch.setenv("OMEGA_DATA_PARQUET_ROOT", str(DATA / name))
        del config["data"]
        config.update(start_date="2024-03-04", end_date="2024-03-06", warmup_bars=10)
        config["strategy_parameters"] = {"lots": 0.1, "fast_length": 2, "slow_length": 5}
        return config

    return of


@pytest.fixture
def omega_opt() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line; ``cargo xtask python`` names it in OMEGA_OPT."""
    binary = os.environ.get("OMEGA_OPT")
    if binary is None:
        pytest.skip("OMEGA_OPT does not name the command line")

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done

    return run


def lasting(folder: Path) -> dict[str, bytes]:
    """Every file of a run folder that may not differ between two equal runs."""
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name == "events.jsonl" or name.split("/")[0] in ("logs", "profiling"):
            continue
        data = path.read_bytes()
        if path.name == "meta.json":
            meta = json.loads(data)
            meta.pop("generated_at"), meta.pop("generated_at_ns")
            data = json.dumps(meta, sort_keys=True).encode()
        files[name] = data
    return files
