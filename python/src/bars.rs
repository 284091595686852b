//! Bars from Python: anything with the Arrow C stream in, checked like a pair of candle files, shared without a copy.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StructArray, TimestampNanosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use engine::data::MemoryBars;
use engine::units::Timeframe;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::error::PyArrowResult;
use pyo3_arrow::ffi::{ArrayIterator, to_stream_pycapsule};
use pyo3_arrow::input::AnyRecordBatch;

use crate::boundary::{bad_argument, detached, engine_error};

/// Checked and aligned bars of one symbol and timeframe.
#[pyclass(frozen, module = "omega_bt")]
pub(crate) struct Bars {
    inner: Arc<MemoryBars>,
}

impl Bars {
    pub(crate) fn inner(&self) -> &Arc<MemoryBars> {
        &self.inner
    }

    /// `UTC time`, then five columns a side, over the memory of the bars.
    fn batch(&self) -> Result<RecordBatch, ArrowError> {
        let bars = self.inner.bars();
        let time: ArrayRef = Arc::new(TimestampNanosecondArray::new(bars.open_time.clone(), None).with_timezone("UTC"));
        let mut columns = vec![("UTC time".to_owned(), time)];
        for (side, quotes) in [("Bid", &bars.bid), ("Ask", &bars.ask)] {
            let named = [
                ("Open", &quotes.open),
                ("High", &quotes.high),
                ("Low", &quotes.low),
                ("Close", &quotes.close),
                ("Volume", &quotes.volume),
            ];
            for (name, values) in named {
                let column: ArrayRef = Arc::new(Float64Array::new(values.clone(), None));
                columns.push((format!("{side} {name}"), column));
            }
        }
        RecordBatch::try_from_iter(columns)
    }
}

#[pymethods]
impl Bars {
    /// Instrument, upper case.
    #[getter]
    fn symbol(&self) -> &str {
        self.inner.symbol()
    }

    /// Bar length: `M5`, `H1` …
    #[getter]
    fn timeframe(&self) -> &'static str {
        self.inner.timeframe().as_str()
    }

    /// Open time of the first bar, epoch nanoseconds.
    #[getter]
    fn start_time_ns(&self) -> Option<i64> {
        self.inner.bars().open_time.first().copied()
    }

    /// Open time of the last bar, epoch nanoseconds.
    #[getter]
    fn end_time_ns(&self) -> Option<i64> {
        self.inner.bars().open_time.last().copied()
    }

    /// SHA-256 of the bid and of the ask columns as they were handed over.
    #[getter]
    fn sha256(&self) -> (&str, &str) {
        let [bid, ask] = self.inner.inputs();
        (&bid.sha256, &ask.sha256)
    }

    fn __len__(&self) -> usize {
        self.inner.bars().len()
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyArrowResult<Bound<'py, PyCapsule>> {
        let batch = self.batch()?;
        let schema = batch.schema();
        stream(py, vec![batch], &schema, requested_schema)
    }
}

/// Batches as an Arrow C stream over their own memory.
pub(crate) fn stream<'py>(
    py: Python<'py>,
    batches: Vec<RecordBatch>,
    schema: &Schema,
    requested_schema: Option<Bound<'py, PyCapsule>>,
) -> PyArrowResult<Bound<'py, PyCapsule>> {
    let field = Field::new_struct("", schema.fields().clone(), false).with_metadata(schema.metadata().clone());
    debug_assert!(matches!(field.data_type(), DataType::Struct(_)));
    let arrays = batches.into_iter().map(|batch| Ok(Arc::new(StructArray::from(batch)) as ArrayRef));
    to_stream_pycapsule(py, Box::new(ArrayIterator::new(arrays, Arc::new(field))), requested_schema)
}

/// Checks a pair of tables and returns `Bars`, or the error document as JSON text if a rule of the data contract is
/// broken. Raises `ValueError` for a symbol or timeframe that is none.
#[pyfunction]
#[pyo3(signature = (bid, ask, *, symbol, timeframe))]
pub(crate) fn load_bars(
    py: Python<'_>,
    bid: AnyRecordBatch,
    ask: AnyRecordBatch,
    symbol: &str,
    timeframe: &str,
) -> PyResult<Py<PyAny>> {
    let symbol = symbol.trim().to_ascii_uppercase();
    let sound = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'.' || b == b'_';
    if !(2..=16).contains(&symbol.len()) || !symbol.bytes().all(sound) {
        return Err(bad_argument("symbol", format!("must be 2 to 16 of A-Z 0-9 . _, got \"{symbol}\"")));
    }
    let timeframe: Timeframe = timeframe.parse().map_err(|error| bad_argument("timeframe", error))?;
    let (bid, bid_schema) = bid.into_table()?.into_inner();
    let (ask, ask_schema) = ask.into_table()?.into_inner();
    let checked = detached(py, || MemoryBars::new(&symbol, timeframe, (&bid_schema, &bid), (&ask_schema, &ask)))?;
    match checked {
        Ok(bars) => Ok(Py::new(py, Bars { inner: Arc::new(bars) })?.into_any()),
        Err(error) => Ok(engine_error(&error)?.to_string().into_pyobject(py)?.into_any().unbind()),
    }
}
