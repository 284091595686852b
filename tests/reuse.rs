//! A grid that contains settings of earlier runs takes their rows over: the bytes are those of a run that evaluates
//! everything, and what may not be taken over is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use cli::{Desk, SMALL, assert_same, changed, lasting, tree, wait_until};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

fn ok(desk: &Desk, line: &str) -> Value {
    let shown = desk.run(&format!("{line} --json"));
    assert_eq!(shown.code, Some(0), "{line}\n{}", shown.stderr);
    serde_json::from_str(&shown.stdout).unwrap()
}

fn reused(told: &Value) -> u64 {
    told["reused"].as_u64().unwrap()
}

fn planned(desk: &Desk, line: &str) -> u64 {
    let told = ok(desk, &format!("plan {line}"));
    assert_eq!(told["reusable_exact"], true);
    told["trials_reusable"].as_u64().unwrap()
}

fn folder_of(desk: &Desk, told: &Value) -> PathBuf {
    desk.path().join(told["folder"].as_str().unwrap())
}

/// Config hashes of the rows in the chunks of a run.
fn hashes(folder: &Path) -> BTreeSet<String> {
    let mut hashes = BTreeSet::new();
    for entry in fs::read_dir(folder.join("chunks")).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|extension| extension == "parquet") {
            let file = fs::File::open(entry.path()).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                let column = batch.column_by_name("config_hash").unwrap().as_string::<i32>();
                hashes.extend(column.iter().map(|hash| hash.unwrap().to_owned()));
            }
        }
    }
    hashes
}

/// What the event file says of the last start: trials reused and trials of waves.
fn told_of(folder: &Path) -> (u64, u64) {
    let text = fs::read_to_string(folder.join("events.jsonl")).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let start = events.iter().rposition(|event| event["event"] == "start").unwrap();
    let sum = |kind: &str| {
        let of_kind = events[start..].iter().filter(|event| event["event"] == kind);
        of_kind.map(|event| event["trials"].as_u64().unwrap()).sum()
    };
    (sum("reused"), sum("wave"))
}

/// A grid grown in every way: another value before, between and behind, an axis more, an axis less, another order.
#[test]
fn a_grown_grid_evaluates_only_what_is_new() {
    let desk = Desk::new();
    let first = ok(&desk, "sweep small.yaml");
    assert_eq!(reused(&first), 0);
    let before = tree(&folder_of(&desk, &first));
    let cases = [
        ("between", "--set fast_length=[3,5,7,10,20,40,45]", 24),
        ("less", "--set fast_length=[5,20]", 12),
        ("fixed", "--set fast_length=20", 6),
        ("more", "--set lots=[0.1,0.2]", 24),
        ("chunked", "--set slow_length=[50,60,70,80] --set limits.chunk=5", 24),
        ("drawn", "--set search.trials=20 --set search.method=random", 20),
        ("reseeded", "--set seed=43", 24),
    ];
    for (name, flags, expected) in cases {
        let line = format!("small.yaml {flags} --set name={name}");
        assert_eq!(planned(&desk, &line), expected, "{name}");
        for (threads, root) in [(1, "one"), (2, "two")] {
            // The earlier run is named, and the root is another one: nothing else is found there.
            let earlier = first["folder"].as_str().unwrap();
            let told = ok(&desk, &format!("sweep {line} --out {root}-{name} --reuse {earlier} --threads {threads}"));
            assert_eq!(reused(&told), expected, "{name}");
            let folder = folder_of(&desk, &told);
            let trials = told["trials"].as_u64().unwrap();
            assert_eq!(told_of(&folder), (expected, trials), "{name}");
            let shared = hashes(&folder).intersection(&hashes(&folder_of(&desk, &first))).count() as u64;
            assert_eq!(shared, expected, "{name}: the hashes themselves say so");
            let fresh = ok(&desk, &format!("sweep {line} --out fresh-{root}-{name} --no-reuse"));
            assert_eq!(reused(&fresh), 0);
            assert_same(&folder_of(&desk, &fresh), &folder);
        }
    }
    assert!(before == tree(&folder_of(&desk, &first)), "the earlier run is left as it was");
}

/// Below the output root earlier runs are found by themselves, several of them at once.
#[test]
fn neighbours_are_found_unless_told_otherwise() {
    let desk = Desk::new();
    ok(&desk, "sweep small.yaml --set fast_length=[5,10] --set name=a");
    ok(&desk, "sweep small.yaml --set slow_length=[50,60] --set name=b --no-reuse");
    // 12 of the one, 16 of the other, 8 of both.
    assert_eq!(planned(&desk, "small.yaml"), 20);
    assert_eq!(planned(&desk, "small.yaml --no-reuse"), 0);
    let shown = desk.run("plan small.yaml");
    let line = shown.stdout.lines().find(|line| line.starts_with("reuse")).unwrap();
    insta::assert_snapshot!(line, @"reuse       20 settings, finished by 2 earlier runs");
    let shown = desk.run("sweep small.yaml");
    let line = shown.stdout.lines().find(|line| line.contains("evaluated in")).unwrap();
    insta::assert_snapshot!(desk.redact(line), @"4 evaluated in [TIME]), 20 reused, 0 cached · memory [PEAK]");
    // Finished: nothing is left to take over.
    assert_eq!(planned(&desk, "small.yaml"), 0);
    let again = ok(&desk, "sweep small.yaml");
    assert_eq!((reused(&again), &again["cached"]), (0, &24.into()));
    let fresh = ok(&desk, "sweep small.yaml --fresh");
    assert_eq!((reused(&fresh), &fresh["cached"]), (0, &0.into()));
    let whole = ok(&desk, "sweep small.yaml --out whole");
    assert_same(&folder_of(&desk, &whole), &folder_of(&desk, &fresh));
}

/// All settings of a larger grid with dear columns: nothing is evaluated, and it shows.
#[test]
fn a_grid_that_lies_within_an_earlier_one_evaluates_nothing() {
    let desk = Desk::new();
    ok(&desk, "sweep heavy.yaml --set window_length=40..100:15");
    let line = "heavy.yaml --set window_length=55..85:15 --set name=part";
    assert_eq!(planned(&desk, line), 3 * 5 * 3 * 7);
    let told = ok(&desk, &format!("sweep {line}"));
    assert_eq!((reused(&told), &told["trials"]), (315, &315.into()));
    let fresh = ok(&desk, &format!("sweep {line} --out fresh"));
    assert_same(&folder_of(&desk, &fresh), &folder_of(&desk, &told));
}

#[test]
fn other_data_seed_or_version_is_not_reused() {
    let desk = Desk::new();
    ok(&desk, "sweep small.yaml");
    for (name, flags) in [
        ("execution-seed", "--set rng_seed=43"),
        ("bars", "--set data.seed=8"),
        ("dates", "--set end_date=2020-06-29"),
        ("warm-up", "--set warmup_bars=101"),
        ("balance", "--set account.initial_balance=99999"),
        ("costs", "--set costs.slippage_multiplier=2"),
    ] {
        let line = format!("small.yaml {flags} --set name={name}");
        assert_eq!(planned(&desk, &line), 0, "{name}");
        assert_eq!(reused(&ok(&desk, &format!("sweep {line}"))), 0, "{name}");
    }
    // The same settings, but other costs behind the same name.
    let costs = fs::read_to_string(desk.path().join("configs/execution_costs.yaml")).unwrap();
    desk.write("configs/execution_costs.yaml", &format!("{costs}\n# another file\n"));
    assert_eq!(planned(&desk, "small.yaml --set name=file"), 0);
    let told = ok(&desk, "sweep small.yaml --set name=file");
    assert_eq!(reused(&told), 0);
    let log = fs::read_to_string(folder_of(&desk, &told).join("logs/run.log")).unwrap();
    assert!(log.contains("is not reused: data: this run has"), "{log}");
}

/// Rows of another engine version: the bytes of a chunk with the version in its metadata changed, digest included.
#[test]
fn another_engine_version_is_not_reused_and_told() {
    let desk = Desk::new();
    let first = ok(&desk, "sweep small.yaml --out old");
    let folder = folder_of(&desk, &first);
    for entry in fs::read_dir(folder.join("chunks")).unwrap().map(Result::unwrap) {
        other_version(&entry.path());
    }
    let before = tree(&folder);
    let named = first["folder"].as_str().unwrap();
    let line = format!("small.yaml --set name=new --reuse {named}");
    assert_eq!(planned(&desk, &line), 0);
    let shown = desk.run(&format!("sweep {line}"));
    assert_eq!(shown.code, Some(0));
    let said = desk.redact(&shown.stderr);
    assert!(said.contains("is not reused: engine_version: this run has `"), "{said}");
    assert!(said.contains("the file has `0.0.0+other`"), "{said}");
    assert!(!shown.stdout.contains(" reused, "), "{}", shown.stdout);
    assert!(before == tree(&folder), "the earlier run is left as it was");
}

/// Writes a chunk again as another version of the program would have: its digest covers the version.
fn other_version(path: &Path) {
    use optimizer::chunk::write_chunk;
    use optimizer::fingerprint::Fingerprint;
    use optimizer::row::{ParamColumn, ParamValue, Row, RowSchema};
    use optimizer::space::ColumnKind;
    let kind = |name: &str| if name == "direction_filter" { ColumnKind::Text } else { ColumnKind::Int };
    let names = ["fast_length", "slow_length", "direction_filter"];
    let schema =
        RowSchema::new(names.iter().map(|name| ParamColumn { name: (*name).to_owned(), kind: kind(name) }).collect());
    let file = fs::File::open(path).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let pairs = builder.metadata().file_metadata().key_value_metadata().unwrap().clone();
    let parts = pairs.iter().filter_map(|pair| {
        let name = pair.key.strip_prefix("omega.run.")?.to_owned();
        let value = pair.value.clone().unwrap_or_default();
        Some(if name == "engine_version" { (name, "0.0.0+other".to_owned()) } else { (name, value) })
    });
    let fingerprint = Fingerprint::new(parts);
    let batch = builder.build().unwrap().next().unwrap().unwrap();
    let header = optimizer::chunk::ChunkHeader {
        fingerprint: fingerprint.clone(),
        first_trial: 0,
        rows: 0,
        ways: Default::default(),
    };
    let chunk = optimizer::chunk::Chunk { header, batch };
    let rows: Vec<Row> = (0..).map_while(|row| chunk.row(&schema, row)).collect();
    let mut nothing = |_: u64, values: &mut Vec<ParamValue>| values.extend(names.map(|_| ParamValue::Null));
    write_chunk(path, &schema, &fingerprint, &rows.iter().map(Row::done).collect::<Vec<_>>(), &mut nothing).unwrap();
}

#[test]
fn damaged_and_foreign_files_are_passed_over_and_left_alone() {
    let desk = Desk::new();
    let first = folder_of(&desk, &ok(&desk, "sweep small.yaml"));
    // Among the values, so that only the digest tells; and one that cannot be opened as what it is.
    let chunk = first.join("chunks/chunk-000002.parquet");
    let mut bytes = fs::read(&chunk).unwrap();
    let at = bytes.len() / 2;
    bytes[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(&chunk, &bytes).unwrap();
    fs::write(first.join("chunks/chunk-000004.parquet"), b"no chunk").unwrap();
    fs::write(first.join("chunks/other.parquet"), b"no chunk").unwrap();
    desk.write("results/note/chunks/chunk-000000.parquet", "no chunk");
    desk.write("results/empty/chunks/readme", "no chunk");
    let before = tree(&first);
    assert_eq!(planned(&desk, "small.yaml --set name=again"), 16);
    let told = ok(&desk, "sweep small.yaml --set name=again");
    assert_eq!(reused(&told), 16);
    assert!(before == tree(&first), "{:?}", changed(&before, &tree(&first)));
    let fresh = ok(&desk, "sweep small.yaml --set name=again --out fresh");
    assert_same(&folder_of(&desk, &fresh), &folder_of(&desk, &told));
    let log = fs::read_to_string(folder_of(&desk, &told).join("logs/run.log")).unwrap();
    assert!(log.contains("results/note is not reused"), "{log}");
}

/// Failed rows are rows: they cost nothing when the setting does not resolve, and are not counted then.
#[test]
fn settings_that_do_not_resolve_are_not_counted() {
    let desk = Desk::new();
    let grown = "--set slow_length=[50,60,80,120]";
    let shown = desk.run(&format!("sweep small.yaml {grown} --set name=a --json"));
    assert_eq!(shown.code, Some(4), "{}", shown.stderr);
    assert_eq!(planned(&desk, &format!("small.yaml {grown}")), 24);
    let shown = desk.run(&format!("sweep small.yaml {grown} --json"));
    let told: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((shown.code, reused(&told)), (Some(4), 24));
    let shown = desk.run(&format!("sweep small.yaml {grown} --out fresh --json"));
    let fresh: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_same(&folder_of(&desk, &fresh), &folder_of(&desk, &told));
}

#[test]
fn under_the_least_cap_the_bytes_are_the_same() {
    let desk = Desk::new();
    ok(&desk, "sweep heavy.yaml --set window_length=40..70:30");
    let line = "heavy.yaml --set window_length=40..100:30 --set name=grown";
    let least = ok(&desk, &format!("plan {line}"))["memory_least"].as_u64().unwrap();
    let told = ok(&desk, &format!("sweep {line} --memory {least}B"));
    println!("{} reused under {least} B", reused(&told));
    let free = ok(&desk, &format!("sweep {line} --out free --no-reuse"));
    assert_same(&folder_of(&desk, &free), &folder_of(&desk, &told));
    // With a little more there is room for the hashes.
    let told = ok(&desk, &format!("sweep {line} --memory 64MB --fresh --out roomy"));
    assert_eq!(reused(&told), 0, "--fresh takes nothing over");
    let told = ok(&desk, &format!("sweep {line} --memory 64MB --set name=roomy"));
    assert_eq!(reused(&told), 315);
}

/// Drawn once per run: rows of another master seed are others.
#[test]
fn a_drawn_seed_is_no_other_runs_seed() {
    let desk = Desk::new();
    desk.config("\"warmup_bars\": 100,", "\"warmup_bars\": 100, \"run_mode\": \"prod\",");
    ok(&desk, "sweep small.yaml --set name=a");
    assert_eq!(planned(&desk, "small.yaml"), 0);
    assert_eq!(reused(&ok(&desk, "sweep small.yaml")), 0);
    ok(&desk, "sweep small.yaml --set rng_seed=7 --set name=b");
    assert_eq!(planned(&desk, "small.yaml --set rng_seed=7 --set name=c"), 24);
    assert_eq!(reused(&ok(&desk, "sweep small.yaml --set rng_seed=7 --set name=c")), 24);
}

#[test]
fn shards_take_over_what_there_is_and_not_from_each_other() {
    let desk = Desk::new();
    ok(&desk, "sweep small.yaml --set fast_length=[5,10] --set name=part");
    let mut folders = Vec::new();
    for number in [1, 2] {
        let told = ok(&desk, &format!("sweep small.yaml --shard {number}/2"));
        folders.push((told["folder"].as_str().unwrap().to_owned(), reused(&told)));
    }
    assert_eq!(folders.iter().map(|(_, reused)| reused).sum::<u64>(), 12);
    let merged = ok(&desk, &format!("merge {} {}", folders[0].0, folders[1].0));
    assert_eq!((reused(&merged), &merged["cached"]), (0, &24.into()));
    let whole = ok(&desk, "sweep small.yaml --out whole");
    assert_same(&folder_of(&desk, &whole), &folder_of(&desk, &merged));
    // The shards of another cut are earlier runs like any others.
    assert_eq!(planned(&desk, "small.yaml --set name=cut"), 24);
}

#[test]
fn what_is_no_earlier_run_is_refused() {
    let desk = Desk::new();
    desk.write("folder/file", "");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --reuse folder"), @r"
    exit 2
      × --reuse: folder is no run folder: grid.lock.yaml is not there
      help: a run folder is <output root>/<name>-<hash8>, as a sweep names it at its end
    ");
    insta::assert_snapshot!(desk.refused("plan small.yaml --reuse nowhere"), @r"
    exit 2
      × --reuse: nowhere is no run folder: grid.lock.yaml is not there
      help: a run folder is <output root>/<name>-<hash8>, as a sweep names it at its end
    ");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --reuse folder --no-reuse"), @r"
    exit 2
    error: the argument '--reuse <RUN>' cannot be used with '--no-reuse'

    Usage: omega-opt sweep --reuse <RUN> <GRID>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(desk.refused("sweep small.yaml --reuse folder --fresh"), @r"
    exit 2
    error: the argument '--reuse <RUN>' cannot be used with '--fresh'

    Usage: omega-opt sweep --reuse <RUN> <GRID>

    For more information, try '--help'.
    ");
}

#[cfg(unix)]
#[test]
fn killed_while_reusing_it_goes_on_and_the_bytes_are_the_same() {
    let desk = Desk::new();
    ok(&desk, "sweep heavy.yaml --set window_length=40..85:15 --set name=first");
    let mut random = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut finished = 0;
    for _ in 0..2 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let target = (finished + 1 + (random >> 33) as usize % 20).min(100);
        let mut child = desk.start("sweep heavy.yaml --threads 1");
        let folder = || {
            let found = fs::read_dir(desk.path().join("results")).unwrap().map(|entry| entry.unwrap().path());
            found.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("heavy-"))
        };
        wait_until("chunks", || folder().is_some_and(|folder| cli::chunk_count(&folder) >= target));
        child.kill().unwrap();
        child.wait().unwrap();
        finished = cli::chunk_count(&folder().unwrap());
        println!("killed at {target}, {finished} chunks finished");
    }
    let told = ok(&desk, "sweep heavy.yaml");
    let fresh = ok(&desk, "sweep heavy.yaml --out fresh");
    assert_same(&folder_of(&desk, &fresh), &folder_of(&desk, &told));
}

/// Cells of a walk-forward over the same windows, judged alike.
#[test]
fn a_walk_forward_takes_over_cells_of_equal_windows() {
    let desk = Desk::new();
    let text = SMALL.replace("total_trades >= 10", "total_trades >= 3");
    desk.write("small.yaml", &format!("{text}walk_forward: {{train: 40d, test: 20d}}\n"));
    let walk = |flags: &str| ok(&desk, &format!("walkforward small.yaml {flags}"));
    walk("--set fast_length=[5,20]");
    let grown = walk("--set name=grown");
    assert_eq!(reused(&grown), 12);
    let same = |a: &Value, b: &Value| {
        let (left, right) = (lasting(&folder_of(&desk, a)), lasting(&folder_of(&desk, b)));
        assert!(left.contains_key("windows.parquet"));
        assert!(left == right, "{:?}", changed(&left, &right));
    };
    same(&grown, &walk("--set name=grown --out fresh"));
    for (name, flags) in [
        ("windows", "--set walk_forward.test=25d"),
        ("gates", "--set gates=[total_trades>=4]"),
        ("objective", "--set objective.maximize=profit_net"),
    ] {
        assert_eq!(reused(&walk(&format!("{flags} --set name={name}"))), 0, "{name}");
    }
    // Rows of a sweep are no cells, and the other way round.
    assert_eq!(reused(&ok(&desk, "sweep small.yaml")), 0);
}
