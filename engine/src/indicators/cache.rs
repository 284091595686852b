//! Columns shared by all trials and threads: each is computed once, kept while the memory budget allows, and given back
//! when the last holder drops it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_buffer::ScalarBuffer;

use crate::data::MarketData;
use crate::error::Error;

use super::compute::{bars_of, evaluate, of_other_timeframe};
use super::key::{ColumnKey, HtfMethod, Series};
use super::mtf::MtfOptions;
use super::shelf::{Keep, Shared, Shelf};
use super::zones::Zones;

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
    zones: Zones,
    /// Dropped with the values.
    _reservation: Option<Reservation>,
}

impl Column {
    fn computed(values: Vec<f64>, reservation: Option<Reservation>) -> Self {
        let zones = Zones::new(&values);
        Self(Values::Computed(Arc::new(Computed { values, zones, _reservation: reservation })))
    }

    /// Extremes per block of bars; none for the memory of the bars themselves.
    pub fn zones(&self) -> Option<&Zones> {
        match &self.0 {
            Values::Bars(_) => None,
            Values::Computed(computed) => Some(&computed.zones),
        }
    }
}

impl Shared for Column {
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

/// The columns of one data set, computed on demand.
///
/// Any number of threads may ask: a column is computed by the first, the others wait for that column only. A column in
/// use is never evicted. Values do not depend on what is cached, on the budget or on the order of asking.
pub struct ColumnCache {
    market: Arc<MarketData>,
    options: MtfOptions,
    shelf: Shelf<ColumnKey, Result<Column, Error>>,
    unbooked: AtomicU64,
}

impl ColumnCache {
    /// An empty cache over `market`.
    pub fn new(market: Arc<MarketData>, options: MtfOptions, budget: Arc<dyn Budget>) -> Self {
        let len = market.bars.len();
        let shelf = Shelf::new(budget, len * size_of::<f64>() + Zones::bytes_for(len));
        Self { market, options, shelf, unbooked: AtomicU64::new(0) }
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
        self.shelf.budget()
    }

    /// Memory of one column in bytes, its extremes per block included.
    pub fn column_bytes(&self) -> usize {
        self.shelf.bytes()
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
        self.shelf.evict(bytes)
    }

    /// What happened so far.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            computed: self.shelf.made(),
            evicted: self.shelf.evicted(),
            unbooked: self.unbooked.load(Ordering::Relaxed),
            kept: self.shelf.kept(),
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
        self.shelf.get(&key, keep, |reservation| self.make(&key, keep, reservation))
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

    fn make(&self, key: &ColumnKey, keep: Keep, reservation: Option<Reservation>) -> Result<Column, Error> {
        let bars = bars_of(key, &self.market)?;
        if reservation.is_none() && keep == Keep::Evicting {
            self.unbooked.fetch_add(1, Ordering::Relaxed);
        }
        let values = if key.timeframe == self.market.bars.timeframe {
            let quotes = bars.side(key.side);
            evaluate(key.series, quotes, &|inner| self.intermediate(key, inner))
        } else {
            of_other_timeframe(key, &self.market, bars, &self.options)
        };
        Ok(Column::computed(values, reservation))
    }

    /// A series of the primary timeframe that the column of `outer` is built of.
    fn intermediate(&self, outer: &ColumnKey, series: Series) -> Column {
        let key = ColumnKey { series, ..*outer };
        // The bars of `outer` are loaded, so this does not fail; an empty column would show as undefined values.
        self.fetch(&key, Keep::IfRoom).unwrap_or_else(|_| Column::from(Vec::new()))
    }
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
