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
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.grid("  fast_length:", "  fast_lenght:");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.grid("output: {top: 2}", "output: {top: 2, cvs: all}");
    insta::assert_snapshot!(desk.refused(RUN), @"");
}

#[test]
fn an_unknown_key_in_the_run_config_or_its_parameters() {
    let desk = Desk::new();
    desk.config("\"warmup_bars\"", "\"warmup_bar\"");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.config("\"lots\": 0.1", "\"lots\": 0.1, \"stop_art\": 2.0");
    insta::assert_snapshot!(desk.refused(RUN), @"");
}

#[test]
fn a_wrong_type() {
    let desk = Desk::new();
    desk.grid("[5, 10, 20, 40]", "[5, ten]");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.grid("[5, 10, 20, 40]", "5..20:2.5");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.config("\"warmup_bars\": 100", "\"warmup_bars\": \"many\"");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.write("config.json", "{\"symbol\": \"EURUSD\",\n  \"warmup_bars\" 100}");
    insta::assert_snapshot!(desk.refused(RUN), @"");
}

#[test]
fn an_empty_range_and_a_step_of_zero() {
    let desk = Desk::new();
    desk.grid("[5, 10, 20, 40]", "40..5:5");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.grid("[5, 10, 20, 40]", "5..40:0");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.grid("[5, 10, 20, 40]", "{values: []}");
    insta::assert_snapshot!(desk.refused(RUN), @"");
}

#[test]
fn a_value_out_of_range() {
    let desk = Desk::new();
    desk.grid("[5, 10, 20, 40]", "0..40:5");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.grid("[long, both]", "[long, up]");
    insta::assert_snapshot!(desk.refused(RUN), @"");
}

#[test]
fn what_only_the_strategy_can_judge_is_judged_before_the_start() {
    let desk = Desk::new();
    desk.write(
        "heavy.yaml",
        &cli::HEAVY.replace("window_length: 40..145:15", "enabled_scenarios: {values: [[1], [7]]}"),
    );
    insta::assert_snapshot!(desk.refused("sweep heavy.yaml"), @"");
    desk.write(
        "heavy.yaml",
        &cli::HEAVY.replace("window_length: 40..145:15", "\"overrides.*/M5.long.ema_lenght\": [10, 20]"),
    );
    insta::assert_snapshot!(desk.refused("sweep heavy.yaml"), @"");
}

#[test]
fn constraints_that_cannot_be() {
    let desk = Desk::new();
    desk.grid("gates:", "constraints: [\"fast_lenth < slow_length\"]\ngates:");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.grid("gates:", "constraints: [\"fast_length > 100\"]\ngates:");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.grid("gates:", "constraints: [\"fast_length < \"]\ngates:");
    insta::assert_snapshot!(desk.refused(RUN), @"");
}

#[test]
fn an_unknown_strategy() {
    let desk = Desk::new();
    desk.config("sma_cross", "sma_corss");
    insta::assert_snapshot!(desk.refused(RUN), @"");
}

#[test]
fn an_unknown_metric() {
    let desk = Desk::new();
    desk.grid("gates:", "objective: {maximize: sharp_equity_daily}\ngates:");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.grid("total_trades >= 10", "total_trade >= 10");
    insta::assert_snapshot!(desk.refused(RUN), @"");
}

#[test]
fn an_axis_on_a_key_that_changes_the_bars() {
    let desk = Desk::new();
    desk.grid("  fast_length:", "  warmup_bars: [100, 200]\n  fast_length:");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    desk.grid("  fast_length:", "  costs.spread_multiplyer: [1, 2]\n  fast_length:");
    insta::assert_snapshot!(desk.refused(RUN), @"");
}

#[test]
fn a_typing_error_on_the_command_line() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.refused("sweep small.yaml --set fast_lenght=3..9:2"), @"");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --set limits.chunks=8"), @"");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --set fast_length"), @"");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --memory lots"), @"");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --threads 0"), @"");
    insta::assert_snapshot!(desk.refused("sweep smal.yaml"), @"");
}

#[test]
fn a_missing_file() {
    let desk = Desk::new();
    desk.config("  \"data\": {\"source\": \"synthetic\", \"seed\": 7, \"bars\": 3000},\n", "");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    fs::remove_file(desk.path().join("config.json")).unwrap();
    insta::assert_snapshot!(desk.refused(RUN), @"");
    fs::remove_file(desk.path().join("configs/symbol_specs.yaml")).unwrap();
    desk.write("config.json", cli::CONFIG);
    insta::assert_snapshot!(desk.refused(RUN), @"");
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
    insta::assert_snapshot!(desk.refused(RUN), @"");
    let desk = Desk::new().env("OMEGA_DATA_PARQUET_ROOT", issues.join("fxcm-m1-raw"));
    faulty(&desk, "GBPUSD", "M1", "2000-01-01", "2030-01-01");
    insta::assert_snapshot!(desk.refused(RUN), @"");
    faulty(&desk, "USDJPY", "M1", "2000-01-01", "2030-01-01");
    insta::assert_snapshot!(desk.refused(RUN), @"");
}

#[test]
fn bars_of_closed_days_load_with_a_warning() {
    let Some(data) = real_data("bars of closed days") else { return };
    let root = data.join("known-issues/dukascopy-weekend-flats");
    let desk = Desk::new().env("OMEGA_DATA_PARQUET_ROOT", root);
    faulty(&desk, "EURUSD", "M1", "2000-01-01", "2030-01-01");
    let shown = desk.run("sweep small.yaml --set fast_length=[5]");
    insta::assert_snapshot!(desk.show(&shown), @"");
}

#[test]
fn an_output_folder_that_takes_no_files() {
    let desk = Desk::new();
    desk.write("taken", "a file, not a folder\n");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --out taken/results"), @"");
    let Some(disk) = SmallDisk::new("a read-only output folder", "size=1m") else { return };
    disk.remount("ro");
    let line = format!("sweep small.yaml --out {}", disk.path().display());
    insta::assert_snapshot!(desk.refused(&line).replace(&*disk.path().to_string_lossy(), "[DISK]"), @"");
}

#[test]
fn a_space_too_large_to_try() {
    let desk = Desk::new();
    let wide = "--set fast_length=1..10000 --set slow_length=10001..20000 --set atr_length=1..10000";
    insta::assert_snapshot!(desk.refused(&format!("sweep small.yaml {wide}")), @"");
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
    insta::assert_snapshot!(desk.refused("sweep small.yaml --memory 1kB"), @"");
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
    insta::assert_snapshot!(desk.show(&shown), @"");
    let csv = fs::read_to_string(desk.run_folder("some").join("leaderboard.csv")).unwrap();
    let failed: Vec<&str> = csv.lines().filter(|line| line.contains(",failed,")).collect();
    assert_eq!(failed.len(), 8);
    assert!(failed.iter().all(|line| line.contains("E4003") && line.contains("warmup_bars >= 79")), "{failed:?}");
    desk.config("\"warmup_bars\": 100", "\"warmup_bars\": 20");
    let shown = desk.run("sweep small.yaml --out all");
    insta::assert_snapshot!(desk.show(&shown), @"");
    assert!(desk.run_folder("all").join("leaderboard.parquet").exists(), "failed trials are rows");
}

#[test]
fn gates_that_nothing_passes() {
    let desk = Desk::new();
    desk.grid("total_trades >= 10", "total_trades >= 100000");
    let shown = desk.run("sweep small.yaml");
    insta::assert_snapshot!(format!("{}\n{}", desk.show(&shown), desk.redact(&shown.stdout)), @"");
}
