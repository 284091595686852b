//! The same inputs give the same bytes: at one and two threads, under any memory cap, after the best of both is ranked
//! anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;

use cli::{Desk, assert_same, lasting};

#[test]
fn threads_and_memory_caps_do_not_change_a_byte() {
    let desk = Desk::new();
    for (root, flags) in [("a", "--threads 1"), ("b", "--threads 2"), ("c", "--threads 2 --memory 12MB")] {
        let shown = desk.run(&format!("sweep heavy.yaml --out {root} --set window_length=40..100:30 {flags}"));
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    }
    assert_same(&desk.run_folder("a"), &desk.run_folder("b"));
    assert_same(&desk.run_folder("a"), &desk.run_folder("c"));
}

#[test]
fn what_is_kept_names_no_machine_and_no_way_of_running() {
    let desk = Desk::new();
    assert_eq!(desk.run("sweep small.yaml --out a --threads 1").code, Some(0));
    let folder = desk.run_folder("a");
    let files = lasting(&folder);
    let names: Vec<&str> = files.keys().map(String::as_str).filter(|name| !name.contains("chunk-")).collect();
    insta::assert_snapshot!(names.join("\n"), @r"
    chunks/
    grid.lock.yaml
    leaderboard.csv
    leaderboard.parquet
    manifest.json
    top/
    top/1/
    top/1/equity.csv
    top/1/meta.json
    top/1/metrics.json
    top/1/trades.json
    top/2/
    top/2/equity.csv
    top/2/meta.json
    top/2/metrics.json
    top/2/trades.json
    ");
    for name in ["grid.lock.yaml", "manifest.json"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        for word in ["threads", "memory", &*desk.path().to_string_lossy(), &*cli::cache().to_string_lossy()] {
            assert!(!text.contains(word), "{name} holds `{word}`");
        }
    }
}

#[test]
fn the_lock_file_is_a_grid_that_runs_the_same() {
    let desk = Desk::new();
    assert_eq!(desk.run("sweep small.yaml --out a").code, Some(0));
    let lock = std::fs::read_to_string(desk.run_folder("a").join("grid.lock.yaml")).unwrap();
    desk.write("again/grid.yaml", &lock);
    let shown = desk.run("sweep again/grid.yaml --out b");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert_same(&desk.run_folder("a"), &desk.run_folder("b"));
}
