"""Tables in and out without a copy, shown by the addresses of their buffers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

import bt
from conftest import DATA

pytestmark = pytest.mark.extras

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
duckdb = pytest.importorskip("duckdb")
pq = pytest.importorskip("pyarrow.parquet")

PRICES = ["Open", "High", "Low", "Close", "Volume"]


def address(column: Any) -> int:
    """Where the values of a column in one piece are."""
    assert column.num_chunks == 1
    chunk = column.chunk(0)
    width = chunk.type.bit_width // 8
    return int(chunk.buffers()[1].address) + chunk.offset * width


def files(fault: str, timeframe: str = "H1") -> tuple[Any, Any]:
    """Bid and ask of a folder of faults."""
    folder = DATA / fault / "EURUSD"
    return tuple(pq.read_table(folder / f"EURUSD_{timeframe}_{side}.parquet") for side in ("BID", "ASK"))  # type: ignore[return-value]


@pytest.fixture
def board(grid: dict[str, Any]) -> bt.Leaderboard:
    return bt.sweep(grid)


def test_a_leaderboard_is_read_where_it_is(board: bt.Leaderboard) -> None:
    first, second = pa.table(board), pa.table(board)
    assert first.equals(second) and first.num_rows == 24
    for name in ("rank", "profit_net", "param.fast_length", "config_hash"):
        # Two tables that live at once and share their memory: nothing was copied for either.
        assert address_of_any(first[name]) == address_of_any(second[name]), name
    # polars keeps floats and integers where they are, too.
    frame = pl.DataFrame(board)
    assert frame.to_arrow()["profit_net"].chunk(0).buffers()[1].address == address_of_any(first["profit_net"])


def address_of_any(column: Any) -> int:
    """Where the first data buffer of a column is, whatever its type."""
    assert column.num_chunks == 1
    return int(column.chunk(0).buffers()[1].address)


def test_every_library_reads_the_same_rows(board: bt.Leaderboard) -> None:
    on_disk = pl.read_parquet(board.path / "leaderboard.parquet")
    assert pl.DataFrame(board).equals(on_disk)
    assert pl.from_arrow(pa.table(board)).equals(on_disk)
    # polars takes an unknown stream for a column of structs here.
    assert pl.from_arrow(board).struct.unnest().equals(on_disk)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        frame = pd.DataFrame.from_arrow(board) if hasattr(pd.DataFrame, "from_arrow") else pa.table(board).to_pandas()
    assert frame["profit_net"].tolist() == on_disk["profit_net"].to_list()
    connection = duckdb.connect()
    connection.register("rows", board)
    counted = connection.sql("select count(*), max(objective) from rows where rank <= 24").fetchall()
    assert counted == [(24, on_disk["objective"].max())]
    assert duckdb.sql("select min(rank) from board").fetchall() == [(1,)]


def test_undefined_is_null(board: bt.Leaderboard, grid: dict[str, Any]) -> None:
    grid["parameters"] = {"fast_length": [5], "slow_length": [50], "direction_filter": ["long"]}
    # Bars of an hour close on the hour, where this session is not open.
    grid["config"]["sessions"] = [{"start": "00:30", "end": "00:31"}]
    grid["gates"] = []
    row = pl.DataFrame(bt.sweep(grid, out="none"))
    assert row["profit_factor"].to_list() == [None] and row["status"].to_list() == ["no_score"]


def test_bars_are_taken_where_they_are() -> None:
    bid, ask = files("good")
    store = bt.BarStore.from_arrow(bid, ask, symbol="eurusd", timeframe="h1")
    assert (store.symbol, store.timeframes, len(store)) == ("EURUSD", ("H1",), 80)
    out = pa.table(store)
    for side, table in (("Bid", bid), ("Ask", ask)):
        for name in PRICES:
            assert address(out[f"{side} {name}"]) == address(table[name]), f"{side} {name}"
    assert address(out["UTC time"]) == address(bid["UTC time"])
    assert out["UTC time"].to_pylist() == bid["UTC time"].to_pylist()


def test_a_slice_is_taken_where_it_is() -> None:
    bid, ask = (table.slice(8, 64) for table in files("good"))
    out = pa.table(bt.BarStore.from_arrow(bid, ask, symbol="EURUSD", timeframe="H1"))
    assert address(out["Bid Close"]) == address(bid["Close"]) and out.num_rows == 64


def test_pieces_are_joined_and_integers_converted() -> None:
    bid, ask = files("good")
    whole = bt.BarStore.from_arrow(bid, ask, symbol="EURUSD", timeframe="H1")
    pieces = pa.concat_tables([bid.slice(0, 30), bid.slice(30)])
    volume = bid.schema.get_field_index("Volume")
    counted = ask.set_column(volume, "Volume", ask["Volume"].cast(pa.int64()))
    joined = bt.BarStore.from_arrow(pieces, counted, symbol="EURUSD", timeframe="H1")
    assert joined.series[0].sha256 == whole.series[0].sha256
    assert pa.table(joined).equals(pa.table(whole))


@pytest.mark.parametrize("library", ["pyarrow", "polars", "pandas", "batch"])
def test_a_run_on_bars_in_memory_is_the_run_on_files(
    library: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    del config["data"]
    config.update(start_date="2024-03-04", end_date="2024-03-06", warmup_bars=10)
    config["strategy_parameters"] = {"lots": 0.1, "fast_length": 2, "slow_length": 5}
    convert = {
        "pyarrow": lambda table: table,
        "polars": lambda table: pl.from_arrow(table),
        "pandas": lambda table: table.to_pandas(),
        "batch": lambda table: table.combine_chunks().to_batches()[0],
    }[library]
    bid, ask = map(convert, files("good"))
    if library == "pandas":
        assert str(bid["UTC time"].dtype) == "datetime64[ns, UTC]"
    store = bt.BarStore.from_arrow(bid, ask, symbol="EURUSD", timeframe="H1")
    ours = bt.run_backtest(config_dict=config, bars=store, output_dir="memory")
    monkeypatch.setenv("OMEGA_DATA_PARQUET_ROOT", str(DATA / "good"))
    theirs = bt.run_backtest(config_dict=config, output_dir="files")
    assert ours["ok"] and ours["metrics"]["total_trades"] > 2
    for name in ("trades.json", "equity.csv", "metrics.json"):
        assert (Path("memory") / name).read_bytes() == (Path("files") / name).read_bytes()
    assert ours["meta"]["config"]["hash"] == theirs["meta"]["config"]["hash"]
    # Where the bars came from is part of the identity of the data.
    assert ours["meta"]["run_id"] != theirs["meta"]["run_id"]


def test_a_sweep_on_bars_in_memory(grid: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    del grid["config"]["data"]
    grid["config"].update(start_date="2024-03-04", end_date="2024-03-06", warmup_bars=10)
    grid["parameters"] = {"fast_length": [2, 3], "slow_length": [5, 8]}
    store = bt.BarStore.from_arrow(*files("good"), symbol="EURUSD", timeframe="H1")
    ours = bt.sweep(grid, bars=store)
    result = ours.replay(1, include=["metrics"])
    assert result["metrics"]["total_trades"] == ours.best()["metrics"]["total_trades"]
    monkeypatch.setenv("OMEGA_DATA_PARQUET_ROOT", str(DATA / "good"))
    theirs = bt.sweep(grid)
    assert ours.path != theirs.path
    assert pl.DataFrame(ours).equals(pl.DataFrame(theirs))
    assert bt.sweep(grid, bars=[store]).path == ours.path, "equal bars are one run"


def test_timeframes_are_joined_and_missing_ones_are_told(config: dict[str, Any]) -> None:
    del config["data"]
    config.update(start_date="2024-03-06", end_date="2024-03-07", warmup_bars=4)
    config["strategy_parameters"] = {"lots": 0.1, "fast_length": 2, "slow_length": 3}
    config["timeframes"]["additional"] = ["H4"]
    hours = bt.BarStore.from_arrow(*files("good"), symbol="EURUSD", timeframe="H1")
    four = bt.BarStore.from_arrow(*files("unmapped", "H4"), symbol="EURUSD", timeframe="H4")
    both = hours + four
    assert both.timeframes == ("H1", "H4") and "H4: 10 bars" in repr(both)
    result = bt.run_backtest(config_dict=config, bars=both, include=["metrics"])
    assert result["ok"] or result["error"]["code"] in ("E4004", "E4106"), result
    told = bt.run_backtest(config_dict=config, bars=hours)["error"]
    assert told["code"] == "E4100" and "the bars given are EURUSD H1" in told["message"]
    other = bt.BarStore.from_arrow(*files("good"), symbol="GBPUSD", timeframe="H1")
    assert "the bars given are GBPUSD H1" in bt.run_backtest(config_dict=config, bars=other)["error"]["message"]
    with pytest.raises(ValueError, match="EURUSD H1 is given twice"):
        bt.run_backtest(config_dict=config, bars=[hours, both])
    with pytest.raises(ValueError, match="E4002 data: must be left out"):
        bt.run_backtest(config_dict={**config, "data": {"source": "synthetic", "seed": 1, "bars": 9}}, bars=both)
    with pytest.raises(ValueError, match="several timeframes"):
        pa.table(both)


@pytest.mark.parametrize(
    ("fault", "code", "details"),
    [
        ("schema", "E4101", {"column": "UTC time"}),
        ("corrupt", "E4102", {"row": 30, "rule": "Low <= Open, Close <= High"}),
        ("alignment", "E4103", {"bid": 60, "ask": 80, "common": 60}),
        ("spread", "E4104", {}),
    ],
)
def test_bars_in_memory_break_the_rules_of_files(
    fault: str, code: str, details: dict[str, Any], config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(bt.DataError) as caught:
        bt.BarStore.from_arrow(*files(fault), symbol="EURUSD", timeframe="H1")
    assert caught.value.code == code and str(caught.value).startswith(code)
    assert details.items() <= caught.value.details.items()
    monkeypatch.setenv("OMEGA_DATA_PARQUET_ROOT", str(DATA / fault))
    del config["data"]
    error = bt.run_backtest(config_dict=config)["error"]
    assert (error["code"], error["details"]) == (code, caught.value.details), "the same error as of files"


def test_objects_that_are_no_bars(config: dict[str, Any]) -> None:
    bid, ask = files("good")
    with pytest.raises(TypeError, match="bid: must have the Arrow C stream"):
        bt.BarStore.from_arrow([1, 2], ask, symbol="EURUSD", timeframe="H1")
    with pytest.raises(ValueError, match="E4002 symbol"):
        bt.BarStore.from_arrow(bid, ask, symbol="?", timeframe="H1")
    with pytest.raises(ValueError, match="E4002 timeframe: unknown timeframe `H2`"):
        bt.BarStore.from_arrow(bid, ask, symbol="EURUSD", timeframe="H2")
    with pytest.raises(bt.DataError, match="E4101 .*`Volume`: MissingColumn"):
        bt.BarStore.from_arrow(bid.drop_columns(["Volume"]), ask, symbol="EURUSD", timeframe="H1")
    holes = bid.set_column(1, "Open", pa.array([None, *bid["Open"].to_pylist()[1:]]))
    with pytest.raises(bt.DataError, match="E4101 .*NullValue.*null in row 0"):
        bt.BarStore.from_arrow(holes, ask, symbol="EURUSD", timeframe="H1")
    with pytest.raises(TypeError, match="bars: must be a bt.BarStore"):
        bt.run_backtest(config_dict=config, bars=[bid])
