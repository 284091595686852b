//! Candle files: Parquet bytes to columns, with every rule about columns, types and zones (`data-contract.md` §2, §4).
//! What the values must satisfy is left to `validate`.

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampNanosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ColumnChunkMetaData;

use crate::error::{Error, Result};

/// Name of the stamp column, of candles and of news.
pub(crate) const TIME: &str = "UTC time";
const PRICES: [&str; 4] = ["Open", "High", "Low", "Close"];
const VOLUME: &str = "Volume";
/// The columns of a candle file.
pub(crate) const NAMES: [&str; 6] = [TIME, "Open", "High", "Low", "Close", VOLUME];

/// The six columns of one file, in file order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Candles {
    pub(crate) time: Vec<i64>,
    pub(crate) open: Vec<f64>,
    pub(crate) high: Vec<f64>,
    pub(crate) low: Vec<f64>,
    pub(crate) close: Vec<f64>,
    pub(crate) volume: Vec<f64>,
}

/// The six columns of one side of the market, wherever they live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) time: &'a [i64],
    pub(crate) open: &'a [f64],
    pub(crate) high: &'a [f64],
    pub(crate) low: &'a [f64],
    pub(crate) close: &'a [f64],
    pub(crate) volume: &'a [f64],
}

impl Columns<'_> {
    pub(crate) fn len(&self) -> usize {
        self.time.len()
    }

    /// Open, high, low, close, volume of row `i`.
    pub(crate) fn row(&self, i: usize) -> [f64; 5] {
        [self.open[i], self.high[i], self.low[i], self.close[i], self.volume[i]]
    }
}

/// One side of the market that the checks may thin out: columns read from a file, or shared with whoever made them.
pub(crate) trait Rows {
    /// The columns as they are now.
    fn columns(&self) -> Columns<'_>;
    /// Keeps the rows at `rows`, ascending.
    fn keep(&mut self, rows: &[usize]);
}

impl Candles {
    pub(crate) fn len(&self) -> usize {
        self.time.len()
    }

    /// Open, high, low, close, volume of row `i`.
    pub(crate) fn row(&self, i: usize) -> [f64; 5] {
        self.columns().row(i)
    }
}

impl Rows for Candles {
    fn columns(&self) -> Columns<'_> {
        let Self { time, open, high, low, close, volume } = self;
        Columns { time, open, high, low, close, volume }
    }

    fn keep(&mut self, rows: &[usize]) {
        fn gather<T: Copy>(column: &mut Vec<T>, rows: &[usize]) {
            for (to, &from) in rows.iter().enumerate() {
                column[to] = column[from];
            }
            column.truncate(rows.len());
        }
        gather(&mut self.time, rows);
        for column in [&mut self.open, &mut self.high, &mut self.low, &mut self.close, &mut self.volume] {
            gather(column, rows);
        }
    }
}

/// Reads a candle file. `label` is its path relative to the data root.
pub(crate) fn candles(bytes: Bytes, label: &Path) -> Result<Candles> {
    shielded(label, || decode_candles(bytes, label))
}

/// Runs a decoder of foreign bytes. The Parquet reader asserts what it expects of a file and panics on some damaged
/// ones; here that is a file that cannot be decoded.
pub(crate) fn shielded<T>(label: &Path, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(parse_error(label, &"the file is damaged (the Parquet reader gave up)")))
}

fn decode_candles(bytes: Bytes, label: &Path) -> Result<Candles> {
    let table = Table::open(bytes, label)?;
    require_candles(table.schema(), label)?;
    let mut all = Candles::default();
    for batch in table.batches(&NAMES, label)? {
        refuse_nulls(&batch, all.len(), label)?;
        append(&mut all, &batch);
    }
    Ok(all)
}

/// Fails unless the schema has the six columns with their types.
pub(crate) fn require_candles(schema: &Schema, label: &Path) -> Result<()> {
    let judge = || {
        require_time(schema)?;
        for name in PRICES {
            require(schema, name, "Float64", |found| *found == DataType::Float64)?;
        }
        let volume = |found: &DataType| matches!(found, DataType::Float64 | DataType::Int64);
        require(schema, VOLUME, "Float64 or Int64", volume)
    };
    judge().map_err(|wrong: WrongColumn| wrong.into_schema_error(label))
}

fn append(all: &mut Candles, batch: &RecordBatch) {
    if let Some(time) = batch.column_by_name(TIME).and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>()) {
        all.time.extend_from_slice(time.values());
    }
    let columns = [
        ("Open", &mut all.open),
        ("High", &mut all.high),
        ("Low", &mut all.low),
        ("Close", &mut all.close),
        (VOLUME, &mut all.volume),
    ];
    for (name, into) in columns {
        let Some(column) = batch.column_by_name(name) else { continue };
        if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
            into.extend_from_slice(floats.values());
        } else if let Some(integers) = column.as_primitive_opt::<Int64Type>() {
            into.extend(integers.values().iter().map(|&v| v as f64));
        }
    }
}

/// Fails on a null in one of the six columns; other columns may hold any.
pub(crate) fn refuse_nulls(batch: &RecordBatch, rows_before: usize, label: &Path) -> Result<()> {
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if !NAMES.contains(&field.name().as_str()) {
            continue;
        }
        if let Some(row) = first_null(column.as_ref()) {
            return Err(Error::DataSchema {
                kind: "NullValue",
                path: label.to_owned(),
                column: field.name().clone(),
                expected: "a value in every row".to_owned(),
                found: format!("null in row {}", rows_before + row),
            });
        }
    }
    Ok(())
}

/// The first row without a value.
pub(crate) fn first_null(column: &dyn Array) -> Option<usize> {
    if column.null_count() == 0 { None } else { (0..column.len()).find(|&row| column.is_null(row)) }
}

/// What is wrong with a column, before it becomes the error of its kind of file.
#[derive(Debug)]
pub(crate) struct WrongColumn {
    kind: &'static str,
    column: String,
    expected: String,
    found: String,
}

impl WrongColumn {
    fn into_schema_error(self, label: &Path) -> Error {
        let Self { kind, column, expected, found } = self;
        Error::DataSchema { kind, path: label.to_owned(), column, expected, found }
    }

    /// The rule in words and what was found.
    pub(crate) fn into_rule(self) -> (String, String) {
        (format!("{}: column `{}` must be {}", self.kind, self.column, self.expected), self.found)
    }
}

fn require(
    schema: &Schema,
    name: &str,
    expected: &str,
    accepts: impl Fn(&DataType) -> bool,
) -> Result<(), WrongColumn> {
    let wrong = |kind, found| WrongColumn { kind, column: name.to_owned(), expected: expected.to_owned(), found };
    let Ok(field) = schema.field_with_name(name) else {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(wrong("MissingColumn", format!("columns {}", names.join(", "))));
    };
    if accepts(field.data_type()) { Ok(()) } else { Err(wrong("InvalidColumnType", field.data_type().to_string())) }
}

fn require_time(schema: &Schema) -> Result<(), WrongColumn> {
    const EXPECTED: &str = "Timestamp(Nanosecond, \"UTC\")";
    require(schema, TIME, EXPECTED, |found| matches!(found, DataType::Timestamp(TimeUnit::Nanosecond, _)))?;
    match schema.field_with_name(TIME).map(|field| field.data_type()) {
        Ok(DataType::Timestamp(_, Some(zone))) if zone.as_ref() == "UTC" => Ok(()),
        Ok(DataType::Timestamp(_, zone)) => Err(WrongColumn {
            kind: "InvalidTimezone",
            column: TIME.to_owned(),
            expected: EXPECTED.to_owned(),
            found: zone.as_ref().map_or_else(|| "no zone".to_owned(), |zone| format!("zone `{zone}`")),
        }),
        _ => Ok(()),
    }
}

/// A Parquet file whose footer has been read.
pub(crate) struct Table {
    builder: ParquetRecordBatchReaderBuilder<Bytes>,
}

impl Table {
    /// Reads the footer.
    pub(crate) fn open(bytes: Bytes, label: &Path) -> Result<Self> {
        let size = bytes.len() as u64;
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| parse_error(label, &error))?;
        if builder
            .metadata()
            .row_groups()
            .iter()
            .flat_map(|group| group.columns())
            .any(|chunk| !lies_within(chunk, size))
        {
            return Err(parse_error(label, &"the file is damaged: a column lies outside of it"));
        }
        Ok(Self { builder })
    }

    fn schema(&self) -> &Schema {
        self.builder.schema()
    }

    /// Fails unless the column exists with a type that `accepts`.
    pub(crate) fn require(
        &self,
        name: &str,
        expected: &str,
        accepts: impl Fn(&DataType) -> bool,
    ) -> Result<(), WrongColumn> {
        require(self.schema(), name, expected, accepts)
    }

    /// Fails unless the stamps are nanoseconds of the zone written exactly `UTC`.
    pub(crate) fn require_time(&self, _label: &Path) -> Result<(), WrongColumn> {
        require_time(self.schema())
    }

    /// Every batch, only the columns `names`.
    pub(crate) fn batches(self, names: &[&str], label: &Path) -> Result<Vec<RecordBatch>> {
        let roots = names.iter().filter_map(|name| self.schema().index_of(name).ok()).collect::<Vec<_>>();
        let mask = ProjectionMask::roots(self.builder.parquet_schema(), roots);
        let reader = self.builder.with_projection(mask).with_batch_size(65_536).build();
        let reader = reader.map_err(|error| parse_error(label, &error))?;
        reader.collect::<Result<Vec<_>, _>>().map_err(|error| parse_error(label, &error))
    }
}

/// The commonest damage that the reader would panic on.
fn lies_within(chunk: &ColumnChunkMetaData, file_size: u64) -> bool {
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    let end = start.checked_add(chunk.compressed_size());
    start >= 0
        && chunk.compressed_size() >= 0
        && end.and_then(|end| u64::try_from(end).ok()).is_some_and(|end| end <= file_size)
}

fn parse_error(label: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::DataFile { kind: "ParseError", path: label.to_owned(), reason: format!("ParseError: {error}") }
}

/// The bytes of a file, or `FileNotFound`.
pub(crate) fn file_bytes(path: &Path, label: &Path) -> Result<Bytes> {
    std::fs::read(path).map(Bytes::from).map_err(|error| Error::DataFile {
        kind: "FileNotFound",
        path: label.to_owned(),
        reason: format!("FileNotFound: {error}"),
    })
}
