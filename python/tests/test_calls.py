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


@pytest.mark.parametrize("callers", [1, 2])
def test_the_lock_is_released_while_runs_work(config: dict[str, Any], callers: int) -> None:
    config["data"]["bars"] = 60_000
    config["end_date"] = "2026-06-30"
    text = json.dumps(config)

    def ticks_inside() -> int:
        """How often this thread ran Python code while every one of `callers` threads was in the engine at once."""
        spans: list[tuple[float, float]] = []
        together = threading.Barrier(callers)

        def run() -> None:
            together.wait(timeout=60)
            started = time.perf_counter()
            answer = omega_bt.run_backtest(text, include=[])
            spans.append((started, time.perf_counter()))
            assert json.loads(answer)["ok"]

        threads = [threading.Thread(target=run) for _ in range(callers)]
        for thread in threads:
            thread.start()
        ticks = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.001)
            ticks.append(time.perf_counter())
        for thread in threads:
            thread.join()
        assert len(spans) == callers
        first, last = max(start for start, _ in spans), min(end for _, end in spans)
        return sum(first < tick < last for tick in ticks)

    # With the lock held for a call, none but the switches at its two ends could fall inside it, on any machine; with
    # it released, a busy machine may need more than one try to show ten.
    assert any(ticks_inside() >= 10 for _ in range(20))
