//! Which setting a window chooses: the best on train by the total order, among those that pass the gates; and where it
//! stands on test among all settings.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use engine::Error;
use engine::metrics::MetricValues;
use rayon::prelude::*;

use crate::chunk::{ChunkError, ChunkPlan};
use crate::fingerprint::Fingerprint;
use crate::objective::{Gates, Goal, Objective, RankKey, Verdict, judge};
use crate::plan::memory::Ledger;
use crate::row::Done;
use crate::run_folder::RunFolder;
use crate::walkforward::cells::{Cell, Layout, Outcome};
use crate::walkforward::chunk_file::{self, Best, CellChunk, CellSchema, Identity, Part};
use crate::walkforward::stats::rank_correlation;

/// What ranks settings.
#[derive(Debug, Clone, Copy)]
pub struct Judges<'a> {
    /// The objective.
    pub objective: &'a Objective,
    /// The gates.
    pub gates: &'a Gates,
}

impl Judges<'_> {
    fn key(&self, values: &MetricValues, config_hash: [u8; 32]) -> RankKey {
        let judgement = judge(self.objective, self.gates, Some(values));
        RankKey::of(self.objective.goal, &judgement, Some(values), config_hash)
    }
}

/// The order by verdict and objective, all that a cell knows.
fn cell_key(goal: Goal, cell: Cell) -> RankKey {
    RankKey::new(goal, cell.verdict, cell.score, None, None, [0; 32])
}

/// Evaluates a row on a span again.
type Metrics<'m> = &'m mut dyn FnMut(&Done<'_, Outcome>, usize) -> Result<MetricValues, Error>;

/// The best train row of every window among the rows of one chunk. Cells keep no metrics, so `metrics` evaluates a row
/// on a span again: the best by verdict and objective, and those that tie with it, once per rule set.
///
/// # Errors
/// Those of `metrics`.
pub fn best_of_chunk(
    layout: &Layout,
    judges: Judges<'_>,
    rows: &[Done<'_, Outcome>],
    metrics: Metrics<'_>,
) -> Result<Vec<Best>, Error> {
    let goal = judges.objective.goal;
    let mut bests: Vec<Best> = Vec::new();
    // Windows of a matrix share trains: each span is worked out once.
    let mut by_span: BTreeMap<usize, Option<(usize, MetricValues)>> = BTreeMap::new();
    for (window, place) in layout.places().iter().enumerate() {
        let Some(span) = place.train else { continue };
        let found = match by_span.get(&span) {
            Some(found) => *found,
            None => {
                let found = best_on(span, goal, judges, rows, metrics)?;
                by_span.insert(span, found);
                found
            }
        };
        bests.extend(found.map(|(row, values)| Best { window, row, values }));
    }
    Ok(bests)
}

fn best_on(
    span: usize,
    goal: Goal,
    judges: Judges<'_>,
    rows: &[Done<'_, Outcome>],
    metrics: Metrics<'_>,
) -> Result<Option<(usize, MetricValues)>, Error> {
    let scored = rows.iter().enumerate().filter_map(|(at, row)| {
        let cell = row.outcome.cell(Some(span));
        cell.score.map(|_| (at, cell_key(goal, cell)))
    });
    let scored: Vec<(usize, RankKey)> = scored.collect();
    let Some((_, top)) = scored.iter().min_by(|a, b| a.1.cmp_score(&b.1)) else { return Ok(None) };
    let mut known: BTreeMap<[u8; 8], MetricValues> = BTreeMap::new();
    let mut best: Option<(RankKey, usize, MetricValues)> = None;
    for (at, _) in scored.iter().filter(|(_, key)| key.cmp_score(top) == Ordering::Equal) {
        let row = &rows[*at];
        let values = match known.get(&row.rules_hash) {
            Some(values) => *values,
            None => *known.entry(row.rules_hash).or_insert(metrics(row, span)?),
        };
        let key = judges.key(&values, *row.config_hash);
        if best.as_ref().is_none_or(|(best, ..)| key < *best) {
            best = Some((key, *at, values));
        }
    }
    Ok(best.map(|(_, at, values)| (at, values)))
}

/// The best train row of a window over all chunks.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Who it is.
    pub identity: Identity,
    /// Its place in the total order on train; `gated` if nothing passed.
    pub key: RankKey,
    /// Train objective, unrounded.
    pub score: Option<f64>,
    /// Train metrics.
    pub values: MetricValues,
    /// Its test cell.
    pub test: Cell,
}

/// What all settings did on one window.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WindowTally {
    /// The best on train, whether or not it passes the gates.
    pub best: Option<Chosen>,
    /// Settings per verdict on train, in the order of [`Verdict::ALL`].
    pub train: [u64; 4],
    /// Settings per verdict on test.
    pub test: [u64; 4],
    /// Position of [`WindowTally::best`] on test among all settings, from 1, by verdict and objective; settings that
    /// equal it in both share its rank. None if it has no score there.
    pub test_rank: Option<u64>,
    /// Spearman's correlation of train and test objective over the settings that pass the gates on train and have a
    /// score on test.
    pub rank_correlation: Option<f64>,
}

impl WindowTally {
    /// The choice: the best that passes the gates.
    pub fn choice(&self) -> Option<&Chosen> {
        self.best.as_ref().filter(|best| best.key.verdict() == Verdict::Ok)
    }

    /// Settings with a score on test.
    pub fn ranked_on_test(&self) -> u64 {
        self.test[Verdict::Ok as usize] + self.test[Verdict::Gated as usize]
    }
}

/// The chunks of a complete run.
#[derive(Clone, Copy)]
pub struct Chunks<'a> {
    /// Where they are.
    pub folder: &'a RunFolder,
    /// How trials are cut.
    pub plan: ChunkPlan,
    /// Their columns.
    pub schema: &'a CellSchema,
    /// What decides them.
    pub fingerprint: &'a Fingerprint,
    /// Windows.
    pub layout: &'a Layout,
    /// What ranks.
    pub judges: Judges<'a>,
}

/// Rows that failed, as a whole or in a cell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Failures {
    /// Trials by code.
    pub by_code: BTreeMap<String, u64>,
    /// Trials that failed as a whole.
    pub whole: u64,
    /// The failure with the smallest config hash: hash, code, reason.
    pub first: Option<([u8; 32], String, String)>,
}

impl Chunks<'_> {
    /// Reads a chunk and checks everything.
    ///
    /// # Errors
    /// A chunk that is missing, damaged or foreign.
    pub fn read(&self, index: u64) -> Result<CellChunk, ChunkError> {
        chunk_file::read(&self.folder.chunk(index), self.schema, self.fingerprint, self.plan.trials(index))
    }

    fn damaged(&self, index: u64) -> ChunkError {
        ChunkError::Damaged { path: self.folder.chunk(index), reason: "a digest is no digest".to_owned() }
    }

    /// Counts every cell and finds each window's best, its rank on test and the correlation of train and test. One pass
    /// over the chunks, and one per set of windows whose objectives fit the memory.
    ///
    /// # Errors
    /// A chunk that is missing, damaged or foreign.
    pub fn tally(&self, ledger: &Ledger) -> Result<(Vec<WindowTally>, Failures), ChunkError> {
        let mut tallies = vec![WindowTally::default(); self.layout.places().len()];
        let mut failures = Failures::default();
        for index in 0..self.plan.count() {
            let chunk = self.read(index)?;
            for (window, tally) in tallies.iter_mut().enumerate() {
                chunk.cells(window, Part::Train).for_each(|cell| tally.train[cell.verdict as usize] += 1);
                chunk.cells(window, Part::Test).for_each(|cell| tally.test[cell.verdict as usize] += 1);
            }
            for best in chunk.best() {
                let identity = chunk.identity(best.row).ok_or_else(|| self.damaged(index))?;
                let key = self.judges.key(&best.values, identity.config_hash);
                let tally = &mut tallies[best.window];
                if tally.best.as_ref().is_none_or(|old| key < old.key) {
                    let test = chunk.cells(best.window, Part::Test).nth(best.row).unwrap_or(Cell::EMPTY);
                    let score = self.judges.objective.score(&best.values);
                    tally.best = Some(Chosen { identity, key, score, values: best.values, test });
                }
            }
            self.count_failures(index, &chunk, &mut failures)?;
        }
        self.rank(&mut tallies, ledger)?;
        Ok((tallies, failures))
    }

    fn count_failures(&self, index: u64, chunk: &CellChunk, failures: &mut Failures) -> Result<(), ChunkError> {
        for row in 0..chunk.rows() {
            let Some((code, reason)) = chunk.failure(row) else { continue };
            *failures.by_code.entry(code.clone()).or_default() += 1;
            failures.whole += u64::from(chunk.failed(row));
            let hash = chunk.identity(row).ok_or_else(|| self.damaged(index))?.config_hash;
            if failures.first.as_ref().is_none_or(|(first, ..)| hash < *first) {
                failures.first = Some((hash, code, reason));
            }
        }
        Ok(())
    }

    fn rank(&self, tallies: &mut [WindowTally], ledger: &Ledger) -> Result<(), ChunkError> {
        let goal = self.judges.objective.goal;
        let trials = usize::try_from(self.plan.total()).unwrap_or(usize::MAX);
        // Two objectives per trial, their ranks and the order they are found by.
        let per_window = trials.saturating_mul(4 * size_of::<f64>() + size_of::<usize>());
        let mut from = 0;
        while from < tallies.len() {
            let wanted = tallies.len() - from;
            let granted = ledger.reserve_between(per_window, per_window.saturating_mul(wanted));
            // One window at a time is the least there is; a cap without room for it is exceeded rather than the night
            // lost: it is a few per cent of what its cells took on disk.
            let count = granted.as_ref().map_or(1, |granted| granted.bytes() / per_window.max(1)).clamp(1, wanted);
            let windows = &mut tallies[from..from + count];
            let mut pairs: Vec<[Vec<f64>; 2]> = vec![Default::default(); count];
            let mut better = vec![0_u64; count];
            for index in 0..self.plan.count() {
                let chunk = self.read(index)?;
                for (at, tally) in windows.iter().enumerate() {
                    let own = tally.best.as_ref().map(|best| cell_key(goal, best.test));
                    let cells = chunk.cells(from + at, Part::Train).zip(chunk.cells(from + at, Part::Test));
                    for (train, test) in cells {
                        let ahead =
                            own.as_ref().is_some_and(|own| cell_key(goal, test).cmp_score(own) == Ordering::Less);
                        better[at] += u64::from(ahead);
                        if let (Verdict::Ok, Some(x), Some(y)) = (train.verdict, train.score, test.score) {
                            pairs[at][0].push(x);
                            pairs[at][1].push(y);
                        }
                    }
                }
            }
            let correlations: Vec<Option<f64>> = pairs.par_iter().map(|[x, y]| rank_correlation(x, y)).collect();
            for ((tally, better), correlation) in windows.iter_mut().zip(better).zip(correlations) {
                let has_score = tally.best.as_ref().is_some_and(|best| best.test.score.is_some());
                tally.test_rank = has_score.then_some(better + 1);
                tally.rank_correlation = correlation;
            }
            from += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use engine::metrics::Metric;
    use proptest::prelude::*;

    use super::*;
    use crate::grid::Length;
    use crate::walkforward::cells::Cells;
    use crate::walkforward::windows::{Design, Span, Window};

    /// Windows of one day each, train before test.
    pub(crate) fn layout(windows: usize) -> Layout {
        let span = |from: usize, to: usize| Span { start_ns: from as i64, end_ns: to as i64, bars: from..to };
        let window = |n: usize| Window { train: span(n, n + 5), test: span(n + 5, n + 7), owned: n + 5..n + 7 };
        Layout::new(vec![Design {
            train: Length::Bars(5),
            test: Length::Bars(2),
            step: Length::Bars(2),
            windows: (0..windows).map(|n| window(2 * n)).collect(),
            left_over: 0,
        }])
    }

    fn values(sharpe: f64, profit: f64, drawdown: f64) -> MetricValues {
        let mut values = MetricValues::UNDEFINED;
        values.set(Metric::TotalTrades, Some(10.0));
        values.set(Metric::SharpeEquityDaily, Some(sharpe));
        values.set(Metric::ProfitNet, Some(profit));
        values.set(Metric::MaxDrawdown, Some(drawdown));
        values
    }

    /// A row that owns what it tells.
    struct Row {
        trial: u64,
        config_hash: [u8; 32],
        outcome: Outcome,
    }

    fn done(rows: &[Row]) -> Vec<Done<'_, Outcome>> {
        let done = |row: &'_ Row| (row.trial, row.trial.to_be_bytes());
        let parts = rows.iter().map(|row| (done(row), row));
        let made = parts.map(|((trial, rules_hash), row)| Done {
            way: crate::row::Way::Unresolved,
            trial,
            config_hash: &row.config_hash,
            rules_hash,
            rng_seed: 42,
            outcome: &row.outcome,
        });
        made.collect()
    }

    fn row(trial: u64, layout: &Layout, of: &[MetricValues], judges: Judges<'_>) -> Row {
        let cells = of.iter().map(|values| {
            let judgement = judge(judges.objective, judges.gates, Some(values));
            Cell { verdict: judgement.verdict, score: judgement.score }
        });
        let cells: Vec<Cell> = cells.collect();
        assert_eq!(cells.len(), layout.spans().len());
        let mut config_hash = [0; 32];
        config_hash[0] = 200 - trial as u8;
        let outcome = Outcome::Done(Cells { cells, failure: None });
        Row { trial, config_hash, outcome }
    }

    fn grid() -> (Objective, Gates) {
        let mut gates = Gates::default();
        gates.push("max_drawdown <= 0.2").unwrap();
        (Objective::default(), gates)
    }

    /// The dominating setting wins, whatever the order of the rows: ties in the objective are broken by profit, then by
    /// drawdown, then by hash, and a gated row never wins over one that passes.
    #[test]
    fn ties_are_broken_by_metrics_that_cells_do_not_keep() {
        let (objective, gates) = grid();
        let judges = Judges { objective: &objective, gates: &gates };
        let layout = layout(1);
        let train = [
            values(9.0, 99.0, 0.3),
            values(1.0, 10.0, 0.1),
            values(1.000_000_1, 10.0, 0.1),
            values(1.0, 20.0, 0.15),
            values(1.0, 20.0, 0.12),
            values(0.5, 90.0, 0.01),
        ];
        let test = values(0.0, 0.0, 0.0);
        let mut order: Vec<usize> = (0..train.len()).collect();
        for turn in 0..train.len() {
            order.rotate_left(1);
            let rows: Vec<Row> = order.iter().map(|n| row(*n as u64, &layout, &[train[*n], test], judges)).collect();
            let mut asked = Vec::new();
            let best = best_of_chunk(&layout, judges, &done(&rows), &mut |row, span| {
                asked.push(row.trial);
                assert_eq!(span, 0);
                Ok(train[row.trial as usize])
            })
            .unwrap();
            assert_eq!((best.len(), rows[best[0].row].trial), (1, 4), "turn {turn}");
            asked.sort_unstable();
            assert_eq!(asked, [1, 2, 3, 4], "only what ties is evaluated again");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

        /// No setting that is chosen is dominated: none that passes the gates is at least as good in objective, profit
        /// and drawdown and better in one. Coarse values make ties common.
        #[test]
        fn prop_a_dominating_setting_is_never_behind(
            made in proptest::collection::vec((0_i8..4, 0_i8..4, 0_i8..4), 1..30), minimize: bool,
        ) {
            let (_, gates) = grid();
            let goal = if minimize { Goal::Minimize } else { Goal::Maximize };
            let objective = Objective::parse(goal, "sharpe_equity_daily").unwrap();
            let judges = Judges { objective: &objective, gates: &gates };
            let layout = layout(1);
            let train: Vec<MetricValues> = made
                .iter()
                .map(|(sharpe, profit, drawdown)| {
                    values(f64::from(*sharpe), f64::from(*profit), f64::from(*drawdown) / 12.0)
                })
                .collect();
            let rows: Vec<Row> =
                train.iter().enumerate().map(|(n, of)| row(n as u64, &layout, &[*of, *of], judges)).collect();
            let best = best_of_chunk(&layout, judges, &done(&rows), &mut |row, _| Ok(train[row.trial as usize]));
            let best = best.unwrap();
            let good = |n: usize| {
                let (sharpe, profit, drawdown) = made[n];
                [if minimize { -sharpe } else { sharpe }, profit, -drawdown]
            };
            let passes = |n: usize| f64::from(made[n].2) / 12.0 <= 0.2;
            let chosen = best[0].row;
            for other in (0..made.len()).filter(|other| passes(*other)) {
                let dominates = good(other).iter().zip(good(chosen)).all(|(a, b)| *a >= b) && good(other) != good(chosen);
                prop_assert!(passes(chosen) && !dominates, "{:?} behind {:?}", made[other], made[chosen]);
            }
        }
    }

    #[test]
    fn without_any_that_passes_the_best_gated_row_is_kept_and_nothing_is_chosen() {
        let (objective, gates) = grid();
        let judges = Judges { objective: &objective, gates: &gates };
        let layout = layout(1);
        let train = [values(1.0, 1.0, 0.5), values(2.0, 1.0, 0.4)];
        let rows: Vec<Row> = (0..2).map(|n| row(n, &layout, &[train[n as usize], train[0]], judges)).collect();
        let best = best_of_chunk(&layout, judges, &done(&rows), &mut |row, _| Ok(train[row.trial as usize])).unwrap();
        assert_eq!(best[0].row, 1);
    }

    #[test]
    fn chunks_come_back_and_are_tallied() {
        let (objective, gates) = grid();
        let judges = Judges { objective: &objective, gates: &gates };
        let layout = layout(2);
        // Spans in order: train 0..5, train 2..7, test 5..7, test 7..9.
        assert_eq!(layout.spans().len(), 4);
        let made = |trial: u64, span: usize| {
            let x = ((trial * 7 + span as u64 * 3) % 10) as f64;
            values(x, x, if trial == 5 { 0.9 } else { 0.1 })
        };
        let rows: Vec<Row> = (0..10)
            .map(|trial| {
                let of: Vec<MetricValues> = (0..4).map(|span| made(trial, span)).collect();
                let mut row = row(trial, &layout, &of, judges);
                if trial == 9 {
                    row.outcome = Outcome::Failed { code: "E4003".to_owned(), reason: "needs: more".to_owned() };
                }
                row
            })
            .collect();
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(root.path(), "grid", "0123abcd", false).unwrap();
        let fingerprint = Fingerprint::new([("data", "d")]);
        let schema = CellSchema::new(&layout);
        let plan = ChunkPlan::new(10, Some(4));
        for index in 0..plan.count() {
            let trials = plan.trials(index);
            let rows = done(&rows[trials.start as usize..trials.end as usize]);
            let best = best_of_chunk(&layout, judges, &rows, &mut |row, span| Ok(made(row.trial, span))).unwrap();
            chunk_file::write(&folder.chunk(index), &schema, &layout, &fingerprint, &rows, &best).unwrap();
            let chunk = chunk_file::read(&folder.chunk(index), &schema, &fingerprint, trials).unwrap();
            assert_eq!(chunk.best(), best);
            for (window, place) in layout.places().iter().enumerate() {
                for (part, span) in [(Part::Train, place.train), (Part::Test, place.test)] {
                    let expected: Vec<Cell> = rows.iter().map(|row| row.outcome.cell(span)).collect();
                    assert_eq!(chunk.cells(window, part).collect::<Vec<_>>(), expected);
                }
            }
        }
        let chunks =
            Chunks { folder: &folder, plan, schema: &schema, fingerprint: &fingerprint, layout: &layout, judges };
        let (tallies, failures) = chunks.tally(&Ledger::new(1 << 20)).unwrap();
        assert_eq!(failures.by_code, BTreeMap::from([("E4003".to_owned(), 1)]));
        for (place, tally) in layout.places().iter().zip(&tallies) {
            let (train, test) = (place.train.unwrap(), place.test.unwrap());
            let score = |trial: u64, span: usize| made(trial, span).get(Metric::SharpeEquityDaily).unwrap();
            let passing = || (0..9_u64).filter(|trial| *trial != 5);
            let best = passing().max_by(|a, b| score(*a, train).total_cmp(&score(*b, train))).unwrap();
            let choice = tally.choice().unwrap();
            assert_eq!(choice.identity.trial, best);
            assert_eq!(choice.score, Some(score(best, train)));
            assert_eq!((tally.train, tally.ranked_on_test()), ([8, 1, 0, 1], 9));
            // The gated one ranks behind all that pass.
            let ahead = passing().filter(|trial| score(*trial, test) > score(best, test)).count() as u64;
            assert_eq!(tally.test_rank, Some(ahead + 1));
            let pairs: Vec<(f64, f64)> = passing().map(|t| (score(t, train), score(t, test))).collect();
            let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            assert_eq!(tally.rank_correlation, rank_correlation(&x, &y));
        }
        // A cap without room for all windows at once gives the same.
        assert_eq!(chunks.tally(&Ledger::new(500)).unwrap().0, tallies);
    }
}
