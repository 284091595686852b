//! Bad input is refused before work starts: what was said, the exit code, and that nothing on disk was harmed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;

use std::fs;

use cli::{Desk, SmallDisk, chunk_count, real_data};

const RUN: &str = "sweep small.yaml";

#[test]
fn an_unknown_key_in_a_grid() {
    let desk = Desk::new();
    desk.grid("gates:", "gate:");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × gate: unknown key
       ╭─[small.yaml:7:1]
     6 │   direction_filter: [long, both]
     7 │ gate: ["total_trades >= 10"]
       · ────
     8 │ limits: {chunk: 4}
       ╰────
      help: did you mean `gates`?
    "#);
    desk.grid("  fast_length:", "  fast_lenght:");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
      × parameters.fast_lenght: unknown parameter of `sma_cross`
       ╭─[small.yaml:4:3]
     3 │ parameters:
     4 │   fast_lenght: [5, 10, 20, 40]
       ·   ───────────
     5 │   slow_length: [50, 60, 80]
       ╰────
      help: did you mean `fast_length`?
    ");
    desk.grid("output: {top: 2}", "output: {top: 2, cvs: all}");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
      × output.cvs: unknown key
       ╭─[small.yaml:9:18]
     8 │ limits: {chunk: 4}
     9 │ output: {top: 2, cvs: all}
       ·                  ───
       ╰────
      help: valid keys: dir, top, csv
    ");
}

#[test]
fn an_unknown_key_in_the_run_config_or_its_parameters() {
    let desk = Desk::new();
    desk.config("\"warmup_bars\"", "\"warmup_bar\"");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × warmup_bar: unknown key
       ╭─[config.json:8:3]
     7 │   "timeframes": {"primary": "H1", "additional": []},
     8 │   "warmup_bar": 100,
       ·   ────────────
     9 │   "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0},
       ╰────
      help: did you mean `warmup_bars`?
    "#);
    desk.config("\"lots\": 0.1", "\"lots\": 0.1, \"stop_art\": 2.0");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × strategy_parameters.stop_art: unknown key
        ╭─[config.json:10:40]
      9 │   "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0},
     10 │   "strategy_parameters": {"lots": 0.1, "stop_art": 2.0}
        ·                                        ──────────
     11 │ }
        ╰────
      help: did you mean `stop_atr`?
    "#);
}

#[test]
fn a_wrong_type() {
    let desk = Desk::new();
    desk.grid("[5, 10, 20, 40]", "[5, ten]");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × parameters.fast_length[1]: must be int >= 1, got "ten"
       ╭─[small.yaml:4:20]
     3 │ parameters:
     4 │   fast_length: [5, ten]
       ·                    ───
     5 │   slow_length: [50, 60, 80]
       ╰────
    "#);
    desk.grid("[5, 10, 20, 40]", "5..20:2.5");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
      × parameters.fast_length: the values must be whole numbers, got 2.5
       ╭─[small.yaml:4:16]
     3 │ parameters:
     4 │   fast_length: 5..20:2.5
       ·                ─────────
     5 │   slow_length: [50, 60, 80]
       ╰────
    ");
    desk.config("\"warmup_bars\": 100", "\"warmup_bars\": \"many\"");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × warmup_bars: must be a whole number, got "many"
       ╭─[config.json:8:18]
     7 │   "timeframes": {"primary": "H1", "additional": []},
     8 │   "warmup_bars": "many",
       ·                  ──────
     9 │   "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0},
       ╰────
    "#);
    desk.write("config.json", "{\"symbol\": \"EURUSD\",\n  \"warmup_bars\" 100}");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × not valid JSON: invalid trailing content after double-quoted scalar
       ╭─[config.json:2:17]
     1 │ {"symbol": "EURUSD",
     2 │   "warmup_bars" 100}
       ·                 ─
       ╰────
    "#);
}

#[test]
fn an_empty_range_and_a_step_of_zero() {
    let desk = Desk::new();
    desk.grid("[5, 10, 20, 40]", "40..5:5");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
      × parameters.fast_length: `low <= high` must hold, got low=40, high=5
       ╭─[small.yaml:4:16]
     3 │ parameters:
     4 │   fast_length: 40..5:5
       ·                ───────
     5 │   slow_length: [50, 60, 80]
       ╰────
    ");
    desk.grid("[5, 10, 20, 40]", "5..40:0");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
      × parameters.fast_length: the step must be > 0, got 0
       ╭─[small.yaml:4:16]
     3 │ parameters:
     4 │   fast_length: 5..40:0
       ·                ───────
     5 │   slow_length: [50, 60, 80]
       ╰────
    ");
    desk.grid("[5, 10, 20, 40]", "{values: []}");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
      × parameters.fast_length: at least one value is needed, got an empty list
       ╭─[small.yaml:4:3]
     3 │ parameters:
     4 │   fast_length: {values: []}
       ·   ───────────
     5 │   slow_length: [50, 60, 80]
       ╰────
    ");
}

#[test]
fn a_value_out_of_range() {
    let desk = Desk::new();
    desk.grid("[5, 10, 20, 40]", "0..40:5");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
      × parameters.fast_length: every value must be int >= 1, got 0
       ╭─[small.yaml:4:16]
     3 │ parameters:
     4 │   fast_length: 0..40:5
       ·                ───────
     5 │   slow_length: [50, 60, 80]
       ╰────
    ");
    desk.grid("[long, both]", "[long, up]");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × parameters.direction_filter[1]: must be one of long, short, both, got "up"
       ╭─[small.yaml:6:28]
     5 │   slow_length: [50, 60, 80]
     6 │   direction_filter: [long, up]
       ·                            ──
     7 │ gates: ["total_trades >= 10"]
       ╰────
    "#);
}

#[test]
fn what_only_the_strategy_can_judge_is_judged_before_the_start() {
    let desk = Desk::new();
    desk.write(
        "heavy.yaml",
        &cli::HEAVY.replace("window_length: 40..145:15", "enabled_scenarios: {values: [[1], [7]]}"),
    );
    insta::assert_snapshot!(desk.refused("sweep heavy.yaml"), @r"
    exit 2
      × parameters.enabled_scenarios[1]: must be list of int 1 to 6, got [7]
       ╭─[heavy.yaml:4:37]
     3 │ parameters:
     4 │   enabled_scenarios: {values: [[1], [7]]}
       ·                                     ─
     5 │   atr_mult: {min: 1.0, max: 3.0, step: 0.5}
       ╰────
    ");
    desk.write(
        "heavy.yaml",
        &cli::HEAVY.replace("window_length: 40..145:15", "\"overrides.*/M5.long.ema_lenght\": [10, 20]"),
    );
    insta::assert_snapshot!(desk.refused("sweep heavy.yaml"), @r#"
    exit 2
      × parameters.overrides.*/M5.long.ema_lenght: unknown parameter of `mean_reversion_z_score`
       ╭─[heavy.yaml:4:3]
     3 │ parameters:
     4 │   "overrides.*/M5.long.ema_lenght": [10, 20]
       ·   ────────────────────────────────
     5 │   atr_mult: {min: 1.0, max: 3.0, step: 0.5}
       ╰────
      help: did you mean `overrides.*/M5.long.ema_length`?
    "#);
}

#[test]
fn constraints_that_cannot_be() {
    let desk = Desk::new();
    desk.grid("gates:", "constraints: [\"fast_lenth < slow_length\"]\ngates:");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × constraints[0]: unknown axis or parameter `fast_lenth`
       ╭─[small.yaml:7:16]
     6 │   direction_filter: [long, both]
     7 │ constraints: ["fast_lenth < slow_length"]
       ·                ──────────
     8 │ gates: ["total_trades >= 10"]
       ╰────
      help: did you mean `fast_length`?
    "#);
    desk.grid("gates:", "constraints: [\"fast_length > 100\"]\ngates:");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × constraints: no setting is left: `fast_length > 100` leaves none of 24
       ╭─[small.yaml:7:15]
     6 │   direction_filter: [long, both]
     7 │ constraints: ["fast_length > 100"]
       ·               ───────────────────
     8 │ gates: ["total_trades >= 10"]
       ╰────
      help: loosen a constraint or widen an axis it reads
    "#);
    desk.grid("gates:", "constraints: [\"fast_length < \"]\ngates:");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × constraints[0]: the expression ends where a value is expected
       ╭─[small.yaml:7:30]
     6 │   direction_filter: [long, both]
     7 │ constraints: ["fast_length < "]
       ·                              ─
     8 │ gates: ["total_trades >= 10"]
       ╰────
    "#);
}

#[test]
fn an_unknown_strategy() {
    let desk = Desk::new();
    desk.config("sma_cross", "sma_corss");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × strategy_name: strategy `sma_corss` is not registered; known: mean_reversion_z_score,
      │ sma_cross, donchian_breakout, rsi_reversion
       ╭─[config.json:2:20]
     1 │ {
     2 │   "strategy_name": "sma_corss",
       ·                    ───────────
     3 │   "symbol": "EURUSD",
       ╰────
      help: did you mean `sma_cross`?
    "#);
}

#[test]
fn an_unknown_metric() {
    let desk = Desk::new();
    desk.grid("gates:", "objective: {maximize: sharp_equity_daily}\ngates:");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × objective.maximize: unknown metric `sharp_equity_daily`
       ╭─[small.yaml:7:23]
     6 │   direction_filter: [long, both]
     7 │ objective: {maximize: sharp_equity_daily}
       ·                       ──────────────────
     8 │ gates: ["total_trades >= 10"]
       ╰────
      help: did you mean `sharpe_equity_daily`?
    "#);
    desk.grid("total_trades >= 10", "total_trade >= 10");
    insta::assert_snapshot!(desk.refused(RUN), @r#"
    exit 2
      × gates[0]: unknown metric `total_trade`
       ╭─[small.yaml:7:10]
     6 │   direction_filter: [long, both]
     7 │ gates: ["total_trade >= 10"]
       ·          ───────────
     8 │ limits: {chunk: 4}
       ╰────
      help: did you mean `total_trades`?
    "#);
}

#[test]
fn an_axis_on_a_key_that_changes_the_bars() {
    let desk = Desk::new();
    desk.grid("  fast_length:", "  warmup_bars: [100, 200]\n  fast_length:");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
      × parameters.warmup_bars: cannot be an axis: it changes the bars, and all settings of a sweep
      │ are judged on identical bars
       ╭─[small.yaml:4:3]
     3 │ parameters:
     4 │   warmup_bars: [100, 200]
       ·   ───────────
     5 │   fast_length: [5, 10, 20, 40]
       ╰────
      help: vary it in a batch (`symbols`, `timeframes`, `variants`), or use `--set` for one run
    ");
    desk.grid("  fast_length:", "  costs.spread_multiplyer: [1, 2]\n  fast_length:");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
      × parameters.costs.spread_multiplyer: unknown key of the run config
       ╭─[small.yaml:4:3]
     3 │ parameters:
     4 │   costs.spread_multiplyer: [1, 2]
       ·   ───────────────────────
     5 │   fast_length: [5, 10, 20, 40]
       ╰────
      help: did you mean `costs.spread_multiplier`?
    ");
}

#[test]
fn a_typing_error_on_the_command_line() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.refused("sweep small.yaml --set fast_lenght=3..9:2"), @r"
    exit 2
      × parameters.fast_lenght: unknown parameter of `sma_cross`
       ╭─[--set fast_lenght:1:1]
     1 │ fast_lenght
       · ───────────
       ╰────
      help: did you mean `fast_length`?
    ");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --set limits.chunks=8"), @r"
    exit 2
      × limits.chunks: unknown key
       ╭─[--set limits.chunks:1:1]
     1 │ limits.chunks
       · ─────────────
       ╰────
      help: did you mean `chunk`?
    ");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --set fast_length"), @r"
    exit 2
      × --set: must be key=value, got `fast_length`
      help: for example `--set z_score_long=-3..-1:0.5`
    ");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --memory lots"), @r"
    exit 2
      × --memory: `lots` is no amount of memory: a positive number with one of B, kB, MB, GB, TB, KiB,
      │ MiB, GiB, TiB
      help: for example --memory 8GB
    ");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --threads 0"), @r"
    exit 2
      × --threads: must be >= 1, got 0
      help: leave it out to use all cores
    ");
    insta::assert_snapshot!(desk.refused("sweep smal.yaml"), @r"
    exit 2
      × smal.yaml: cannot be read: no such file
    ");
}

#[test]
fn a_missing_file() {
    let desk = Desk::new();
    desk.config("  \"data\": {\"source\": \"synthetic\", \"seed\": 7, \"bars\": 3000},\n", "");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 3
    error[E4100]: EURUSD/EURUSD_H1_BID.parquet: FileNotFound: No such file or directory (os error 2)
    help: bars are read from {root}/{SYMBOL}/{SYMBOL}_{TF}_{BID|ASK}.parquet; OMEGA_DATA_PARQUET_ROOT sets the root (default data/parquet)
    ");
    fs::remove_file(desk.path().join("config.json")).unwrap();
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
      × config: config.json: cannot be read: no such file
       ╭─[small.yaml:2:9]
     1 │ name: small
     2 │ config: config.json
       ·         ───────────
     3 │ parameters:
       ╰────
    ");
    fs::remove_file(desk.path().join("configs/symbol_specs.yaml")).unwrap();
    desk.write("config.json", cli::CONFIG);
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 2
    error[E4002]: configs/symbol_specs.yaml: cannot be read: No such file or directory (os error 2) (start in the folder that holds configs/, or set OMEGA_EXECUTION_COSTS_FILE and OMEGA_SYMBOL_SPECS_FILE)
    ");
}

/// A grid on the bars of a folder of known faults.
fn faulty(desk: &Desk, symbol: &str, timeframe: &str, from: &str, to: &str) {
    let synthetic = "  \"data\": {\"source\": \"synthetic\", \"seed\": 7, \"bars\": 3000},\n";
    let config =
        cli::CONFIG.replace(synthetic, "").replace("EURUSD", symbol).replace("\"H1\"", &format!("\"{timeframe}\""));
    desk.write("config.json", &config.replace("2020-01-06", from).replace("2020-06-30", to));
}

#[test]
fn bars_with_known_faults() {
    let Some(data) = real_data("bars with known faults") else { return };
    let issues = data.join("known-issues");
    let desk = Desk::new().env("OMEGA_DATA_PARQUET_ROOT", issues.join("fxcm-crossed"));
    faulty(&desk, "EURUSD", "H1", "2000-01-01", "2030-01-01");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 3
    error[E4104]: EURUSD H1: InvalidSpread at 2007-03-30T05:00:00Z: Close ask 1.33199 is below bid 1.33201
    help: repair or drop the crossed rows at the source; nothing is guessed here
    ");
    let desk = Desk::new().env("OMEGA_DATA_PARQUET_ROOT", issues.join("fxcm-m1-raw"));
    faulty(&desk, "GBPUSD", "M1", "2000-01-01", "2030-01-01");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 3
    error[E4104]: GBPUSD M1: InvalidSpread at 2012-02-01T08:47:00Z: Close ask 1.57425 is below bid 1.57429
    help: repair or drop the crossed rows at the source; nothing is guessed here
    ");
    faulty(&desk, "USDJPY", "M1", "2000-01-01", "2030-01-01");
    insta::assert_snapshot!(desk.refused(RUN), @r"
    exit 3
    error[E4104]: USDJPY M1: InvalidSpread at 2013-02-01T00:53:00Z: Close ask 91.729 is below bid 91.73
    help: repair or drop the crossed rows at the source; nothing is guessed here
    ");
}

#[test]
fn bars_of_closed_days_load_with_a_warning() {
    let Some(data) = real_data("bars of closed days") else { return };
    let root = data.join("known-issues/dukascopy-weekend-flats");
    let desk = Desk::new().env("OMEGA_DATA_PARQUET_ROOT", root);
    faulty(&desk, "EURUSD", "M1", "2000-01-01", "2030-01-01");
    let shown = desk.run("sweep small.yaml --set fast_length=[5]");
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 0
    small: 6 settings of sma_cross on EURUSD M1
    warning: EURUSD M1: 11524 of 43200 bars are filler (flat, without volume, for hours; the first at 2025-04-04T21:00:00Z), 26.68 %; they take part as they are
    ");
}

#[test]
fn an_output_folder_that_takes_no_files() {
    let desk = Desk::new();
    desk.write("taken", "a file, not a folder\n");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --out taken/results"), @r"
    exit 2
    error: taken/results/small-[HASH]/chunks: cannot create it: Not a directory (os error 20)
    help: --out DIR names another output root
    ");
    let Some(disk) = SmallDisk::new("a read-only output folder", "size=1m") else { return };
    disk.remount("ro");
    let line = format!("sweep small.yaml --out {}", disk.path().display());
    insta::assert_snapshot!(desk.refused(&line).replace(&*disk.path().to_string_lossy(), "[DISK]"), @r"
    exit 2
    error: [DISK]/small-[HASH]/chunks: cannot create it: Read-only file system (os error 30)
    help: --out DIR names another output root
    ");
}

#[test]
fn a_space_too_large_to_try() {
    let desk = Desk::new();
    let wide = "--set fast_length=1..100 --set slow_length=101..10100 --set atr_length=1..1000000";
    insta::assert_snapshot!(desk.refused(&format!("sweep small.yaml {wide}")), @r"
    exit 2
      × search: the grid has 2,000,000,000,000 settings; `search: grid` takes at most 1,000,000,000
       ╭─[small.yaml:3:1]
     2 │ config: config.json
     3 │ parameters:
       · ──────────
     4 │   fast_length: [5, 10, 20, 40]
       ╰────
      help: sample it: `search: {method: random, trials: 5000}`; or take larger steps or fewer axes
    ");
    // Drawn from, it is as good as any other.
    desk.grid("gates:", "search: {method: random, trials: 30}\ngates:");
    let shown =
        desk.run(&format!("sweep small.yaml {wide} --set slow_length=41..90 --set fast_length=1..40 --dry-run"));
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let shown = desk.run(&format!("sweep small.yaml {wide}"));
    // Averages of thousands of bars do not fit before the first tradable bar: rows all the same.
    assert_eq!(shown.code, Some(4), "{}", shown.stderr);
    assert_eq!(chunk_count(&desk.run_folder("results")), 8);
}

#[test]
fn a_memory_cap_that_is_too_small() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.refused("sweep small.yaml --memory 1kB"), @r"
    exit 2
    error: the memory cap of [CAP] is too small: this run needs at least [NEED]
    help: --memory [NEED]
    ");
    // What it asks for is enough.
    let said = desk.run("sweep small.yaml --memory 1kB").stderr;
    let asked = said.lines().find_map(|line| line.strip_prefix("help: --memory ")).unwrap().to_owned();
    let shown = desk.run(&format!("sweep small.yaml --memory {asked}"));
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
}

#[test]
fn a_warm_up_too_short_for_some_settings_or_for_all() {
    let desk = Desk::new();
    desk.config("\"warmup_bars\": 100", "\"warmup_bars\": 65");
    let shown = desk.run("sweep small.yaml --out some");
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 4
    small: 24 settings of sma_cross on EURUSD H1
    warning: some settings need warmup_bars >= 79, the config has 65: those become failed rows (E4003)
    ");
    let csv = fs::read_to_string(desk.run_folder("some").join("leaderboard.csv")).unwrap();
    let failed: Vec<&str> = csv.lines().filter(|line| line.contains(",failed,")).collect();
    assert_eq!(failed.len(), 8);
    assert!(failed.iter().all(|line| line.contains("E4003") && line.contains("warmup_bars >= 79")), "{failed:?}");
    desk.config("\"warmup_bars\": 100", "\"warmup_bars\": 20");
    let shown = desk.run("sweep small.yaml --out all");
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 4
    small: 24 settings of sma_cross on EURUSD H1
    warning: some settings need warmup_bars >= 79, the config has 20: those become failed rows (E4003)
    error: all 24 trials failed; the first by config hash: E4003 sma(60)@H1:bid has its first value at bar 59 of H1, but warmup_bars is 20; the setting needs warmup_bars >= 59
    ");
    assert!(desk.run_folder("all").join("leaderboard.parquet").exists(), "failed trials are rows");
}

#[test]
fn gates_that_nothing_passes() {
    let desk = Desk::new();
    desk.grid("total_trades >= 10", "total_trades >= 100000");
    let shown = desk.run("sweep small.yaml");
    insta::assert_snapshot!(format!("{}\n{}", desk.show(&shown), desk.redact(&shown.stdout)), @r"
    exit 5
    small: 24 settings of sma_cross on EURUSD H1
    24 rows: 0 ok, 24 gated, 0 without score, 0 failed · 24 distinct rule sets
    24 evaluated in [TIME]), 0 cached · memory [PEAK]

          rank  objective  trades      net    win     pf     dd  sharpe  fast_length  slow_length  direction_filter
     1 (gated)    -1.1533      32  -266.16  0.344  0.560  0.004  -1.153           20           60              long
     2 (gated)    -1.2328      62  -376.40  0.355  0.685  0.005  -1.233           20           60              both
     3 (gated)    -1.2612      23  -266.10  0.261  0.486  0.004  -1.261           20           80              long
     4 (gated)    -1.2997      84  -516.80  0.321  0.653  0.008  -1.300           10           50              both
     5 (gated)    -1.3444      33  -317.89  0.242  0.470  0.005  -1.344           10           80              long

    FAIL  total_trades >= 100000: 0 of 24 rows
    The best of 24 tries is partly luck: judge it on bars the search has not seen.

    results/small-[HASH]/leaderboard.parquet
    results/small-[HASH]/leaderboard.csv
    results/small-[HASH]/top trades, equity and metrics of the best
    ");
}
