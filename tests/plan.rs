//! `omega-opt plan`: what a sweep will do and take, told without doing it; and the caps it names, kept.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;

use std::fs;
use std::path::Path;

use cli::{Desk, assert_same, tree};
use serde_json::Value;

fn plan(desk: &Desk, line: &str) -> Value {
    let shown = desk.run(&format!("plan {line} --json"));
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    serde_json::from_str(&shown.stdout).unwrap()
}

/// The text with every amount of time and memory masked.
fn masked(text: &str) -> String {
    let mask = |line: &str| {
        if !["time ", "memory ", "disk "].iter().any(|start| line.starts_with(start)) {
            return line.to_owned();
        }
        let mut out = String::new();
        for part in line.split(' ') {
            let number = part.starts_with(|c: char| c.is_ascii_digit());
            out.push_str(if number { "N" } else { part });
            out.push(' ');
        }
        out.trim_end().to_owned()
    };
    text.lines().map(mask).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_plan_tells_what_a_sweep_will_do_and_does_nothing() {
    let desk = Desk::new();
    let before = tree(desk.path());
    let shown = desk.run("plan small.yaml --set constraints=[\"fast_length<40\"]");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    insta::assert_snapshot!(masked(&desk.redact(&shown.stdout)), @r##"
    small: 18 settings of sma_cross (grid search), 24 lattice points
      fast_length                             4 values
      slow_length                             3 values
      direction_filter                        2 values
      left out 6 for `fast_length<40` (grid)
    distinct    18 settings
    shared      6 columns (144.0 kB), 36 masks, 18 exit tables, 0 guard questions
                18 of 18 jump
    chunks      5 of 4, 0 finished (0 settings)
    time        about N s on N threads, from N settings probed on N bars
    memory      about N kB of a cap of N GB; at least [NEED]
    disk        about N kB of chunks, N kB of leaderboard, in results/small-[HASH]
    "##);
    assert!(before == tree(desk.path()), "a plan writes nothing");
}

#[test]
fn what_is_finished_or_damaged_is_counted_and_left_alone() {
    let desk = Desk::new();
    assert_eq!(desk.run("sweep small.yaml").code, Some(0));
    let folder = desk.run_folder("results");
    fs::write(folder.join("chunks/chunk-000001.parquet"), b"damaged").unwrap();
    fs::remove_file(folder.join("chunks/chunk-000002.parquet")).unwrap();
    let before = tree(desk.path());
    let found = plan(&desk, "small.yaml");
    assert!(before == tree(desk.path()), "a plan writes nothing");
    let counts =
        ["chunks", "chunks_finished", "trials_finished", "chunks_damaged"].map(|key| found[key].as_u64().unwrap());
    assert_eq!(counts, [6, 4, 16, 1]);
    assert_eq!(found["folder_refused"], Value::Null);
}

/// The way each setting is evaluated follows from the setting, so the manifest of a continued sweep is that of any other.
#[test]
fn ways_of_evaluation_are_counted_and_survive_a_restart() {
    let desk = Desk::new();
    let line = "small.yaml --set account.max_positions=[1,2]";
    let found = plan(&desk, line);
    assert_eq!(found["ways"]["jumped"], 24);
    assert_eq!(found["ways"]["walked: max_positions is above 1"], 24);
    for root in ["a", "b"] {
        assert_eq!(desk.run(&format!("sweep {line} --out {root}")).code, Some(0));
    }
    let folder = desk.run_folder("b");
    for file in ["chunks/chunk-000003.parquet", "manifest.json"] {
        fs::remove_file(folder.join(file)).unwrap();
    }
    assert_eq!(desk.run(&format!("sweep {line} --out b")).code, Some(0));
    assert_same(&desk.run_folder("a"), &folder);
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["jumped"], 24);
    assert_eq!(manifest["walked"]["max_positions is above 1"], 24);
}

/// Optimizer specification §2.4.
#[test]
fn the_reference_space_has_its_2_004_750_settings() {
    let desk = Desk::new();
    let grid = Path::new(env!("CARGO_MANIFEST_DIR")).join("grids/reference_space.yaml");
    let shown = desk.run(&format!("sweep {} --dry-run --json", grid.display()));
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let counted: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(counted["trials"], 2_004_750);
    assert_eq!(counted["lattice_points"], "2004750");
}

/// A part of the reference space under the least cap that a sweep accepts gives the bytes of a run without one.
#[test]
fn the_least_cap_is_enough_and_changes_no_byte() {
    let Some(data) = cli::real_data("the_least_cap_is_enough_and_changes_no_byte") else { return };
    let desk = Desk::new().env("OMEGA_DATA_PARQUET_ROOT", data.join("long"));
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["grids/reference_space.yaml", "configs/reference_space.json"] {
        desk.write(name, &fs::read_to_string(repository.join(name)).unwrap());
    }
    let line = "grids/reference_space.yaml --set htf_ema=[70,90] --set b_b_length=[60] --set std_factor=1.6..1.8:0.1 \
                --set z_score_long=[-0.8,-0.75] --set kalman_q=[0.2,0.4] --set garch_alpha=[0.11] --set garch_beta=[0.74]";
    let found = plan(&desk, line);
    assert_eq!(found["trials"], 2 * 3 * 2 * 6 * 2 * 3 * 3);
    assert_eq!(found["distinct_settings"].as_u64().unwrap() * 3, found["trials"].as_u64().unwrap());
    let least = found["memory_least"].as_u64().unwrap();
    let shown = desk.run(&format!("sweep {line} --out capped --memory {}B", least - 1));
    assert_eq!(shown.code, Some(2), "{}", shown.stderr);
    assert!(shown.stderr.contains("help: --memory"), "{}", shown.stderr);
    for (root, flags) in [("capped", format!("--memory {least}B")), ("free", "--threads 1".to_owned())] {
        let shown = desk.run(&format!("sweep {line} --out {root} {flags}"));
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    }
    assert_same(&desk.run_folder("capped"), &desk.run_folder("free"));
}
