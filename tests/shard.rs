//! A run cut into shards and merged leaves the bytes of a run in one piece; what does not fit together is refused with
//! its name, and nothing on disk is harmed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[cfg(unix)]
use cli::identities;
use cli::{Desk, HEAVY, SMALL, assert_same, assert_same_walk, chunk_count, tree, wait_until};

/// Chunks of the small grid.
const CHUNKS: usize = 6;

fn ok(desk: &Desk, line: &str) {
    let shown = desk.run(line);
    assert_eq!(shown.code, Some(0), "{line}\n{}", shown.stderr);
}

/// Folders below `root`, by name.
fn folders(desk: &Desk, root: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(desk.path().join(root)).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn shards(desk: &Desk, root: &str) -> Vec<PathBuf> {
    folders(desk, root).into_iter().filter(|path| path.to_string_lossy().contains(".shard-")).collect()
}

/// `merge` with these folders, relative to the desk as a person types them.
fn merge_line(desk: &Desk, folders: &[PathBuf], flags: &str) -> String {
    let names: Vec<String> =
        folders.iter().map(|path| path.strip_prefix(desk.path()).unwrap().display().to_string()).collect();
    format!("merge {} {flags}", names.join(" "))
}

/// Every shard of a run below `root`, merged below `out`.
fn sharded(desk: &Desk, command: &str, count: usize, root: &str, out: &str, threads: usize) -> PathBuf {
    for number in 1..=count {
        ok(desk, &format!("{command} --out {root} --shard {number}/{count} --threads {threads}"));
    }
    let shards = shards(desk, root);
    assert_eq!(shards.len(), count);
    assert!(shards.iter().all(|shard| !shard.join("leaderboard.parquet").exists()));
    let before: Vec<_> = shards.iter().map(|shard| tree(shard)).collect();
    ok(desk, &merge_line(desk, &shards, &format!("--out {out} --threads {threads}")));
    assert!(before == shards.iter().map(|shard| tree(shard)).collect::<Vec<_>>(), "a merge changes no shard");
    desk.run_folder(out)
}

#[test]
fn shards_merged_are_the_sweep_in_one_piece() {
    let desk = Desk::new();
    let line = "sweep heavy.yaml --set window_length=40..100:30";
    ok(&desk, &format!("{line} --out whole"));
    let whole = desk.run_folder("whole");
    for (count, threads) in [(1, 1), (1, 2), (2, 1), (2, 2), (7, 1), (7, 2)] {
        let (root, out) = (format!("root{count}{threads}"), format!("merged{count}{threads}"));
        let merged = sharded(&desk, line, count, &root, &out, threads);
        assert_same(&whole, &merged);
    }
    // In any order, with fewer threads and little memory, and again into the same folder.
    let mut backwards = shards(&desk, "root72");
    backwards.reverse();
    ok(&desk, &merge_line(&desk, &backwards, "--out again --threads 1 --memory 12MB"));
    assert_same(&whole, &desk.run_folder("again"));
    ok(&desk, &merge_line(&desk, &backwards, "--out again"));
    assert_same(&whole, &desk.run_folder("again"));
}

#[test]
fn shards_merged_are_the_walk_forward_in_one_piece() {
    let desk = Desk::new();
    let windows = "gates: [\"total_trades >= 3\"]\nwalk_forward: {mode: matrix, train: [14d, 16d], test: 6d}\n";
    desk.write("heavy.yaml", &format!("{HEAVY}{windows}"));
    let line = "walkforward heavy.yaml --set window_length=40..100:30";
    ok(&desk, &format!("{line} --out whole"));
    let whole = desk.run_folder("whole");
    for (count, threads) in [(1, 1), (1, 2), (2, 1), (2, 2), (7, 1), (7, 2)] {
        let (root, out) = (format!("root{count}{threads}"), format!("merged{count}{threads}"));
        let merged = sharded(&desk, line, count, &root, &out, threads);
        assert_same_walk(&whole, &merged);
    }
}

/// More shards than chunks: some have nothing to do, and say so.
#[test]
fn a_shard_without_a_chunk_is_finished_at_once() {
    let desk = Desk::new();
    ok(&desk, "sweep small.yaml --out whole");
    let merged = sharded(&desk, "sweep small.yaml", 8, "root", "merged", 1);
    assert_same(&desk.run_folder("whole"), &merged);
    assert_eq!(chunk_count(&shards(&desk, "root")[7]), 0);
}

#[test]
fn what_a_shard_and_a_merge_say() {
    let desk = Desk::new();
    let shown = desk.run("sweep small.yaml --shard 1/2");
    insta::assert_snapshot!(format!("{}\n---\n{}", desk.show(&shown), shown.stdout), @r"
    exit 0
    small: 24 settings of sma_cross on EURUSD H1
    shard 1/2: 12 settings in 3 of 6 chunks
    shard 1/2 is finished, in results/small-[HASH].shard-1-of-2; it has no leaderboard of its own
    when all 2 are finished: omega-opt merge results/small-[HASH].shard-*-of-2
    ---
    ");
    let shard = shards(&desk, "results").remove(0);
    let shard = shard.strip_prefix(desk.path()).unwrap().display();
    insta::assert_snapshot!(desk.refused(&format!("show {shard} 1")), @r"
    exit 2
      × results/small-[HASH].shard-1-of-2: is shard 1/2 of a run: it has no ranked rows
      help: `omega-opt merge` puts the shards together
    ");
    let shown = desk.run("sweep small.yaml --shard 2/2 --json");
    let told: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&told["shard"], &told["end"], &told["trials"]), (&"2/2".into(), &"complete".into(), &12.into()));
    assert_eq!(told["result"], serde_json::Value::Null);
    // Beside the shards, where a sweep would have put it.
    let shown = desk.run(&merge_line(&desk, &shards(&desk, "results"), ""));
    insta::assert_snapshot!(format!("{}\n---\n{}", desk.show(&shown), desk.redact(&shown.stdout)), @r"
    exit 0
    merging 6 chunks of 2 folders
    small: 24 settings of sma_cross on EURUSD H1, 24 finished before
    ---
    24 rows: 24 ok, 0 gated, 0 without score, 0 failed · 24 distinct rule sets
    nothing to evaluate: all settings were finished before, ranked anew

     rank  objective  trades      net    win     pf     dd  sharpe  fast_length  slow_length  direction_filter
        1    -1.1533      32  -266.16  0.344  0.560  0.004  -1.153           20           60              long
        2    -1.2328      62  -376.40  0.355  0.685  0.005  -1.233           20           60              both
        3    -1.2612      23  -266.10  0.261  0.486  0.004  -1.261           20           80              long
        4    -1.2997      84  -516.80  0.321  0.653  0.008  -1.300           10           50              both
        5    -1.3444      33  -317.89  0.242  0.470  0.005  -1.344           10           80              long

    pass  total_trades >= 10: 24 of 24 rows
    The best of 24 tries is partly luck: judge it on bars the search has not seen.

    results/small-[HASH]/leaderboard.parquet
    results/small-[HASH]/leaderboard.csv
    results/small-[HASH]/top trades, equity and metrics of the best
    ");
    ok(&desk, "sweep small.yaml --out whole");
    assert_same(&desk.run_folder("whole"), &folders(&desk, "results")[0]);
    // The sweep itself finds nothing left to do.
    assert!(desk.run("sweep small.yaml").stdout.contains("nothing to evaluate"));
}

#[test]
fn what_is_no_shard_is_refused() {
    let desk = Desk::new();
    for typed in ["0/7", "8/7", "0/0", "3", "a/b", "1/-7", "1/7/7"] {
        for command in ["sweep", "walkforward"] {
            let refused = desk.refused(&format!("{command} small.yaml --shard={typed}"));
            assert!(refused.starts_with("exit 2\n") && refused.contains(typed), "{refused}");
        }
    }
    insta::assert_snapshot!(desk.refused("sweep small.yaml --shard 8/7"), @r"
    exit 2
      × --shard: must be i/n with whole numbers and 1 <= i <= n, got `8/7`
      help: for example --shard 3/7, the third of seven; add 1 to a number counted from 0
    ");
    desk.config("\"warmup_bars\": 100,", "\"warmup_bars\": 100, \"run_mode\": \"prod\",");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --shard 1/2"), @r#"
    exit 2
      × run_mode: `prod` without `rng_seed` draws a seed of its own in each shard: their rows are not
      │ of one run
       ╭─[config.json:8:23]
     7 │   "timeframes": {"primary": "H1", "additional": []},
     8 │   "warmup_bars": 100, "run_mode": "prod",
       ·                       ──────────
     9 │   "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0},
       ╰────
      help: give all shards one seed, for example --set rng_seed=42
    "#);
    ok(&desk, "sweep small.yaml --shard 1/2 --set rng_seed=7");
}

#[test]
fn missing_chunks_are_named_with_the_shards_that_supply_them() {
    let desk = Desk::new();
    for number in [1, 2, 4] {
        ok(&desk, &format!("sweep small.yaml --out root --shard {number}/4"));
    }
    let mut all = shards(&desk, "root");
    fs::remove_file(all[0].join("chunks/chunk-000004.parquet")).unwrap();
    insta::assert_snapshot!(desk.refused(&merge_line(&desk, &all, "--out merged")), @r"
    exit 2
    error: no folder holds 2 of the 6 chunks:
      shard 1/4: chunk 4
      shard 3/4: chunk 2
    help: `omega-opt sweep GRID --shard 3/4` starts or continues one; then merge again
    ");
    ok(&desk, "sweep small.yaml --out root --shard 1/4");
    ok(&desk, "sweep small.yaml --out root --shard 3/4");
    all = shards(&desk, "root");
    ok(&desk, &merge_line(&desk, &all, "--out merged"));
    ok(&desk, "sweep small.yaml --out whole");
    assert_same(&desk.run_folder("whole"), &desk.run_folder("merged"));
    // Parts that are no shards: nobody knows who has the rest.
    let part = desk.run_folder("whole");
    fs::remove_file(part.join("chunks/chunk-000002.parquet")).unwrap();
    insta::assert_snapshot!(desk.refused(&merge_line(&desk, &[part], "--out part")), @r"
    exit 2
    error: no folder holds 1 of the 6 chunks: chunk 2
    help: name the folders that hold them, or finish the run with `omega-opt sweep GRID`
    ");
}

#[test]
fn folders_of_other_runs_are_refused_with_the_difference() {
    let desk = Desk::new();
    ok(&desk, "sweep small.yaml --out a --shard 1/2");
    let first = shards(&desk, "a");
    let against = |root: &str, line: &str| {
        ok(&desk, &format!("sweep small.yaml --out {root} --shard 2/2 {line}"));
        let all = [first.clone(), shards(&desk, root)].concat();
        let said = desk.refused(&merge_line(&desk, &all, "--out merged"));
        hide_digests(&said)
    };
    insta::assert_snapshot!(against("seed", "--set seed=43"), @r"
    exit 2
    error: a/small-[HASH].shard-1-of-2 and seed/small-[HASH].shard-2-of-2 are not of the same run:
      seed: the one has `42`, the other `43`
      - seed: 42
      + seed: 43
    help: merge the folders of one run; other runs have other rows
    ");
    insta::assert_snapshot!(against("space", "--set fast_length=[5,10,20,41]"), @r#"
    exit 2
    error: a/small-[HASH].shard-1-of-2 and space/small-[HASH].shard-2-of-2 are not of the same run:
      space: the one has `[DIGEST]`, the other `[DIGEST]`
      -   "fast_length": {"values": [5,10,20,40]}
      +   "fast_length": {"values": [5,10,20,41]}
    help: merge the folders of one run; other runs have other rows
    "#);
    insta::assert_snapshot!(against("config", "--set lots=0.2"), @r#"
    exit 2
    error: a/small-[HASH].shard-1-of-2 and config/small-[HASH].shard-2-of-2 are not of the same run:
      config: the one has `[DIGEST]`, the other `[DIGEST]`
      -   "strategy_parameters": {"lots":0.1}
      +   "strategy_parameters": {"lots":0.2}
    help: merge the folders of one run; other runs have other rows
    "#);
    insta::assert_snapshot!(against("data", "--set data.seed=8"), @r#"
    exit 2
    error: a/small-[HASH].shard-1-of-2 and data/small-[HASH].shard-2-of-2 are not of the same run:
      config: the one has `[DIGEST]`, the other `[DIGEST]`
      data: the one has `[DIGEST]`, the other `[DIGEST]`
      -   "data": {"bars":3000,"seed":7,"source":"synthetic"}
      +   "data": {"bars":3000,"seed":8,"source":"synthetic"}
    help: merge the folders of one run; other runs have other rows
    "#);
    insta::assert_snapshot!(against("search", "--set search.trials=20 --set search.method=random"), @r#"
    exit 2
    error: a/small-[HASH].shard-1-of-2 and search/small-[HASH].shard-2-of-2 are not of the same run:
      search: the one has `{"method":"grid"}`, the other `{"method":"random","trials":20}`
      - search: {"method":"grid"}
      + search: {"method":"random","trials":20}
    help: merge the folders of one run; other runs have other rows
    "#);
    insta::assert_snapshot!(against("chunk", "--set limits.chunk=8"), @r#"
    exit 2
    error: a/small-[HASH].shard-1-of-2 and chunk/small-[HASH].shard-2-of-2 are not of the same run:
      - limits: {"chunk":4}
      + limits: {"chunk":8}
    help: merge the folders of one run; other runs have other rows
    "#);
    // Objective and gates decide no row: those of the first folder count, and that is told.
    ok(&desk, "sweep small.yaml --out gates --shard 2/2 --set gates=[]");
    let shown = desk.run(&merge_line(&desk, &[first, shards(&desk, "gates")].concat(), "--out merged"));
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 0
    warning: gates/small-[HASH].shard-2-of-2 has another objective, gates or output than a/small-[HASH].shard-1-of-2, whose count
    merging 6 chunks of 2 folders
    small: 24 settings of sma_cross on EURUSD H1, 24 finished before
    ");
    ok(&desk, "sweep small.yaml --out whole");
    assert_same(&desk.run_folder("whole"), &desk.run_folder("merged"));
}

/// Digests in backticks made equal: they follow from the sources of the program.
fn hide_digests(text: &str) -> String {
    let parts = text.split('`').map(|part| {
        let digits = part.trim_end_matches('…');
        let digest = digits.len() > 40 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if digest { "[DIGEST]" } else { part }
    });
    parts.collect::<Vec<_>>().join("`")
}

/// Another program or other bars where the merge is made: refused before a folder appears.
#[test]
fn a_merge_needs_the_bars_and_the_program_of_the_shards() {
    let desk = Desk::new();
    for number in [1, 2] {
        ok(&desk, &format!("sweep small.yaml --out root --shard {number}/2"));
    }
    let all = shards(&desk, "root");
    let costs = fs::read_to_string(desk.path().join("configs/execution_costs.yaml")).unwrap();
    desk.write("configs/execution_costs.yaml", &format!("{costs}\n# another file\n"));
    insta::assert_snapshot!(hide_digests(&desk.refused(&merge_line(&desk, &all, "--out merged"))), @r"
    exit 2
    error: root/small-[HASH].shard-1-of-2: cannot be finished here:
      data: the folder has `[DIGEST]`, here it is `[DIGEST]`
    help: merge where the same bars are, with the omega-opt of the shards
    ");
}

#[test]
fn damaged_chunks_are_refused_unless_another_folder_has_them() {
    let desk = Desk::new();
    for (root, count) in [("two", 2), ("three", 3)] {
        for number in 1..=count {
            ok(&desk, &format!("sweep small.yaml --out {root} --shard {number}/{count}"));
        }
    }
    ok(&desk, "sweep small.yaml --out whole");
    let (two, three) = (shards(&desk, "two"), shards(&desk, "three"));
    // The same chunks twice are no contradiction.
    ok(&desk, &merge_line(&desk, &[two.clone(), three.clone()].concat(), "--out both"));
    assert_same(&desk.run_folder("whole"), &desk.run_folder("both"));
    // Replaced, not written into: the folder merged before may share the file.
    let chunk = two[1].join("chunks/chunk-000003.parquet");
    fs::remove_file(&chunk).unwrap();
    fs::write(&chunk, b"half a chunk").unwrap();
    insta::assert_snapshot!(desk.refused(&merge_line(&desk, &two, "--out hurt")), @r"
    exit 3
    error: damaged in every folder that holds them:
      chunk 3: two/small-[HASH].shard-2-of-2/chunks/chunk-000003.parquet: Parquet error: Invalid Parquet file. Corrupt footer
    help: start the sweep or shard of that folder again: it sets the chunk aside and evaluates it anew
    ");
    let shown = desk.run(&merge_line(&desk, &[two.clone(), three].concat(), "--out healed"));
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 0
    warning: two/small-[HASH].shard-2-of-2/chunks/chunk-000003.parquet is damaged (Parquet error: Invalid Parquet file. Corrupt footer): three/small-[HASH].shard-1-of-3/chunks/chunk-000003.parquet is used
    merging 6 chunks of 5 folders
    small: 24 settings of sma_cross on EURUSD H1, 24 finished before
    ");
    assert_same(&desk.run_folder("whole"), &desk.run_folder("healed"));
    assert_eq!(fs::read(&chunk).unwrap(), b"half a chunk", "a merge leaves the folders as they are");
    ok(&desk, "sweep small.yaml --out two --shard 2/2");
    ok(&desk, &merge_line(&desk, &two, "--out hurt"));
}

#[test]
fn what_is_no_run_folder_is_refused() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.refused("merge nowhere"), @r"
    exit 2
    error: nowhere: is no run folder: grid.lock.yaml is not there
    help: a run folder is <output root>/<name>-<hash8>, with .shard-<i>-of-<n> behind it for a shard
    ");
    ok(&desk, "sweep small.yaml --shard 1/1");
    let all = shards(&desk, "results");
    insta::assert_snapshot!(desk.refused(&merge_line(&desk, &all, "--memory 1kB")), @r"
    exit 2
    error: the memory cap of [CAP] is too small: this run needs at least [NEED]
    help: --memory [NEED]
    ");
    insta::assert_snapshot!(desk.refused("merge"), @r"
    exit 2
    error: the following required arguments were not provided:
      <RUN>...

    Usage: omega-opt merge <RUN>...

    For more information, try '--help'.
    ");
}

/// A merge into a folder that holds a part already, one of those named among them.
#[test]
fn an_unfinished_sweep_and_the_shards_of_the_rest_become_one() {
    let desk = Desk::new();
    ok(&desk, "sweep small.yaml --out whole");
    ok(&desk, "sweep small.yaml --out results --shard 1/2");
    ok(&desk, "sweep small.yaml --out other");
    let other = desk.run_folder("other");
    for name in ["chunk-000000.parquet", "chunk-000002.parquet", "chunk-000004.parquet"] {
        fs::remove_file(other.join("chunks").join(name)).unwrap();
    }
    fs::remove_file(other.join("leaderboard.parquet")).unwrap();
    let all = [vec![other.clone()], shards(&desk, "results"), vec![other.clone()]].concat();
    ok(&desk, &merge_line(&desk, &all, ""));
    assert_same(&desk.run_folder("whole"), &other);
    assert_eq!(chunk_count(&other), CHUNKS);
}

/// The seed that a `prod` sweep drew goes with its rows; rows of two draws are of two runs.
#[test]
fn a_drawn_seed_stays_with_its_rows() {
    let desk = Desk::new();
    desk.config("\"warmup_bars\": 100,", "\"warmup_bars\": 100, \"run_mode\": \"prod\",");
    for root in ["one", "two"] {
        ok(&desk, &format!("sweep small.yaml --out {root}"));
    }
    let (one, two) = (desk.run_folder("one"), desk.run_folder("two"));
    ok(&desk, &merge_line(&desk, std::slice::from_ref(&one), "--out merged"));
    assert_same(&one, &desk.run_folder("merged"));
    let refused = desk.refused(&merge_line(&desk, &[one, two], "--out both"));
    assert!(refused.contains("- # execution master seed: "), "{refused}");
}

#[test]
fn shards_of_one_root_run_side_by_side() {
    let desk = Desk::new();
    let children: Vec<_> =
        (1..=3).map(|number| desk.start(&format!("sweep small.yaml --out root --shard {number}/3"))).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    ok(&desk, &merge_line(&desk, &shards(&desk, "root"), "--out merged"));
    ok(&desk, "sweep small.yaml --out whole");
    assert_same(&desk.run_folder("whole"), &desk.run_folder("merged"));
}

#[cfg(unix)]
#[test]
fn a_killed_shard_and_a_killed_merge_go_on_and_harm_nothing() {
    let desk = Desk::new();
    ok(&desk, "sweep heavy.yaml --out whole");
    ok(&desk, "sweep heavy.yaml --out root --shard 1/2");
    // Any moment will do; which one it was is told, so that a failure can be retold.
    let mut random = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    let mut finished = BTreeMap::new();
    for _ in 0..2 {
        let target = finished.len() + 1 + next() % 15;
        let mut child = desk.start("sweep heavy.yaml --out root --shard 2/2 --threads 1");
        wait_until("chunks", || shards(&desk, "root").get(1).is_some_and(|folder| chunk_count(folder) >= target));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = identities(&shards(&desk, "root")[1]);
        println!("shard killed at {target}, {} chunks finished", now.len());
        assert!(finished.iter().all(|(name, identity)| now.get(name) == Some(identity)), "written again");
        finished = now;
    }
    // Half a shard is half a shard.
    let refused = desk.refused(&merge_line(&desk, &shards(&desk, "root"), "--out merged"));
    assert!(refused.starts_with("exit 2\n") && refused.contains("shard 2/2: chunk"), "{refused}");
    ok(&desk, "sweep heavy.yaml --out root --shard 2/2");
    let all = shards(&desk, "root");
    assert!(finished.iter().all(|(name, identity)| identities(&all[1]).get(name) == Some(identity)), "written again");
    let before: Vec<_> = all.iter().map(|folder| tree(folder)).collect();
    for _ in 0..4 {
        let mut child = desk.start(&merge_line(&desk, &all, "--out merged --threads 1"));
        let patience = next() % 60;
        if patience > 20 {
            wait_until("the folder", || desk.path().join("merged").exists());
        }
        std::thread::sleep(std::time::Duration::from_millis(patience as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        println!("merge killed after {patience} ms");
        assert!(before == all.iter().map(|folder| tree(folder)).collect::<Vec<_>>(), "a merge changes no shard");
    }
    ok(&desk, &merge_line(&desk, &all, "--out merged"));
    assert_same(&desk.run_folder("whole"), &desk.run_folder("merged"));
}

#[cfg(unix)]
#[test]
fn an_interrupted_shard_says_how_to_go_on() {
    let desk = Desk::new();
    let child = desk.start("sweep heavy.yaml --out root --shard 1/1 --no-reuse --threads 1");
    wait_until("chunks", || {
        desk.path().join("root").exists() && shards(&desk, "root").first().is_some_and(|folder| chunk_count(folder) > 0)
    });
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = desk.redact(&String::from_utf8(output.stderr).unwrap());
    insta::assert_snapshot!(said, @r"
    heavy: 840 settings of mean_reversion_z_score on EURUSD M5
    shard 1/1: 840 settings in 105 of 105 chunks
    stopping after the running wave (at most about 30 s); again to stop at once
    interrupted; finished chunks are kept in root/heavy-[HASH].shard-1-of-1
    continue with: omega-opt sweep heavy.yaml --out root --no-reuse --shard 1/1
    ");
}

/// The walk-forward of the small grid: the windows are laid from the lock file again.
#[test]
fn a_walk_forward_shard_says_what_comes_next() {
    let desk = Desk::new();
    let text = SMALL.replace("total_trades >= 10", "total_trades >= 3");
    desk.write("small.yaml", &format!("{text}walk_forward: {{train: 40d, test: 20d, holdout: 10d}}\n"));
    let shown = desk.run("walkforward small.yaml --shard 1/2");
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 0
    small: 24 settings of sma_cross on EURUSD H1, 6 windows (rolling)
    shard 1/2: 12 settings in 3 of 6 chunks
    train 40d, embargo 1d, test 20d, step 20d: 6 tests from 2020-02-20 to 2020-06-19, 0 bars left over
    kept back: 144 bars from 2020-06-19T00:00:00Z, which nothing here reads
    shard 1/2 is finished, in results/small-[HASH].shard-1-of-2; it has no leaderboard of its own
    when all 2 are finished: omega-opt merge results/small-[HASH].shard-*-of-2
    ");
    insta::assert_snapshot!(desk.refused(&merge_line(&desk, &shards(&desk, "results"), "")), @r"
    exit 2
    error: no folder holds 3 of the 6 chunks:
      shard 2/2: chunks 1, 3, 5
    help: `omega-opt walkforward GRID --shard 2/2` starts or continues one; then merge again
    ");
    ok(&desk, "walkforward small.yaml --shard 2/2");
    ok(&desk, &merge_line(&desk, &shards(&desk, "results"), "--out merged"));
    ok(&desk, "walkforward small.yaml --out whole");
    assert_same_walk(&desk.run_folder("whole"), &desk.run_folder("merged"));
    // A sweep of the same grid is another run.
    ok(&desk, "sweep small.yaml --shard 1/2 --out sweep");
    let mixed = [shards(&desk, "sweep"), shards(&desk, "results")].concat();
    let refused = desk.refused(&merge_line(&desk, &mixed, "--out mixed"));
    assert!(refused.contains("windows: the one has nothing"), "{refused}");
}

/// The commands of docs/cluster.md, run as a scheduler would run them.
#[cfg(unix)]
#[test]
fn the_commands_of_the_cluster_page_run() {
    let desk = Desk::new();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster.md")).unwrap();
    let mut fenced = false;
    let lines = page.lines().filter(|line| {
        fenced ^= line.starts_with("```");
        fenced && line.trim_start().starts_with("omega-opt ")
    });
    let commands: Vec<&str> = lines.map(str::trim).collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    let shared = desk.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let grid = SMALL.replace("name: small", "name: my-grid");
    desk.write("grid.yaml", &grid);
    desk.write("shared/grid.yaml", &grid);
    fs::copy(desk.path().join("config.json"), shared.join("config.json")).unwrap();
    let run = |command: &str, env: &[(&str, &str)]| {
        let binary = assert_cmd::cargo::cargo_bin!("omega-opt");
        let command = command.replace("/shared", &shared.to_string_lossy()).replace("32", "2");
        let command = command.replace("omega-opt", &binary.to_string_lossy());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&command).current_dir(desk.path());
        shell.env("OMEGA_CACHE_DIR", cli::cache()).env_remove("OMEGA_DATA_PARQUET_ROOT");
        let output = shell.envs(env.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    ok(&desk, "sweep grid.yaml --out whole");
    for (kind, shard, merge) in [("slurm", commands[0], commands[1]), ("kubernetes", commands[2], commands[3])] {
        for index in ["0", "1"] {
            let task = if index == "0" { "1" } else { "2" };
            run(
                shard,
                &[
                    ("JOB_COMPLETION_INDEX", index),
                    ("SLURM_ARRAY_TASK_ID", task),
                    ("SLURM_ARRAY_TASK_COUNT", "2"),
                    ("SLURM_CPUS_PER_TASK", "1"),
                ],
            );
        }
        run(merge, &[]);
        let merged = fs::read_dir(shared.join("results")).unwrap().map(|entry| entry.unwrap().path());
        let merged = merged.into_iter().find(|path| !path.to_string_lossy().contains(".shard-")).unwrap();
        assert_same(&desk.run_folder("whole"), &merged);
        println!("{kind} done");
        fs::remove_dir_all(shared.join("results")).unwrap();
    }
}
