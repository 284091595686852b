"""What many calls cost: memory comes back, the interpreter lock is released."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import omega_bt
import pytest


def resident_bytes() -> int:
    """Resident memory of the process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_returns_to_its_level_after_a_thousand_calls(config: dict[str, Any]) -> None:
    config["end_date"] = "2020-02-15"
    text = json.dumps(config)
    wrong = json.dumps({**config, "symbol": "?"})
    short = json.dumps({**config, "warmup_bars": 100_000})

    def calls(count: int) -> None:
        for _ in range(count):
            assert json.loads(omega_bt.run_backtest(text))["ok"]
            assert not json.loads(omega_bt.run_backtest(short))["ok"]
            with pytest.raises(ValueError):
                omega_bt.run_backtest(wrong)
        gc.collect()

    calls(100)
    before = resident_bytes()
    calls(1000)
    grown = resident_bytes() - before
    # One call works on some megabytes: a leak of one block of it would show as gigabytes, of one string as megabytes.
    assert grown < 8_000_000, f"{grown:,} bytes more after 1,000 calls"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("timeframes", [["H1"], ["H1", "H4"]])
def test_the_lock_is_released_while_runs_work(
    config: dict[str, Any],
    desk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    timeframes: list[str],
) -> None:
    """One thread per timeframe stands inside a call, in the middle of reading its bars, until Python feeds it.

    The bars are named pipes, which Python opens and fills once every thread has begun to read. A call that held the
    lock would wait forever for bytes that nobody could write: no clock decides, only a watchdog ends it.
    """
    monkeypatch.setenv("OMEGA_CACHE_DIR", str(desk / "cache"))
    assert json.loads(omega_bt.run_backtest(json.dumps(config), include=[]))["ok"]
    (generated,) = desk.glob("cache/synthetic/*/EURUSD")
    bars = desk / "bars" / "EURUSD"
    shutil.copytree(generated, bars)
    monkeypatch.setenv("OMEGA_DATA_PARQUET_ROOT", str(bars.parent))
    del config["data"]

    def run(timeframe: str) -> Any:
        job = {**config, "timeframes": {"primary": timeframe, "additional": []}}
        return json.loads(omega_bt.run_backtest(json.dumps(job), include=["trades"]))["trades"]

    expected = {timeframe: run(timeframe) for timeframe in timeframes}
    assert all(expected.values())
    pipes = {timeframe: bars / f"EURUSD_{timeframe}_BID.parquet" for timeframe in timeframes}
    content = {timeframe: pipe.read_bytes() for timeframe, pipe in pipes.items()}
    for pipe in pipes.values():
        pipe.unlink()
        os.mkfifo(pipe)
    with capfd.disabled():
        terminal = os.dup(2)
    # Ends the process with the stacks of all threads; it needs no lock for that.
    faulthandler.dump_traceback_later(120, exit=True, file=terminal)
    try:
        with ThreadPoolExecutor(len(timeframes)) as threads:
            running = {timeframe: threads.submit(run, timeframe) for timeframe in timeframes}
            # Opening a pipe for writing waits for its reader: past this line every thread is inside a call, at once.
            writers = {timeframe: pipe.open("wb") for timeframe, pipe in pipes.items()}
            assert not any(call.done() for call in running.values())
            for timeframe, writer in writers.items():
                with writer:
                    writer.write(content[timeframe])
            assert {timeframe: call.result() for timeframe, call in running.items()} == expected
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.close(terminal)
