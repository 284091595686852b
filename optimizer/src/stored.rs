//! A run folder read back: its grid, its rows, and any row recomputed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{Array as _, RecordBatch, StringArray, UInt64Array};
use engine::Error;
use engine::backtest::Environment;
use engine::data::Sources;
use engine::metrics::Metric;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value;

use crate::atomic::FileError;
use crate::chunk::{Chunk, ChunkPlan, read_chunk};
use crate::error::CommandError;
use crate::fingerprint::{Fingerprint, hex};
use crate::plan::memory::{Ledger, default_cap};
use crate::row::{Outcome, Row, RowSchema};
use crate::rows::{failed, walked};
use crate::space::Setting;
use crate::sweep::{ENGINE_VERSION, Experiment, MASTER_LINE, usage};
use crate::trial::TrialConfigs;

/// A finished sweep on disk.
pub struct StoredRun {
    path: PathBuf,
    experiment: Experiment,
    schema: RowSchema,
    plan: ChunkPlan,
    fingerprint: Fingerprint,
    configs: TrialConfigs,
}

/// A row and where it stands.
pub struct StoredRow {
    /// Position in the leaderboard, from 1; none if the leaderboard does not hold it.
    pub rank: Option<u64>,
    /// The row.
    pub row: Row,
    /// Its setting.
    pub setting: Setting,
}

impl StoredRun {
    /// Opens a run folder. Nothing in it is changed.
    ///
    /// # Errors
    /// No run folder, or files that are not what a sweep writes.
    pub fn open(path: &Path) -> Result<Self, CommandError> {
        let lock = path.join("grid.lock.yaml");
        if !lock.is_file() {
            return Err(usage(
                &path.display().to_string(),
                "is no run folder: grid.lock.yaml is not there",
                "a run folder is <output root>/<name>-<hash8>, as a sweep names it at its end",
            ));
        }
        let experiment = Experiment::read(&lock, &[])?;
        let manifest = path.join("manifest.json");
        let text = std::fs::read_to_string(&manifest).map_err(|e| FileError::io(&manifest, "read it", e))?;
        let document: Value = serde_json::from_str(&text)
            .map_err(|e| usage(&manifest.display().to_string(), format!("is no JSON: {e}"), "run the sweep again"))?;
        if let Some(shard) = document["shard"].as_str() {
            return Err(usage(
                &path.display().to_string(),
                format!("is shard {shard} of a run: it has no ranked rows"),
                "`omega-opt merge` puts the shards together",
            ));
        }
        if document["command"] == "walkforward" {
            return Err(usage(
                &path.display().to_string(),
                "is a walk-forward: it has windows and no ranked rows",
                "windows.csv has its choices; `omega-opt run` makes those below windows/ again",
            ));
        }
        let parts = document["fingerprint"].as_object().into_iter().flatten();
        let fingerprint =
            Fingerprint::new(parts.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())));
        let lock_text = std::fs::read_to_string(&lock).map_err(|e| FileError::io(&lock, "read it", e))?;
        let master = lock_text.lines().find_map(|line| line.strip_prefix(MASTER_LINE)?.trim().parse().ok());
        let space = Arc::clone(experiment.trials.space());
        Ok(Self {
            path: path.to_owned(),
            schema: RowSchema::of(&space),
            plan: experiment.chunks(),
            fingerprint,
            configs: TrialConfigs::new(space, experiment.config.document.clone(), master),
            experiment,
        })
    }

    /// The grid as it ran.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// Columns of its rows.
    pub fn schema(&self) -> &RowSchema {
        &self.schema
    }

    /// Configs of its settings.
    pub fn configs(&self) -> &TrialConfigs {
        &self.configs
    }

    /// Number of trials.
    pub fn trials(&self) -> u64 {
        self.plan.total()
    }

    /// Rows of one chunk.
    ///
    /// # Errors
    /// A chunk that is missing, damaged or foreign.
    pub fn chunk(&self, index: u64) -> Result<Chunk, CommandError> {
        let path = self.path.join("chunks").join(crate::chunk::file_name(index));
        Ok(read_chunk(&path, &self.schema, &self.fingerprint, self.plan.trials(index))?)
    }

    /// How trials are cut.
    pub fn plan(&self) -> &ChunkPlan {
        &self.plan
    }

    /// The row of an ID: a rank (`3`), a trial (`t417`) or a prefix of the config hash (`h3fa9c1`).
    ///
    /// # Errors
    /// An ID that names no row or several.
    pub fn find(&self, id: &str) -> Result<StoredRow, CommandError> {
        let unknown =
            |reason: String| usage(id, reason, "an ID is a rank (3), a trial (t417) or a hash prefix (h3fa9c1)");
        let (trial, rank) = if let Some(number) = id.strip_prefix('t') {
            let trial = number.parse().map_err(|_| unknown("is no trial number".to_owned()))?;
            if trial >= self.trials() {
                return Err(unknown(format!("the run has trials 0 to {}", self.trials() - 1)));
            }
            (trial, self.place(|_, found, _| found == trial)?.first().map(|(rank, _)| *rank))
        } else if let Some(prefix) = id.strip_prefix('h') {
            let found = self.place(|_, _, hash| hash.starts_with(prefix))?;
            match found[..] {
                [(rank, trial)] => (trial, Some(rank)),
                [] => return Err(unknown("no config hash begins with it".to_owned())),
                _ => return Err(unknown(format!("{} config hashes begin with it", found.len()))),
            }
        } else {
            let rank: u64 = id.parse().map_err(|_| unknown("is no rank".to_owned()))?;
            match self.place(|found, _, _| found == rank)?[..] {
                [(rank, trial)] => (trial, Some(rank)),
                _ => return Err(unknown("the leaderboard has no such rank".to_owned())),
            }
        };
        let index = self.plan.chunk_of(trial);
        let row = usize::try_from(trial - self.plan.trials(index).start).ok();
        let row = row.and_then(|row| self.chunk(index).ok()?.row(&self.schema, row));
        let setting = self.experiment.trials.setting(trial);
        match (row, setting) {
            (Some(row), Some(setting)) => Ok(StoredRow { rank, row, setting }),
            _ => {
                self.chunk(index)?;
                Err(unknown("its chunk does not hold it".to_owned()))
            }
        }
    }

    /// Rank and trial of the leaderboard's rows that `wanted` accepts, by rank, trial and config hash.
    fn place(&self, wanted: impl Fn(u64, u64, &str) -> bool) -> Result<Vec<(u64, u64)>, CommandError> {
        let path = self.path.join("leaderboard.parquet");
        let mut found = Vec::new();
        for batch in leaderboard(&path)? {
            let batch = batch.map_err(|e| FileError::Format { path: path.clone(), reason: e.to_string() })?;
            let (Some(rank), Some(trial), Some(hash)) = (
                column::<UInt64Array>(&batch, "rank"),
                column(&batch, "trial"),
                column::<StringArray>(&batch, "config_hash"),
            ) else {
                let reason = "rank, trial or config_hash is missing".to_owned();
                return Err(FileError::Format { path, reason }.into());
            };
            let trial: &UInt64Array = trial;
            for i in 0..batch.num_rows() {
                if wanted(rank.value(i), trial.value(i), hash.value(i)) {
                    found.push((rank.value(i), trial.value(i)));
                }
            }
        }
        Ok(found)
    }

    /// The bars and columns of the run, loaded again. What differs from then is told as warnings.
    ///
    /// # Errors
    /// Data errors.
    pub fn environment(&self, sources: &Sources) -> Result<(Environment, Vec<String>), CommandError> {
        let ledger = Arc::new(Ledger::within(default_cap()));
        let environment = Environment::open(&self.experiment.config, &self.experiment.timeframes, sources, ledger)?;
        let now = [("data", environment.manifest().sha256()), ("engine_version", ENGINE_VERSION.to_owned())];
        let then =
            |name: &str| self.fingerprint.parts().find(|(part, _)| *part == name).map(|(_, value)| value.to_owned());
        let warnings =
            now.into_iter().filter(|(name, value)| then(name).as_ref() != Some(value)).map(|(name, value)| {
                format!("{name} is {value} now and was {} in the run", then(name).unwrap_or_default())
            });
        let warnings = warnings.collect();
        Ok((environment, warnings))
    }

    /// A row evaluated anew, walked bar by bar.
    ///
    /// # Errors
    /// A setting that contradicts itself.
    pub fn recompute(&self, environment: &Environment, setting: &Setting) -> Result<Row, Error> {
        let trial = self.configs.trial(setting)?;
        let mut rules_hash = [0; 8];
        let outcome = environment.prepare(&trial.config, trial.rng_seed).and_then(|prepared| {
            rules_hash = prepared.rules_hash();
            walked(&prepared)
        });
        Ok(Row {
            trial: setting.trial,
            config_hash: trial.config_hash,
            rules_hash,
            outcome: outcome.unwrap_or_else(|error| failed(&error)),
            rng_seed: trial.rng_seed,
        })
    }
}

/// What two rows of the same trial differ in, one line each; empty if every bit is equal.
pub fn differences(stored: &Row, computed: &Row) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, stored: String, computed: String| {
        if stored != computed {
            lines.push(format!("{what}: {stored} stored, {computed} recomputed"));
        }
    };
    compare("config_hash", hex(&stored.config_hash), hex(&computed.config_hash));
    compare("rules_hash", hex(&stored.rules_hash), hex(&computed.rules_hash));
    compare("rng_seed", stored.rng_seed.to_string(), computed.rng_seed.to_string());
    match (&stored.outcome, &computed.outcome) {
        (Outcome::Done { values: a, no_trade_reason: x }, Outcome::Done { values: b, no_trade_reason: y }) => {
            compare("reason", format!("{x:?}"), format!("{y:?}"));
            for metric in Metric::ALL {
                let text = |value: Option<f64>| value.map_or_else(|| "null".to_owned(), |x| format!("{x:?}"));
                compare(metric.key(), text(a.get(metric)), text(b.get(metric)));
            }
        }
        (a, b) => compare("outcome", format!("{a:?}"), format!("{b:?}")),
    }
    lines
}

fn leaderboard(path: &Path) -> Result<ParquetRecordBatchReader, CommandError> {
    let unreadable = |e: parquet::errors::ParquetError| FileError::parquet(path, "read it", e);
    let file = File::open(path).map_err(|e| FileError::io(path, "open it", e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(unreadable)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["rank", "trial", "config_hash"]);
    Ok(builder.with_projection(mask).build().map_err(unreadable)?)
}

fn column<'a, A: 'static>(batch: &'a RecordBatch, name: &str) -> Option<&'a A> {
    batch.column_by_name(name)?.as_any().downcast_ref()
}
