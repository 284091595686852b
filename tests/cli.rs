//! The commands as the user sees them: what they print, what they leave on disk, and that what they leave is true.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array as _, RecordBatch};
use arrow_schema::DataType;
use cli::{Desk, real_data, tree};
use engine::backtest::{RunConfig, canonical};
use engine::metrics::{Metric, round_half_away};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

fn leaderboard(folder: &Path) -> Vec<RecordBatch> {
    let file = fs::File::open(folder.join("leaderboard.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

/// One text column of a leaderboard.
fn texts(rows: &[RecordBatch], name: &str) -> Vec<String> {
    let column = |batch: &RecordBatch| {
        batch.column_by_name(name).unwrap().as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
    };
    rows.iter().flat_map(|batch| -> Vec<String> { column(batch) }).collect()
}

/// One row per setting, ranks 1..n, every number finite, every hash its own.
fn assert_sound(folder: &Path, settings: usize) {
    let rows = leaderboard(folder);
    let numbers = |name: &str| -> Vec<u64> {
        let column = |batch: &RecordBatch| batch.column_by_name(name).unwrap().clone();
        rows.iter().flat_map(|batch| column(batch).as_primitive::<UInt64Type>().values().to_vec()).collect()
    };
    assert_eq!(numbers("rank"), (1..=settings as u64).collect::<Vec<_>>());
    assert_eq!(numbers("trial").into_iter().collect::<BTreeSet<_>>(), (0..settings as u64).collect());
    let hashes = texts(&rows, "config_hash");
    assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), settings);
    for batch in &rows {
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            if *field.data_type() == DataType::Float64 {
                let all = column.as_primitive::<Float64Type>();
                assert!(all.iter().flatten().all(f64::is_finite), "{} holds a number that is none", field.name());
            }
        }
    }
}

#[test]
fn what_there_is_to_do() {
    let desk = Desk::new();
    let shown = desk.run("--help");
    assert_eq!((shown.code, &*shown.stderr), (Some(0), ""));
    insta::assert_snapshot!(desk.redact(&shown.stdout), @r##"
    Find out which settings of a trading strategy deserve belief.

    Exit codes: 0 done, 1 internal error, 2 usage or config, 3 data, 4 finished with failed trials, 5
    nothing passed the gates, 6 a recomputed row differs, 7 limit, deadline or full disk (resumable),
    130 interrupted (resumable).

    Usage: omega-opt <COMMAND>

    Commands:
      sweep        Evaluate every setting of a grid file and rank them
      plan         Tell what a sweep will do and take, and run nothing
      walkforward  Choose on the past, judge on the unseen, window by window
      merge        Unite the shards of a sweep or walk-forward into its result
      batch        Run many sweeps and walk-forwards, one after another, with a deadline
      run          Run one backtest and write its artefacts
      show         Show one row of a run folder: its setting and every metric
      replay       Walk one row again and write its four artefacts
      verify       Recompute rows and compare every bit
      export       Write the run config of one row
      data         Judge, describe, import or generate bars
      strategies   List strategies and their parameters
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version
    "##);
}

#[test]
fn what_a_sweep_takes() {
    let desk = Desk::new();
    let shown = desk.run("sweep --help");
    assert_eq!((shown.code, &*shown.stderr), (Some(0), ""));
    insta::assert_snapshot!(desk.redact(&shown.stdout), @r"
    Evaluate every setting of a grid file and rank them

    Usage: omega-opt sweep [OPTIONS] <GRID>

    Arguments:
      <GRID>  Grid file (YAML)

    Options:
          --set <KEY=VALUE>  Replace an axis or a key: --set window_length=40..80:10 --set
                             costs.enabled=false --set search.trials=500
          --out <DIR>        Output root; the run folder is made below it. Default: output.dir of the
                             grid, else `results`
          --threads <N>      Worker threads. Default: RAYON_NUM_THREADS, else all cores. Never changes a
                             result
          --memory <SIZE>    Memory cap: 8GB, 512MiB. Work is cut to fit; too small a cap is refused at
                             the start with the least it needs. Default: limits.memory of the grid, else
                             a share of the machine's memory. Never changes a result
          --fresh            Drop the finished chunks of this grid and start anew; nothing is taken over
                             from other runs
          --reuse <RUN>      Take rows over from this run folder too (may be given several times). Rows
                             of the same setting on the same data by the same engine version are not
                             evaluated again; runs below the output root are found by themselves. Never
                             changes a result
          --no-reuse         Evaluate every setting, whatever earlier runs have
          --shard <i/n>      Evaluate only every n-th chunk, from the i-th on, in a folder of its own
                             (its name ends in .shard-i-of-n): machines share a sweep, each one shard,
                             and `omega-opt merge` makes the leaderboard of all
          --dry-run          Only count settings and chunks; load no bars, write nothing
          --quiet            No progress and no summary; warnings and errors still go to stderr
          --json             Print one JSON document with the result to stdout instead of the summary
      -h, --help             Print help
      -V, --version          Print version
    ");
}

#[test]
fn what_a_batch_does_and_ends_with() {
    let desk = Desk::new();
    let shown = desk.run("batch --help");
    assert_eq!((shown.code, &*shown.stderr), (Some(0), ""));
    let before_options = shown.stdout.split("Options:").next().unwrap();
    insta::assert_snapshot!(desk.redact(before_options), @r"
    Run many sweeps and walk-forwards, one after another, with a deadline.

    Each job of the file is a grid on a symbol and timeframe, in a run folder of its own below
    {out}/{name}. A job that fails stops no other. Finished jobs are passed by, unfinished ones
    continue, so the same command every night, from cron or a systemd timer, works the list off. At the
    deadline the running wave ends, sweeps rank what is finished into leaderboard.partial.parquet and
    .csv, and the exit code is 7. Writes batch.parquet, batch.csv (one row per job) and batch.md (the
    night, for people).

    Exit codes of several jobs at once, the first that applies: 130, 7, 1, 2, 3, 5, 4, 0.

    Usage: omega-opt batch [OPTIONS] <NIGHTLY>

    Arguments:
      <NIGHTLY>
              Batch file (YAML)
    ");
}

#[test]
fn a_sweep_ends_with_its_best_rows() {
    let desk = Desk::new();
    let shown = desk.run("sweep small.yaml");
    insta::assert_snapshot!(format!("{}\n---\n{}", desk.show(&shown), desk.redact(&shown.stdout)), @r"
    exit 0
    small: 24 settings of sma_cross on EURUSD H1
    ---
    24 rows: 24 ok, 0 gated, 0 without score, 0 failed · 24 distinct rule sets
    24 evaluated in [TIME]), 0 cached · memory [PEAK]

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
    assert_sound(&desk.run_folder("results"), 24);
}

#[test]
fn an_axis_of_one_value_is_not_shown_and_a_warning_holds_for_all_settings() {
    let desk = Desk::new();
    let said = |desk: &Desk| {
        let shown = desk.run("sweep heavy.yaml --set window_length=[60] --set atr_mult=[2.0]");
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        let head = shown.stdout.lines().find(|line| line.contains("objective")).unwrap().to_owned();
        (shown.stderr, head)
    };
    let (stderr, head) = said(&desk);
    assert!(!head.contains("window_length") && head.contains("ema_length"), "{head}");
    assert!(!stderr.contains("warning"), "{stderr}");
    // The first setting alone has no use for one of the linked thresholds: no news of the space.
    desk.write("heavy.yaml", &cli::HEAVY.replace("  ema_length: [20, 30, 50]", "  direction_filter: [long, both]"));
    let (stderr, _) = said(&desk);
    assert!(!stderr.contains("warning"), "{stderr}");
    desk.write("heavy.yaml", &cli::HEAVY.replace("  ema_length: [20, 30, 50]", "  direction_filter: long"));
    let (stderr, _) = said(&desk);
    assert!(stderr.contains("warning: `z_score_short` has no effect"), "{stderr}");
}

#[test]
fn another_objective_ranks_anew_and_evaluates_nothing() {
    let desk = Desk::new();
    assert_eq!(desk.run("sweep small.yaml").code, Some(0));
    let folder = desk.run_folder("results");
    let (chunks, before) = (tree(&folder.join("chunks")), texts(&leaderboard(&folder), "config_hash"));
    desk.grid("gates:", "objective: {minimize: total_trades}\ngates:");
    let shown = desk.run("sweep small.yaml");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains("nothing to evaluate"), "{}", shown.stdout);
    assert!(chunks == tree(&folder.join("chunks")));
    let after = texts(&leaderboard(&desk.run_folder("results")), "config_hash");
    assert_ne!(before, after);
    assert_eq!(before.iter().collect::<BTreeSet<_>>(), after.iter().collect::<BTreeSet<_>>());
    assert_sound(&folder, 24);
}

/// Chunks of another size would be worth nothing: nobody loses a night by a changed limit.
#[test]
fn another_chunk_size_is_refused_while_there_are_chunks() {
    let desk = Desk::new();
    assert_eq!(desk.run("sweep small.yaml").code, Some(0));
    let chunks = desk.run_folder("results").join("chunks");
    let before = tree(&chunks);
    let shown = desk.run("sweep small.yaml --set limits.chunk=8");
    insta::assert_snapshot!(desk.show(&shown), @r#"
    exit 2
    error: results/small-[HASH]/grid.lock.yaml: made by another grid:
    - limits: {"chunk":4}
    + limits: {"chunk":8}
    help: --fresh drops its chunks and starts anew
    "#);
    assert!(before == tree(&chunks));
    assert_eq!(desk.run("sweep small.yaml --set limits.chunk=8 --fresh").code, Some(0));
    assert_sound(&desk.run_folder("results"), 24);
}

#[test]
fn counting_touches_nothing() {
    let desk = Desk::new();
    desk.grid("gates:", "constraints: [\"slow_length != 60\"]\ngates:");
    let before = tree(desk.path());
    let shown = desk.run("sweep small.yaml --dry-run");
    assert_eq!((shown.code, &*shown.stderr), (Some(0), ""));
    insta::assert_snapshot!(shown.stdout, @r"
    small: 16 settings of sma_cross (grid search), 24 lattice points
      fast_length                             4 values
      slow_length                             3 values
      direction_filter                        2 values
      left out 8 for `slow_length != 60` (grid)
    4 chunks of 4
    ");
    let shown = desk.run("sweep small.yaml --dry-run --json");
    let document: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(document["trials"], 16);
    assert!(before == tree(desk.path()));
}

#[test]
fn for_machines_one_document() {
    let desk = Desk::new();
    let shown = desk.run("sweep small.yaml --json");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let document: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&document["end"], &document["exit_code"]), (&"complete".into(), &0.into()));
    assert_eq!((&document["trials"], &document["result"]["rows"]), (&24.into(), &24.into()));
    assert_eq!(document["result"]["top"][0]["rank"], 1);
    assert!(Path::new(document["folder"].as_str().unwrap()).ends_with(desk.run_folder("results").file_name().unwrap()));
}

#[test]
fn quiet_says_nothing() {
    let desk = Desk::new();
    let shown = desk.run("sweep small.yaml --quiet");
    assert_eq!((shown.code, &*shown.stdout, &*shown.stderr), (Some(0), "", ""));
}

/// The artefacts reproduce the row.
fn assert_receipts(folder: &Path, top: usize) {
    let rows = leaderboard(folder);
    let hashes = texts(&rows, "config_hash");
    let mut receipts = 0;
    for entry in fs::read_dir(folder.join("top")).unwrap() {
        let place = entry.unwrap().path();
        let rank: usize = place.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(place.join(name)).unwrap()).unwrap() };
        let (meta, metrics) = (read("meta.json"), read("metrics.json"));
        assert_eq!(meta["config"]["hash"], hashes[rank - 1], "rank {rank}");
        let parsed = RunConfig::parse(&meta["config"]["snapshot"], true);
        let config = parsed.unwrap_or_else(|violations| panic!("{violations:?}")).config;
        assert_eq!(canonical::canonical_hash(&config.hashed_document()), hashes[rank - 1], "rank {rank}");
        let (mut batch, mut at) = (0, rank - 1);
        while at >= rows[batch].num_rows() {
            at -= rows[batch].num_rows();
            batch += 1;
        }
        let mut compared = 0;
        for metric in Metric::ALL {
            let key = metric.def().key;
            let column = rows[batch].column_by_name(key).unwrap();
            let (Some(shown), false) = (metrics["metrics"].get(key).and_then(Value::as_f64), column.is_null(at)) else {
                continue;
            };
            let exact = match column.data_type() {
                DataType::Int64 => column.as_primitive::<Int64Type>().value(at) as f64,
                _ => column.as_primitive::<Float64Type>().value(at),
            };
            // Exact: the artefact rounds the very number of the row.
            let rounded = round_half_away(exact, metric.def().unit.decimals());
            assert_eq!(shown.to_bits(), rounded.to_bits(), "rank {rank}, {key}: {exact} in the row");
            compared += 1;
        }
        assert!(compared > 10, "{compared} metrics compared");
        receipts += 1;
    }
    assert_eq!(receipts, top);
}

#[test]
fn the_artefacts_of_the_best_reproduce_their_rows() {
    let desk = Desk::new();
    assert_eq!(desk.run("sweep small.yaml").code, Some(0));
    assert_receipts(&desk.run_folder("results"), 2);
}

#[test]
fn dotted_overrides_are_axes_like_any_other() {
    let desk = Desk::new();
    desk.write(
        "heavy.yaml",
        &cli::HEAVY.replace("window_length: 40..145:15", "\"overrides.EURUSD/M5.window_length\": [40, 100]"),
    );
    let shown = desk.run("sweep heavy.yaml --set atr_mult=[2.0]");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let folder = desk.run_folder("results");
    assert_sound(&folder, 42);
    let rows = leaderboard(&folder);
    assert!(rows[0].column_by_name("param.overrides.EURUSD/M5.window_length").is_some());
    let distinct: BTreeSet<String> = texts(&rows, "rules_hash").into_iter().collect();
    assert_eq!(distinct.len(), 42, "the override takes effect");
    let meta: Value = serde_json::from_slice(&fs::read(folder.join("top/1/meta.json")).unwrap()).unwrap();
    let parameters = &meta["config"]["snapshot"]["strategy_parameters"];
    assert!(parameters["overrides.EURUSD/M5.window_length"].is_number(), "{parameters}");
    assert_receipts(&folder, 2);
}

#[test]
fn real_silver_bars() {
    let Some(data) = real_data("real silver bars") else { return };
    let desk = Desk::new().env("OMEGA_DATA_PARQUET_ROOT", data);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = fs::read_to_string(repository.join("configs/xagusd_m5.json")).unwrap();
    desk.write("xag.json", &config.replace("2014-01-01", "2015-10-01"));
    desk.write(
        "xag.yaml",
        "config: xag.json\nparameters:\n  window_length: [50, 100]\n  htf_filter: [above, below, none]\n  direction_filter: [long, short]\n  z_score_long: [-1.5, -1.0]\noutput: {top: 3}\n",
    );
    let shown = desk.run("sweep xag.yaml");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let folder = desk.run_folder("results");
    assert_sound(&folder, 24);
    assert_receipts(&folder, 3);
}
