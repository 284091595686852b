"""What many calls cost: memory comes back, the interpreter lock is released."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
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


def test_the_lock_is_released_while_a_run_works(config: dict[str, Any]) -> None:
    config["data"]["bars"] = 60_000
    config["end_date"] = "2026-06-30"
    text = json.dumps(config)
    omega_bt.run_backtest(text, include=[])
    times: list[tuple[float, float]] = []

    def run() -> None:
        started = time.perf_counter()
        for _ in range(3):
            assert json.loads(omega_bt.run_backtest(text, include=[]))["ok"]
        times.append((started, time.perf_counter()))

    def ticks_during(count: int) -> float:
        """Share of the time in which this thread got to run Python code while others were in the engine."""
        threads = [threading.Thread(target=run) for _ in range(count)]
        for thread in threads:
            thread.start()
        started = last = time.perf_counter()
        longest = 0.0
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        for thread in threads:
            thread.join()
        return longest / (time.perf_counter() - started)

    # A lock held for a call would keep this thread waiting for a third of the time at least.
    assert ticks_during(1) < 0.25
    times.clear()
    assert ticks_during(2) < 0.25
    (first, first_end), (second, second_end) = times
    assert first < second_end and second < first_end, "the calls of two threads overlap"
