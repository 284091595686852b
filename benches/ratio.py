"""Times a baseline script and a sweep of the same settings in turn, and prints both medians and their ratio.

    python ratio.py [--rounds 5] -- BASELINE.py ARGS … -- omega-opt sweep GRID --threads 1 …

CPU seconds on both sides, so that a busy machine does not decide. Baseline: its loop, and loop plus columns, as it
prints them. Sweep: the whole command (start, hashing, mapping, columns, evaluation, chunk files, ranking, leaderboard),
and what is left of it without the time of the same command on finished chunks: columns, evaluation and chunk files.
"""

import os
import re
import statistics
import subprocess
import sys

CPU_CLOCK = "import time, sys, runpy; time.perf_counter = time.process_time; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"

options, rest = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
baseline, sweep = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
rounds = int(options[options.index("--rounds") + 1]) if "--rounds" in options else 5


def children_cpu():
    times = os.times()
    return times.children_user + times.children_system


def loop():
    text = subprocess.run([sys.executable, "-c", CPU_CLOCK, *baseline], check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+) settings x (\d+) bars: median ([\d.]+) s.*columns ([\d.]+) s", text)
    return int(found[1]), float(found[3]), float(found[4])


def command(*more):
    before = children_cpu()
    subprocess.run([*sweep, "--quiet", *more], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return children_cpu() - before


loops, commands = [], []
for _ in range(rounds):
    loops.append(loop())
    commands.append((command("--fresh"), command()))

settings = loops[0][0]
median = lambda values: statistics.median(list(values))
plain, with_columns = median(run[1] for run in loops), median(run[1] + run[2] for run in loops)
whole, evaluation = median(run[0] for run in commands), median(run[0] - run[1] for run in commands)
print(f"{settings} settings, {rounds} rounds")
print(f"baseline: loop {plain:.3f} s, {settings / plain:.0f}/s; with columns {with_columns:.3f} s, {settings / with_columns:.0f}/s")
print(f"sweep: evaluation {evaluation:.3f} s, {settings / evaluation:.0f}/s; command {whole:.3f} s, {settings / whole:.0f}/s")
print(f"time of the sweep over the baseline's, columns in both: {evaluation / with_columns:.2f}; over the loop alone: {evaluation / plain:.2f}")
