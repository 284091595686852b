"""Bars from Python objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bt._extension import omega_bt
from bt._errors import failure


class BarStore:
    """Checked and aligned bars in memory, for one symbol and any number of timeframes.

    Made by :meth:`from_arrow`; several are joined with ``+``. Passed as ``bars=`` to ``run_backtest`` and ``sweep``, they
    are read instead of files.
    """

    __slots__ = ("_series",)

    def __init__(self, series: Iterable[omega_bt.Bars]) -> None:
        self._series = tuple(series)
        seen: set[tuple[str, str]] = set()
        for one in self._series:
            if (one.symbol, one.timeframe) in seen:
                raise ValueError(f"E4002 bars: {one.symbol} {one.timeframe} is given twice")
            seen.add((one.symbol, one.timeframe))

    @classmethod
    def from_arrow(cls, bid: Any, ask: Any, *, symbol: str, timeframe: str) -> BarStore:
        """Takes bid and ask bars from any two objects with the Arrow C stream (polars, pyarrow, pandas 2 and later).

        Columns as in a candle file: ``UTC time`` (timestamp in nanoseconds, zone ``UTC``: the open time), ``Open``,
        ``High``, ``Low``, ``Close`` (float64) and ``Volume`` (float64 or int64). The same rules hold as for files. A
        table in one piece is not copied; several pieces are joined.

        Raises:
            DataError: a rule of the data contract is broken.
            ValueError: no symbol, no timeframe.
            TypeError: an object without the Arrow C stream.
        """
        for name, table in (("bid", bid), ("ask", ask)):
            if not hasattr(table, "__arrow_c_stream__") and not hasattr(table, "__arrow_c_array__"):
                raise TypeError(f"{name}: must have the Arrow C stream (__arrow_c_stream__), got {type(table).__name__}")
        loaded = omega_bt.load_bars(bid, ask, symbol=symbol, timeframe=timeframe)
        if isinstance(loaded, str):
            raise failure(loaded)
        return cls([loaded])

    @property
    def symbol(self) -> str:
        """Instrument of the first series."""
        return self._series[0].symbol

    @property
    def timeframes(self) -> tuple[str, ...]:
        """Timeframes, in the order they were joined."""
        return tuple(one.timeframe for one in self._series)

    @property
    def series(self) -> tuple[omega_bt.Bars, ...]:
        """The single series; each has the Arrow C stream."""
        return self._series

    def __add__(self, other: BarStore) -> BarStore:
        if not isinstance(other, BarStore):
            return NotImplemented
        return BarStore((*self._series, *other._series))

    def __len__(self) -> int:
        """Bars of the first series."""
        return len(self._series[0])

    def __iter__(self) -> Iterator[omega_bt.Bars]:
        return iter(self._series)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The aligned bars of the only series, both sides, over their own memory."""
        if len(self._series) != 1:
            raise ValueError("a store of several timeframes is no table; take one of .series")
        return self._series[0].__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        parts = ", ".join(f"{one.symbol} {one.timeframe}: {len(one):,} bars" for one in self._series)
        return f"<bt.BarStore {parts}>"


def in_memory(bars: BarStore | Iterable[BarStore] | None) -> list[omega_bt.Bars] | None:
    """What the extension takes as ``bars``."""
    if bars is None:
        return None
    stores = [bars] if isinstance(bars, BarStore) else list(bars)
    for store in stores:
        if not isinstance(store, BarStore):
            raise TypeError(f"bars: must be a bt.BarStore or several, got {type(store).__name__}")
    return list(BarStore(one for store in stores for one in store))
