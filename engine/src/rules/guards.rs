//! Late guards at a bar: tests too dear for every bar, evaluated where everything else holds and remembered per bar
//! across trials.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{ClusterFeature, Comparison, LateGuard};
use crate::error::Error;
use crate::indicators::{
    ClusterOutcome, ClusterSettings, Column, ColumnCache, ColumnKey, GarchKey, Reservation, Series, cluster_rank,
    cluster_state, garch_sigma_local, kalman_gains, kalman_garch_z_local,
};
use crate::units::{Bits, PriceSide};

/// What the cluster guard found at a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterStatus {
    /// The guard holds.
    Ok,
    /// Fewer defined values than `min_points`.
    InsufficientPoints,
    /// Fewer values in the window than clusters.
    InsufficientUnique,
    /// The last labels do not agree.
    HysteresisBlock,
    /// The current label is not allowed.
    LabelBlock,
}

impl ClusterStatus {
    /// Name in artefacts: `ok`, `insufficient_points`, `insufficient_unique`, `hysteresis_block`, `label_block`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::InsufficientPoints => "insufficient_points",
            Self::InsufficientUnique => "insufficient_unique",
            Self::HysteresisBlock => "hysteresis_block",
            Self::LabelBlock => "label_block",
        }
    }
}

/// The cluster guard at a bar with everything it looked at, for artefacts.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterReport {
    /// Verdict.
    pub status: ClusterStatus,
    /// Defined values of the feature series.
    pub sample_size: usize,
    /// Name of the current cluster; none without a clustering.
    pub label: Option<String>,
    /// Last value of the feature; none without a clustering.
    pub sigma: Option<f64>,
    /// Centres, ascending, in the unit of the feature.
    pub centers: Vec<f64>,
    /// Centres of the logarithms, ascending; none if values are clustered as they are.
    pub centers_log: Option<Vec<f64>>,
    /// The current label is allowed.
    pub allowed_now: bool,
    /// The last labels agree.
    pub hysteresis_ok: bool,
}

/// What is remembered per bar: a local z for any threshold, a cluster for any hysteresis and any allowed labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Question {
    LocalZ { r: Bits, q: Bits, garch: GarchKey, min_periods: u32, lookback: u32 },
    Cluster { feature: ClusterFeature, settings: ClusterSettings },
}

/// Answers of late guards, shared by all trials and threads on one data set.
///
/// Answers are kept in pages of bars, allocated where a bar is first looked at and only while the budget grants them;
/// without a page the answer is worked out again. They are the same either way.
///
/// A full budget: pages first push out columns that nobody holds (an answer costs more than a value of a column), then
/// answers to questions that no evaluator asks any more.
pub struct GuardCache {
    columns: Arc<ColumnCache>,
    tables: Mutex<BTreeMap<Question, Arc<Table>>>,
    /// [`ColumnCache::unbooked`] when this cache last made room.
    unbooked_seen: AtomicU64,
}

impl GuardCache {
    /// Remembers answers for the bars of `columns`, on the books of its budget.
    pub fn new(columns: Arc<ColumnCache>) -> Self {
        Self { columns, tables: Mutex::default(), unbooked_seen: AtomicU64::new(0) }
    }

    /// Prepares `guard` for one trial.
    ///
    /// # Errors
    /// As [`ColumnCache::get`].
    pub fn evaluator(&self, guard: &LateGuard) -> Result<GuardEvaluator, Error> {
        let (question, verdict) = split(guard);
        self.make_room();
        let table = {
            let mut tables = self.lock();
            Arc::clone(tables.entry(question).or_insert_with(|| Arc::new(Table::new(Arc::clone(&self.columns)))))
        };
        let sources = Sources::new(&question, &self.columns)?;
        Ok(GuardEvaluator { question, verdict, table, sources, series: RefCell::default() })
    }

    /// Drops all answers that no evaluator is using; returns the bytes given back to the budget.
    pub fn clear(&self) -> usize {
        let mut tables = self.lock();
        let mut freed = 0;
        tables.retain(|_, table| {
            let used = Arc::strong_count(table) > 1;
            if !used {
                freed += table.bytes();
            }
            used
        });
        freed
    }

    /// Drops unused answers if memory was refused since the last call, to this cache or to the columns.
    fn make_room(&self) {
        let unbooked = self.columns.unbooked();
        let columns_refused = self.unbooked_seen.swap(unbooked, Ordering::Relaxed) != unbooked;
        if columns_refused || self.lock().values().any(|table| table.refused.swap(false, Ordering::Relaxed)) {
            self.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Question, Arc<Table>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for GuardCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardCache").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// One late guard, ready to be asked at any bar. Belongs to one trial and one thread; what it finds is shared.
#[derive(Debug)]
pub struct GuardEvaluator {
    question: Question,
    verdict: Verdict,
    table: Arc<Table>,
    sources: Sources,
    /// Reused between bars.
    series: RefCell<Vec<f64>>,
}

/// What a guard makes of the answer.
#[derive(Debug)]
enum Verdict {
    Threshold { comparison: Comparison, threshold: f64 },
    Allowed { ranks: Vec<u32>, hysteresis_bars: u32 },
}

fn split(guard: &LateGuard) -> (Question, Verdict) {
    match *guard {
        LateGuard::LocalKalmanGarchZ { r, q, garch, min_periods, lookback, comparison, threshold } => (
            Question::LocalZ { r, q, garch, min_periods, lookback },
            Verdict::Threshold { comparison, threshold: threshold.get() },
        ),
        LateGuard::VolCluster { feature, window, k, min_points, log_transform, hysteresis_bars, ref allowed } => {
            let mut ranks: Vec<u32> = allowed.iter().filter_map(|label| cluster_rank(label)).collect();
            ranks.sort_unstable();
            (
                Question::Cluster { feature, settings: ClusterSettings { window, k, min_points, log_transform } },
                Verdict::Allowed { ranks, hysteresis_bars },
            )
        }
    }
}

/// Columns and constants an answer is worked out from.
#[derive(Debug)]
enum Sources {
    LocalZ { closes: Column, returns: Column, gains: Vec<f64> },
    Garch { returns: Column },
    Atr { atr: Column },
}

impl Sources {
    fn new(question: &Question, columns: &ColumnCache) -> Result<Self, Error> {
        let bars = &columns.market().bars;
        let bid = |series| columns.get(&ColumnKey::new(bars.timeframe, PriceSide::Bid, series));
        let returns = |garch: &GarchKey| bid(Series::Return { log: garch.log_returns, scale: garch.scale });
        Ok(match question {
            Question::LocalZ { r, q, garch, lookback, .. } => Self::LocalZ {
                closes: bid(Series::Close)?,
                returns: returns(garch)?,
                gains: kalman_gains(r.get(), q.get(), (*lookback as usize).min(bars.len())),
            },
            Question::Cluster { feature: ClusterFeature::LocalGarch { garch, .. }, .. } => {
                Self::Garch { returns: returns(garch)? }
            }
            Question::Cluster { feature: ClusterFeature::Atr { length }, .. } => {
                Self::Atr { atr: bid(Series::Atr(*length))? }
            }
        })
    }
}

impl GuardEvaluator {
    /// True when the guard holds at the close of primary bar `i`; false outside the data.
    pub fn holds(&self, i: usize) -> bool {
        match &self.verdict {
            Verdict::Threshold { comparison, threshold } => {
                let z = self.local_z(i);
                // Finite, not only defined: ±inf is no signal.
                z.is_finite()
                    && match comparison {
                        Comparison::Less => z < *threshold,
                        Comparison::LessOrEqual => z <= *threshold,
                        Comparison::Greater => z > *threshold,
                        Comparison::GreaterOrEqual => z >= *threshold,
                    }
            }
            Verdict::Allowed { .. } => self.cluster_status(self.cluster(i)) == ClusterStatus::Ok,
        }
    }

    /// The local Kalman+GARCH z at bar `i`; NaN where there is none, and for a cluster guard.
    pub fn local_z(&self, i: usize) -> f64 {
        let (Question::LocalZ { garch, min_periods, lookback, .. }, Sources::LocalZ { closes, returns, gains }) =
            (&self.question, &self.sources)
        else {
            return f64::NAN;
        };
        f64::from_bits(self.table.remembered(i, || {
            let z = kalman_garch_z_local(closes, returns, gains, i, *lookback, garch, *min_periods);
            // One NaN for all, so that its bits can never be those of an unused cell.
            if z.is_nan() { f64::NAN } else { z }.to_bits()
        }))
    }

    /// The cluster guard at bar `i` with everything it looks at; none for another guard. Worked out afresh: for
    /// artefacts, not for searching.
    pub fn cluster_report(&self, i: usize) -> Option<ClusterReport> {
        let Question::Cluster { settings, .. } = &self.question else { return None };
        let Verdict::Allowed { ranks, hysteresis_bars } = &self.verdict else { return None };
        let (sample_size, outcome) = self.with_series(i, |series| cluster_state(series, settings));
        let status = self.cluster_status(Answer::of(&outcome));
        let report = ClusterReport {
            status,
            sample_size,
            label: None,
            sigma: None,
            centers: Vec::new(),
            centers_log: None,
            allowed_now: false,
            hysteresis_ok: false,
        };
        Some(match outcome {
            ClusterOutcome::Ok(state) => ClusterReport {
                label: Some(state.label()),
                sigma: Some(state.sigma),
                allowed_now: ranks.binary_search(&state.rank).is_ok(),
                hysteresis_ok: *hysteresis_bars <= 1 || state.run >= *hysteresis_bars,
                centers: state.centers,
                centers_log: state.centers_log,
                ..report
            },
            _ => report,
        })
    }

    fn cluster(&self, i: usize) -> Answer {
        let Question::Cluster { settings, .. } = &self.question else { return Answer::InsufficientPoints };
        let bits = self
            .table
            .remembered(i, || self.with_series(i, |series| Answer::of(&cluster_state(series, settings).1)).to_bits());
        Answer::from_bits(bits)
    }

    /// Hysteresis is tested before the label.
    fn cluster_status(&self, answer: Answer) -> ClusterStatus {
        let Verdict::Allowed { ranks, hysteresis_bars } = &self.verdict else { return ClusterStatus::LabelBlock };
        match answer {
            Answer::InsufficientPoints => ClusterStatus::InsufficientPoints,
            Answer::InsufficientUnique => ClusterStatus::InsufficientUnique,
            Answer::Label { run, .. } if *hysteresis_bars > 1 && run < *hysteresis_bars => {
                ClusterStatus::HysteresisBlock
            }
            Answer::Label { rank, .. } if ranks.binary_search(&rank).is_err() => ClusterStatus::LabelBlock,
            Answer::Label { .. } => ClusterStatus::Ok,
        }
    }

    /// The feature series up to bar `i`.
    fn with_series<T>(&self, i: usize, read: impl FnOnce(&[f64]) -> T) -> T {
        match (&self.question, &self.sources) {
            (_, Sources::Atr { atr }) => read(&atr[..atr.len().min(i.saturating_add(1))]),
            (
                Question::Cluster { feature: ClusterFeature::LocalGarch { garch, min_periods, lookback }, .. },
                Sources::Garch { returns },
            ) => {
                let mut series = self.series.borrow_mut();
                garch_sigma_local(returns, i, *lookback, garch, *min_periods, &mut series);
                read(&series)
            }
            _ => read(&[]),
        }
    }
}

/// A cluster at a bar, small enough to be remembered in 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    InsufficientPoints,
    InsufficientUnique,
    Label { rank: u32, run: u32 },
}

impl Answer {
    fn of(outcome: &ClusterOutcome) -> Self {
        match outcome {
            ClusterOutcome::InsufficientPoints => Self::InsufficientPoints,
            ClusterOutcome::InsufficientUnique => Self::InsufficientUnique,
            ClusterOutcome::Ok(state) => Self::Label { rank: state.rank, run: state.run },
        }
    }

    /// The run of a clustering is at least 1, so the upper half tells the cases apart.
    fn to_bits(self) -> u64 {
        match self {
            Self::InsufficientPoints => 0,
            Self::InsufficientUnique => 1,
            Self::Label { rank, run } => u64::from(run) << 32 | u64::from(rank),
        }
    }

    fn from_bits(bits: u64) -> Self {
        let (run, rank) = ((bits >> 32) as u32, bits as u32);
        match (run, rank) {
            (0, 0) => Self::InsufficientPoints,
            (0, _) => Self::InsufficientUnique,
            _ => Self::Label { rank, run },
        }
    }
}

const PAGE: usize = 512;

/// A cell nobody has filled: the bits of a NaN no answer ever has.
const UNKNOWN: u64 = u64::MAX;

struct Page {
    cells: Vec<AtomicU64>,
    /// Dropped with the cells.
    _reservation: Reservation,
}

const PAGE_BYTES: usize = PAGE * size_of::<AtomicU64>();

/// Answers to one question, in pages of bars.
struct Table {
    columns: Arc<ColumnCache>,
    pages: Vec<OnceLock<Page>>,
    /// A page was refused.
    refused: AtomicBool,
}

impl Table {
    fn new(columns: Arc<ColumnCache>) -> Self {
        let pages = (0..columns.market().bars.len().div_ceil(PAGE)).map(|_| OnceLock::new()).collect();
        Self { columns, pages, refused: AtomicBool::new(false) }
    }

    fn bytes(&self) -> usize {
        self.pages.iter().filter(|page| page.get().is_some()).count() * PAGE_BYTES
    }

    /// The answer at bar `i`. Two threads may work it out at once: they find the same.
    fn remembered(&self, i: usize, answer: impl FnOnce() -> u64) -> u64 {
        let Some(cell) = self.page(i / PAGE).and_then(|page| page.cells.get(i % PAGE)) else { return answer() };
        let known = cell.load(Ordering::Relaxed);
        if known != UNKNOWN {
            return known;
        }
        let found = answer();
        cell.store(found, Ordering::Relaxed);
        found
    }

    fn page(&self, number: usize) -> Option<&Page> {
        let page = self.pages.get(number)?;
        if let Some(page) = page.get() {
            return Some(page);
        }
        let Some(reservation) = self.book() else {
            self.refused.store(true, Ordering::Relaxed);
            return None;
        };
        // Of two threads that get here at once, one gives its booking back.
        let cells = (0..PAGE).map(|_| AtomicU64::new(UNKNOWN)).collect();
        Some(page.get_or_init(|| Page { cells, _reservation: reservation }))
    }

    fn book(&self) -> Option<Reservation> {
        let budget = self.columns.budget();
        Reservation::take(budget, PAGE_BYTES)
            .or_else(|| (self.columns.evict(PAGE_BYTES) > 0).then(|| Reservation::take(budget, PAGE_BYTES)).flatten())
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} of {} bytes)", self.bytes(), self.pages.len() * PAGE_BYTES)
    }
}
