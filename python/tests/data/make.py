"""Makes the candle files of this folder, one folder per fault. Needs pyarrow; the files are committed.

python make.py
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
STAMP = pa.timestamp("ns", tz="UTC")
BARS = 80


def candles(spread: float, *, hours: int = 1, bars: int = BARS, offset: int = 0) -> pa.Table:
    """A random walk from Friday, 2024-03-01, on."""
    rng = random.Random(7)
    start = datetime(2024, 3, 4, tzinfo=timezone.utc) - timedelta(hours=20) + timedelta(hours=offset)
    rows: dict[str, list[float]] = {name: [] for name in ("Open", "High", "Low", "Close", "Volume")}
    price = 1.1
    for _ in range(bars):
        close = round(price + rng.uniform(-0.002, 0.002), 5)
        rows["Open"].append(price + spread)
        rows["High"].append(max(price, close) + 0.0005 + spread)
        rows["Low"].append(min(price, close) - 0.0005 + spread)
        rows["Close"].append(close + spread)
        rows["Volume"].append(100.0)
        price = close
    times = pa.array([start + timedelta(hours=hours * i) for i in range(bars)], STAMP)
    return pa.table({"UTC time": times, **{name: pa.array(values) for name, values in rows.items()}})


def write(fault: str, bid: pa.Table, ask: pa.Table, timeframe: str = "H1") -> None:
    """One pair of files."""
    folder = HERE / fault / "EURUSD"
    folder.mkdir(parents=True, exist_ok=True)
    for side, table in (("BID", bid), ("ASK", ask)):
        pq.write_table(table, folder / f"EURUSD_{timeframe}_{side}.parquet", compression="zstd")


def replaced(table: pa.Table, name: str, row: int, value: float) -> pa.Table:
    """The table with one other value."""
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values))


def main() -> None:
    """Every fault."""
    bid, ask = candles(0.0), candles(0.0002)
    write("good", bid, ask)
    write("schema", bid.set_column(0, "UTC time", bid["UTC time"].cast(pa.timestamp("us", tz="UTC"))), ask)
    write("corrupt", replaced(bid, "High", 30, 0.5), ask)
    write("alignment", bid.slice(0, 60), ask)
    write("spread", bid, replaced(replaced(ask, "Close", 41, 1.0), "Low", 41, 1.0))
    write("unmapped", bid, ask)
    late = {"hours": 4, "bars": 10, "offset": 48}
    write("unmapped", candles(0.0, **late), candles(0.0002, **late), "H4")
    news = {
        "UTC time": pa.array([datetime(2024, 3, 4, 13, 30, tzinfo=timezone.utc)], STAMP),
        "Id": ["1"],
        "Name": ["Payrolls"],
        "Impact": ["HUGE"],
        "Currency": ["USD"],
    }
    pq.write_table(pa.table(news), HERE / "news_huge.parquet", compression="zstd")


if __name__ == "__main__":
    main()
