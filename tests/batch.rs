//! A night's worth of runs: one job cannot stop another, what is finished is passed by, a deadline leaves valid parts, and
//! however often the batch is stopped or killed, it ends with the bytes of an undisturbed one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use cli::{Desk, HEAVY, SMALL, SmallDisk, chunk_count, lasting, real_data, wait_until};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// Of the batch's folder: what differs between two equal batches.
const FLEETING: [&str; 3] = ["batch.md", "events.jsonl", "logs"];

/// Four jobs of which two take some seconds together on one thread.
const NIGHT: &str = "\
name: night
limits: {threads: 1, memory: 1GB}
jobs:
  - {grid: small.yaml, symbols: [EURUSD, GBPUSD]}
  - {grid: long.yaml, symbols: [EURUSD, GBPUSD]}
";

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("long.yaml", &HEAVY.replace("name: heavy", "name: long").replace("40..145:15", "40..145:5"));
    desk.write("walk.yaml", &format!("{SMALL}walk_forward: {{train: 60d, test: 20d}}\n"));
    desk.write("night.yaml", NIGHT);
    desk
}

/// Folders of the jobs of a batch, by job.
fn job_folders(batch: &Path) -> BTreeMap<String, PathBuf> {
    let Ok(entries) = fs::read_dir(batch) else { return BTreeMap::new() };
    let folders = entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("chunks").is_dir());
    let job = |path: &Path| path.file_name().unwrap().to_str().unwrap().rsplit_once('-').unwrap().0.to_owned();
    folders.map(|path| (job(&path), path)).collect()
}

fn chunks_of_all(batch: &Path) -> usize {
    job_folders(batch).values().map(|folder| chunk_count(folder)).sum()
}

/// What two equal batches must have in common: the lasting files of every job, the tables, what is remembered of
/// finished jobs.
fn lasting_of_batch(batch: &Path) -> BTreeMap<String, Vec<u8>> {
    let folders: Vec<PathBuf> = job_folders(batch).into_values().collect();
    let jobs: BTreeSet<String> = folders.iter().map(|path| name_of(path)).collect();
    let mut files = cli::tree(batch);
    files.retain(|name, _| {
        let head = name.split('/').next().unwrap();
        !FLEETING.contains(&head) && !jobs.contains(head)
    });
    assert!(files.contains_key("batch.parquet") && files.contains_key("batch.csv"), "{:?}", files.keys());
    for folder in &folders {
        let job = name_of(folder);
        files.extend(lasting(folder).into_iter().map(|(name, bytes)| (format!("{job}/{name}"), bytes)));
    }
    files
}

fn assert_same_batch(a: &Path, b: &Path) {
    let (left, right) = (lasting_of_batch(a), lasting_of_batch(b));
    assert!(left == right, "not the same bytes: {:?}", cli::changed(&left, &right));
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn events(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("events.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// No chunk of any job was committed twice, over all starts.
fn assert_nothing_repeated(batch: &Path) {
    for (job, folder) in job_folders(batch) {
        let mut commits: BTreeMap<u64, usize> = BTreeMap::new();
        for event in events(&folder).iter().filter(|event| event["event"] == "chunk") {
            *commits.entry(event["chunk"].as_u64().unwrap()).or_default() += 1;
        }
        assert!(commits.values().all(|times| *times == 1), "{job}: {commits:?}");
    }
}

/// Rows of `batch.csv` by job, cells by column.
fn table(batch: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut file = csv::Reader::from_path(batch.join("batch.csv")).unwrap();
    let header = file.headers().unwrap().clone();
    let rows = file.records().map(|record| record.unwrap());
    rows.map(|record| {
        let cells: BTreeMap<String, String> =
            header.iter().map(str::to_owned).zip(record.iter().map(str::to_owned)).collect();
        (cells["job"].clone(), cells)
    })
    .collect()
}

fn outcomes(batch: &Path) -> Vec<(String, String)> {
    table(batch).into_iter().map(|(job, cells)| (job, format!("{} {}", cells["outcome"], cells["exit_code"]))).collect()
}

/// The page with times, rates and counts of the last start redacted.
fn page(batch: &Path) -> String {
    let text = fs::read_to_string(batch.join("batch.md")).unwrap();
    let redacted = text.lines().map(|line| {
        if line.starts_with("Started ") {
            return "Started [TIME]".to_owned();
        }
        match line.rsplit_once(" | ").and_then(|(head, spent)| Some((head, spent.split_once(" in ")?))) {
            Some((head, (evaluated, _))) => format!("{head} | {evaluated} in [TIME] |"),
            None => line.to_owned(),
        }
    });
    redacted.collect::<Vec<_>>().join("\n")
}

fn undisturbed(desk: &Desk) -> PathBuf {
    let shown = desk.run("batch night.yaml --out whole");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    desk.path().join("whole/night")
}

#[test]
fn a_broken_config_and_a_deadline_in_the_middle_of_a_job() {
    let desk = desk();
    desk.write(
        "night.yaml",
        "\
name: night
limits: {threads: 1}
jobs:
  - {grid: small.yaml, symbols: [EURUSD, GBPUSD, XAUUSD], priority: 2}
  - {grid: long.yaml, symbols: [EURUSD, GBPUSD]}
  - {grid: long.yaml, symbols: XAUUSD, set: [warmup_bar=100], priority: 1}
",
    );
    let shown = desk.run("batch night.yaml --out whole");
    assert_eq!(shown.code, Some(2), "{}", shown.stderr);

    // How long the first jobs take depends on the machine: the deadline moves on until it falls into the long one.
    let batch = desk.path().join("parts/night");
    let mut seconds = 0.3;
    let (shown, cells) = loop {
        let shown = desk.run(&format!("batch night.yaml --out parts --finish-in {seconds:.2}s"));
        assert_eq!(shown.code, Some(7), "{seconds} s: {}", shown.stderr);
        let cells = table(&batch).remove("long-EURUSD").unwrap();
        if cells["chunks_finished"].parse::<u64>().unwrap_or(0) > 0 {
            break (shown, cells);
        }
        seconds *= 1.25;
    };
    assert_eq!(cells["outcome"], "partial", "{}", shown.stdout);
    let expected = [
        ("long-EURUSD", "partial 7"),
        ("long-GBPUSD", "waiting "),
        ("long-XAUUSD", "failed 2"),
        ("small-EURUSD", "done 0"),
        ("small-GBPUSD", "done 0"),
        ("small-XAUUSD", "done 0"),
    ];
    assert_eq!(outcomes(&batch), expected.map(|(job, how)| (job.to_owned(), how.to_owned())));
    let page = page(&batch);
    assert!(
        page.starts_with("# night: deadline, exit code 7\n\n3 of 6 jobs done, 1 partial, 1 failed, 1 waiting."),
        "{page}"
    );
    for part in [
        "* **long-EURUSD** stopped by the deadline; ranked so far: `long-EURUSD-",
        "/leaderboard.partial.csv`",
        "* **long-GBPUSD** had no turn",
        "* **long-XAUUSD** failed (exit code 2):",
        "      --set warmup_bar:1:1: strategy_parameters.warmup_bar: unknown key",
    ] {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
    partial_is_valid(&job_folders(&batch)["long-EURUSD"]);

    let shown = desk.run("batch night.yaml --out parts");
    assert_eq!(shown.code, Some(2), "{}", shown.stderr);
    assert_nothing_repeated(&batch);
    assert_same_batch(&desk.path().join("whole/night"), &batch);
}

/// The part holds the rows of the finished chunks, ranked, and says that it is a part; the whole is not there.
fn partial_is_valid(folder: &Path) {
    assert!(!folder.join("leaderboard.parquet").exists() && !folder.join("manifest.json").exists());
    let chunks: u64 = chunk_count(folder) as u64;
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.partial.json")).unwrap()).unwrap();
    assert_eq!(manifest["partial"]["chunks"], chunks);
    assert_eq!(manifest["partial"]["of"], manifest["chunks"]);
    let file = File::open(folder.join("leaderboard.partial.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let pairs = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let told = pairs.iter().find(|pair| pair.key == "omega.partial").unwrap().value.clone().unwrap();
    assert_eq!(told, format!("{chunks} of {} chunks", manifest["chunks"]));
    let rows: usize = reader.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(Value::from(rows), manifest["rows"]);

    let mut csv = csv::Reader::from_path(folder.join("leaderboard.partial.csv")).unwrap();
    let header = csv.headers().unwrap().clone();
    let place = |name: &str| header.iter().position(|column| column == name).unwrap();
    let records: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), rows);
    let number = |record: &csv::StringRecord, name: &str| record[place(name)].parse::<f64>().unwrap();
    let objectives: Vec<f64> = records.iter().map(|record| number(record, "objective")).collect();
    assert!(objectives.is_sorted_by(|a, b| a >= b), "ranked");
    let trials: BTreeSet<u64> = records.iter().map(|record| number(record, "trial") as u64).collect();
    let size = manifest["chunk_size"].as_u64().unwrap();
    let finished = |trial: &u64| folder.join(format!("chunks/chunk-{:06}.parquet", trial / size)).exists();
    assert!(trials.len() == rows && trials.iter().all(finished), "rows of finished chunks, each once");
}

#[cfg(unix)]
#[test]
fn killed_three_times_and_continued_gives_the_same_bytes_and_repeats_nothing() {
    let desk = desk();
    let whole = undisturbed(&desk);
    let batch = desk.path().join("killed/night");
    let mut random = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (mut finished, all) = (0, chunks_of_all(&whole));
    for _ in 0..3 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let target = finished + 1 + (random >> 33) as usize % (all / 8);
        let mut child = desk.start("batch night.yaml --out killed --quiet");
        wait_until("chunks", || chunks_of_all(&batch) >= target);
        child.kill().unwrap();
        child.wait().unwrap();
        finished = chunks_of_all(&batch);
        println!("killed at {target}, {finished} of {all} chunks finished");
        assert!(finished < all, "killed too late");
        // Whatever the moment, the table is whole and names every job.
        assert_eq!(table(&batch).len(), 4);
    }
    let shown = desk.run("batch night.yaml --out killed --threads 2 --memory 500MB");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert_nothing_repeated(&batch);
    assert_same_batch(&whole, &batch);
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_after_the_wave_and_the_next_start_continues() {
    for name in ["-INT", "-TERM"] {
        let desk = desk();
        let batch = desk.path().join("stopped/night");
        let child: Child = desk.start("batch night.yaml --out stopped");
        // Into the third job: 12 chunks are those of the two small ones.
        wait_until("chunks", || chunks_of_all(&batch) > 12);
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        let said = String::from_utf8(output.stderr).unwrap();
        for part in [
            "stopping after the running wave",
            "[3/4] long-EURUSD: ",
            " settings: interrupted\n",
            "continue with: omega-opt batch night.yaml --out stopped\n",
        ] {
            assert!(said.contains(part), "{part:?} is not in\n{said}");
        }
        let expected = [
            ("long-EURUSD", "interrupted 130"),
            ("long-GBPUSD", "waiting "),
            ("small-EURUSD", "done 0"),
            ("small-GBPUSD", "done 0"),
        ];
        assert_eq!(outcomes(&batch), expected.map(|(job, how)| (job.to_owned(), how.to_owned())));
        assert!(page(&batch).starts_with("# night: interrupted, exit code 130\n"));
        let shown = desk.run("batch night.yaml --out stopped");
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        assert_nothing_repeated(&batch);
        assert_same_batch(&undisturbed(&desk), &batch);
    }
}

#[test]
fn a_deadline_that_is_over_starts_nothing() {
    let desk = desk();
    let shown = desk.run("batch night.yaml --finish-by 2020-01-01T06:00");
    assert_eq!(shown.code, Some(7), "{}", shown.stderr);
    assert_eq!(shown.stderr, "continue with: omega-opt batch night.yaml\n");
    let batch = desk.path().join("results/night");
    assert!(job_folders(&batch).is_empty());
    assert!(outcomes(&batch).iter().all(|(_, how)| how == "waiting "));
    insta::assert_snapshot!(page(&batch), @r"
    # night: deadline, exit code 7

    0 of 4 jobs done, 4 waiting.
    Started [TIME]

    | job | outcome | code | settings | pass | objective | trades | net | dd | this start |
    | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
    | small-EURUSD | waiting | – | – | – | – | – | – | – | – |
    | small-GBPUSD | waiting | – | – | – | – | – | – | – | – |
    | long-EURUSD | waiting | – | – | – | – | – | – | – | – |
    | long-GBPUSD | waiting | – | – | – | – | – | – | – | – |

    ## Not done

    * **small-EURUSD** had no turn
    * **small-GBPUSD** had no turn
    * **long-EURUSD** had no turn
    * **long-GBPUSD** had no turn

    The same command continues; finished chunks are never evaluated again.
    ");
}

#[test]
fn finished_jobs_are_passed_by_until_something_changes() {
    let desk = desk();
    desk.write(
        "night.yaml",
        "jobs:\n  - grid: small.yaml\n  - {name: walk, kind: walkforward, grid: walk.yaml, priority: 1}\n",
    );
    let shown = desk.run("batch night.yaml");
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 0
    [1/2] walk: 24 settings of sma_cross on EURUSD H1
    [1/2] walk: done, 5 of 5 windows with a choice, 3 of 6 checks pass
    [2/2] small: 24 settings of sma_cross on EURUSD H1
    [2/2] small: done, 24 of 24 settings pass
    ");
    let batch = desk.path().join("results/night");
    let before = lasting_of_batch(&batch);
    let unchanged = || {
        let changed = cli::changed(&before, &lasting_of_batch(&batch));
        assert!(changed.is_empty(), "{changed:?}");
    };
    let times = modified(&batch);
    let shown = desk.run("batch night.yaml");
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 0
    [1/2] walk: finished before
    [2/2] small: finished before
    ");
    unchanged();
    assert_eq!(modified(&batch), times, "the result of a finished job is not written again");
    insta::assert_snapshot!(page(&batch), @r"
    # night: exit code 0

    2 of 2 jobs done.
    Started [TIME]

    | job | outcome | code | settings | pass | objective | trades | net | dd | this start |
    | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
    | walk | done | 0 | 24 | 3 of 6 checks | – | 45 | -129.53 | 0.004 | finished before |
    | small | done | 0 | 24 | 24 | -1.1533 | 32 | -266.16 | 0.004 | finished before |

    ## Best settings

    * **small** fast_length 20, slow_length 60, direction_filter long (trial t14)

    The best of 24 tries over all jobs is partly luck: judge it on bars the search has not seen.
    ");

    // A result that is gone is made again from the chunks, to the byte.
    let folder = job_folders(&batch)["small"].clone();
    fs::remove_file(folder.join("leaderboard.csv")).unwrap();
    let shown = desk.run("batch night.yaml --dry-run");
    assert_eq!(shown.stdout.lines().nth(2).unwrap().trim(), "2  small  sweep        rank, 24 settings, all evaluated");
    let shown = desk.run("batch night.yaml");
    assert!(shown.stderr.contains("[2/2] small: done, 24 of 24 settings pass"), "{}", shown.stderr);
    unchanged();

    // Other gates rank anew and evaluate nothing, and the summary follows.
    let shown = desk.run("batch night.yaml --set gates=[total_trades>=1000000]");
    assert_eq!(shown.code, Some(5), "{}", shown.stderr);
    assert_eq!(table(&batch)["small"]["gated"], "24");
    assert_nothing_repeated(&batch);

    let shown = desk.run("batch night.yaml --fresh --quiet");
    assert_eq!((shown.code, &*shown.stderr, &*shown.stdout), (Some(0), "", ""));
}

#[test]
fn rows_of_an_earlier_job_are_not_counted_as_evaluated() {
    let desk = Desk::new();
    desk.write("night.yaml", "name: night\njobs: [{grid: small.yaml}]\n");
    assert_eq!(desk.run("batch night.yaml").code, Some(0));
    // Another space is another run, which takes over what both have in common.
    let wider = SMALL.replace("slow_length: [50, 60, 80]", "slow_length: [50, 60, 80, 100]");
    desk.write("small.yaml", &wider);
    let shown = desk.run("batch night.yaml --json");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let report: Value = serde_json::from_str(&shown.stdout).unwrap();
    let job = &report["jobs"][0];
    assert_eq!((&job["evaluated"], &job["reused"]), (&8.into(), &24.into()), "{job}");
    let page = fs::read_to_string(desk.path().join("results/night/batch.md")).unwrap();
    let row = page.lines().find(|line| line.starts_with("| small |")).unwrap();
    assert!(row.contains("| 8 in ") && row.ends_with(", 24 reused |"), "{row}");
}

/// When each result of a job was written.
fn modified(batch: &Path) -> BTreeMap<PathBuf, std::time::SystemTime> {
    let results = ["leaderboard.parquet", "leaderboard.csv", "manifest.json", "windows.parquet", "summary.json"];
    let files = job_folders(batch).into_values().flat_map(|folder| results.map(|name| folder.join(name)));
    files.filter_map(|file| Some((file.clone(), fs::metadata(&file).ok()?.modified().unwrap()))).collect()
}

#[test]
fn what_may_pass_is_tried_again_and_what_cannot_is_not() {
    let desk = desk();
    let config = cli::CONFIG.replace("  \"data\": {\"source\": \"synthetic\", \"seed\": 7, \"bars\": 3000},\n", "");
    assert_ne!(config, cli::CONFIG);
    desk.write("files.json", &config);
    desk.write("files.yaml", &SMALL.replace("config.json", "files.json"));
    desk.write(
        "night.yaml",
        "\
retries: 50
retry_wait: 0.2s
jobs:
  - grid: files.yaml
  - {name: once, grid: files.yaml, retries: 0}
  - {name: broken, grid: small.yaml, set: [warmup_bars=many]}
  - grid: small.yaml
",
    );
    let desk = desk.env("OMEGA_DATA_PARQUET_ROOT", "bars");
    let batch = desk.path().join("results/night");
    let child = desk.start("batch night.yaml");
    let starts = |job: &str| events(&batch).iter().filter(|e| e["event"] == "job_start" && e["job"] == job).count();
    wait_until("a second try", || starts("files") > 1);
    // The bars arrive while the batch is at work.
    let made = desk.run("data generate --out bars --symbol EURUSD --timeframe H1 --bars 3000 --seed 7");
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    // `once` failed for want of data (3), `broken` for its config (2).
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("1 job to be tried again in 0.2 s\n"), "{said}");
    assert!(said.contains("[1/4] files: failed (exit code 3): E4100 EURUSD/EURUSD_H1_BID.parquet: "), "{said}");
    assert!(starts("files") > 1);
    assert_eq!((starts("once"), starts("broken"), starts("small")), (1, 1, 1));
    let expected = [("broken", "failed 2"), ("files", "done 0"), ("once", "failed 3"), ("small", "done 0")];
    assert_eq!(outcomes(&batch), expected.map(|(job, how)| (job.to_owned(), how.to_owned())));
    assert!(page(&batch).contains("| files | done | 0 |"));
}

#[test]
fn a_folder_in_use_is_tried_again() {
    let desk = desk();
    desk.write("night.yaml", "name: night\nretries: 100\nretry_wait: 0.1s\njobs: [{name: long, grid: long.yaml}]\n");
    let mut other = desk.start("sweep long.yaml --out results/night --threads 1");
    let batch = desk.path().join("results/night");
    wait_until("chunks", || chunks_of_all(&batch) > 0);
    let child = desk.start("batch night.yaml --threads 1");
    wait_until("a refusal", || events(&batch).iter().any(|event| event["outcome"] == "failed"));
    other.kill().unwrap();
    other.wait().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("in use by another omega-opt (process "));
    assert_nothing_repeated(&batch);
}

#[test]
fn a_second_batch_on_the_same_folder_is_told_who_is_there() {
    let desk = desk();
    let mut child = desk.start("batch night.yaml");
    wait_until("chunks", || chunks_of_all(&desk.path().join("results/night")) > 0);
    let shown = desk.run("batch night.yaml");
    child.kill().unwrap();
    child.wait().unwrap();
    insta::assert_snapshot!(desk.show(&shown), @r"
    exit 2
    error: results/night: in use by another omega-opt (process [OWNER])
    help: wait for it, stop it, or choose another folder with --out
    ");
}

#[test]
fn the_exit_code_is_the_heaviest() {
    let desk = desk();
    let job = |name: &str| match name {
        "ok" => "{name: ok, grid: small.yaml}",
        "gated" => "{name: gated, grid: small.yaml, set: ['gates=[total_trades >= 1000000]']}",
        "failing" => "{name: failing, grid: small.yaml, set: [warmup_bars=70]}",
        "all-failing" => "{name: all-failing, grid: small.yaml, set: [warmup_bars=10]}",
        "dataless" => "{name: dataless, grid: small.yaml, set: [data=null]}",
        "gridless" => "{name: gridless, grid: nowhere.yaml}",
        "slow" => "{name: slow, grid: heavy.yaml, set: [limits.time=0.001s]}",
        "windowless" => "{name: windowless, kind: walkforward, grid: small.yaml}",
        other => panic!("{other}"),
    };
    let cases: [(&[&str], i32); 12] = [
        (&["ok"], 0),
        (&["failing"], 4),
        (&["all-failing"], 4),
        (&["gated"], 5),
        (&["dataless"], 3),
        (&["gridless"], 2),
        (&["windowless"], 2),
        (&["slow"], 7),
        (&["ok", "failing", "gated"], 5),
        (&["dataless", "gated", "ok"], 3),
        (&["dataless", "gridless", "failing"], 2),
        (&["gridless", "slow", "ok", "dataless"], 7),
    ];
    for (jobs, code) in cases {
        let list: Vec<String> = jobs.iter().map(|name| format!("- {}\n", job(name))).collect();
        desk.write("codes.yaml", &format!("retries: 0\njobs:\n{}", list.concat()));
        fs::remove_dir_all(desk.path().join("results")).unwrap_or_default();
        let shown = desk.run("batch codes.yaml --quiet --threads 1");
        assert_eq!(shown.code, Some(code), "{jobs:?}: {}", shown.stderr);
        assert_eq!(shown.stdout, "");
        // Whatever fails says so, also under --quiet, and keeps no other job from its turn.
        assert_eq!(outcomes(&desk.path().join("results/codes")).len(), jobs.len());
        let done =
            outcomes(&desk.path().join("results/codes")).iter().filter(|(_, how)| how.starts_with("done")).count();
        let sound = jobs.iter().filter(|name| ["ok", "failing", "gated"].contains(name)).count();
        assert_eq!(done, sound, "{jobs:?}");
    }
}

#[test]
fn a_dry_run_says_what_each_job_would_do() {
    let desk = desk();
    desk.write(
        "night.yaml",
        "\
name: night
limits: {threads: 1, finish_by: 06:00, time_zone: UTC}
jobs:
  - grid: small.yaml
  - {grid: long.yaml, set: [limits.time=0.1s]}
  - {name: walk, kind: walkforward, grid: walk.yaml, priority: 1}
  - {name: broken, grid: nowhere.yaml}
",
    );
    let plan = |line: &str| {
        let shown = desk.run(line);
        let until = shown.stdout.find("finish by ").map(|at| at + "finish by ".len());
        let text = until.map_or(shown.stdout.clone(), |at| {
            format!("{}[DAY]{}", &shown.stdout[..at], &shown.stdout[at + "2026-01-31".len()..])
        });
        // How far the first waves get depends on the machine.
        let lines = text.lines().map(|line| match line.split_once("continue, ") {
            Some((head, tail)) => {
                format!("{head}continue, [N]{}\n", tail.trim_start_matches(|c: char| c.is_ascii_digit()))
            }
            None => format!("{line}\n"),
        });
        format!("exit {}\n{}{}", shown.code.unwrap(), lines.collect::<String>(), desk.redact(&shown.stderr))
    };
    insta::assert_snapshot!(plan("batch night.yaml --dry-run"), @r"
    exit 2
    night: 4 jobs, to finish by [DAY] 06:00:00 UTC
     1  walk    walkforward  new, 24 settings in 6 chunks
     2  small   sweep        new, 24 settings in 6 chunks
     3  long    sweep        new, 2,310 settings in 289 chunks
     4  broken  sweep        would fail (exit code 2)
    broken: nowhere.yaml: cannot be read: no such file
    ");
    assert!(!desk.path().join("results").exists(), "a dry run writes nothing");
    assert_eq!(desk.run("batch night.yaml --quiet").code, Some(7));
    insta::assert_snapshot!(plan("batch night.yaml --dry-run"), @r"
    exit 2
    night: 4 jobs, to finish by [DAY] 06:00:00 UTC
     1  walk    walkforward  finished, 24 settings
     2  small   sweep        finished, 24 settings
     3  long    sweep        continue, [N] of 289 chunks finished, 2,310 settings
     4  broken  sweep        would fail (exit code 2)
    broken: nowhere.yaml: cannot be read: no such file
    ");
    insta::assert_snapshot!(plan("batch night.yaml --dry-run --fresh"), @r"
    exit 2
    night: 4 jobs, to finish by [DAY] 06:00:00 UTC
     1  walk    walkforward  new, 24 settings in 6 chunks
     2  small   sweep        new, 24 settings in 6 chunks
     3  long    sweep        new, 2,310 settings in 289 chunks
     4  broken  sweep        would fail (exit code 2)
    broken: nowhere.yaml: cannot be read: no such file
    ");
    let shown = desk.run("batch night.yaml --dry-run --json");
    let document: Value = serde_json::from_str(&shown.stdout).unwrap();
    let would: Vec<&str> =
        document["jobs"].as_array().unwrap().iter().map(|job| job["would"].as_str().unwrap()).collect();
    assert_eq!(would, ["finished", "finished", "continue", "fail"]);
}

#[test]
fn one_document_for_programs() {
    let desk = desk();
    desk.write("night.yaml", "jobs: [{grid: small.yaml}, {name: broken, grid: nowhere.yaml}]\n");
    let shown = desk.run("batch night.yaml --json --finish-in 1h");
    assert_eq!(shown.code, Some(2), "{}", shown.stderr);
    let document: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&document["end"], &document["exit_code"]), (&Value::from("complete"), &Value::from(2)));
    let jobs = document["jobs"].as_array().unwrap();
    assert_eq!(jobs[0]["found"]["rows"]["ok"], 24);
    assert_eq!(jobs[1]["reason"], "nowhere.yaml: cannot be read: no such file");
    let batch = desk.path().join("results/night");
    let kinds: Vec<String> = events(&batch).iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.join(" "), "batch_start job_start job_end job_start job_end batch_end");
    assert!(events(&batch).iter().all(|event| event["time_ns"].is_i64()));
}

#[test]
fn a_walk_forward_cut_short_has_no_result_and_continues() {
    let desk = desk();
    let long = HEAVY.replace("40..145:15", "40..145:5");
    desk.write("windows.yaml", &format!("{long}walk_forward: {{train: 15d, test: 5d}}\n"));
    desk.write("night.yaml", "jobs: [{name: windows, kind: walkforward, grid: windows.yaml}]\n");
    let shown = desk.run("batch night.yaml --out whole --threads 1");
    assert!(matches!(shown.code, Some(0 | 5)), "{}", shown.stderr);
    let cut = desk.run("batch night.yaml --out parts --threads 1 --set limits.time=0.1s");
    assert_eq!(cut.code, Some(7), "{}", cut.stderr);
    let batch = desk.path().join("parts/night");
    let folder = job_folders(&batch)["windows"].clone();
    assert!(chunk_count(&folder) > 0 && chunk_count(&folder) < 289);
    assert!(!folder.join("windows.csv").exists() && !folder.join("leaderboard.partial.csv").exists());
    assert!(page(&batch).contains("* **windows** stopped by its own time limit\n"), "{}", page(&batch));
    let continued = desk.run("batch night.yaml --out parts --threads 2");
    assert_eq!(continued.code, shown.code, "{}", continued.stderr);
    assert_nothing_repeated(&batch);
    assert_same_batch(&desk.path().join("whole/night"), &batch);
}

#[test]
fn a_full_disk_ends_resumable_and_the_same_command_goes_on() {
    let Some(disk) = SmallDisk::new("a full disk", "size=400k") else { return };
    let desk = desk();
    desk.write("night.yaml", "name: night\njobs: [{grid: small.yaml, priority: 1}, {grid: heavy.yaml}]\n");
    let line = format!("batch night.yaml --out {}", disk.path().display());
    let shown = desk.run(&line);
    assert_eq!(shown.code, Some(7), "{}", shown.stderr);
    assert!(shown.stderr.contains("no space left to write it"), "{}", shown.stderr);
    disk.remount("size=64m");
    let shown = desk.run(&line);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert_eq!(desk.run("batch night.yaml --out whole").code, Some(0));
    let batch = disk.path().join("night");
    assert_nothing_repeated(&batch);
    assert_same_batch(&desk.path().join("whole/night"), &batch);
}

/// Three symbols of real bars, two strategies; the history of one symbol stands elsewhere in time.
#[test]
fn three_symbols_of_real_bars_and_two_grids() {
    let Some(data) = real_data("three_symbols_of_real_bars_and_two_grids") else { return };
    let desk = desk().env("OMEGA_DATA_PARQUET_ROOT", data);
    let config = cli::CONFIG.replace("  \"data\": {\"source\": \"synthetic\", \"seed\": 7, \"bars\": 3000},\n", "");
    desk.write("real.json", &config);
    desk.write("crossing.yaml", &SMALL.replace("config.json", "real.json"));
    let breakout = config.replace("sma_cross", "donchian_breakout").replace("{\"lots\": 0.1}", "{}");
    desk.write("breakout.json", &breakout);
    desk.write(
        "breakout.yaml",
        "name: breakout\nconfig: breakout.json\nparameters: {entry_length: 20..60:10, exit_length: [10, 15]}\n",
    );
    desk.write(
        "night.yaml",
        "\
jobs:
  - grid: [crossing.yaml, breakout.yaml]
    symbols: [XAGUSD, XAUUSD]
    set: [start_date=2014-02-03, end_date=2014-12-31]
  - grid: [crossing.yaml, breakout.yaml]
    symbols: EURUSD
    set: [start_date=2025-04-10, end_date=2025-04-30]
",
    );
    let shown = desk.run("batch night.yaml");
    assert!(matches!(shown.code, Some(0 | 4 | 5)), "{}", shown.stderr);
    let batch = desk.path().join("results/night");
    assert!(outcomes(&batch).len() == 6 && outcomes(&batch).iter().all(|(_, how)| how.starts_with("done ")));
    let before = lasting_of_batch(&batch);
    let again = desk.run("batch night.yaml --quiet");
    assert_eq!((again.code, &*again.stderr), (shown.code, ""));
    assert!(before == lasting_of_batch(&batch));
}

/// One sweep and the same grid as a job leave the same rows: a job is an ordinary run.
#[test]
fn a_job_is_an_ordinary_run() {
    let desk = desk();
    desk.write(
        "night.yaml",
        "jobs:\n- {name: small, grid: small.yaml, symbols: GBPUSD, variants: {dear: [costs.fee_multiplier=2]}}\n",
    );
    assert_eq!(desk.run("batch night.yaml --out jobs").code, Some(0));
    let line =
        "sweep small.yaml --set symbol=GBPUSD --set costs.fee_multiplier=2 --set name=small-GBPUSD-dear --out own";
    assert_eq!(desk.run(line).code, Some(0));
    let job = job_folders(&desk.path().join("jobs/night")).into_values().next().unwrap();
    cli::assert_same(&desk.run_folder("own"), &job);
    let cells = table(&desk.path().join("jobs/night")).remove("small-GBPUSD-dear").unwrap();
    assert_eq!((&*cells["symbol"], &*cells["variant"], &*cells["timeframe"]), ("GBPUSD", "dear", "H1"));
}
