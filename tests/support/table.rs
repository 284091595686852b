//! Tables of a run folder, read cell by cell.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array as _, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// All rows of a file.
pub(crate) fn parquet(path: &Path) -> RecordBatch {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(1 << 24).build().unwrap();
    let schema = arrow_array::RecordBatchReader::schema(&reader);
    let mut batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert!(batches.len() <= 1, "{} batches", batches.len());
    batches.pop().unwrap_or_else(|| RecordBatch::new_empty(schema))
}

/// A cell; none if it is null.
pub(crate) fn number(batch: &RecordBatch, name: &str, row: usize) -> Option<f64> {
    let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    if column.is_null(row) {
        return None;
    }
    if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
        return Some(floats.value(row));
    }
    if let Some(whole) = column.as_primitive_opt::<UInt64Type>() {
        return Some(whole.value(row) as f64);
    }
    Some(column.as_primitive::<Int64Type>().value(row) as f64)
}

/// A cell; none if it is null.
pub(crate) fn text(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_owned())
}
