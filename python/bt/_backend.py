"""Which engine computes, and how the extension is found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from bt._extension import missing, omega_bt

FLAG = "OMEGA_USE_RUST_STRATEGY"
_RUST = frozenset({"auto", "", "true", "1", "yes", "on"})
_PYTHON = frozenset({"false", "0", "no", "off"})


def _registered() -> set[str]:
    return {strategy["name"] for strategy in json.loads(omega_bt.strategies())}


def is_rust_strategy_available(strategy_name: str | None = None) -> bool:
    """The extension can be imported and, if a name is given, knows that strategy."""
    if missing is not None:
        return False
    return strategy_name is None or strategy_name in _registered()


def _reference() -> EntryPoint | None:
    found = [*entry_points(group="omega_bt.reference"), *entry_points(group="omega_bt", name="reference")]
    return found[0] if found else None


def get_active_backend(strategy_name: str | None = None) -> str:
    """``rust`` or ``python``, as ``OMEGA_USE_RUST_STRATEGY`` says now.

    Unset, empty or ``auto``, ``true``, ``1``, ``yes``, ``on``: ``rust``. ``false``, ``0``, ``no``, ``off``: ``python``,
    if a reference engine is installed under the entry point ``omega_bt.reference``; none is shipped. The flag never
    changes numbers.

    Raises:
        RuntimeError: the engine asked for is not there, or does not know the strategy.
        ValueError: the variable holds anything else.
    """
    given = os.environ.get(FLAG, "")
    value = given.strip().lower()
    if value in _PYTHON:
        if _reference() is None:
            raise RuntimeError(
                f"{FLAG}={given}: the Python backend is not available; "
                "no reference engine is installed under the entry point omega_bt.reference"
            )
        return "python"
    if value not in _RUST:
        allowed = ", ".join(sorted((_RUST | _PYTHON) - {""}))
        raise ValueError(f"E4002 {FLAG}: must be one of {allowed}, got {given!r}")
    if missing is not None:
        raise RuntimeError(f"the extension omega_bt cannot be imported: {missing}") from missing
    if strategy_name is not None and strategy_name not in (known := _registered()):
        raise RuntimeError(f"strategy {strategy_name!r} is not registered; known: {', '.join(sorted(known))}")
    return "rust"


def reference_engine() -> Callable[[str], str]:
    """``run_backtest(config_json) -> str`` of the installed reference engine."""
    found = _reference()
    if found is None:
        raise RuntimeError("no reference engine is installed under the entry point omega_bt.reference")
    return cast("Callable[[str], str]", found.load())
