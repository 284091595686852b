//! Candle files: columns to Parquet bytes of the layout that `read` expects (`data-contract.md` §2), and bytes to disk.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::data::read::{Candles, TIME};

/// The six columns, stamps as nanoseconds UTC, compressed with zstd. Equal candles give equal bytes.
pub(crate) fn parquet_bytes(candles: &Candles) -> Result<Vec<u8>, ParquetError> {
    let stamp = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let mut fields = vec![Field::new(TIME, stamp, false)];
    fields.extend(["Open", "High", "Low", "Close", "Volume"].map(|name| Field::new(name, DataType::Float64, false)));
    let schema = Arc::new(Schema::new(fields));
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(TimestampNanosecondArray::from(candles.time.clone()).with_timezone("UTC"))];
    for column in [&candles.open, &candles.high, &candles.low, &candles.close, &candles.volume] {
        columns.push(Arc::new(Float64Array::from(column.clone())));
    }
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    writer.write(&batch)?;
    writer.into_inner()
}

/// Writes a new file and flushes it to disk.
pub(crate) fn write_flushed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}
