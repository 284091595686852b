"""One backtest: configuration in, result and artefacts out."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bt._backend import get_active_backend, reference_engine
from bt._extension import omega_bt
from bt._bars import BarStore, in_memory
from bt._json import to_json

logger = logging.getLogger("bt")

#: Where runs are written unless told otherwise.
RESULTS = "results"


def _read(path: str | os.PathLike[str]) -> str:
    """The text of a config file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"E4002 {os.fspath(path)}: is not UTF-8 text ({error.reason} at byte {error.start})") from None


def _document(config: Mapping[str, Any]) -> str:
    if not isinstance(config, Mapping):
        raise TypeError(f"a run config must be a mapping, got {type(config).__name__}")
    return to_json("config", dict(config))


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        logger.warning("%s", warning)


def load_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a run config file; returns it normalised, with every default filled in.

    Unknown keys are ignored with a warning (logger ``bt``).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: every violation, one a line.
    """
    checked = json.loads(omega_bt.normalise_config(_read(path), name=os.fspath(path)))
    _warn(checked["warnings"])
    config: dict[str, Any] = checked["config"]
    return config


def validate_config(config: Mapping[str, Any], *, strict: bool = False) -> None:
    """Checks a run config and its strategy's parameters.

    Args:
        config: the run config.
        strict: unknown keys are violations instead of warnings.

    Raises:
        ValueError: every violation, one a line.
    """
    checked = json.loads(omega_bt.normalise_config(_document(config), strict=strict))
    _warn(checked["warnings"])


def run_backtest(
    config_path: str | os.PathLike[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    *,
    bars: BarStore | Iterable[BarStore] | None = None,
    include: Iterable[str] | None = None,
    strict: bool = False,
    artifacts: bool = True,
) -> dict[str, Any]:
    """Runs one backtest and, if it succeeds, writes its four artefacts.

    Args:
        config_path: a run config file; either this or ``config_dict``.
        config_dict: a run config.
        output_dir: folder of the artefacts; default ``results/<run_id>``. An earlier run in it is replaced as a whole; a
            folder that holds anything else is refused.
        bars: bars in memory instead of files.
        include: blocks of the result: ``trades``, ``metrics``, ``equity_curve``; default all. The artefacts are whole
            either way, and a result without the equity curve (an object per bar) is much smaller.
        strict: unknown keys are violations instead of warnings.
        artifacts: False writes nothing.

    Returns:
        ``{"ok": True, "meta": …, "trades": […], "metrics": {…}, "metric_definitions": {…}, "equity_curve": […],
        "warnings": […]}``, or ``{"ok": False, "error": {"code", "category", "message", "details"}}`` if the run failed.

    Raises:
        ValueError: not exactly one source; a config that is wrong (E4002) or names no strategy (E4001).
        FileNotFoundError: ``config_path`` names no file.
        RuntimeError: ``OMEGA_USE_RUST_STRATEGY`` asks for an engine that is not there; an internal error.
        OSError: the artefacts cannot be written.
    """
    if (config_path is None) == (config_dict is None):
        given = "both" if config_path is not None else "neither"
        raise ValueError(f"E4002 exactly one of config_path and config_dict must be given, got {given}")
    backend = get_active_backend()
    if isinstance(include, str):
        include = [include]
    wanted = None if include is None else list(include)
    if config_path is not None:
        text, name = _read(config_path), os.fspath(config_path)
    else:
        assert config_dict is not None
        text, name = _document(config_dict), ""
    if backend == "python":
        return _run_reference(text, output_dir, bars, artifacts=artifacts)
    document = omega_bt.run_backtest(
        text,
        bars=in_memory(bars),
        include=wanted,
        folder=None if not artifacts else os.fspath(RESULTS if output_dir is None else output_dir),
        folder_is_root=output_dir is None,
        name=name,
        strict=strict,
    )
    result: dict[str, Any] = json.loads(document)
    _warn(result.get("warnings", ()))
    return result


def _run_reference(
    text: str,
    output_dir: str | os.PathLike[str] | None,
    bars: BarStore | Iterable[BarStore] | None,
    *,
    artifacts: bool,
) -> dict[str, Any]:
    if bars is not None:
        raise ValueError("E4002 bars: the reference engine reads files only")
    result: dict[str, Any] = json.loads(reference_engine()(text))
    if artifacts and result.get("ok"):
        write_artifacts(result, Path(RESULTS) / result["meta"]["run_id"] if output_dir is None else output_dir)
    return result


def write_artifacts(result: Mapping[str, Any], output_dir: str | os.PathLike[str]) -> None:
    """Writes ``meta.json``, ``trades.json``, ``equity.csv`` and ``metrics.json`` of a result into ``output_dir``.

    The bytes are those the run itself writes. The folder appears whole or not at all.

    Raises:
        ValueError: a result with ``ok: False`` or without one of its blocks (``include`` left it out).
        OSError: the files cannot be written.
    """
    if result.get("ok") is not True:
        raise ValueError("E4002 result: only a successful run (ok: True) has artefacts")
    omega_bt.write_result(to_json("result", dict(result)), os.fspath(output_dir))


def strategies() -> list[dict[str, Any]]:
    """Every registered strategy with its parameters, their ranges and defaults."""
    known: list[dict[str, Any]] = json.loads(omega_bt.strategies())
    return known


def config_schema() -> dict[str, Any]:
    """JSON schema of a run config."""
    schema: dict[str, Any] = json.loads(omega_bt.run_config_schema())
    return schema
