//! Candle files: read as columns, written for a run.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampNanosecondType};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// One side of a candle file, by column.
#[derive(Debug, Clone, Default)]
pub(crate) struct Candles {
    pub(crate) time: Vec<i64>,
    pub(crate) open: Vec<f64>,
    pub(crate) high: Vec<f64>,
    pub(crate) low: Vec<f64>,
    pub(crate) close: Vec<f64>,
    pub(crate) volume: Vec<f64>,
}

impl Candles {
    /// Reads a file of the data contract.
    pub(crate) fn read(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let mut all = Self::default();
        for batch in reader {
            let batch = batch.unwrap();
            let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
            all.time.extend(column("UTC time").as_primitive::<TimestampNanosecondType>().values());
            let floats = |name: &str| -> Vec<f64> {
                let column = column(name);
                match column.as_primitive_opt::<Float64Type>() {
                    Some(values) => values.values().to_vec(),
                    None => column.as_primitive::<Int64Type>().values().iter().map(|&v| v as f64).collect(),
                }
            };
            all.open.extend(floats("Open"));
            all.high.extend(floats("High"));
            all.low.extend(floats("Low"));
            all.close.extend(floats("Close"));
            all.volume.extend(floats("Volume"));
        }
        all
    }

    /// Writes a file of the data contract.
    pub(crate) fn write(&self, path: &Path) {
        let time = TimestampNanosecondArray::from(self.time.clone()).with_timezone("UTC");
        let column = |values: &[f64]| -> ArrayRef { Arc::new(Float64Array::from(values.to_vec())) };
        let mut fields =
            vec![Field::new("UTC time", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false)];
        fields
            .extend(["Open", "High", "Low", "Close", "Volume"].map(|name| Field::new(name, DataType::Float64, false)));
        let schema = Arc::new(Schema::new(fields));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(time)];
        columns.extend([&self.open, &self.high, &self.low, &self.close, &self.volume].map(|values| column(values)));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema, None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    /// The rows of which `keep` says so.
    pub(crate) fn filter(&self, keep: impl Fn(&Self, usize) -> bool) -> Self {
        let rows: Vec<usize> = (0..self.time.len()).filter(|&row| keep(self, row)).collect();
        let pick = |values: &[f64]| rows.iter().map(|&row| values[row]).collect();
        Self {
            time: rows.iter().map(|&row| self.time[row]).collect(),
            open: pick(&self.open),
            high: pick(&self.high),
            low: pick(&self.low),
            close: pick(&self.close),
            volume: pick(&self.volume),
        }
    }
}
