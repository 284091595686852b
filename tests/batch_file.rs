//! Faulty batch files: what is wrong, where, the rule, the nearest name; nothing is started.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;

use cli::Desk;

#[test]
fn a_faulty_batch_file_is_refused_before_work_starts() {
    let desk = Desk::new();
    let refused = |text: &str| {
        desk.write("night.yaml", text);
        desk.refused("batch night.yaml")
    };
    insta::assert_snapshot!(refused("name: night\njob:\n  - grid: small.yaml\n"), @r"
    exit 2
      × job: unknown key
       ╭─[night.yaml:2:1]
     1 │ name: night
     2 │ job:
       · ───
     3 │   - grid: small.yaml
       ╰────
      help: did you mean `jobs`?

      × jobs: is required
       ╭─[night.yaml:1:1]
     1 │ name: night
       · ▲
     2 │ job:
       ╰────
      help: for example `jobs: [{grid: grids/quickstart.yaml}]`
    ");
    insta::assert_snapshot!(refused("jobs:\n  - grid: small.yaml\n    symbol: [EURUSD]\n    priority: high\n"), @r#"
    exit 2
      × jobs[0].symbol: unknown key
       ╭─[night.yaml:3:5]
     2 │   - grid: small.yaml
     3 │     symbol: [EURUSD]
       ·     ──────
     4 │     priority: high
       ╰────
      help: did you mean `symbols`?

      × jobs[0].priority: must be a whole number from 0 to 1000000, got text "high"
       ╭─[night.yaml:4:15]
     3 │     symbol: [EURUSD]
     4 │     priority: high
       ·               ────
       ╰────
    "#);
    insta::assert_snapshot!(refused("jobs:\n  - {grid: small.yaml, kind: walk-forward, timeframes: [H1, H5]}\n"), @r#"
    exit 2
      × jobs[0].kind: must be one of sweep, walkforward, got text "walk-forward"
       ╭─[night.yaml:2:30]
     1 │ jobs:
     2 │   - {grid: small.yaml, kind: walk-forward, timeframes: [H1, H5]}
       ·                              ────────────
       ╰────
      help: did you mean `walkforward`?

      × jobs[0].timeframes[1]: must be one of M1, M5, M15, M30, H1, H4, D1, W1, got text "H5"
       ╭─[night.yaml:2:61]
     1 │ jobs:
     2 │   - {grid: small.yaml, kind: walk-forward, timeframes: [H1, H5]}
       ·                                                             ──
       ╰────
    "#);
    insta::assert_snapshot!(refused("jobs: []\n"), @r"
    exit 2
      × jobs: must hold at least one job, got none
       ╭─[night.yaml:1:7]
     1 │ jobs: []
       ·       ─
       ╰────
    ");
    insta::assert_snapshot!(refused("jobs:\n  - name: nothing\n  - small.yaml\n"), @r#"
    exit 2
      × jobs[0].grid: is required
       ╭─[night.yaml:2:5]
     1 │ jobs:
     2 │   - name: nothing
       ·     ▲
     3 │   - small.yaml
       ╰────
      help: for example `grid: grids/quickstart.yaml`

      × jobs[1]: must be a map, got text "small.yaml"
       ╭─[night.yaml:3:5]
     2 │   - name: nothing
     3 │   - small.yaml
       ·     ──────────
       ╰────
    "#);
    insta::assert_snapshot!(refused("limits: {finish_by: 25:00, time_zone: Europe/Berln}\njobs:\n  - grid: small.yaml\n"), @r#"
    exit 2
      × limits.finish_by: must be a time of day (`06:00`) or a day and a time (`2026-01-31 06:00`),
      │ got text "25:00"
       ╭─[night.yaml:1:21]
     1 │ limits: {finish_by: 25:00, time_zone: Europe/Berln}
       ·                     ─────
     2 │ jobs:
       ╰────

      × limits.time_zone: must be a time zone of the IANA database, got text "Europe/Berln"
       ╭─[night.yaml:1:39]
     1 │ limits: {finish_by: 25:00, time_zone: Europe/Berln}
       ·                                       ────────────
     2 │ jobs:
       ╰────
      help: did you mean `Europe/Berlin`?
    "#);
    insta::assert_snapshot!(refused("limits: {finish_by: soon, threads: 0, memory: 8}\njobs:\n  - grid: small.yaml\n"), @r#"
    exit 2
      × limits.threads: must be a whole number from 1 to 65536, got 0
       ╭─[night.yaml:1:36]
     1 │ limits: {finish_by: soon, threads: 0, memory: 8}
       ·                                    ─
     2 │ jobs:
       ╰────

      × limits.memory: must be an amount of memory (`8GB`, `512MiB`), got 8
       ╭─[night.yaml:1:47]
     1 │ limits: {finish_by: soon, threads: 0, memory: 8}
       ·                                               ─
     2 │ jobs:
       ╰────

      × limits.finish_by: must be a time of day (`06:00`) or a day and a time (`2026-01-31 06:00`),
      │ got text "soon"
       ╭─[night.yaml:1:21]
     1 │ limits: {finish_by: soon, threads: 0, memory: 8}
       ·                     ────
     2 │ jobs:
       ╰────
    "#);
    insta::assert_snapshot!(refused("jobs:\n  - grid: small.yaml\n  - {grid: small.yaml, set: [warmup_bars=50]}\n"), @r"
    exit 2
      × jobs[1]: `small` is a job of jobs[0] already; every job needs a name of its own
       ╭─[night.yaml:3:5]
     2 │   - grid: small.yaml
     3 │   - {grid: small.yaml, set: [warmup_bars=50]}
       ·     ─
       ╰────
      help: give it a `name`
    ");
    insta::assert_snapshot!(refused("jobs:\n  - {grid: small.yaml, symbols: [EUR/USD], set: [warmup_bars]}\n"), @r#"
    exit 2
      × jobs[0].set[0]: must be key=value, got text "warmup_bars"
       ╭─[night.yaml:2:50]
     1 │ jobs:
     2 │   - {grid: small.yaml, symbols: [EUR/USD], set: [warmup_bars]}
       ·                                                  ───────────
       ╰────
      help: as for `--set`, for example `costs.slippage_multiplier=2`

      × jobs[0].symbols[0]: must be a symbol (1 to 32 letters, digits, `-`, `_` or `.`), got text
      │ "EUR/USD"
       ╭─[night.yaml:2:34]
     1 │ jobs:
     2 │   - {grid: small.yaml, symbols: [EUR/USD], set: [warmup_bars]}
       ·                                  ───────
       ╰────
    "#);
    insta::assert_snapshot!(refused("retries: -1\nretry_wait: 5\njobs:\n  - {grid: [], variants: [dear]}\n"), @r"
    exit 2
      × retries: must be a whole number from 0 to 100, got -1
       ╭─[night.yaml:1:10]
     1 │ retries: -1
       ·          ──
     2 │ retry_wait: 5
       ╰────

      × retry_wait: must be a time (`30s`, `5min`), got 5
       ╭─[night.yaml:2:13]
     1 │ retries: -1
     2 │ retry_wait: 5
       ·             ─
     3 │ jobs:
       ╰────

      × jobs[0].variants: must be a map of names to lists of assignments, got a list of 1
       ╭─[night.yaml:4:26]
     3 │ jobs:
     4 │   - {grid: [], variants: [dear]}
       ·                          ─
       ╰────

      × jobs[0].grid: must be a value or a list of at least one, got a list of 0
       ╭─[night.yaml:4:12]
     3 │ jobs:
     4 │   - {grid: [], variants: [dear]}
       ·            ─
       ╰────
    ");
    insta::assert_snapshot!(refused("name: ../night\njobs:\n  - {grid: small.yaml, name: a/b}\n"), @r#"
    exit 2
      × name: must be 1 to 64 letters, digits, `-`, `_` or `.`, not starting with `.`, got text "../
      │ night"
       ╭─[night.yaml:1:7]
     1 │ name: ../night
       ·       ────────
     2 │ jobs:
       ╰────

      × jobs[0].name: must be 1 to 64 letters, digits, `-`, `_` or `.`, not starting with `.`, got
      │ text "a/b"
       ╭─[night.yaml:3:30]
     2 │ jobs:
     3 │   - {grid: small.yaml, name: a/b}
       ·                              ───
       ╰────
    "#);
    insta::assert_snapshot!(desk.refused("batch nowhere.yaml"), @r"
    exit 2
      × nowhere.yaml: cannot be read: no such file
    ");
    desk.write("night.yaml", "jobs: [{grid: small.yaml}]\n");
    insta::assert_snapshot!(desk.refused("batch night.yaml --finish-by noon"), @r"
    exit 2
      × --finish-by: must be a time of day or a day and a time, got `noon`
      help: for example --finish-by 06:00
    ");
    insta::assert_snapshot!(desk.refused("batch night.yaml --finish-in 0s"), @r"
    exit 2
      × --finish-in: must be a time above 0, got `0s`
      help: for example --finish-in 8h
    ");
}
