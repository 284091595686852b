//! Columns shared by all trials and threads: each is computed once, kept while the memory budget allows, and given back
//! when the last holder drops it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arrow_buffer::ScalarBuffer;

use crate::data::MarketData;
use crate::error::Error;

use super::compute::{bars_of, evaluate, of_other_timeframe};
use super::key::{ColumnKey, HtfMethod, Series};
use super::mtf::MtfOptions;

/// Whoever keeps the books of memory. Asked before an allocation, told when it is dropped; must not call back into the
/// cache from either.
pub trait Budget: Send + Sync {
    /// Books `bytes` if they fit; false: nothing was booked.
    fn reserve(&self, bytes: usize) -> bool;
    /// Gives back what [`Budget::reserve`] booked.
    fn release(&self, bytes: usize);
}

/// A budget that grants everything: a single backtest, a test.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

impl Budget for Unlimited {
    fn reserve(&self, _bytes: usize) -> bool {
        true
    }

    fn release(&self, _bytes: usize) {}
}

/// Booked memory, given back when dropped.
pub struct Reservation {
    budget: Arc<dyn Budget>,
    bytes: usize,
}

impl Reservation {
    /// Books `bytes`; none if the budget refuses.
    pub fn take(budget: &Arc<dyn Budget>, bytes: usize) -> Option<Self> {
        budget.reserve(bytes).then(|| Self { budget: Arc::clone(budget), bytes })
    }

    /// What is booked.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} bytes)", self.bytes)
    }
}

/// One value per primary bar, shared; NaN is "no value". Derefs to `&[f64]`; cloning copies nothing.
#[derive(Debug, Clone)]
pub struct Column(Values);

#[derive(Debug, Clone)]
enum Values {
    /// Memory of the bars themselves.
    Bars(ScalarBuffer<f64>),
    Computed(Arc<Computed>),
}

#[derive(Debug)]
struct Computed {
    values: Vec<f64>,
    /// Dropped with the values.
    _reservation: Option<Reservation>,
}

impl Column {
    fn computed(values: Vec<f64>, reservation: Option<Reservation>) -> Self {
        Self(Values::Computed(Arc::new(Computed { values, _reservation: reservation })))
    }

    /// Nobody but the holder of this column holds its memory, and dropping it frees some.
    fn is_last(&self) -> bool {
        matches!(&self.0, Values::Computed(computed) if Arc::strong_count(computed) == 1)
    }
}

impl From<Vec<f64>> for Column {
    fn from(values: Vec<f64>) -> Self {
        Self::computed(values, None)
    }
}

impl Deref for Column {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        match &self.0 {
            Values::Bars(buffer) => buffer,
            Values::Computed(computed) => &computed.values,
        }
    }
}

/// What a cache did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Columns computed, intermediate ones included.
    pub computed: u64,
    /// Columns dropped to make room.
    pub evicted: u64,
    /// Columns handed out without a booking, because nothing could be evicted. Each lives as long as its holders and is
    /// not kept. A driver that sees this number grow should work on fewer trials at once.
    pub unbooked: u64,
    /// Columns kept now.
    pub kept: usize,
}

type Slot = OnceLock<Result<Column, Error>>;

struct Entry {
    slot: Arc<Slot>,
    last_used: u64,
}

#[derive(Default)]
struct Entries {
    by_key: BTreeMap<ColumnKey, Entry>,
    clock: u64,
}

/// The columns of one data set, computed on demand.
///
/// Any number of threads may ask: a column is computed by the first, the others wait for that column only. A column in
/// use is never evicted. Values do not depend on what is cached, on the budget or on the order of asking.
pub struct ColumnCache {
    market: Arc<MarketData>,
    options: MtfOptions,
    budget: Arc<dyn Budget>,
    entries: Mutex<Entries>,
    computed: AtomicU64,
    evicted: AtomicU64,
    unbooked: AtomicU64,
}

/// How hard to try to keep a column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Asked for by a trial: others make room.
    Evicting,
    /// A step on the way to another column: kept only where there is room anyway.
    IfRoom,
}

impl ColumnCache {
    /// An empty cache over `market`.
    pub fn new(market: Arc<MarketData>, options: MtfOptions, budget: Arc<dyn Budget>) -> Self {
        Self {
            market,
            options,
            budget,
            entries: Mutex::default(),
            computed: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            unbooked: AtomicU64::new(0),
        }
    }

    /// The bars the columns are computed on.
    pub fn market(&self) -> &Arc<MarketData> {
        &self.market
    }

    /// How other timeframes are read.
    pub fn options(&self) -> &MtfOptions {
        &self.options
    }

    /// The books the cache writes to.
    pub fn budget(&self) -> &Arc<dyn Budget> {
        &self.budget
    }

    /// Memory of one column in bytes.
    pub fn column_bytes(&self) -> usize {
        self.market.bars.len() * size_of::<f64>()
    }

    /// The column of `key`: the bars' own memory for prices of the primary timeframe, else computed once and shared.
    ///
    /// If the budget refuses, the least recently used columns that nobody holds are dropped until it agrees. If it still
    /// refuses, the column is handed out unbooked and not kept ([`CacheStats::unbooked`]): a trial never fails for lack
    /// of memory, since its row may depend on data, config and engine only.
    ///
    /// # Errors
    /// [`Error::IndicatorNotAvailable`] if the bars of the timeframe are not loaded.
    pub fn get(&self, key: &ColumnKey) -> Result<Column, Error> {
        self.fetch(key, Keep::Evicting)
    }

    /// Columns of all `keys`, in order.
    ///
    /// # Errors
    /// As [`ColumnCache::get`], for the first key that fails.
    pub fn get_all(&self, keys: &[ColumnKey]) -> Result<Vec<Column>, Error> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Drops least recently used columns that nobody holds until `bytes` are free or none is left; returns the bytes
    /// given back to the budget.
    pub fn evict(&self, bytes: usize) -> usize {
        let mut freed = 0;
        while freed < bytes {
            match self.evict_one() {
                0 => break,
                one => freed += one,
            }
        }
        freed
    }

    /// What happened so far.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            computed: self.computed.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            unbooked: self.unbooked.load(Ordering::Relaxed),
            kept: self.lock().by_key.len(),
        }
    }

    /// [`CacheStats::unbooked`] alone.
    pub(crate) fn unbooked(&self) -> u64 {
        self.unbooked.load(Ordering::Relaxed)
    }

    fn fetch(&self, key: &ColumnKey, keep: Keep) -> Result<Column, Error> {
        let key = self.canonical(key);
        if let Some(prices) = self.prices(&key) {
            return Ok(prices);
        }
        let slot = self.slot(key);
        // Only threads that want this very column wait here.
        let mut kept = true;
        let result = slot.get_or_init(|| {
            let (result, booked) = self.make(&key, keep);
            kept = booked;
            result
        });
        if !kept {
            self.forget(&key, &slot);
        }
        result.clone()
    }

    /// Keys of equal content become one.
    fn canonical(&self, key: &ColumnKey) -> ColumnKey {
        let mut key = *key;
        if key.timeframe == self.market.bars.timeframe {
            // Every primary bar is an update point: the stepwise form is the plain one.
            key.method = HtfMethod::Native;
        }
        if let Series::RollingMean(n) = key.series {
            key.series = Series::Sma(n);
        }
        key
    }

    fn prices(&self, key: &ColumnKey) -> Option<Column> {
        if key.timeframe != self.market.bars.timeframe {
            return None;
        }
        let quotes = self.market.bars.side(key.side);
        let buffer = match key.series {
            Series::Open => &quotes.open,
            Series::High => &quotes.high,
            Series::Low => &quotes.low,
            Series::Close => &quotes.close,
            _ => return None,
        };
        Some(Column(Values::Bars(buffer.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // The map is changed by single calls that do not panic half-way.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, key: ColumnKey) -> Arc<Slot> {
        let mut entries = self.lock();
        entries.clock += 1;
        let now = entries.clock;
        let entry = entries.by_key.entry(key).or_insert_with(|| Entry { slot: Arc::default(), last_used: now });
        entry.last_used = now;
        Arc::clone(&entry.slot)
    }

    fn forget(&self, key: &ColumnKey, slot: &Arc<Slot>) {
        let mut entries = self.lock();
        if entries.by_key.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.slot, slot)) {
            entries.by_key.remove(key);
        }
    }

    /// Computes a column; also tells whether it may be kept.
    fn make(&self, key: &ColumnKey, keep: Keep) -> (Result<Column, Error>, bool) {
        let bars = match bars_of(key, &self.market) {
            Ok(bars) => bars,
            Err(error) => return (Err(error), false),
        };
        let reservation = self.book(keep);
        let kept = reservation.is_some();
        if !kept && keep == Keep::Evicting {
            self.unbooked.fetch_add(1, Ordering::Relaxed);
        }
        self.computed.fetch_add(1, Ordering::Relaxed);
        let values = if key.timeframe == self.market.bars.timeframe {
            let quotes = bars.side(key.side);
            evaluate(key.series, quotes, &|inner| self.intermediate(key, inner))
        } else {
            of_other_timeframe(key, &self.market, bars, &self.options)
        };
        (Ok(Column::computed(values, reservation)), kept)
    }

    /// A series of the primary timeframe that the column of `outer` is built of.
    fn intermediate(&self, outer: &ColumnKey, series: Series) -> Column {
        let key = ColumnKey { series, ..*outer };
        // The bars of `outer` are loaded, so this does not fail; an empty column would show as undefined values.
        self.fetch(&key, Keep::IfRoom).unwrap_or_else(|_| Column::from(Vec::new()))
    }

    fn book(&self, keep: Keep) -> Option<Reservation> {
        loop {
            let reservation = Reservation::take(&self.budget, self.column_bytes());
            if reservation.is_some() || keep == Keep::IfRoom || self.evict_one() == 0 {
                return reservation;
            }
        }
    }

    /// Drops the least recently used column that nobody holds; returns its bytes, 0 if there is none.
    fn evict_one(&self) -> usize {
        let evicted = {
            let mut entries = self.lock();
            let oldest = entries
                .by_key
                .iter()
                .filter(|(_, entry)| is_evictable(entry))
                .min_by_key(|(_, entry)| entry.last_used)
                .map(|(key, _)| *key);
            oldest.and_then(|key| entries.by_key.remove(&key))
        };
        // Freed after the lock.
        if evicted.is_some() {
            self.evicted.fetch_add(1, Ordering::Relaxed);
            self.column_bytes()
        } else {
            0
        }
    }
}

/// Computed, and held by the cache alone. New holders need the lock under which this is asked.
fn is_evictable(entry: &Entry) -> bool {
    Arc::strong_count(&entry.slot) == 1
        && entry.slot.get().is_some_and(|result| result.as_ref().is_ok_and(Column::is_last))
}

impl fmt::Debug for ColumnCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnCache")
            .field("bars", &self.market.bars.len())
            .field("options", &self.options)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
