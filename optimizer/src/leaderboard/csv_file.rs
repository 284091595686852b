//! The leaderboard as a spreadsheet shows it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use engine::metrics::{Metric, Unit, round_half_away};

use super::{LeaderboardError, Targets};
use crate::atomic::{AtomicFile, FileError};
use crate::row::RowSchema;

/// The CSV for people: rounded by unit, null empty, parameters as their shortest text.
pub(super) struct CsvFile {
    out: csv::Writer<AtomicFile>,
    path: PathBuf,
    /// Decimals of each column; none: as it is.
    decimals: Vec<Option<u32>>,
    most: u64,
    pub(super) written: u64,
}

impl CsvFile {
    pub(super) fn create(schema: &RowSchema, targets: &Targets) -> Result<Self, LeaderboardError> {
        let fields = schema.leaderboard().fields();
        let decimals = |name: &str| match Metric::from_key(name) {
            Some(metric) => Some(metric.def().unit.decimals()),
            None if name == "objective" => Some(Unit::Ratio.decimals()),
            None => None,
        };
        let mut file = Self {
            out: csv::WriterBuilder::new().from_writer(AtomicFile::create(&targets.csv)?),
            path: targets.csv.clone(),
            decimals: fields.iter().map(|field| decimals(field.name())).collect(),
            most: targets.csv_rows.unwrap_or(u64::MAX),
            written: 0,
        };
        let header: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        file.out.write_record(header).map_err(|e| csv_error(&file.path, e))?;
        Ok(file)
    }

    /// Not all rows it may hold are there.
    pub(super) fn wants_more(&self) -> bool {
        self.written < self.most
    }

    pub(super) fn write(&mut self, ranked: &RecordBatch) -> Result<(), LeaderboardError> {
        let left = usize::try_from(self.most - self.written).unwrap_or(usize::MAX);
        let rows = ranked.num_rows().min(left);
        let columns: Vec<Cells<'_>> = ranked
            .columns()
            .iter()
            .zip(&self.decimals)
            .map(|(column, decimals)| Cells::of(column, *decimals))
            .collect();
        let mut text = Vec::with_capacity(32);
        for row in 0..rows {
            for column in &columns {
                text.clear();
                column.push(row, &mut text);
                self.out.write_field(&text).map_err(|e| csv_error(&self.path, e))?;
            }
            self.out.write_record(None::<&[u8]>).map_err(|e| csv_error(&self.path, e))?;
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

/// A column and how it is shown.
enum Cells<'a> {
    Rounded(&'a Float64Array, u32),
    Float(&'a Float64Array),
    Int(&'a Int64Array),
    Number(&'a UInt64Array),
    Bool(&'a BooleanArray),
    Text(&'a StringArray),
    /// No column of a leaderboard.
    Nothing,
}

impl<'a> Cells<'a> {
    fn of(column: &'a ArrayRef, decimals: Option<u32>) -> Self {
        if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
            return decimals.map_or(Self::Float(floats), |decimals| Self::Rounded(floats, decimals));
        }
        let int = || column.as_primitive_opt::<Int64Type>().map(Self::Int);
        let number = || column.as_primitive_opt::<UInt64Type>().map(Self::Number);
        let flag = || column.as_boolean_opt().map(Self::Bool);
        let text = || column.as_string_opt().map(Self::Text);
        int().or_else(number).or_else(flag).or_else(text).unwrap_or(Self::Nothing)
    }

    fn push(&self, row: usize, out: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = match self {
            Self::Rounded(column, decimals) if column.is_valid(row) => {
                push_rounded(column.value(row), *decimals, out);
                Ok(())
            }
            Self::Float(column) if column.is_valid(row) => write!(out, "{}", column.value(row)),
            Self::Int(column) if column.is_valid(row) => write!(out, "{}", column.value(row)),
            Self::Number(column) if column.is_valid(row) => write!(out, "{}", column.value(row)),
            Self::Bool(column) if column.is_valid(row) => write!(out, "{}", column.value(row)),
            Self::Text(column) if column.is_valid(row) => out.write_all(column.value(row).as_bytes()),
            _ => Ok(()),
        };
    }
}

/// The shortest text of `x` rounded to `decimals`.
///
/// A rounded number is a whole number over a power of ten; up to 15 digits, its shortest text is that fraction written
/// out, since no shorter decimal is nearest to the same double. This is many times faster than looking for it.
fn push_rounded(x: f64, decimals: u32, out: &mut Vec<u8>) {
    const DIGITS: f64 = 1e15;
    let rounded = round_half_away(x, decimals);
    if !rounded.is_finite() {
        // The scaled number is too large; there is nothing behind its point anyway.
        let _ = write!(out, "{x}");
        return;
    }
    let scale = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8][decimals.min(8) as usize];
    // The nearest whole number is the one that was divided: the quotient is off by at most half a unit in the last of
    // 53 bits, the product by as much again.
    let whole = (rounded.abs() * scale).round_ties_even();
    if whole.is_nan() || whole >= DIGITS {
        let _ = write!(out, "{rounded}");
        return;
    }
    if rounded < 0.0 {
        out.push(b'-');
    }
    let (whole, scale) = (whole as u64, scale as u64);
    push_digits(whole / scale, 1, out);
    let fraction = whole % scale;
    if fraction > 0 {
        out.push(b'.');
        push_digits(fraction, decimals.min(8) as usize, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Decimal digits of `n`, zeros in front up to `width`.
fn push_digits(mut n: u64, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while n > 0 {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(x: f64, decimals: u32) -> String {
        let mut out = Vec::new();
        push_rounded(x, decimals, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rounded_numbers_are_written_in_full() {
        for (x, decimals, expected) in [
            (0.0, 6, "0"),
            (-0.000_000_4, 6, "0"),
            (-1.5, 6, "-1.5"),
            (0.05, 2, "0.05"),
            (1_234.565_001, 2, "1234.57"),
            (1_000_000.0, 2, "1000000"),
            (0.123_456_789, 6, "0.123457"),
            (1e300, 2, &1e300.to_string()),
            (f64::MAX, 6, &f64::MAX.to_string()),
        ] {
            assert_eq!(text(x, decimals), expected, "{x} to {decimals}");
        }
    }

    mod property_tests {
        use super::*;

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(20_000))]

            #[test]
            fn prop_the_text_is_the_shortest_of_the_rounded_number(
                mantissa in -1e16..1e16_f64, exponent in 0..24_u32, decimals in 0..9_u32,
            ) {
                let x = mantissa / (0..exponent).fold(1.0, |scale: f64, _| scale * 10.0);
                prop_assert_eq!(text(x, decimals), round_half_away(x, decimals).to_string());
            }
        }
    }
}
