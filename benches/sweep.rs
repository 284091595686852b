//! Whole sweeps, one thread: W1 (`sma_cross`) and W3 (`mean_reversion_z_score`) of `benches/README.md` on 200,000
//! generated M5 bars, and W3 on real silver.
//!
//! Inside the clock: `Sweep::run`, that is columns, evaluation of every setting, chunk files, ranking, leaderboard as
//! Parquet and CSV, each file flushed and renamed. Outside: making, checking, hashing and mapping the bars, reading the
//! grid, opening the run folder. Throughput is settings per second.
//!
//! Before timing, the answers are asserted: every setting ranked, traded and scored, and one and two threads give the
//! same leaderboard to the byte. That they equal a plain loop per setting is shown in `tests/reference.rs`.

#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a bench fails loudly and says what it skips")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::data::{Sources, SyntheticSource, synthetic};
use engine::units::Timeframe;
use optimizer::driver::Observer;
use optimizer::objective::Verdict;
use optimizer::sweep::{Experiment, Options, Report, Sweep};
use tempfile::TempDir;

const BARS: SyntheticSource = SyntheticSource { seed: 7, bars: 200_000 };

struct Quiet;

impl Observer for Quiet {}

/// A grid of the repository on bars of one folder.
struct Workload {
    grid: &'static str,
    settings: u64,
    bars: PathBuf,
    scratch: TempDir,
}

impl Workload {
    fn new(grid: &'static str, settings: u64, bars: &Path) -> Self {
        Self { grid, settings, bars: bars.to_owned(), scratch: tempfile::tempdir().unwrap() }
    }

    fn open(&self, threads: usize) -> Sweep {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sources = Sources {
            parquet_root: self.bars.clone(),
            news_file: self.scratch.path().join("news.parquet"),
            costs_file: repository.join("configs/execution_costs.yaml"),
            specs_file: repository.join("configs/symbol_specs.yaml"),
            cache_dir: self.scratch.path().join("cache"),
            env_overrides: Vec::new(),
            memory: Vec::new(),
        };
        let grid = repository.join(format!("grids/{}.yaml", self.grid));
        let experiment = Experiment::read(&grid, &[]).unwrap_or_else(|error| panic!("{error}"));
        let out = Some(self.scratch.path().join("out"));
        let options =
            Options { set: Vec::new(), out, threads, memory: Some(4 << 30), fresh: true, shard: None, reuse: None };
        Sweep::open(experiment, &options, &sources).unwrap_or_else(|error| panic!("{error}"))
    }

    fn run(sweep: Sweep) -> Report {
        sweep.run(&AtomicBool::new(false), &Quiet).unwrap_or_else(|error| panic!("{error}"))
    }

    fn check(&self) {
        let leaderboards = [1, 2].map(|threads| {
            let report = Self::run(self.open(threads));
            let ranked = report.ranked.unwrap();
            assert_eq!((ranked.summary.rows, ranked.summary.count(Verdict::Ok)), (self.settings, self.settings));
            std::fs::read(report.folder.join("leaderboard.parquet")).unwrap()
        });
        assert!(leaderboards[0] == leaderboards[1], "{}: one and two threads disagree", self.grid);
    }

    fn bench(&self, criterion: &mut Criterion, name: &str) {
        self.check();
        let mut group = criterion.benchmark_group("sweep");
        group.throughput(Throughput::Elements(self.settings)).sample_size(10).measurement_time(Duration::from_secs(20));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| self.open(1), Self::run, BatchSize::PerIteration);
        });
        group.finish();
    }
}

fn generated(criterion: &mut Criterion) {
    let bars = tempfile::tempdir().unwrap();
    synthetic::write(bars.path(), "EURUSD", Timeframe::M5, BARS).unwrap_or_else(|error| panic!("{error}"));
    Workload::new("bench_sma_1000", 1000, bars.path()).bench(criterion, "w1_sma_cross_200k");
    Workload::new("bench_mrz1", 1000, bars.path()).bench(criterion, "w3_mean_reversion_200k");
}

/// `OMEGA_TEST_DATA`, else the place beside the repository where the tests look too.
fn silver(criterion: &mut Criterion) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("OMEGA_TEST_DATA").map(|folder| workspace.join(folder));
    let data = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    if data.join("XAGUSD").is_dir() {
        Workload::new("bench_mrz1_xagusd", 1000, &data).bench(criterion, "w3_mean_reversion_silver");
    } else {
        eprintln!("sweep/w3_mean_reversion_silver: skipped, no bars at {}", data.display());
    }
}

criterion_group!(benches, generated, silver);
criterion_main!(benches);
