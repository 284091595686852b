//! A sweep that is killed, interrupted, out of time or out of space goes on where it was: the bytes are those of an
//! uninterrupted one, and no finished chunk is evaluated again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};

#[cfg(unix)]
use cli::identities;
use cli::{Desk, SmallDisk, assert_same, chunk_count, wait_until};
use serde_json::Value;

const CHUNKS: usize = 105;

/// The bytes an uninterrupted run leaves.
fn uninterrupted(desk: &Desk) -> std::path::PathBuf {
    let shown = desk.run("sweep heavy.yaml --out whole");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    desk.run_folder("whole")
}

/// How often each chunk was committed, over all starts.
fn commits(folder: &Path) -> BTreeMap<u64, usize> {
    let mut commits = BTreeMap::new();
    for line in fs::read_to_string(folder.join("events.jsonl")).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["event"] == "chunk" {
            *commits.entry(event["chunk"].as_u64().unwrap()).or_default() += 1;
        }
    }
    commits
}

fn wait_for_chunks(desk: &Desk, root: &str, count: usize) {
    let root = desk.path().join(root);
    // The root and the run folder in it appear one after the other.
    let folder = || fs::read_dir(&root).ok()?.next()?.ok().map(|entry| entry.path());
    wait_until("chunks", || folder().is_some_and(|folder| chunk_count(&folder) >= count));
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn killed_three_times_and_continued_gives_the_same_bytes_and_repeats_nothing() {
    let desk = Desk::new();
    let whole = uninterrupted(&desk);
    // Any moment will do; which one it was is told, so that a failure can be retold.
    let mut random = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut finished = BTreeMap::new();
    for _ in 0..3 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let target = finished.len() + 1 + (random >> 33) as usize % 25;
        let mut child = desk.start("sweep heavy.yaml --out killed --threads 1");
        wait_for_chunks(&desk, "killed", target);
        child.kill().unwrap();
        child.wait().unwrap();
        let folder = desk.run_folder("killed");
        let now = identities(&folder);
        println!("killed at {target}, {} chunks finished", now.len());
        assert!(!now.is_empty() && now.len() < CHUNKS, "killed outside the sweep: {} chunks", now.len());
        assert!(now.len() > finished.len(), "each start gets on");
        for (name, identity) in &finished {
            assert_eq!(now.get(name), Some(identity), "{name} was written again");
        }
        assert!(!folder.join("leaderboard.parquet").exists());
        finished = now;
    }
    let shown = desk.run("sweep heavy.yaml --out killed --threads 2");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let folder = desk.run_folder("killed");
    let all = identities(&folder);
    assert_eq!(all.len(), CHUNKS);
    for (name, identity) in &finished {
        assert_eq!(all.get(name), Some(identity), "{name} was written again");
    }
    // A kill may fall between the commit of a chunk and the line that tells of it, never the other way round.
    let commits = commits(&folder);
    assert!(commits.values().all(|times| *times == 1), "{commits:?}");
    assert!(commits.len() >= CHUNKS - 3, "{} of {CHUNKS} chunks are told of", commits.len());
    assert_same(&whole, &folder);
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_after_the_wave_and_says_how_to_go_on() {
    for name in ["-INT", "-TERM"] {
        let desk = Desk::new();
        let child = desk.start("sweep heavy.yaml --out stopped --threads 1");
        wait_for_chunks(&desk, "stopped", 1);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        assert!(output.stdout.is_empty());
        let said = desk.redact(&String::from_utf8(output.stderr).unwrap());
        insta::allow_duplicates! {
            insta::assert_snapshot!(said, @r"
            heavy: 840 settings of mean_reversion_z_score on EURUSD M5
            stopping after the running wave (at most about 30 s); again to stop at once
            interrupted; finished chunks are kept in stopped/heavy-[HASH]
            continue with: omega-opt sweep heavy.yaml --out stopped
            ");
        }
        let folder = desk.run_folder("stopped");
        let before = identities(&folder);
        assert!(before.len() < CHUNKS, "the signal came too late");
        let shown = desk.run("sweep heavy.yaml --out stopped");
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        assert!(before.iter().all(|(name, identity)| identities(&folder).get(name) == Some(identity)));
        assert_same(&uninterrupted(&desk), &folder);
    }
}

#[test]
fn a_time_limit_ends_resumable() {
    let desk = Desk::new();
    // A tenth of a second is over after the first waves; the limit is no part of what is compared.
    let shown = desk.run("sweep heavy.yaml --out limited --threads 1 --set limits.time=0.1s");
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 7
    heavy: 840 settings of mean_reversion_z_score on EURUSD M5
    time limit reached; finished chunks are kept in limited/heavy-[HASH]
    ranked so far, and not more than that: limited/heavy-[HASH]/leaderboard.partial.csv
    continue with: omega-opt sweep heavy.yaml --set 'limits.time=0.1s' --out limited
    ");
    let folder = desk.run_folder("limited");
    let chunks = chunk_count(&folder);
    assert!(chunks < CHUNKS);
    // Eight settings a chunk, below a header. That the rows are those of the chunks is shown in tests/batch.rs.
    assert_eq!(fs::read_to_string(folder.join("leaderboard.partial.csv")).unwrap().lines().count(), 1 + 8 * chunks);
    assert!(!folder.join("leaderboard.csv").exists());
    let shown = desk.run("sweep heavy.yaml --out limited");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert_same(&uninterrupted(&desk), &desk.run_folder("limited"));
}

#[test]
fn a_second_process_on_the_same_folder_is_told_who_is_there() {
    let desk = Desk::new();
    let mut child = desk.start("sweep heavy.yaml --out shared --threads 1");
    wait_for_chunks(&desk, "shared", 1);
    let shown = desk.run("sweep heavy.yaml --out shared");
    let owner = format!("process {}", child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(shown.stderr.contains(&owner), "{}", shown.stderr);
    insta::assert_snapshot!(desk.show(&shown).replace(&child.id().to_string(), "[PID]"), @r"
    exit 2
    error: shared/heavy-[HASH]: in use by another omega-opt (process [OWNER])
    help: wait for it, stop it, or choose another folder with --out
    ");
}

#[test]
fn a_damaged_chunk_is_named_set_aside_and_computed_again() {
    let desk = Desk::new();
    assert_eq!(desk.run("sweep small.yaml --out whole").code, Some(0));
    assert_eq!(desk.run("sweep small.yaml --out hurt").code, Some(0));
    let folder = desk.run_folder("hurt");
    let chunk = folder.join("chunks/chunk-000002.parquet");
    let mut bytes = fs::read(&chunk).unwrap();
    // Among the values: a flipped bit that changes none of them is no damage.
    let at = bytes.len() / 10;
    bytes[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(&chunk, &bytes).unwrap();
    let shown = desk.run("sweep small.yaml --out hurt");
    insta::assert_snapshot!(desk.show(&shown), @r##"
    exit 0
    small: 24 settings of sma_cross on EURUSD H1, 20 finished before
    warning: chunk 2 was damaged (Parquet argument error: Parquet error: Unexpected struct field type 15), set aside as hurt/small-[HASH]/chunks/damaged/chunk-000002.parquet
    "##);
    assert_eq!(fs::read(folder.join("chunks/damaged/chunk-000002.parquet")).unwrap(), bytes);
    fs::remove_dir_all(folder.join("chunks/damaged")).unwrap();
    assert_same(&desk.run_folder("whole"), &folder);
}

#[test]
fn a_chunk_of_another_run_is_refused_and_left_alone() {
    let desk = Desk::new();
    assert_eq!(desk.run("sweep small.yaml --out a").code, Some(0));
    assert_eq!(desk.run("sweep small.yaml --out b --set seed=43").code, Some(0));
    let (own, other) = (desk.run_folder("a"), desk.run_folder("b"));
    fs::copy(other.join("chunks/chunk-000001.parquet"), own.join("chunks/chunk-000001.parquet")).unwrap();
    let before = cli::lasting(&own);
    let shown = desk.run("sweep small.yaml --out a");
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 2
    error: a/small-[HASH]/chunks/chunk-000001.parquet: belongs to another run; seed: this run has `42`, the file has `43`
    help: --fresh drops its chunks and starts anew
    ");
    assert!(before == cli::lasting(&own), "nothing is harmed");
    let shown = desk.run("sweep small.yaml --out a --fresh");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
}

#[test]
fn a_full_disk_ends_resumable_and_the_same_command_goes_on() {
    let Some(disk) = SmallDisk::new("a full disk", "size=400k") else { return };
    let desk = Desk::new();
    let line = format!("sweep heavy.yaml --out {}", disk.path().display());
    let shown = desk.run(&line);
    let said = desk.show(&shown).replace(&*disk.path().to_string_lossy(), "[DISK]");
    // Which chunk no longer fits depends on the order of work.
    let said: Vec<String> = said.lines().map(mask_chunk).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    exit 7
    heavy: 840 settings of mean_reversion_z_score on EURUSD M5
    finished chunks are kept in [DISK]/heavy-[HASH]; the same command continues
    error: [DISK]/heavy-[HASH]/chunks/chunk-[N].parquet: no space left to write it
    help: free some space and start the same command again: finished chunks are kept
    ");
    disk.remount("size=64m");
    let shown = desk.run(&line);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let mut folders = fs::read_dir(disk.path()).unwrap();
    assert_same(&uninterrupted(&desk), &folders.next().unwrap().unwrap().path());
}

#[test]
fn a_full_cache_disk_ends_resumable() {
    let Some(disk) = SmallDisk::new("a full cache disk", "size=100k") else { return };
    let desk = Desk::new().env("OMEGA_CACHE_DIR", disk.path());
    let shown = desk.run("sweep heavy.yaml");
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 7
    error[E4100]: EURUSD_M5_f777396390c5880d: generated bars cannot be written: No space left on device (os error 28)
    help: free some space, or name a cache folder with room in OMEGA_CACHE_DIR; then start the same command again
    ");
    assert!(!desk.path().join("results").exists());
}

fn mask_chunk(line: &str) -> String {
    match line.split_once("chunk-") {
        Some((head, tail)) => format!("{head}chunk-[N]{}", tail.trim_start_matches(|c: char| c.is_ascii_digit())),
        None => line.to_owned(),
    }
}
