//! The leaderboard as a spreadsheet shows it.

use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{ArrayRef, RecordBatch};
use engine::metrics::{Metric, Unit, round_half_away};

use super::{LeaderboardError, Targets};
use crate::atomic::{AtomicFile, FileError};
use crate::row::{ParamValue, RowSchema, param_value};

/// The CSV for people: rounded by unit, null empty, parameters as their shortest text.
pub(super) struct CsvFile {
    out: csv::Writer<AtomicFile>,
    path: PathBuf,
    cells: Vec<Cell>,
    most: u64,
    pub(super) written: u64,
}

/// How a column is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    AsIs,
    Rounded(u32),
}

impl CsvFile {
    pub(super) fn create(schema: &RowSchema, targets: &Targets) -> Result<Self, LeaderboardError> {
        let fields = schema.leaderboard().fields();
        let cell = |name: &str| match Metric::from_key(name) {
            Some(metric) => Cell::Rounded(metric.def().unit.decimals()),
            None if name == "objective" => Cell::Rounded(Unit::Ratio.decimals()),
            None => Cell::AsIs,
        };
        let mut file = Self {
            out: csv::WriterBuilder::new().from_writer(AtomicFile::create(&targets.csv)?),
            path: targets.csv.clone(),
            cells: fields.iter().map(|field| cell(field.name())).collect(),
            most: targets.csv_rows.unwrap_or(u64::MAX),
            written: 0,
        };
        let header: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        file.out.write_record(header).map_err(|e| csv_error(&file.path, e))?;
        Ok(file)
    }

    pub(super) fn write(&mut self, ranked: &RecordBatch) -> Result<(), LeaderboardError> {
        let left = usize::try_from(self.most - self.written).unwrap_or(usize::MAX);
        for row in 0..ranked.num_rows().min(left) {
            let cells = ranked.columns().iter().zip(&self.cells).map(|(column, cell)| cell.text(column, row));
            self.out.write_record(cells).map_err(|e| csv_error(&self.path, e))?;
            self.written += 1;
        }
        Ok(())
    }

    pub(super) fn commit(self) -> Result<(), LeaderboardError> {
        let Self { out, path, .. } = self;
        let file = out.into_inner().map_err(|e| FileError::io(path, "write it", e.into_error()))?;
        Ok(file.commit()?)
    }
}

fn csv_error(path: &Path, error: csv::Error) -> FileError {
    match error.into_kind() {
        csv::ErrorKind::Io(source) => FileError::io(path, "write it", source),
        other => FileError::Format { path: path.to_owned(), reason: format!("{other:?}") },
    }
}

impl Cell {
    fn text(self, column: &ArrayRef, row: usize) -> String {
        if let Some(numbers) = column.as_primitive_opt::<UInt64Type>() {
            return numbers.value(row).to_string();
        }
        match (self, param_value(column, row)) {
            (Self::Rounded(decimals), ParamValue::Float(value)) => round_half_away(value, decimals).to_string(),
            (_, value) => value.to_text(),
        }
    }
}
