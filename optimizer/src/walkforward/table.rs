//! Result tables: one Parquet file with unrounded values and one CSV for people beside it, each whole or absent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema};
use engine::metrics::{MetricDef, Unit, round_half_away};
use parquet::file::metadata::KeyValue;

use crate::atomic::{AtomicFile, FileError};
use crate::chunk::KEY_PART;
use crate::fingerprint::Fingerprint;
use crate::parquet_file::ParquetFile;
use crate::row::{ParamBuilder, ParamValue, data_type};
use crate::space::ColumnKind;

/// Rows per row group: fixed, because it shows in the bytes.
const ROW_GROUP: usize = 65_536;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    name: String,
    kind: ColumnKind,
    /// Decimals in the CSV; none: as many as give the number back.
    decimals: Option<u32>,
}

impl Column {
    /// A column as it is.
    pub fn new(name: impl Into<String>, kind: ColumnKind) -> Self {
        Self { name: name.into(), kind, decimals: None }
    }

    /// Whole numbers.
    pub fn int(name: impl Into<String>) -> Self {
        Self::new(name, ColumnKind::Int)
    }

    /// Text.
    pub fn text(name: impl Into<String>) -> Self {
        Self::new(name, ColumnKind::Text)
    }

    /// A number of this unit.
    pub fn of_unit(name: impl Into<String>, unit: Unit) -> Self {
        let kind = if unit.is_integer() { ColumnKind::Int } else { ColumnKind::Float };
        Self { name: name.into(), kind, decimals: Some(unit.decimals()) }
    }

    /// A metric under a prefix.
    pub fn metric(prefix: &str, def: &MetricDef) -> Self {
        Self::of_unit(format!("{prefix}{}", def.key), def.unit)
    }
}

/// The value of a number of this unit as [`Column::of_unit`] stores it.
pub fn of_unit(value: Option<f64>, unit: Unit) -> ParamValue {
    match value.filter(|value| value.is_finite()) {
        None => ParamValue::Null,
        Some(value) if unit.is_integer() => ParamValue::Int(value as i64),
        Some(value) => ParamValue::Float(value),
    }
}

/// Text, or null.
pub fn text(value: Option<impl Into<String>>) -> ParamValue {
    value.map_or(ParamValue::Null, |value| ParamValue::Text(value.into()))
}

/// A whole number.
pub fn int(value: impl TryInto<i64>) -> ParamValue {
    value.try_into().map_or(ParamValue::Null, ParamValue::Int)
}

/// Both files of a table, being written.
pub struct TableFile {
    columns: Vec<Column>,
    schema: Arc<Schema>,
    parquet: ParquetFile<'static>,
    csv: csv::Writer<AtomicFile>,
    path: PathBuf,
    /// Rows of the row group to come.
    waiting: Vec<Vec<ParamValue>>,
}

impl TableFile {
    /// Starts `<stem>.parquet` and `<stem>.csv` in a folder.
    ///
    /// # Errors
    /// The folder takes no files.
    pub fn create(
        folder: &Path,
        stem: &str,
        columns: Vec<Column>,
        fingerprint: &Fingerprint,
    ) -> Result<Self, FileError> {
        let path = folder.join(format!("{stem}.parquet"));
        let fields = columns.iter().map(|column| Field::new(&column.name, data_type(column.kind), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let parts =
            fingerprint.parts().map(|(name, value)| KeyValue::new(format!("{KEY_PART}{name}"), value.to_owned()));
        let parquet = ParquetFile::create(&path, &schema, ROW_GROUP as u64, true, parts.collect(), None)?;
        let mut csv = csv::WriterBuilder::new().from_writer(AtomicFile::create(folder.join(format!("{stem}.csv")))?);
        csv.write_record(columns.iter().map(|column| &column.name)).map_err(|e| csv_error(&path, e))?;
        Ok(Self { columns, schema, parquet, csv, path, waiting: Vec::new() })
    }

    /// Adds rows; each has one value per column, of its kind or null.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn append(&mut self, rows: Vec<Vec<ParamValue>>) -> Result<(), FileError> {
        for row in rows {
            if row.len() != self.columns.len() {
                let reason = format!("{} values for {} columns", row.len(), self.columns.len());
                return Err(FileError::Format { path: self.path.clone(), reason });
            }
            let cells = row.iter().zip(&self.columns).map(|(value, column)| match (value, column.decimals) {
                (ParamValue::Float(value), Some(decimals)) => round_half_away(*value, decimals).to_string(),
                (value, _) => value.to_text(),
            });
            self.csv.write_record(cells).map_err(|e| csv_error(&self.path, e))?;
            self.waiting.push(row);
            if self.waiting.len() == ROW_GROUP {
                self.write_group()?;
            }
        }
        Ok(())
    }

    fn write_group(&mut self) -> Result<(), FileError> {
        let format = |reason: String| FileError::Format { path: self.path.clone(), reason };
        let mut builders: Vec<ParamBuilder> =
            self.columns.iter().map(|column| ParamBuilder::new(column.kind)).collect();
        for row in self.waiting.drain(..) {
            for ((builder, column), value) in builders.iter_mut().zip(&self.columns).zip(row) {
                builder
                    .push(value)
                    .map_err(|value| format(format!("`{}` is {:?}, found {value:?}", column.name, column.kind)))?;
            }
        }
        let arrays = builders.into_iter().map(ParamBuilder::finish).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(|e| format(e.to_string()))?;
        self.parquet.write_group(&batch)
    }

    /// Flushes both files and puts them in their places.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn commit(mut self) -> Result<(), FileError> {
        if !self.waiting.is_empty() {
            self.write_group()?;
        }
        self.parquet.commit()?;
        let csv = self.csv.into_inner().map_err(|e| FileError::io(&self.path, "write it", e.into_error()))?;
        csv.commit()
    }
}

fn csv_error(path: &Path, error: csv::Error) -> FileError {
    match error.into_kind() {
        csv::ErrorKind::Io(source) => FileError::io(path, "write it", source),
        other => FileError::Format { path: path.to_owned(), reason: format!("{other:?}") },
    }
}
