"""Every setting of a grid: one call, one leaderboard."""

from __future__ import annotations

import csv
import html
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bt._extension import omega_bt
from bt._bars import BarStore, in_memory
from bt._errors import SweepStopped, succeeded
from bt._json import to_json
from bt._progress import Watch

Grid = str | os.PathLike[str] | Mapping[str, Any]


def _grid(grid: Grid) -> dict[str, str]:
    """A path, unless it is a mapping or text with a line break."""
    if isinstance(grid, Mapping):
        return {"text": to_json("grid", dict(grid))}
    if isinstance(grid, os.PathLike):
        return {"path": os.fspath(grid)}
    if isinstance(grid, str):
        return {"text": grid} if "\n" in grid else {"path": grid}
    raise TypeError(f"grid: must be a path, YAML text or a mapping, got {type(grid).__name__}")


def _set(changes: Mapping[str, Any] | Iterable[str] | None) -> list[str]:
    if changes is None:
        return []
    if isinstance(changes, Mapping):
        return [f"{key}={to_json(f'set {key}', value)}" for key, value in changes.items()]
    if isinstance(changes, str):
        return [changes]
    return list(changes)


def request(
    grid: Grid,
    *,
    out: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    changes: Mapping[str, Any] | Iterable[str] | None = None,
    fresh: bool = False,
) -> str:
    """What the extension is asked for, as JSON text."""
    if threads is not None and threads < 1:
        raise ValueError(f"E4002 threads: must be >= 1, got {threads}")
    if isinstance(memory, int):
        memory = f"{memory}B"
    named = {
        "grid": _grid(grid),
        "set": _set(changes),
        "out": None if out is None else os.fspath(out),
        "threads": threads,
        "memory": memory,
        "fresh": fresh,
    }
    return to_json("request", named)


def sweep(
    grid: Grid,
    out: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    *,
    set: Mapping[str, Any] | Iterable[str] | None = None,  # noqa: A002 - the name of the command line's flag
    bars: BarStore | Iterable[BarStore] | None = None,
    fresh: bool = False,
    progress: bool | None = None,
) -> Leaderboard:
    """Evaluates every setting of a grid and ranks them: the run folder of ``omega-opt sweep``, byte for byte.

    An unfinished run of the same grid is continued. Ctrl-C ends after the running wave, keeps what is finished and raises
    ``KeyboardInterrupt``; the same call continues then.

    Args:
        grid: a grid file, its YAML text (anything with a line break), or the same as a mapping. Paths in text and
            mappings start at the working directory.
        out: output root; default ``output.dir`` of the grid, else ``results``.
        threads: worker threads; default ``RAYON_NUM_THREADS``, else all cores. Never changes a result.
        memory: cap, ``"8GB"`` or bytes; default ``limits.memory`` of the grid, else a share of the machine's.
        set: changes, ``{"window_length": "40..80:10", "costs.enabled": False}`` or ``["window_length=40..80:10"]``.
        bars: bars in memory instead of files.
        fresh: drop finished chunks of this grid first.
        progress: show a progress line; default: in notebooks and on terminals.

    Raises:
        ValueError: a grid or config that is wrong, with every fault; a memory cap that is too small.
        DataError: bars that break a rule.
        EngineError: every setting failed; the error of one of them.
        SweepStopped: the time limit of the grid.
        OSError: the run folder cannot be written.
        RuntimeError: the run folder is in use.
    """
    asked = request(grid, out=out, threads=threads, memory=memory, changes=set, fresh=fresh)
    series = in_memory(bars)
    meter = omega_bt.Meter()
    with Watch(meter, progress):
        document = omega_bt.sweep(asked, bars=series, meter=meter)
    report = succeeded(document)
    if report["end"] == "deadline":
        raise SweepStopped(report)
    return Leaderboard(report["folder"], bars=bars, report=report)


def plan(
    grid: Grid,
    out: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    *,
    set: Mapping[str, Any] | Iterable[str] | None = None,  # noqa: A002 - the name of the command line's flag
    bars: BarStore | Iterable[BarStore] | None = None,
) -> dict[str, Any]:
    """What a sweep of a grid will do and take, as ``omega-opt plan --json`` prints it: settings, columns, time, memory, disk.

    Arguments as for :func:`sweep`. Runs a few settings to estimate the time; writes nothing but the cache of bars.
    """
    asked = request(grid, out=out, threads=threads, memory=memory, changes=set)
    document = succeeded(omega_bt.plan(asked, bars=in_memory(bars)))
    del document["ok"]
    return document


def walk_forward(
    grid: Grid,
    out: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    *,
    set: Mapping[str, Any] | Iterable[str] | None = None,  # noqa: A002 - the name of the command line's flag
    bars: BarStore | Iterable[BarStore] | None = None,
    fresh: bool = False,
    progress: bool | None = None,
) -> WalkForward:
    """Chooses on the past and judges on the unseen, window by window: the run folder of ``omega-opt walkforward``.

    The grid needs a section ``walk_forward``. Arguments, interruption and exceptions as for :func:`sweep`.
    """
    asked = request(grid, out=out, threads=threads, memory=memory, changes=set, fresh=fresh)
    series = in_memory(bars)
    meter = omega_bt.Meter()
    with Watch(meter, progress):
        document = omega_bt.walk_forward(asked, bars=series, meter=meter)
    report = succeeded(document)
    if report["end"] == "deadline":
        raise SweepStopped(report)
    return WalkForward(report["folder"], report=report)


class WalkForward:
    """A finished walk-forward.

    A table of its windows for everything that reads the Arrow C stream.

    Attributes:
        path: the run folder.
        report: counts and warnings of the call; None of a run opened later.
        summary: ``summary.json``: mode, embargo, and per design its figures, checks and windows.
    """

    def __init__(self, path: str | os.PathLike[str], *, report: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.report = report
        summary = self.path / "summary.json"
        if not summary.is_file():
            raise FileNotFoundError(f"{os.fspath(path)}: no finished walk-forward, summary.json is not there")
        self.summary: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))

    def table(self, name: str) -> omega_bt.Table:
        """A table of the run folder by its name: ``windows``, ``equity`` or ``trades``."""
        return omega_bt.read_table(os.fspath(self.path / f"{name}.parquet"))

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The windows, each with its choice and both results."""
        return self.table("windows").__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        designs = len(self.summary["designs"])
        return f"<bt.WalkForward {self.path.name}: {self.summary['mode']}, {designs} design{'s' * (designs != 1)}>"


class Leaderboard:
    """The rows of a finished sweep, best first.

    A table for everything that reads the Arrow C stream, without a copy: ``polars.DataFrame(board)``,
    ``pyarrow.table(board)``, ``pandas.DataFrame.from_arrow(board)``, ``duckdb.sql("select * from board")``.

    Attributes:
        path: the run folder.
        report: counts, best rows and warnings as ``omega-opt sweep --json`` prints them; None of a run opened later.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        bars: BarStore | Iterable[BarStore] | None = None,
        report: dict[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.report = report
        self._bars = in_memory(bars)
        self._rows: omega_bt.Table | None = None
        manifest = self.path / "manifest.json"
        if not manifest.is_file():
            raise FileNotFoundError(f"{os.fspath(path)}: no finished run, manifest.json is not there")
        self.manifest: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))

    @property
    def table(self) -> omega_bt.Table:
        """All rows in memory, read once."""
        if self._rows is None:
            self._rows = omega_bt.read_table(os.fspath(self.path / "leaderboard.parquet"))
        return self._rows

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return self.table.column_names

    @property
    def status(self) -> dict[str, int]:
        """Rows by verdict: ``ok``, ``gated``, ``no_score``, ``failed``."""
        counts: dict[str, int] = self.manifest["status"]
        return counts

    def __len__(self) -> int:
        rows: int = self.manifest["rows"]
        return rows

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The rows over their own memory."""
        return self.table.__arrow_c_stream__(requested_schema)

    def row(self, which: int | str = 1) -> dict[str, Any]:
        """One row, unrounded: by rank (``3``), trial (``"t417"``) or hash prefix (``"h3fa9c1"``)."""
        found: dict[str, Any] = succeeded(omega_bt.row(os.fspath(self.path), str(which)))
        return found

    def best(self) -> dict[str, Any]:
        """The row of rank 1: its place, its setting under ``params``, every metric under ``metrics``."""
        return self.row(1)

    def config(self, which: int | str = 1) -> dict[str, Any]:
        """The complete run config of a row, ready for ``run_backtest``."""
        config: dict[str, Any] = json.loads(omega_bt.row_config(os.fspath(self.path), str(which)))
        return config

    def replay(
        self,
        which: int | str = 1,
        output_dir: str | os.PathLike[str] | None = None,
        *,
        include: Iterable[str] | None = None,
    ) -> dict[str, Any]:
        """Walks one row again and returns its result; the metrics are those of the row, bit for bit.

        Args:
            which: rank, trial or hash prefix, as for :meth:`row`.
            output_dir: output root for the artefacts, ``<output_dir>/<run_id>``; default: none are written.
            include: blocks of the result, as for ``run_backtest``.
        """
        document = omega_bt.replay(
            os.fspath(self.path),
            str(which),
            bars=self._bars,
            include=None if include is None else list(include),
            output_dir=None if output_dir is None else os.fspath(output_dir),
        )
        return succeeded(document)

    def _best_rows(self, count: int) -> tuple[list[str], list[list[str]]]:
        """Head and best rows of the rounded CSV file; what is the same in every row of the grid is left out."""
        with (self.path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            head = next(reader)
            rows = list(itertools.islice(reader, count))
        wanted = ["rank", "status", "objective", "total_trades", "profit_net", "profit_factor", "max_drawdown"]
        params = [name for name in head if name.startswith("param.")]
        varying = [name for name in params if len({row[head.index(name)] for row in rows}) > 1] or params
        columns = [head.index(name) for name in [*wanted, *varying] if name in head]
        return [head[at].removeprefix("param.") for at in columns], [[row[at] for at in columns] for row in rows]

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {verdict}" for verdict, count in self.status.items() if count)
        return f"<bt.Leaderboard {self.path.name}: {len(self):,} rows ({counts})>"

    def _repr_html_(self) -> str:
        """The ten best rows, for notebooks."""
        head, rows = self._best_rows(10)
        cell = html.escape
        lines = [f"<p><b>{cell(self.path.name)}</b> · {cell(repr(self).split(': ', 1)[-1].rstrip('>'))}</p>"]
        lines.append("<table><thead><tr>" + "".join(f"<th>{cell(name)}</th>" for name in head) + "</tr></thead><tbody>")
        lines += ["<tr>" + "".join(f"<td>{cell(value) or '–'}</td>" for value in row) + "</tr>" for row in rows]
        lines.append("</tbody></table>")
        return "".join(lines)
