//! `walkforward` as a command: the same bytes for any threads, memory and kills, what it refuses, what it says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;
mod support;

#[cfg(unix)]
use std::collections::BTreeMap;
use std::fs;

#[cfg(unix)]
use cli::identities;
use cli::{Desk, HEAVY, SMALL, assert_same_walk};
use engine::backtest::RunConfig;
use engine::units::DAY_NS;
use serde_json::Value;
use support::table::{number, parquet};

const HEAVY_WINDOWS: &str = "gates: [\"total_trades >= 3\"]\nwalk_forward: {train: 14d, test: 6d}\n";

fn heavy() -> Desk {
    let desk = Desk::new();
    desk.write("heavy.yaml", &format!("{HEAVY}{HEAVY_WINDOWS}"));
    desk
}

#[cfg(unix)]
#[test]
fn threads_memory_and_kills_change_no_byte() {
    let desk = heavy();
    let shown = desk.run("walkforward heavy.yaml --out one --threads 1");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let shown = desk.run("walkforward heavy.yaml --out two --threads 2 --memory 24MB");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let whole = desk.run_folder("one");
    assert_same_walk(&whole, &desk.run_folder("two"));
    let chunks = identities(&whole).len();
    // Any moment will do; the first may fall into any wave, the later ones soon after the start.
    let mut random = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut finished: BTreeMap<String, _> = BTreeMap::new();
    for range in [chunks / 4, 4, 4] {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let target = (finished.len() + 1 + (random >> 33) as usize % range).min(chunks);
        let mut child = desk.start("walkforward heavy.yaml --out killed --threads 1");
        let root = desk.path().join("killed");
        let folder = || fs::read_dir(&root).ok()?.next()?.ok().map(|entry| entry.path());
        cli::wait_until("chunks", || folder().is_some_and(|folder| cli::chunk_count(&folder) >= target));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = identities(&desk.run_folder("killed"));
        println!("killed at {target}, {} of {chunks} chunks finished", now.len());
        assert!(finished.iter().all(|(name, identity)| now.get(name) == Some(identity)), "written again");
        assert!(now.len() > finished.len() && (now.len() < chunks || !finished.is_empty()), "{} chunks", now.len());
        finished = now;
        if finished.len() == chunks {
            break;
        }
    }
    let shown = desk.run("walkforward heavy.yaml --out killed --threads 2");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let all = identities(&desk.run_folder("killed"));
    assert!(finished.iter().all(|(name, identity)| all.get(name) == Some(identity)), "written again");
    assert_same_walk(&whole, &desk.run_folder("killed"));
    // Started again it has nothing to do and leaves the same.
    let shown = desk.run("walkforward heavy.yaml --out killed");
    assert!(shown.stdout.starts_with("nothing to evaluate"), "{}", shown.stdout);
    assert!(identities(&desk.run_folder("killed")) == all);
    assert_same_walk(&whole, &desk.run_folder("killed"));
}

const SMALL_WINDOWS: &str = "walk_forward: {train: 40d, test: 20d}\n";

fn small() -> Desk {
    let desk = Desk::new();
    let text = SMALL.replace("total_trades >= 10", "total_trades >= 3");
    desk.write("small.yaml", &format!("{text}{SMALL_WINDOWS}"));
    desk
}

#[test]
fn a_choice_runs_on_its_own_and_earns_the_same() {
    let desk = small();
    let shown = desk.run("walkforward small.yaml --out out --json");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let folder = desk.run_folder("out");
    let windows = parquet(&folder.join("windows.parquet"));
    let mut ran = 0;
    for window in 0..windows.num_rows() {
        for (part, prefix) in [("train", "is"), ("test", "oos")] {
            let config = folder.join(format!("windows/{window:03}/{part}.json"));
            let shown = desk.run(&format!("run {} --json --out single", config.display()));
            assert_eq!(shown.code, Some(0), "{}", shown.stderr);
            let document: Value = serde_json::from_str(&shown.stdout).unwrap();
            for key in ["profit_net", "total_trades", "max_drawdown", "fees_total"] {
                let found = number(&windows, &format!("{prefix}.{key}"), window).unwrap();
                let single = document["metrics"][key].as_f64().unwrap();
                assert!((found - single).abs() < 0.005 + 1e-9, "window {window} {part} {key}: {found}, {single}");
            }
            ran += 1;
        }
    }
    assert!(ran >= 4);
}

#[test]
fn another_verdict_is_the_same_run_and_other_gates_are_another() {
    let desk = small();
    assert_eq!(desk.run("walkforward small.yaml --out out").code, Some(0));
    let shown = desk.run("walkforward small.yaml --out out --set walk_forward.verdict=[\"profit_net>0\"]");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.starts_with("nothing to evaluate"), "{}", shown.stdout);
    let lines: Vec<&str> =
        shown.stdout.lines().filter(|line| line.starts_with("pass") || line.starts_with("FAIL")).collect();
    assert_eq!(lines.len(), 1, "{}", shown.stdout);
    for (set, code) in
        [("gates=[\"total_trades>=1\"]", 0), ("walk_forward.test=25d", 0), ("gates=[\"total_trades>=9999\"]", 5)]
    {
        let shown = desk.run(&format!("walkforward small.yaml --out {code}{} --set {set}", set.len()));
        assert_eq!(shown.code, Some(code), "{set}: {}", shown.stderr);
        assert!(!shown.stdout.starts_with("nothing to evaluate"));
    }
    // A sweep of the same grid looks at none of this.
    assert_eq!(desk.run("sweep small.yaml --out sweep").code, Some(0));
    assert_eq!(desk.run("sweep small.yaml --out sweep --set walk_forward.test=25d").code, Some(0));
    assert_eq!(fs::read_dir(desk.path().join("sweep")).unwrap().count(), 1);
}

#[test]
fn what_contradicts_itself_is_refused_before_anything_is_written() {
    let desk = small();
    let refuse = |line: &str| desk.refused(&format!("walkforward small.yaml {line}"));
    for (line, expected) in [
        ("--set walk_forward.step=10d", "10d is shorter than the test of 20d: tests would overlap"),
        ("--set walk_forward.step=100bars", "tests of 20d every 100bars overlap: window 0 ends at"),
        ("--set walk_forward.train=900d", "no window fits: the tradable bars reach from 2020-01-10"),
        ("--set walk_forward.holdout=900d", "outside the tradable bars from"),
        ("--set walk_forward.verdict=[\"psr>=0.9\",\"wf_consistncy>0\"]", "did you mean `wf_consistency`?"),
        ("--set walk_forward.tran=90d", "did you mean `train`?"),
        (
            "--set trade_window={\"start\":\"2020-02-01\",\"end\":\"2020-03-01\"}",
            "a walk-forward lays windows of its own",
        ),
        ("--set account.initial_balance=[1000,2000]", "profits are added up in one account"),
    ] {
        let said = refuse(line);
        let flat: String = said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(flat.starts_with("exit 2") && flat.contains(expected), "{line}:\n{said}");
    }
    desk.write("heavy.yaml", &format!("{HEAVY}{HEAVY_WINDOWS}"));
    let said = desk.refused("walkforward heavy.yaml --set execution_variant=v1_parity");
    assert!(said.contains("walk-forward needs v2"), "{said}");
    desk.write("plain.yaml", SMALL);
    let said = desk.refused("walkforward plain.yaml");
    assert!(said.contains("walk_forward: is required to walk forward"), "{said}");
}

#[test]
fn the_summary_a_user_sees() {
    let desk = small();
    let shown = desk.run("walkforward small.yaml --out out");
    let text = desk.redact(&format!("{}\n{}", shown.stderr, shown.stdout));
    insta::assert_snapshot!(text, @r"
    small: 24 settings of sma_cross on EURUSD H1, 6 windows (rolling)
    train 40d, embargo 1d, test 20d, step 20d: 6 tests from 2020-02-20 to 2020-06-19, 144 bars left over

    24 settings evaluated in [TIME]), 0 cached · memory [PEAK]

     window   test from  passed   train    test   rank  trades      net     dd  fast_length  slow_length  direction_filter
          0  2020-02-20      24  -1.181  -0.474   1/24      12   -72.92  0.002            5           80              both
          1  2020-03-11      24  -0.703  -8.298  20/24      21  -144.68  0.002            5           80              both
          2  2020-03-31      24  -2.055   2.761   2/24       4   106.78  0.001           40           80              both
          3  2020-04-20      24   1.406  -3.531  12/24      12  -200.42  0.003           10           80              both
          4  2020-05-10      24   2.876  -5.021  22/24       8  -231.80  0.003           40           80              both
          5  2020-05-30      24   0.276   3.169  11/24       8   103.60  0.001           10           50              both

    out of sample: 65 trades, net -439.45, max drawdown 0.006, Sharpe -1.759 a year, PSR 0.090
    efficiency –, consistency 0.333, concentration 0.508, rank correlation 0.137, parameter drift 0.267
    first choice kept: net -387.83; buy and hold: net -1013.94, max drawdown 0.035

    pass  total_trades >= 30 (total_trades 65.0000)
    FAIL  days >= 250 (days 103.0000)
    FAIL  sharpe_daily > 0 (sharpe_daily -0.1263)
    FAIL  psr >= 0.90 (psr 0.0898)
    FAIL  wf_consistency >= 0.6 (wf_consistency 0.3333)
    FAIL  wf_concentration <= 0.5 (wf_concentration 0.5076)

    out/small-[HASH]/windows.csv every window, its choice and both results
    out/small-[HASH]/equity.csv and out/small-[HASH]/trades.csv
    out/small-[HASH]/windows run configs of every choice
    ");
}

#[test]
fn exported_configs_are_valid() {
    let desk = small();
    assert_eq!(desk.run("walkforward small.yaml --out out").code, Some(0));
    let text = fs::read_to_string(desk.run_folder("out").join("windows/000/test.json")).unwrap();
    let config = RunConfig::parse(&serde_json::from_str(&text).unwrap(), true).unwrap().config;
    let (start, end) = config.trade_window.unwrap();
    assert_eq!((end - start) % DAY_NS, 0);
}
