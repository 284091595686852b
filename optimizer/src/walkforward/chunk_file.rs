//! Chunk files of a walk-forward: per trial and window the train and test objective and whether the gates passed, and
//! per window the metrics of the chunk's best train row.
//!
//! One row per trial. Window `n` has the columns `w<n>.train`, `w<n>.train_passed`, `w<n>.test`, `w<n>.test_passed`: an
//! objective and `true` is `ok`, an objective and `false` is `gated`, no objective and `false` is `no_score`, neither is
//! `failed`. The column `best` is null but in rows that are the best of the chunk on some train window; there it is JSON
//! text with the number of each such window and every metric, in digits that give the number back.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt64Type};
use arrow_array::{Array as _, ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use engine::metrics::{Metric, MetricValues};
use serde_json::{Map, Value, json};

use crate::atomic::FileError;
use crate::chunk::{ChunkError, read_batch, read_header, write_batch};
use crate::fingerprint::{Fingerprint, hex, unhex};
use crate::objective::Verdict;
use crate::reuse::differences;
use crate::row::{DONE, Done, FAILED};
use crate::walkforward::cells::{Cell, Cells, Layout, Outcome};

/// Columns before those of the windows: `trial`, `config_hash`, `rules_hash`, `status`, `reason`, `rng_seed`.
const HEAD: usize = 6;
/// Columns per window.
const PER_WINDOW: usize = 4;
/// Memory of a row of the fixed columns, estimated generously.
const HEAD_BYTES: usize = 9 + 68 + 20 + 12 + 48 + 9;

/// Columns of the chunk files of one run.
#[derive(Debug, Clone)]
pub struct CellSchema {
    schema: SchemaRef,
    windows: usize,
}

/// Train or test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What the choice sees.
    Train,
    /// What it is judged on.
    Test,
}

/// The best train row of a chunk on one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Number of the window.
    pub window: usize,
    /// Row of the chunk.
    pub row: usize,
    /// Its train metrics.
    pub values: MetricValues,
}

impl CellSchema {
    /// For the windows of a layout.
    pub fn new(layout: &Layout) -> Self {
        let windows = layout.places().len();
        let head = [
            Field::new("trial", DataType::UInt64, false),
            Field::new("config_hash", DataType::Utf8, false),
            Field::new("rules_hash", DataType::Utf8, false),
            Field::new("status", DataType::Utf8, false),
            Field::new("reason", DataType::Utf8, true),
            Field::new("rng_seed", DataType::UInt64, false),
        ];
        let cells = (0..windows).flat_map(|window| {
            ["train", "test"].into_iter().flat_map(move |part| {
                [
                    Field::new(format!("w{window:03}.{part}"), DataType::Float64, true),
                    Field::new(format!("w{window:03}.{part}_passed"), DataType::Boolean, true),
                ]
            })
        });
        let best = Field::new("best", DataType::Utf8, true);
        let fields: Vec<Field> = head.into_iter().chain(cells).chain([best]).collect();
        Self { schema: Arc::new(Schema::new(fields)), windows }
    }

    /// The columns.
    pub fn fields(&self) -> &Fields {
        self.schema.fields()
    }

    /// Bytes one row takes as Arrow columns, estimated generously.
    pub fn row_bytes(&self) -> usize {
        HEAD_BYTES + self.windows * PER_WINDOW * 6
    }

    fn batch(
        &self,
        layout: &Layout,
        rows: &[Done<'_, Outcome>],
        best: &[Best],
    ) -> Result<RecordBatch, arrow_schema::ArrowError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.trial).collect::<UInt64Array>()),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| hex(row.config_hash)))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| hex(&row.rules_hash)))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| match row.outcome {
                Outcome::Done(_) => DONE,
                Outcome::Failed { .. } => FAILED,
            }))),
            Arc::new(rows.iter().map(reason).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.rng_seed).collect::<UInt64Array>()),
        ];
        for place in layout.places() {
            for span in [place.train, place.test] {
                let cells = || rows.iter().map(|row| row.outcome.cell(span));
                columns.push(Arc::new(cells().map(|cell| cell.score).collect::<Float64Array>()));
                let passed = |cell: Cell| match cell.verdict {
                    Verdict::Ok => Some(true),
                    Verdict::Gated | Verdict::NoScore => Some(false),
                    Verdict::Failed => None,
                };
                columns.push(Arc::new(cells().map(passed).collect::<BooleanArray>()));
            }
        }
        let mut texts: Vec<Vec<Value>> = vec![Vec::new(); rows.len()];
        for best in best {
            texts[best.row].push(json!({ "window": best.window, "values": values_json(&best.values) }));
        }
        let texts = texts.into_iter().map(|of_row| (!of_row.is_empty()).then(|| Value::from(of_row).to_string()));
        columns.push(Arc::new(texts.collect::<StringArray>()));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

fn reason(row: &Done<'_, Outcome>) -> Option<String> {
    let failure = match row.outcome {
        Outcome::Done(cells) => cells.failure.as_ref().map(|(code, reason)| (code, reason)),
        Outcome::Failed { code, reason } => Some((code, reason)),
    };
    failure.map(|(code, reason)| format!("{code}: {reason}"))
}

/// Metrics that are defined, by key.
fn values_json(values: &MetricValues) -> Map<String, Value> {
    values.iter().filter_map(|(metric, value)| Some((metric.key().to_owned(), Value::from(value?)))).collect()
}

fn values_of(json: &Value) -> Option<MetricValues> {
    let mut values = MetricValues::UNDEFINED;
    for (key, value) in json.as_object()? {
        values.set(Metric::from_key(key)?, Some(value.as_f64()?));
    }
    Some(values)
}

/// Writes one chunk beside `path`, flushes and renames it. `rows` are those of consecutive trials, in order.
pub fn write(
    path: &Path,
    schema: &CellSchema,
    layout: &Layout,
    fingerprint: &Fingerprint,
    rows: &[Done<'_, Outcome>],
    best: &[Best],
) -> Result<(), FileError> {
    let format = |reason: String| FileError::Format { path: path.to_owned(), reason };
    let first = rows.first().map_or(0, |row| row.trial);
    let trials = first..first + rows.len() as u64;
    if !rows.iter().map(|row| row.trial).eq(trials.clone()) {
        return Err(format("rows of a chunk must be consecutive trials".to_owned()));
    }
    let batch = schema.batch(layout, rows, best).map_err(|e| format(e.to_string()))?;
    write_batch(path, fingerprint, trials, &batch)
}

/// Reads a chunk and checks everything.
///
/// # Errors
/// As [`crate::chunk::read_chunk`].
pub fn read(
    path: &Path,
    schema: &CellSchema,
    fingerprint: &Fingerprint,
    trials: Range<u64>,
) -> Result<CellChunk, ChunkError> {
    let batch = read_batch(path, schema.fields(), fingerprint, trials)?.batch;
    let damaged = || ChunkError::Damaged { path: path.to_owned(), reason: "`best` is not what was written".to_owned() };
    let best = read_best(&batch, schema.windows).ok_or_else(damaged)?;
    Ok(CellChunk { batch, best })
}

/// Reads and checks a chunk of an earlier walk-forward over the same windows; none if it cannot serve.
pub(crate) fn read_earlier(path: &Path, schema: &CellSchema, fingerprint: &Fingerprint) -> Option<CellChunk> {
    let (header, _) = read_header(path).ok()?;
    if !differences(fingerprint, &header.fingerprint).is_empty() {
        return None;
    }
    read(path, schema, &header.fingerprint, header.trials()).ok()
}

fn read_best(batch: &RecordBatch, windows: usize) -> Option<Vec<Best>> {
    let texts = batch.columns().last()?.as_string_opt::<i32>()?;
    let mut best = Vec::new();
    for (row, text) in texts.iter().enumerate() {
        let Some(text) = text else { continue };
        for entry in serde_json::from_str::<Vec<Value>>(text).ok()? {
            let window = usize::try_from(entry["window"].as_u64()?).ok().filter(|window| *window < windows)?;
            best.push(Best { window, row, values: values_of(&entry["values"])? });
        }
    }
    best.sort_by_key(|best| best.window);
    Some(best)
}

/// A chunk read back; its columns have been checked.
#[derive(Debug, Clone)]
pub struct CellChunk {
    batch: RecordBatch,
    best: Vec<Best>,
}

fn cell_of(score: Option<f64>, passed: Option<bool>) -> Cell {
    let verdict = match (score, passed) {
        (_, None) => Verdict::Failed,
        (None, Some(_)) => Verdict::NoScore,
        (Some(_), Some(false)) => Verdict::Gated,
        (Some(_), Some(true)) => Verdict::Ok,
    };
    Cell { verdict, score }
}

/// Who a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Trial number.
    pub trial: u64,
    /// SHA-256 of its config.
    pub config_hash: [u8; 32],
    /// What it resolves to.
    pub rules_hash: [u8; 8],
    /// Seed of the slippage stream.
    pub rng_seed: u64,
}

impl CellChunk {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The best train rows, by window; none for a window on whose train part no trial has a score.
    pub fn best(&self) -> &[Best] {
        &self.best
    }

    /// The cells of one part of a window, row by row.
    pub fn cells(&self, window: usize, part: Part) -> impl Iterator<Item = Cell> + '_ {
        let columns = self.columns(window, part);
        let pairs = columns.into_iter().flat_map(|(scores, passed)| scores.iter().zip(passed.iter()));
        pairs.map(|(score, passed)| cell_of(score, passed))
    }

    /// One cell.
    fn cell(&self, window: usize, part: Part, row: usize) -> Cell {
        match self.columns(window, part) {
            Some((scores, passed)) => cell_of(
                scores.is_valid(row).then(|| scores.value(row)),
                passed.is_valid(row).then(|| passed.value(row)),
            ),
            None => Cell::EMPTY,
        }
    }

    fn columns(&self, window: usize, part: Part) -> Option<(&Float64Array, &BooleanArray)> {
        let at = HEAD + window * PER_WINDOW + if part == Part::Train { 0 } else { 2 };
        let scores = self.batch.column(at).as_primitive_opt::<Float64Type>()?;
        Some((scores, self.batch.column(at + 1).as_boolean_opt()?))
    }

    /// Who a row is; none beyond the end, or where a digest is no digest.
    pub fn identity(&self, row: usize) -> Option<Identity> {
        if row >= self.rows() {
            return None;
        }
        let number = |at: usize| Some(self.batch.column(at).as_primitive_opt::<UInt64Type>()?.value(row));
        let text = |at: usize| Some(self.batch.column(at).as_string_opt::<i32>()?.value(row));
        Some(Identity {
            trial: number(0)?,
            config_hash: unhex(text(1)?)?,
            rules_hash: unhex(text(2)?)?,
            rng_seed: number(5)?,
        })
    }

    /// Code and reason of a row that failed, as a whole or in some cell.
    pub fn failure(&self, row: usize) -> Option<(String, String)> {
        let reasons = self.batch.column(4).as_string_opt::<i32>()?;
        let (code, reason) = reasons.is_valid(row).then(|| reasons.value(row))?.split_once(": ")?;
        Some((code.to_owned(), reason.to_owned()))
    }

    /// The outcome of a row as it was evaluated; none beyond the end.
    pub fn outcome(&self, layout: &Layout, row: usize) -> Option<Outcome> {
        if row >= self.rows() {
            return None;
        }
        let failure = self.failure(row);
        if self.failed(row) {
            return failure.map(|(code, reason)| Outcome::Failed { code, reason });
        }
        let mut cells = vec![Cell::EMPTY; layout.spans().len()];
        for (window, place) in layout.places().iter().enumerate() {
            for (part, span) in [(Part::Train, place.train), (Part::Test, place.test)] {
                if let Some(span) = span {
                    cells[span] = self.cell(window, part, row);
                }
            }
        }
        Some(Outcome::Done(Cells { cells, failure }))
    }

    /// The trial failed as a whole.
    pub fn failed(&self, row: usize) -> bool {
        self.batch.column(3).as_string_opt::<i32>().is_some_and(|status| status.value(row) == FAILED)
    }
}
