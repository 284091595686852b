//! Many backtests on the same bars, evaluated together: what a thread of a search works on at a time.
//!
//! A job is a resolved setting on a range of bars; walk-forward windows of one setting are jobs like any others. Each
//! result is that of the job alone, to the bit, whatever else is in the tile.

use std::ops::Range;

use crate::backtest::setup::Prepared;
use crate::backtest::walk::Nobody;
use crate::error::Result;
use crate::metrics::{Counters, MetricValues};
use crate::portfolio::Trade;
use crate::rules::Condition;

/// One backtest of a tile.
#[derive(Clone)]
pub struct Job<'a> {
    /// The setting.
    pub setting: &'a Prepared,
    /// Tradable bars.
    pub bars: Range<usize>,
    /// What is open on the last bar is closed there.
    pub close_at_end: bool,
}

impl<'a> Job<'a> {
    /// A setting on the bars of its own configuration.
    pub fn whole(setting: &'a Prepared) -> Self {
        let plan = setting.plan();
        Self { setting, bars: plan.bars.clone(), close_at_end: plan.close_at_end }
    }
}

/// What a search keeps of a backtest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluated {
    /// Metrics, all finite or undefined.
    pub values: MetricValues,
    /// Counts.
    pub counters: Counters,
}

/// Memory a thread reuses from tile to tile.
#[derive(Debug, Default)]
pub struct Workspace {
    trades: Vec<Trade>,
}

impl Workspace {
    /// Runs every job; results in the order of `jobs`. `shared` says of a condition that settings of other tiles ask it
    /// too, so that its answers are worth keeping.
    pub fn run(&mut self, jobs: &[Job<'_>], shared: &dyn Fn(&Condition) -> bool) -> Vec<Result<Evaluated>> {
        let _ = shared;
        jobs.iter().map(|job| self.run_alone(job)).collect()
    }

    fn run_alone(&mut self, job: &Job<'_>) -> Result<Evaluated> {
        let mut plan = job.setting.plan().clone();
        plan.bars = job.bars.clone();
        plan.close_at_end = job.close_at_end;
        let walked = job.setting.walk_on(&plan, std::mem::take(&mut self.trades), &mut Nobody)?;
        let outcome = job.setting.judge(walked)?;
        self.trades = outcome.walked.trades;
        Ok(Evaluated { values: outcome.summary.values, counters: outcome.walked.counters })
    }
}
