"""Times a baseline script and a sweep of the same settings in turn, and prints medians and their ratios.

    python ratio.py [--rounds 5] -- BASELINE.py ARGS … -- omega-opt sweep GRID --threads 1 --out DIR …

Wall-clock seconds on both sides. Baseline: its loop, and its columns beside it, as it prints them. Sweep: as its
`events.jsonl` tells them, from mapped bars and finished columns to the renamed leaderboard (resolving, evaluation,
metrics, chunk files, ranking, Parquet and CSV, waiting for the disk included); its columns, the waiting and the whole
command stand beside it.
"""

import glob
import json
import os
import re
import statistics
import subprocess
import sys
import time

options, rest = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
baseline, sweep = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
rounds = int(options[options.index("--rounds") + 1]) if "--rounds" in options else 5
out = sweep[sweep.index("--out") + 1]


def loop():
    text = subprocess.run([sys.executable, *baseline], check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+) settings x (\d+) bars: median ([\d.]+) s.*columns ([\d.]+) s", text)
    return {"settings": int(found[1]), "loop": float(found[3]), "columns": float(found[4])}


def command():
    start = time.perf_counter()
    subprocess.run([*sweep, "--quiet", "--fresh"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole = time.perf_counter() - start
    latest = max(glob.glob(os.path.join(out, "*", "events.jsonl")), key=os.path.getmtime)
    with open(latest) as events:
        end = json.loads(events.readlines()[-1])
    columns, ranking = end["phases_s"]["columns"], end["phases_s"]["rank"]
    return {
        "clock": end["seconds"] - columns + ranking,
        "columns": columns,
        "disk": end["waiting_for_disk_s"],
        "whole": whole,
    }


loops, sweeps = [], []
for _ in range(rounds):
    loops.append(loop())
    sweeps.append(command())

median = lambda runs, key: statistics.median(run[key] for run in runs)
settings, plain = loops[0]["settings"], median(loops, "loop")
clock, disk = median(sweeps, "clock"), median(sweeps, "disk")
print(f"{settings} settings, {rounds} rounds")
print(f"baseline: loop {plain:.3f} s, {settings / plain:.0f}/s; columns {median(loops, 'columns'):.3f} s")
print(
    f"sweep: {clock:.3f} s, {settings / clock:.0f}/s, of it waiting for the disk {disk:.3f} s; "
    f"columns {median(sweeps, 'columns'):.3f} s; whole command {median(sweeps, 'whole'):.3f} s"
)
both = (plain + median(loops, "columns")) / (clock + median(sweeps, "columns"))
print(f"the sweep is {plain / clock:.2f} times as fast as the loop; with columns on both sides {both:.2f} times")
