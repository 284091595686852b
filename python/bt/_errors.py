"""Failures of calls that cannot return an error document."""

from __future__ import annotations

import json
from typing import Any


class EngineError(RuntimeError):
    """The engine refused or failed; the text starts with the code.

    Attributes:
        code: ``E4100`` and the like.
        category: ``market_data``, ``execution``, ``strategy`` or ``runtime``.
        message: what happened, one line.
        details: the values behind it; may be empty.
    """

    def __init__(self, code: str, category: str, message: str, details: dict[str, Any]) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.category = category
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[type[EngineError], tuple[str, str, str, dict[str, Any]]]:
        return type(self), (self.code, self.category, self.message, self.details)


class DataError(EngineError, ValueError):
    """Bars, news or other market input break a rule."""


class SweepStopped(RuntimeError):  # noqa: N818 - it is no error: the same call continues
    """The time limit of the grid ended a sweep before its last setting; the same call continues.

    Attributes:
        folder: the run folder; what is finished stays in it.
        report: counts of what was done.
    """

    def __init__(self, report: dict[str, Any]) -> None:
        self.folder = str(report["folder"])
        self.report = report
        super().__init__(f"time limit reached; finished chunks are kept in {self.folder}; the same call continues")

    def __reduce__(self) -> tuple[type[SweepStopped], tuple[dict[str, Any]]]:
        return type(self), (self.report,)


def failure(document: str) -> EngineError:
    """What an error document says, as an exception."""
    error = json.loads(document)["error"]
    kind = DataError if error["category"] == "market_data" else EngineError
    return kind(error["code"], error["category"], error["message"], error["details"])


def succeeded(document: str) -> dict[str, Any]:
    """The document of a success; raises what an error document says."""
    result: dict[str, Any] = json.loads(document)
    if result.get("ok") is False:
        raise failure(document)
    return result
