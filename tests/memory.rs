//! A single backtest stays small: 30,000 bars of `mean_reversion_z_score` with every scenario, its columns and its metrics
//! in at most 80 MB for the whole process, generating the bars included.
//!
//! A file of its own: the kernel's peak counts the process.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they measured")]

mod support;

use engine::backtest::walk::Nobody;
use serde_json::json;

/// Peak of the resident memory in bytes, where the kernel tells.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[test]
fn a_backtest_of_thirty_thousand_bars_fits_in_80_megabytes() {
    let before = peak();
    support::in_folder(|folder| {
        let sources = support::sources(folder);
        let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let sources = engine::data::Sources {
            costs_file: configs.join("execution_costs.yaml"),
            specs_file: configs.join("symbol_specs.yaml"),
            ..sources
        };
        let config = support::config(&json!({
            "strategy_name": "mean_reversion_z_score",
            "symbol": "EURUSD",
            "start_date": "2020-01-06",
            "end_date": "2030-01-01",
            "data": {"source": "synthetic", "seed": 7, "bars": 30_500},
            "timeframes": {"primary": "M5", "additional": ["H1"]},
            "account": {"account_currency": "USD"},
            "strategy_parameters": {
                "enabled_scenarios": [3, 4, 5, 6], "htf_tf": "H1", "htf_filter": "above", "tp_min_distance": 0.0,
                "z_score_long": -0.8, "z_score_short": 0.8, "std_factor": 1.0, "local_z_lookback": 500,
                "scenario6_timeframes": ["PRIMARY", "H1"],
            },
        }));
        let environment = support::open(&config, &sources).unwrap();
        let outcome = support::prepare(&environment, &config).run(Vec::new(), &mut Nobody).unwrap();
        assert_eq!(outcome.walked.counters.bars, 30_000);
        assert!(outcome.walked.trades.len() > 100);
    });
    match (before, peak()) {
        (Some(before), Some(after)) => {
            println!("peak {} kB, of which {} kB before the run", after / 1024, before / 1024);
            assert!(after <= 80_000_000, "{after} bytes");
        }
        _ => println!("memory is not measured: no /proc/self/status here"),
    }
}
