"""``python -m bt``: one backtest from a config file.

Exit codes: 0 ok, 1 run error, 2 config file not found, 3 validation failed, 4 extension not importable.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import Any

import bt
from bt._extension import missing, omega_bt

OK, RUN_ERROR, NOT_FOUND, INVALID, NO_EXTENSION = range(5)

SUMMARY = (
    "total_trades",
    "win_rate",
    "profit_net",
    "max_drawdown",
    "profit_factor",
    "sharpe_equity_daily",
    "calmar_ratio",
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bt", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one backtest and write its artefacts")
    run.add_argument("config", help="run config (JSON)")
    run.add_argument("-o", "--output-dir", help="folder of the artefacts (default: results/<run_id>)")
    run.add_argument("-q", "--quiet", action="store_true", help="no summary and no warnings")
    run.add_argument("--json", action="store_true", help="print the summary as one JSON document")
    run.add_argument("--strict", action="store_true", help="unknown keys are violations")
    validate = commands.add_parser("validate", help="check a config")
    validate.add_argument("config", help="run config (JSON)")
    validate.add_argument("--strict", action="store_true", help="unknown keys are violations")
    commands.add_parser("schema", help="print the JSON schema of a run config")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _run(args: argparse.Namespace) -> int:
    result = bt.run_backtest(args.config, output_dir=args.output_dir, include=["metrics"], strict=args.strict)
    if not result["ok"]:
        error = result["error"]
        if args.json:
            print(json.dumps(result, indent=2, ensure_ascii=False))
        else:
            _say(f"{error['code']} {error['message']}")
        return RUN_ERROR
    run_id = result["meta"]["run_id"]
    folder = args.output_dir or f"results/{run_id}"
    summary: dict[str, Any] = {key: result["metrics"][key] for key in SUMMARY}
    if args.json:
        document = {"ok": True, "run_id": run_id, "output_dir": folder, "metrics": summary}
        print(json.dumps(document, indent=2, ensure_ascii=False))
    elif not args.quiet:
        for key, value in summary.items():
            print(f"{key:<22}{value:>16}")
        print(folder)
    return OK


def _validate(args: argparse.Namespace) -> int:
    with open(args.config, encoding="utf-8") as file:
        text = file.read()
    for warning in json.loads(omega_bt.normalise_config(text, name=args.config, strict=args.strict))["warnings"]:
        _say(f"warning: {warning}")
    print(f"{args.config}: valid")
    return OK


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    args = _parser().parse_args(arguments)
    level = logging.ERROR if getattr(args, "quiet", False) else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if missing is not None:
        _say(f"the extension omega_bt cannot be imported: {missing}")
        return NO_EXTENSION
    try:
        match args.command:
            case "run":
                return _run(args)
            case "validate":
                return _validate(args)
            case _:
                print(omega_bt.run_config_schema().rstrip("\n"))
                return OK
    except FileNotFoundError as error:
        _say(f"{error.filename or args.config}: no such file")
        return NOT_FOUND
    except ValueError as error:
        _say(str(error))
        return INVALID
    except (RuntimeError, OSError) as error:
        _say(str(error))
        return RUN_ERROR


if __name__ == "__main__":
    raise SystemExit(main())
