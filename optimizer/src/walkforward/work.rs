//! What a walk-forward keeps of a trial, for the driver: one small cell per part of a window.

use std::path::Path;

use engine::Error;
use engine::backtest::tile::{Evaluated, Job, Workspace};
use engine::backtest::{Environment, Prepared};
use engine::error;
use engine::metrics::MetricValues;

use crate::atomic::FileError;
use crate::driver::{Done, Observer, Work};
use crate::error::guarded;
use crate::reuse::Wanted;
use crate::row;
use crate::search::Trials;
use crate::trial::TrialConfigs;
use crate::walkforward::cells::{Cell, Cells, Layout, Outcome};
use crate::walkforward::choice::{Chunks, best_of_chunk};
use crate::walkforward::chunk_file::{self, CellChunk, CellSchema};

/// Cells of every trial, in the chunk files of a run folder.
#[derive(Clone, Copy)]
pub struct WindowCells<'a> {
    /// Where chunks go, what is in them, what ranks.
    pub chunks: Chunks<'a>,
    /// Bars and columns.
    pub environment: &'a Environment,
    /// Settings by number.
    pub trials: &'a Trials,
    /// Configs by setting.
    pub configs: &'a TrialConfigs,
}

impl Work for WindowCells<'_> {
    type Outcome = Outcome;
    type Stored = CellChunk;

    fn jobs<'p>(&self, setting: &'p Prepared, jobs: &mut Vec<Job<'p>>) {
        jobs.extend(self.chunks.layout.jobs(setting));
    }

    fn jobs_per_setting(&self) -> usize {
        self.chunks.layout.spans().len()
    }

    fn outcome(&self, _: &Prepared, results: &[error::Result<Evaluated>]) -> Result<Outcome, Error> {
        let judges = self.chunks.judges;
        Ok(Outcome::Done(Cells::judge(results, judges.objective, judges.gates)))
    }

    fn failed(&self, code: String, reason: String) -> Outcome {
        Outcome::Failed { code, reason }
    }

    fn tell(&self, outcome: &Outcome, sharing: u64, observer: &dyn Observer) {
        // Windows have no best in common: nothing is told but that the trial is done.
        let told = match outcome {
            Outcome::Done(_) => row::Outcome::Done { values: MetricValues::UNDEFINED, no_trade_reason: None },
            Outcome::Failed { code, reason } => row::Outcome::Failed { code: code.clone(), reason: reason.clone() },
        };
        observer.evaluated(&told, sharing);
    }

    fn write(&self, chunk: u64, trials: &[Done<'_, Outcome>]) -> Result<(), FileError> {
        let Chunks { folder, schema, fingerprint, layout, judges, .. } = self.chunks;
        let path = folder.chunk(chunk);
        let mut metrics = |row: &Done<'_, Outcome>, span: usize| guarded(|| self.metrics(row.trial, span));
        // Each was evaluated a moment ago; what fails now is not the trial's fault.
        let best = best_of_chunk(layout, judges, trials, &mut metrics)
            .map_err(|error| FileError::Format { path: path.clone(), reason: error.to_string() })?;
        chunk_file::write(&path, schema, layout, fingerprint, trials, &best)
    }

    fn read(&self, chunk: u64) -> Option<CellChunk> {
        self.chunks.read(chunk).ok()
    }

    fn recall(&self, stored: &CellChunk, row: usize, rules_hash: &[u8; 8]) -> Option<Outcome> {
        (stored.identity(row)?.rules_hash == *rules_hash).then(|| stored.outcome(self.chunks.layout, row))?
    }

    fn recall_earlier(&self, path: &Path, wanted: &[Wanted<'_>]) -> Vec<Option<Outcome>> {
        let Chunks { schema, fingerprint, layout, .. } = self.chunks;
        let earlier = chunk_file::read_earlier(path, schema, fingerprint);
        let recall = |wanted: &Wanted<'_>| {
            let chunk = earlier.as_ref()?;
            let identity = chunk.identity(wanted.row)?;
            wanted.is(&identity.config_hash, identity.rng_seed).then(|| chunk.outcome(layout, wanted.row))?
        };
        wanted.iter().map(recall).collect()
    }

    fn trial_bytes(&self) -> usize {
        trial_bytes(self.chunks.layout, self.chunks.schema)
    }
}

/// Memory of one trial in work: its cells, and its row twice as columns while it is written.
pub fn trial_bytes(layout: &Layout, schema: &CellSchema) -> usize {
    size_of::<Outcome>() + layout.spans().len() * size_of::<Cell>() + 2 * schema.row_bytes()
}

impl WindowCells<'_> {
    /// The metrics of one trial on one span, evaluated again.
    fn metrics(&self, trial: u64, span: usize) -> Result<MetricValues, Error> {
        let missing = |what: &str| Error::Internal(format!("trial {trial} has no {what}"));
        let setting = self.trials.setting(trial).ok_or_else(|| missing("setting"))?;
        let config = self.configs.trial(&setting)?;
        let prepared = self.environment.prepare(&config.config, config.rng_seed)?;
        let job = self.chunks.layout.jobs(&prepared).nth(span).ok_or_else(|| missing("such span"))?;
        let result = Workspace::default().run(&[job], &|_| false).pop();
        Ok(result.ok_or_else(|| missing("result"))??.values)
    }
}
