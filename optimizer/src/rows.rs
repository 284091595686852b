//! What a sweep keeps of a trial: one row of metrics.

use std::path::Path;

use engine::Error;
use engine::backtest::Prepared;
use engine::backtest::tile::{Evaluated, Job};
use engine::backtest::walk::Nobody;
use engine::error;
use engine::metrics::{Counters, Metric, MetricValues};

use crate::atomic::FileError;
use crate::chunk::{Chunk, ChunkPlan, Kept, read_chunk, write_chunk};
use crate::driver::{Done, Observer, Work};
use crate::fingerprint::Fingerprint;
use crate::reuse::{Wanted, read_rows};
use crate::row::{Outcome, Row, RowSchema};
use crate::run_folder::RunFolder;
use crate::search::Trials;
use crate::trial::TrialConfigs;

/// One row per trial, in the chunk files of a run folder.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Settings by number.
    pub trials: &'a Trials,
    /// Values by setting.
    pub configs: &'a TrialConfigs,
    /// Where chunks go.
    pub folder: &'a RunFolder,
    /// How trials are cut into chunks.
    pub plan: ChunkPlan,
    /// Columns of a chunk.
    pub schema: &'a RowSchema,
    /// Chunks for the ranking.
    pub kept: &'a Kept,
    /// What decides the rows.
    pub fingerprint: &'a Fingerprint,
}

impl Work for Rows<'_> {
    type Outcome = Outcome;
    type Stored = Chunk;

    fn jobs<'p>(&self, setting: &'p Prepared, jobs: &mut Vec<Job<'p>>) {
        jobs.push(Job::whole(setting));
    }

    fn outcome(&self, setting: &Prepared, results: &[error::Result<Evaluated>]) -> Result<Outcome, Error> {
        match results {
            [Ok(Evaluated { values, counters })] => done(setting, *values, counters),
            [Err(error)] => Ok(failed(error)),
            _ => Err(Error::Internal(format!("{} results for one backtest", results.len()))),
        }
    }

    fn failed(&self, code: String, reason: String) -> Outcome {
        Outcome::Failed { code, reason }
    }

    fn tell(&self, outcome: &Outcome, sharing: u64, observer: &dyn Observer) {
        observer.evaluated(outcome, sharing);
    }

    fn write(&self, chunk: u64, trials: &[Done<'_, Outcome>]) -> Result<(), FileError> {
        let mut settings = self.trials.settings(self.plan.trials(chunk));
        let written =
            write_chunk(&self.folder.chunk(chunk), self.schema, self.fingerprint, trials, &mut |_, values| {
                if let Some(setting) = settings.next() {
                    self.configs.cells(&setting, values);
                }
            })?;
        self.kept.keep(chunk, written);
        Ok(())
    }

    fn read(&self, chunk: u64) -> Option<Chunk> {
        read_chunk(&self.folder.chunk(chunk), self.schema, self.fingerprint, self.plan.trials(chunk)).ok()
    }

    fn recall(&self, stored: &Chunk, row: usize, rules_hash: &[u8; 8]) -> Option<Outcome> {
        let row = stored.row(self.schema, row)?;
        (row.rules_hash == *rules_hash).then_some(row.outcome)
    }

    fn recall_earlier(&self, path: &Path, wanted: &[Wanted<'_>]) -> Vec<Option<Outcome>> {
        let earlier = read_rows(path, self.fingerprint);
        let recall = |wanted: &Wanted<'_>| {
            let (schema, chunk) = earlier.as_ref()?;
            let row = chunk.row(schema, wanted.row)?;
            wanted.is(&row.config_hash, row.rng_seed).then_some(row.outcome)
        };
        wanted.iter().map(recall).collect()
    }

    fn trial_bytes(&self) -> usize {
        trial_bytes(self.schema)
    }
}

/// Memory of one trial in work: its row, and the row twice as columns while it is written.
pub fn trial_bytes(schema: &RowSchema) -> usize {
    size_of::<Row>() + 2 * schema.row_bytes()
}

/// What the row of a failed trial says.
pub(crate) fn failed(error: &Error) -> Outcome {
    Outcome::Failed { code: error.code().to_owned(), reason: error.to_string() }
}

fn done(setting: &Prepared, values: MetricValues, counters: &Counters) -> Result<Outcome, Error> {
    let traded = values.get(Metric::TotalTrades).is_some_and(|n| n > 0.0);
    let no_trade_reason = if traded { None } else { Some(setting.why_no_trade(counters)?) };
    Ok(Outcome::Done { values, no_trade_reason })
}

/// What the row of a prepared trial says when it is recomputed: always walked.
///
/// # Errors
/// Whatever ends the backtest: the reason of a failed row.
pub(crate) fn walked(setting: &Prepared) -> Result<Outcome, Error> {
    let outcome = setting.run(Vec::new(), &mut Nobody)?;
    done(setting, outcome.summary.values, &outcome.walked.counters)
}
