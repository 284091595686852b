//! Bars handed over in memory as Arrow batches, held to the same contract as candle files and shared without a copy
//! where the layout allows.

use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampNanosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_buffer::ScalarBuffer;
use arrow_schema::Schema;
use sha2::{Digest as _, Sha256};

use crate::data::load::{Series, check_pair_of, check_side};
use crate::data::manifest::{InputFile, hex};
use crate::data::read::{Columns, NAMES, Rows, refuse_nulls, require_candles};
use crate::data::store::{FileFacts, Stored};
use crate::data::{Bars, Quotes};
use crate::error::Result;
use crate::units::{PriceSide, Timeframe};

/// Both sides of one symbol and timeframe, checked and aligned. Cloning shares the memory.
#[derive(Debug, Clone)]
pub struct MemoryBars {
    series: Series,
}

/// Equal content is equal: the hashes of what was handed over decide.
impl PartialEq for MemoryBars {
    fn eq(&self, other: &Self) -> bool {
        self.symbol() == other.symbol()
            && self.timeframe() == other.timeframe()
            && self.series.inputs == other.series.inputs
    }
}

impl Eq for MemoryBars {}

impl MemoryBars {
    /// Checks what a pair of candle files would be checked for: columns, types, zone, nulls, order, duplicates, prices,
    /// volumes, alignment, spread (`data-contract.md` §2 to §6). `label` in an error is `{SYMBOL}_{TF}_{SIDE}`.
    ///
    /// A side that comes as one batch is not copied, unless a row has to go or its volume is Int64; several batches are
    /// joined. The identity of a side is the SHA-256 of its columns, little-endian, one after the other.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn new(
        symbol: &str,
        timeframe: Timeframe,
        bid: (&Schema, &[RecordBatch]),
        ask: (&Schema, &[RecordBatch]),
    ) -> Result<Self> {
        let label = |side: &str| PathBuf::from(format!("{symbol}/{symbol}_{timeframe}_{side}"));
        let (bid_label, ask_label) = (label("BID"), label("ASK"));
        let mut bid = MemorySide::new(bid, &bid_label)?;
        let mut ask = MemorySide::new(ask, &ask_label)?;
        let (bid_sha, ask_sha) = (bid.sha256(), ask.sha256());
        let bid_facts = check_side(&mut bid, &bid_label)?;
        let ask_facts = check_side(&mut ask, &ask_label)?;
        let facts = check_pair_of((&mut bid, bid_facts), (&mut ask, ask_facts), symbol, timeframe)?;
        let input = |side: PriceSide, path: &Path, sha256: String, facts: &FileFacts| InputFile {
            kind: format!("market_memory_{side}"),
            path: path.to_string_lossy().into_owned(),
            sha256,
            made: None,
            rows: Some(facts.rows),
            start_time_ns: Some(facts.start_time_ns),
            end_time_ns: Some(facts.end_time_ns),
        };
        let inputs = [
            input(PriceSide::Bid, &bid_label, bid_sha, &facts.bid),
            input(PriceSide::Ask, &ask_label, ask_sha, &facts.ask),
        ];
        let bars = Bars { timeframe, open_time: bid.time, bid: bid.quotes, ask: ask.quotes };
        Ok(Self { series: Series { stored: Stored { bars, facts }, inputs, symbol: symbol.to_owned() } })
    }

    /// Instrument.
    pub fn symbol(&self) -> &str {
        &self.series.symbol
    }

    /// Bar length.
    pub fn timeframe(&self) -> Timeframe {
        self.series.stored.bars.timeframe
    }

    /// The whole series.
    pub fn bars(&self) -> &Bars {
        &self.series.stored.bars
    }

    /// What was handed over, bid and ask, with their hashes.
    pub fn inputs(&self) -> &[InputFile; 2] {
        &self.series.inputs
    }

    pub(crate) fn series(&self) -> &Series {
        &self.series
    }
}

/// The six columns of one side.
struct MemorySide {
    time: ScalarBuffer<i64>,
    quotes: Quotes,
}

impl MemorySide {
    fn new((schema, batches): (&Schema, &[RecordBatch]), label: &Path) -> Result<Self> {
        require_candles(schema, label)?;
        let mut rows = 0;
        for batch in batches {
            refuse_nulls(batch, rows, label)?;
            rows += batch.num_rows();
        }
        let arrays = |name: &str| batches.iter().filter_map(|batch| batch.column_by_name(name)).collect::<Vec<_>>();
        let stamps =
            |array: &dyn Array| array.as_primitive_opt::<TimestampNanosecondType>().map(|a| a.values().clone());
        let [time, open, high, low, close, volume] = NAMES;
        let column = |name: &str| joined(arrays(name).into_iter().filter_map(|array| floats(array)).collect());
        Ok(Self {
            time: joined(arrays(time).into_iter().filter_map(|array| stamps(array)).collect()),
            quotes: Quotes {
                open: column(open),
                high: column(high),
                low: column(low),
                close: column(close),
                volume: column(volume),
            },
        })
    }

    fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"omega-memory-bars-1");
        let Columns { time, open, high, low, close, volume } = self.columns();
        update(&mut hash, time, i64::to_le_bytes);
        for column in [open, high, low, close, volume] {
            update(&mut hash, column, f64::to_le_bytes);
        }
        hex(&hash.finalize())
    }
}

/// Hashes values by the block: one call per value would cost more than the hash.
fn update<T: Copy>(hash: &mut Sha256, values: &[T], bytes: impl Fn(T) -> [u8; 8]) {
    const BLOCK: usize = 1024;
    let mut block = Vec::with_capacity(8 * BLOCK);
    for values in values.chunks(BLOCK) {
        block.clear();
        values.iter().for_each(|value| block.extend_from_slice(&bytes(*value)));
        hash.update(&block);
    }
}

fn floats(array: &dyn Array) -> Option<ScalarBuffer<f64>> {
    let integers = || array.as_primitive_opt::<Int64Type>().map(|a| a.values().iter().map(|v| *v as f64).collect());
    array.as_primitive_opt::<Float64Type>().map(|a| a.values().clone()).or_else(integers)
}

/// One buffer is shared, several are copied into one.
fn joined<T: arrow_buffer::ArrowNativeType>(mut parts: Vec<ScalarBuffer<T>>) -> ScalarBuffer<T> {
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => parts.iter().flat_map(|part| part.iter().copied()).collect(),
    }
}

impl Rows for MemorySide {
    fn columns(&self) -> Columns<'_> {
        let Quotes { open, high, low, close, volume } = &self.quotes;
        Columns { time: &self.time, open, high, low, close, volume }
    }

    fn keep(&mut self, rows: &[usize]) {
        self.time = rows.iter().map(|row| self.time[*row]).collect();
        let gather = |column: &ScalarBuffer<f64>| rows.iter().map(|row| column[*row]).collect();
        let Quotes { open, high, low, close, volume } = &self.quotes;
        self.quotes = Quotes {
            open: gather(open),
            high: gather(high),
            low: gather(low),
            close: gather(close),
            volume: gather(volume),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, Int64Array, TimestampNanosecondArray};

    use super::*;
    use crate::data::{DataRequest, Sources, load};
    use crate::error::Error;

    const HOUR: i64 = 3_600_000_000_000;

    fn batch(times: &[i64], close: f64) -> RecordBatch {
        let price = |x: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![x; times.len()])) };
        RecordBatch::try_from_iter([
            ("UTC time", Arc::new(TimestampNanosecondArray::from(times.to_vec()).with_timezone("UTC")) as ArrayRef),
            ("Open", price(close)),
            ("High", price(close)),
            ("Low", price(close)),
            ("Close", price(close)),
            ("Volume", Arc::new(Int64Array::from(vec![3; times.len()]))),
        ])
        .unwrap()
    }

    fn bars(bid: &[RecordBatch], ask: &[RecordBatch]) -> Result<MemoryBars> {
        MemoryBars::new("EURUSD", Timeframe::H1, (&bid[0].schema(), bid), (&ask[0].schema(), ask))
    }

    #[test]
    fn one_batch_is_shared_and_several_are_joined() {
        let times: Vec<i64> = (0..10).map(|i| i * HOUR).collect();
        let (bid, ask) = (batch(&times, 1.0), batch(&times, 1.1));
        let address = bid["Close"].as_primitive::<Float64Type>().values().as_ptr();
        let whole = bars(std::slice::from_ref(&bid), std::slice::from_ref(&ask)).unwrap();
        assert_eq!(whole.bars().bid.close.as_ptr(), address);
        assert_eq!(whole.bars().bid.volume[9], 3.0);
        let cut = bars(&[bid.slice(0, 4), bid.slice(4, 6)], &[ask]).unwrap();
        assert_eq!(cut, whole, "batches are no part of the identity");
        assert_ne!(cut.bars().bid.close.as_ptr(), address);
    }

    #[test]
    fn the_rules_of_files_hold() {
        let good = batch(&[0, HOUR], 1.0);
        assert!(matches!(
            bars(&[batch(&[HOUR, 0], 1.0)], std::slice::from_ref(&good)),
            Err(Error::DataCorrupt { row: 1, .. })
        ));
        assert!(matches!(bars(std::slice::from_ref(&good), &[batch(&[0, HOUR], 0.9)]), Err(Error::DataSpread { .. })));
        assert!(matches!(bars(std::slice::from_ref(&good), &[batch(&[5, 6], 1.1)]), Err(Error::DataAlignment { .. })));
        assert!(matches!(
            bars(&[batch(&[], 1.0)], std::slice::from_ref(&good)),
            Err(Error::DataCorrupt { kind: "EmptyData", .. })
        ));
        let renamed =
            RecordBatch::try_from_iter(good.columns().iter().take(5).cloned().zip(NAMES).map(|(c, n)| (n, c)));
        let renamed = renamed.unwrap();
        assert!(matches!(
            bars(&[renamed], std::slice::from_ref(&good)),
            Err(Error::DataSchema { kind: "MissingColumn", ref column, .. }) if column == "Volume"
        ));
        // A row twice goes on that side, which then lacks nothing.
        let twice = bars(&[batch(&[0, 0, HOUR], 1.0)], &[good]).unwrap();
        assert_eq!(twice.bars().len(), 2);
    }

    #[test]
    fn a_request_finds_its_bars_in_memory_and_only_there() {
        let times: Vec<i64> = (0..10).map(|i| i * HOUR).collect();
        let given = bars(&[batch(&times, 1.0)], &[batch(&times, 1.1)]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut sources = Sources::from_env();
        sources.parquet_root = folder.path().to_owned();
        sources.cache_dir = folder.path().to_owned();
        sources.memory = vec![Arc::new(given.clone())];
        let mut request = DataRequest {
            symbol: "EURUSD".to_owned(),
            primary: Timeframe::H1,
            others: Vec::new(),
            start_ns: 0,
            end_ns: 10 * HOUR,
            warmup_bars: 2,
            parity: false,
            sessions: Vec::new(),
            synthetic: None,
        };
        let loaded = load(&request, &sources).unwrap();
        assert_eq!(loaded.market.bars.open_time.as_ptr(), given.bars().open_time.as_ptr(), "no copy");
        assert_eq!(loaded.inputs, given.inputs().to_vec());
        request.others = vec![Timeframe::H4];
        match load(&request, &sources).unwrap_err() {
            Error::DataFile { kind: "NotInMemory", reason, .. } => assert!(reason.contains("EURUSD H1"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
