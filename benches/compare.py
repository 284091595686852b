"""Compares a leaderboard with the file of a baseline loop, setting by setting.

    python compare.py BASELINE.csv RUN/leaderboard.parquet [--lots 1 --contract-size 100000]

BASELINE.csv: one column per parameter of the sweep, then `total_trades`, `wins` and one sum: `avg_r_stop`, or
`price_gain` (price units; the sweep's is `profit_gross / (lots * contract_size)`). Trades and wins must be equal,
the sum to 1e-9 relative to its size. Needs pyarrow. Exit code 1 if any setting disagrees.
"""

import argparse
import csv
import math
import sys

import pyarrow.parquet as pq

TOLERANCE = 1e-9
COUNTS = ("total_trades", "wins")

args = argparse.ArgumentParser()
args.add_argument("baseline")
args.add_argument("leaderboard")
args.add_argument("--lots", type=float, default=1.0)
args.add_argument("--contract-size", type=float, default=100_000.0)
args = args.parse_args()

with open(args.baseline, newline="") as file:
    baseline = list(csv.DictReader(file))
header = list(baseline[0])
score = header[-1]
params = header[: header.index("total_trades")]

board = pq.read_table(args.leaderboard).to_pylist()
key = lambda row, names: tuple(float(row[name]) for name in names)
rows = {key(row, [f"param.{name}" for name in params]): row for row in board}
if len(rows) != len(board) or len(board) != len(baseline):
    sys.exit(f"{len(baseline)} settings in the baseline, {len(board)} rows, {len(rows)} distinct")

worst, disagreeing, compared = 0.0, [], 0
for line in baseline:
    row = rows.get(key(line, params))
    if row is None or row["status"] not in ("ok", "gated", "undefined", "no_trades"):
        disagreeing.append((line, row and (row["status"], row["reason"])))
        continue
    ours = row["avg_r_stop"] if score == "avg_r_stop" else row["profit_gross"] / (args.lots * args.contract_size)
    theirs = float(line[score])
    ours = math.nan if ours is None else ours
    same_nan = math.isnan(ours) and math.isnan(theirs)
    relative = 0.0 if same_nan or ours == theirs else abs(ours - theirs) / max(abs(ours), abs(theirs))
    worst = max(worst, relative)
    compared += 1
    if any(int(line[name]) != row[name] for name in COUNTS) or not relative <= TOLERANCE:
        disagreeing.append((line, {name: row[name] for name in COUNTS} | {score: ours}))

print(f"{compared} settings compared, {len(disagreeing)} disagree, largest relative difference of {score} {worst:.2g}")
for theirs, ours in disagreeing[:10]:
    print(" ", theirs, "against", ours)
sys.exit(1 if disagreeing else 0)
