"""The error contract: which way each failure travels, with which code, and that nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import omega_bt
import pytest

import bt
from conftest import DATA

Faulty = Callable[[str], dict[str, Any]]


def failed(config: dict[str, Any], code: str, category: str) -> dict[str, Any]:
    """The error of a run that must fail, its document checked."""
    document = json.loads(omega_bt.run_backtest(json.dumps(config)))
    assert set(document) == {"ok", "error"} and document["ok"] is False
    error: dict[str, Any] = document["error"]
    assert set(error) == {"code", "category", "message", "details"}
    assert (error["code"], error["category"]) == (code, category), error
    assert "\n" not in error["message"] and str(DATA) not in error["message"]
    assert bt.run_backtest(config_dict=config) == document
    assert not Path("results").exists(), "a failed run leaves nothing"
    return error


def test_arguments_of_a_wrong_type() -> None:
    with pytest.raises(TypeError):
        omega_bt.run_backtest({"strategy_name": "sma_cross"})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        omega_bt.run_backtest(b"{}")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="mapping"):
        bt.run_backtest(config_dict=[1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="object cannot stand"):
        bt.run_backtest(config_dict={"symbol": object()})


def test_exactly_one_source(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one of config_path and config_dict must be given, got neither"):
        bt.run_backtest()
    with pytest.raises(ValueError, match="got both"):
        bt.run_backtest("x.json", config)


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', '{"symbol": "EURUSD", "symbol": "EURUSD"}', "{'a': nan nan}"])
def test_what_is_no_config_document(text: str) -> None:
    with pytest.raises(ValueError, match="^E4002 "):
        omega_bt.run_backtest(text)


def test_every_violation_is_told(config: dict[str, Any]) -> None:
    config["account"].update(risk_per_trade=-5, account_currency="EURO")
    config["timeframes"]["primary"] = "M7"
    with pytest.raises(ValueError) as caught:
        bt.run_backtest(config_dict=config)
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("E4002 ")
    for path in ("account.risk_per_trade: must be > 0, got -5", "account.account_currency", "timeframes.primary"):
        assert any(path in line for line in lines), lines


def test_a_file_is_named_with_line_and_column(config: dict[str, Any]) -> None:
    config["account"]["risk_per_trade"] = 0
    Path("run.json").write_text(json.dumps(config, indent=1))
    line = next(i for i, text in enumerate(json.dumps(config, indent=1).split("\n"), 1) if "risk_per_trade" in text)
    with pytest.raises(ValueError, match=rf"^E4002 account.risk_per_trade: must be > 0, got 0 \[run.json:{line}:21\]$"):
        bt.run_backtest("run.json")


def test_numbers_that_are_none(config: dict[str, Any]) -> None:
    config["account"]["initial_balance"] = float("nan")
    with pytest.raises(ValueError, match="^E4002 config: numbers must be finite"):
        bt.run_backtest(config_dict=config)


def test_e4001_an_unknown_strategy(config: dict[str, Any], grid: dict[str, Any]) -> None:
    config["strategy_name"] = "sma_crss"
    told = r"^E4001 strategy `sma_crss` is not registered; known: .*sma_cross.*\(did you mean `sma_cross`\?\)$"
    for call in (
        lambda: bt.run_backtest(config_dict=config),
        lambda: bt.validate_config(config),
        lambda: bt.sweep({**grid, "config": config}),
    ):
        with pytest.raises(ValueError, match=told):
            call()


def test_e4002_strategy_parameters_and_cross_field_rules(config: dict[str, Any]) -> None:
    wrong = {**config, "strategy_parameters": {"fast_lenght": 5}}
    with pytest.raises(ValueError, match=r"^E4002 strategy_parameters.fast_lenght: .*did you mean `fast_length`"):
        bt.run_backtest(config_dict=wrong)
    with pytest.raises(ValueError, match="^E4002 strategy_parameters"):
        bt.run_backtest(config_dict={**config, "strategy_parameters": {"fast_length": 60, "slow_length": 50}})
    with pytest.raises(ValueError, match="^E4002 execution_variant: `v1_parity` requires run_mode = dev"):
        bt.run_backtest(config_dict={**config, "execution_variant": "v1_parity", "run_mode": "prod"})


def test_e4002_yaml_files(config: dict[str, Any]) -> None:
    costs = Path("configs/execution_costs.yaml")
    costs.write_text("defaults: {schema: per_mile}\n")
    with pytest.raises(ValueError, match=r"^E4002 configs/execution_costs.yaml"):
        bt.run_backtest(config_dict=config)
    costs.unlink()
    with pytest.raises(ValueError, match=r"^E4002 configs/execution_costs.yaml: cannot be read"):
        bt.run_backtest(config_dict=config)


def test_e4003_warm_up_too_short(config: dict[str, Any]) -> None:
    config["strategy_parameters"]["slow_length"] = 200
    error = failed(config, "E4003", "runtime")
    assert error["details"]["timeframe"] == "H1" and error["details"]["index"] >= 100
    assert error["details"]["indicator"].startswith("sma(200)")
    assert "warmup_bars >=" in error["message"]


def test_e4004_insufficient_data(config: dict[str, Any]) -> None:
    config["warmup_bars"] = 100_000
    error = failed(config, "E4004", "market_data")
    assert error["details"]["required"] == 100_001 and error["details"]["available"] < 100_001
    assert error["details"]["timeframe"] == "H1"


def test_e4006_a_stop_below_zero(config: dict[str, Any]) -> None:
    config["strategy_name"] = "rsi_reversion"
    config["strategy_parameters"] = {"atr_mult": 1e6, "direction_filter": "long"}
    error = failed(config, "E4006", "strategy")
    assert error["details"]["field"] == "stop_loss"
    assert error["details"]["bar"] >= 100 and error["details"]["timestamp_ns"] > 1.5e18


def test_e4100_no_file_and_no_parquet(faulty: Faulty, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = faulty("nowhere")
    error = failed(config, "E4100", "market_data")
    assert error["details"] == {
        "kind": "FileNotFound",
        "path": "EURUSD/EURUSD_H1_BID.parquet",
        "timeframe": "H1",
    }
    folder = desk / "bars" / "EURUSD"
    folder.mkdir(parents=True)
    for side in ("BID", "ASK"):
        (folder / f"EURUSD_H1_{side}.parquet").write_bytes(b"PAR1 is how it begins")
    monkeypatch.setenv("OMEGA_DATA_PARQUET_ROOT", "bars")
    assert failed(config, "E4100", "market_data")["details"]["kind"] == "ParseError"


def test_e4101_stamps_in_microseconds(faulty: Faulty) -> None:
    error = failed(faulty("schema"), "E4101", "market_data")
    assert error["details"]["column"] == "UTC time" and "µs" in error["details"]["found"]
    assert "Timestamp(nanosecond" in error["message"], "what to do about it"


def test_e4102_a_high_below_the_close(faulty: Faulty) -> None:
    error = failed(faulty("corrupt"), "E4102", "market_data")
    assert error["details"]["row"] == 30 and error["details"]["rule"] == "Low <= Open, Close <= High"
    assert error["details"]["timestamp_ns"] == 1709546400 * 10**9, "30 hours after Sunday, 04:00"


def test_e4102_an_empty_window(faulty: Faulty) -> None:
    config = faulty("good")
    config.update(start_date="2019-01-01", end_date="2019-02-01")
    assert "DateRangeEmpty" in failed(config, "E4102", "market_data")["message"]


def test_e4103_too_few_common_bars(faulty: Faulty) -> None:
    assert failed(faulty("alignment"), "E4103", "market_data")["details"] == {"bid": 60, "ask": 80, "common": 60}


def test_e4104_ask_below_bid(faulty: Faulty) -> None:
    error = failed(faulty("spread"), "E4104", "market_data")
    assert set(error["details"]) == {"timestamp_ns"} and "Close" in error["message"]


def test_e4105_an_unknown_impact(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    config = faulty("good")
    monkeypatch.setenv("OMEGA_NEWS_CALENDAR_FILE", str(DATA / "news_huge.parquet"))
    config["news_filter"] = {"enabled": True}
    error = failed(config, "E4105", "market_data")
    assert error["details"]["row"] == 0 and "HUGE" in error["message"]


def test_e4106_no_longer_bar_has_opened(faulty: Faulty) -> None:
    config = faulty("unmapped")
    config.update(warmup_bars=0, strategy_parameters={"lots": 0.1, "fast_length": 1, "slow_length": 2})
    config["timeframes"]["additional"] = ["H4"]
    config["warmup_bars"] = 1
    error = failed(config, "E4106", "market_data")
    assert error["details"]["timeframe"] == "H4"


def test_e4301_more_money_than_there_are_numbers(config: dict[str, Any]) -> None:
    specs = Path("configs/symbol_specs.yaml")
    specs.write_text("EURUSD: {contract_size: 1.0e+308, pip_size: 0.0001, quote_currency: USD, volume_max: 100}\n")
    config["strategy_parameters"]["lots"] = 100.0
    error = failed(config, "E4301", "runtime")
    assert set(error["details"]) == {"difference"}


def test_e4302_multiples_that_cannot_be_squared(config: dict[str, Any]) -> None:
    config["account"]["risk_per_trade"] = 1e-300
    assert failed(config, "E4302", "runtime")["details"]["key"].endswith("trade_r")


def test_e4900_a_panic_is_a_runtime_error_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="^internal error$") as caught:
        omega_bt.provoke_panic()
    assert isinstance(caught.value, Exception)
    assert capfd.readouterr() == ("", "")


def test_unknown_keys_are_ignored_with_a_warning(config: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    config["symbl"] = "EURUSD"
    assert bt.run_backtest(config_dict=config, artifacts=False)["ok"]
    assert any("symbl: unknown key (did you mean `symbol`?)" in message for message in caplog.messages)
    with pytest.raises(ValueError, match="^E4002 symbl: unknown key"):
        bt.run_backtest(config_dict=config, strict=True)
    with pytest.raises(ValueError, match="^E4002 symbl: unknown key"):
        bt.validate_config(config, strict=True)


def test_unknown_blocks_of_a_result(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="E4002 include: .*got \"equity\".*equity_curve"):
        bt.run_backtest(config_dict=config, include=["equity"])
