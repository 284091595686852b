//! The leaderboard against sample chunks: order, bytes, memory, rounding.

use std::fs;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use engine::metrics::Metric;

use super::*;
use crate::chunk::write_chunk;
use crate::objective::{Goal, RankKey};
use crate::row::tests::{params, row, schema};
use crate::row::{Outcome, Row};

/// A run folder's worth of chunks and how they are judged.
struct Run {
    dir: tempfile::TempDir,
    rows: Vec<Row>,
    plan: ChunkPlan,
    schema: RowSchema,
    fingerprint: Fingerprint,
    objective: Objective,
    gates: Gates,
    kept: Kept,
}

impl Run {
    fn new(rows: Vec<Row>, chunk: u64) -> Self {
        let mut gates = Gates::default();
        gates.push("total_trades >= 50").unwrap();
        let run = Self {
            dir: tempfile::tempdir().unwrap(),
            plan: ChunkPlan::new(rows.len() as u64, Some(chunk)),
            rows,
            schema: schema(),
            fingerprint: Fingerprint::new([("data", "d")]),
            objective: Objective::default(),
            gates,
            kept: Kept::new(&generous()),
        };
        for index in 0..run.plan.count() {
            let trials = run.plan.trials(index);
            let rows = &run.rows[trials.start as usize..trials.end as usize];
            let path = run.dir.path().join(file_name(index));
            write_chunk(
                &path,
                &run.schema,
                &run.fingerprint,
                &rows.iter().map(Row::done).collect::<Vec<_>>(),
                &mut params,
            )
            .unwrap();
        }
        run
    }

    fn of(trials: u64, chunk: u64) -> Self {
        Self::new((0..trials).map(row).collect(), chunk)
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            kept: &self.kept,
            threads: 1,
            chunks: self.dir.path(),
            only: None,
            plan: self.plan,
            schema: &self.schema,
            fingerprint: &self.fingerprint,
            objective: &self.objective,
            gates: &self.gates,
        }
    }

    fn targets(&self, csv_rows: Option<u64>) -> Targets {
        let parquet = self.dir.path().join("leaderboard.parquet");
        Targets { csv: parquet.with_extension("csv"), parquet, csv_rows, top: 5 }
    }

    fn write(&self, room: &Room) -> (Summary, Vec<u8>, String) {
        self.write_on(room, None)
    }

    fn write_on(&self, room: &Room, pool: Option<ThreadPool>) -> (Summary, Vec<u8>, String) {
        let (sources, targets) = (self.sources(), self.targets(None));
        let summary = write_within(&Reader { pool, ..Reader::new(&sources) }, &targets, room).unwrap();
        assert!(fs::read_dir(self.dir.path()).unwrap().all(|file| !file.unwrap().path().ends_with(".tmp")));
        (summary, fs::read(&targets.parquet).unwrap(), fs::read_to_string(&targets.csv).unwrap())
    }
}

fn generous() -> Ledger {
    Ledger::new(1 << 40)
}

const WIDE: Room = Room { keys: 1 << 20, span: 1 << 20, held: 0, group: 64, ahead: false };

fn columns_of(csv_text: &str, names: &[&str]) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_reader(csv_text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let places: Vec<usize> = names.iter().map(|n| header.iter().position(|h| h == *n).unwrap()).collect();
    reader.records().map(|r| r.unwrap()).map(|r| places.iter().map(|p| r[*p].to_owned()).collect()).collect()
}

#[test]
fn bytes_do_not_depend_on_memory_or_on_how_the_run_is_cut() {
    let run = Run::of(1000, 128);
    let (summary, parquet, csv) = run.write(&WIDE);
    // From one row group at a time with few keys per pass and rows through a file, to everything at once.
    for (keys, span) in [(7, 64), (100, 64), (64, 128), (999, 512), (1000, 64), (1000, 300), (1 << 20, 1)] {
        for threads in [1, 2] {
            // None, some, or all of the row groups stay in memory.
            let held = [0, 200, 1 << 20][(keys + span + threads) % 3];
            let room = Room { keys, span, held, group: 64, ahead: threads > 1 };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok().filter(|_| threads > 1);
            let (again, parquet_again, csv_again) = run.write_on(&room, pool);
            assert!(parquet == parquet_again, "keys {keys}, span {span}, {threads} threads");
            assert_eq!(csv, csv_again);
            assert_eq!(summary, again);
        }
    }
    let read_back = run.kept.get(0).is_none();
    assert!(read_back);
    for index in 0..run.plan.count() {
        let path = run.dir.path().join(file_name(index));
        run.kept.keep(index, read_chunk(&path, &run.schema, &run.fingerprint, run.plan.trials(index)).unwrap());
        fs::remove_file(path).unwrap();
    }
    let (again, parquet_again, csv_again) = run.write(&WIDE);
    assert!(parquet == parquet_again && csv == csv_again && summary == again, "chunks kept in memory");
    let (other_summary, other_parquet, other_csv) = Run::of(1000, 300).write(&WIDE);
    assert!(parquet == other_parquet);
    assert_eq!((summary, csv), (other_summary, other_csv));
}

#[test]
fn every_row_has_its_rank_and_stands_where_the_total_order_says() {
    let run = Run::of(1000, 256);
    let (summary, _, text) = run.write(&WIDE);
    let found = columns_of(&text, &["rank", "trial", "status"]);
    let mut expected: Vec<(RankKey, u64)> = run
        .rows
        .iter()
        .map(|row| {
            let values = match &row.outcome {
                Outcome::Done { values, .. } => Some(*values),
                Outcome::Failed { .. } => None,
            };
            let judgement = judge(&run.objective, &run.gates, values.as_ref());
            (RankKey::of(Goal::Maximize, &judgement, values.as_ref(), row.config_hash), row.trial)
        })
        .collect();
    expected.sort();
    for (i, (cells, (key, trial))) in found.iter().zip(&expected).enumerate() {
        assert_eq!(cells[..], [(i + 1).to_string(), trial.to_string(), key.verdict().as_str().to_owned()]);
    }
    assert_eq!(summary.rows, 1000);
    assert_eq!(found.len(), 1000);
    assert_eq!(summary.by_verdict.iter().sum::<u64>(), 1000);
    assert!(Verdict::ALL.into_iter().all(|verdict| summary.count(verdict) > 0), "{:?}", summary.by_verdict);
    assert_eq!(summary.distinct_rules, 500);
    assert_eq!((summary.duplicates, summary.csv_left_out()), (0, 0));
}

#[test]
fn the_best_settings_are_shown_once_per_rules_hash() {
    let run = Run::of(1000, 256);
    let (summary, ..) = run.write(&WIDE);
    assert_eq!(summary.top.len(), 5);
    assert_eq!(summary.top[0].rank, 1);
    assert!(summary.top.windows(2).all(|pair| pair[0].rank < pair[1].rank));
    for top in &summary.top {
        let original = &run.rows[top.trial as usize];
        assert_eq!((top.config_hash, top.rules_hash), (original.config_hash, original.rules_hash));
        assert_eq!(top.rng_seed, original.rng_seed);
        // Neighbours share a rules hash in the sample rows.
        assert_eq!(top.sharing, 2);
        assert!(matches!(&original.outcome, Outcome::Done { values, .. } if *values == top.values));
        let mut expected = Vec::new();
        params(top.trial, &mut expected);
        assert_eq!(top.params, expected);
    }
}

#[test]
fn equal_config_hashes_are_one_trial_wherever_a_pass_ends() {
    let mut rows: Vec<Row> = (0..300).map(row).collect();
    for i in 0..100 {
        rows[200 + i] = Row { trial: 200 + i as u64, ..rows[i].clone() };
    }
    let run = Run::new(rows, 64);
    let (summary, parquet, _) = run.write(&WIDE);
    assert_eq!((summary.rows, summary.duplicates), (200, 100));
    for keys in [1, 2, 3, 50] {
        let (again, parquet_again, text) = run.write(&Room { keys, ..WIDE });
        assert_eq!(again, summary);
        assert!(parquet_again == parquet);
        assert!(columns_of(&text, &["trial"]).iter().all(|cells| cells[0].parse::<u64>().unwrap() < 200));
    }
}

#[test]
fn the_csv_is_rounded_by_unit_and_null_is_empty() {
    let mut values = MetricValues::UNDEFINED;
    values.set(Metric::TotalTrades, Some(60.0));
    values.set(Metric::ProfitNet, Some(1_234.565_001));
    values.set(Metric::WinRate, Some(2.0 / 3.0));
    values.set(Metric::AvgTradePnl, Some(-0.001));
    values.set(Metric::SharpeEquityDaily, Some(0.123_456_789));
    let outcome = Outcome::Done { values, no_trade_reason: None };
    let run = Run::new(vec![Row { outcome, ..row(0) }, Row { trial: 1, ..row(12) }, Row { trial: 2, ..row(10) }], 256);
    let (_, _, text) = run.write(&WIDE);
    let names = [
        "objective",
        "total_trades",
        "profit_net",
        "win_rate",
        "avg_trade_pnl",
        "calmar_ratio",
        "param.z",
        "status",
        "reason",
    ];
    let cells = columns_of(&text, &names);
    assert_eq!(cells[0], ["0.123457", "60", "1234.57", "0.666667", "0", "", "-2", "ok", ""]);
    assert_eq!(cells[1][7..], ["no_score", "no_signal"]);
    assert_eq!(cells[2][7..], ["failed", "E4003: needs 10: bars, \"more\""]);
    assert!(text.starts_with("rank,trial,config_hash,rules_hash,status,reason,objective,param.length,"));
}

#[test]
fn parquet_keeps_numbers_unrounded_in_row_groups() {
    let run = Run::of(200, 64);
    let (_, parquet, _) = run.write(&WIDE);
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes_of(parquet)).unwrap();
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [64, 64, 64, 8]);
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
    let first = &batches[0];
    assert_eq!(first.schema().fields(), run.schema.leaderboard().fields());
    let trial = first.column_by_name("trial").unwrap().as_primitive::<UInt64Type>().value(0);
    let objective = first.column_by_name("objective").unwrap();
    let objective = objective.as_primitive::<arrow_array::types::Float64Type>().value(0);
    let Outcome::Done { values, .. } = &run.rows[trial as usize].outcome else { panic!("rank 1 failed") };
    assert_eq!(Some(objective), values.get(Metric::SharpeEquityDaily));
}

fn bytes_of(parquet: Vec<u8>) -> fs::File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&parquet).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn the_csv_may_hold_fewer_rows_and_an_empty_run_gives_empty_files() {
    let run = Run::of(100, 64);
    let summary = write(&run.sources(), &run.targets(Some(10)), &generous()).unwrap();
    assert_eq!((summary.rows, summary.csv_rows, summary.csv_left_out()), (100, 10, 90));
    assert_eq!(fs::read_to_string(run.targets(None).csv).unwrap().lines().count(), 11);
    let empty = Run::of(0, 64);
    let summary = write(&empty.sources(), &empty.targets(None), &Ledger::new(1000)).unwrap();
    assert_eq!(summary, Summary { gates: vec![0], ..Summary::default() });
    assert_eq!(fs::read_to_string(empty.targets(None).csv).unwrap().lines().count(), 1);
}

#[test]
fn memory_is_asked_for_and_given_back() {
    let run = Run::of(300, 64);
    let least = least_memory(&run.schema, &run.plan);
    let ledger = Ledger::new(least);
    write(&run.sources(), &run.targets(None), &ledger).unwrap();
    assert_eq!(ledger.used(), 0);
    assert!(ledger.peak() <= least);
    let error = write(&run.sources(), &run.targets(None), &Ledger::new(least / 8)).unwrap_err();
    assert!(matches!(error, LeaderboardError::Memory { needed, .. } if needed == least), "{error}");
}

#[test]
fn a_missing_chunk_leaves_the_earlier_leaderboard() {
    let run = Run::of(300, 64);
    let targets = run.targets(None);
    write(&run.sources(), &targets, &generous()).unwrap();
    let before = fs::read(&targets.parquet).unwrap();
    fs::remove_file(run.dir.path().join(file_name(2))).unwrap();
    let error = write(&run.sources(), &targets, &generous()).unwrap_err();
    assert!(error.to_string().contains("chunk-000002.parquet: cannot open it"), "{error}");
    assert_eq!(fs::read(&targets.parquet).unwrap(), before);
    assert!(fs::read_dir(run.dir.path()).unwrap().all(|e| e.unwrap().path().extension().is_some_and(|x| x != "tmp")));
}
