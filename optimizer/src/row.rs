//! One row per trial: what it holds, and the columns in which chunk files and leaderboards keep it.
//!
//! A chunk holds the leaderboard's columns but `rank`, `objective` and the verdict of the gates, which ranking adds.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use engine::backtest::Prepared;
use engine::backtest::tile::WalkReason;
use engine::metrics::{CATALOGUE, METRIC_COUNT, Metric, MetricValues};

use crate::fingerprint::{hex, unhex};
use crate::space::{ColumnKind, Space};

pub(crate) fn data_type(kind: ColumnKind) -> DataType {
    match kind {
        ColumnKind::Int => DataType::Int64,
        ColumnKind::Float => DataType::Float64,
        ColumnKind::Bool => DataType::Boolean,
        ColumnKind::Text => DataType::Utf8,
    }
}

/// One axis as a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamColumn {
    /// Name without the prefix `param.`.
    pub name: String,
    /// How its values are stored.
    pub kind: ColumnKind,
}

/// Value of an axis in one setting.
#[derive(Debug, Clone, PartialEq)]
pub enum ParamValue {
    /// Switched off, or not applicable.
    Null,
    /// For [`ColumnKind::Int`].
    Int(i64),
    /// For [`ColumnKind::Float`].
    Float(f64),
    /// For [`ColumnKind::Bool`].
    Bool(bool),
    /// For [`ColumnKind::Text`].
    Text(String),
}

impl ParamValue {
    /// The value as a column of `kind` stores it; `None` where it does not fit.
    ///
    /// Whole numbers fit a float column. Into a text column goes text as it is and anything else as JSON text.
    pub fn from_json(value: &serde_json::Value, kind: ColumnKind) -> Option<Self> {
        use serde_json::Value;
        match (kind, value) {
            (_, Value::Null) => Some(Self::Null),
            (ColumnKind::Int, Value::Number(number)) => number.as_i64().map(Self::Int),
            (ColumnKind::Float, Value::Number(number)) => number.as_f64().map(Self::Float),
            (ColumnKind::Bool, Value::Bool(flag)) => Some(Self::Bool(*flag)),
            (ColumnKind::Text, Value::String(text)) => Some(Self::Text(text.clone())),
            (ColumnKind::Text, other) => Some(Self::Text(other.to_string())),
            _ => None,
        }
    }

    /// Shortest text that gives the value back; empty for null.
    pub fn to_text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Text(value) => value.clone(),
        }
    }
}

/// What became of a trial.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly every row is the large variant")]
pub enum Outcome {
    /// Evaluated.
    Done {
        /// Every metric, unrounded; undefined is `None`.
        values: MetricValues,
        /// Why there was no trade, if there was none: `no_signal`, `all_rejected`, `never_closed`.
        no_trade_reason: Option<String>,
    },
    /// Could not be evaluated.
    Failed {
        /// `E4003` …
        code: String,
        /// What happened.
        reason: String,
    },
}

/// One trial's row. The values of its axes follow from `trial` and are added when the row is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Trial number.
    pub trial: u64,
    /// SHA-256 of the canonical resolved config.
    pub config_hash: [u8; 32],
    /// Digest of what the setting resolves to; equal for settings that must give equal results.
    pub rules_hash: [u8; 8],
    /// What became of it.
    pub outcome: Outcome,
    /// Seed of the slippage stream.
    pub rng_seed: u64,
}

impl Row {
    /// The row by reference.
    pub fn done(&self) -> Done<'_, Outcome> {
        let Self { trial, config_hash, rules_hash, outcome, rng_seed } = self;
        let way = Way::Unresolved;
        Done { trial: *trial, config_hash, rules_hash: *rules_hash, rng_seed: *rng_seed, way, outcome }
    }
}

/// A trial and what became of it: trials of equal `rules_hash` share one outcome.
#[derive(Debug, Clone, Copy)]
pub struct Done<'a, O> {
    /// Trial number.
    pub trial: u64,
    /// SHA-256 of the canonical resolved config.
    pub config_hash: &'a [u8; 32],
    /// Digest of what the setting resolves to; zeros if it does not resolve.
    pub rules_hash: [u8; 8],
    /// Seed of the slippage stream.
    pub rng_seed: u64,
    /// How it is evaluated.
    pub way: Way,
    /// What became of it.
    pub outcome: &'a O,
}

/// How a trial is evaluated: a property of its setting, whether it was evaluated itself or shares an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From entry to entry.
    Jumped,
    /// Bar by bar.
    Walked(WalkReason),
    /// Not at all: it does not resolve.
    Unresolved,
}

impl Way {
    /// The way of a setting.
    pub fn of(setting: &Prepared) -> Self {
        setting.why_walk().map_or(Self::Jumped, Self::Walked)
    }

    /// Name in counts: `jumped`, `walked: max_positions is above 1`, `unresolved`.
    pub fn text(self) -> String {
        match self {
            Self::Jumped => "jumped".to_owned(),
            Self::Walked(reason) => format!("walked: {}", reason.as_str()),
            Self::Unresolved => "unresolved".to_owned(),
        }
    }
}

/// Text of `status` before ranking.
pub(crate) const DONE: &str = "done";
/// Text of `status` of a failed trial, in chunk and leaderboard.
pub(crate) const FAILED: &str = "failed";

/// The columns of one run.
#[derive(Debug, Clone)]
pub struct RowSchema {
    params: Vec<ParamColumn>,
    chunk: SchemaRef,
    leaderboard: SchemaRef,
}

/// Columns before `param.*` in a chunk: `trial`, `config_hash`, `rules_hash`, `status`, `reason`.
const CHUNK_HEAD: usize = 5;

impl RowSchema {
    /// The columns for these axes, in their order.
    pub fn new(params: Vec<ParamColumn>) -> Self {
        let identity = [
            Field::new("trial", DataType::UInt64, false),
            Field::new("config_hash", DataType::Utf8, false),
            Field::new("rules_hash", DataType::Utf8, false),
            Field::new("status", DataType::Utf8, false),
            Field::new("reason", DataType::Utf8, true),
        ];
        let param_fields =
            params.iter().map(|axis| Field::new(format!("param.{}", axis.name), data_type(axis.kind), true));
        let metric_fields = CATALOGUE.iter().map(|metric| {
            let kind = if metric.unit.is_integer() { DataType::Int64 } else { DataType::Float64 };
            Field::new(metric.key, kind, true)
        });
        let seed = Field::new("rng_seed", DataType::UInt64, false);
        let tail: Vec<Field> = param_fields.chain(metric_fields).chain([seed]).collect();
        let chunk = identity.iter().chain(&tail).cloned().collect::<Vec<_>>();
        let rank = Field::new("rank", DataType::UInt64, false);
        let objective = Field::new("objective", DataType::Float64, true);
        let leaderboard = [rank].iter().chain(&identity).chain([&objective]).chain(&tail).cloned().collect::<Vec<_>>();
        Self { params, chunk: Arc::new(Schema::new(chunk)), leaderboard: Arc::new(Schema::new(leaderboard)) }
    }

    /// The columns for a search space.
    pub fn of(space: &Space) -> Self {
        let columns = space.columns().iter();
        Self::new(columns.map(|column| ParamColumn { name: column.name.clone(), kind: column.kind }).collect())
    }

    /// The columns of a chunk file of whatever sweep; `None` if they are not those of one.
    pub(crate) fn of_chunk(columns: &Schema) -> Option<Self> {
        let kind = |data_type: &DataType| match data_type {
            DataType::Int64 => Some(ColumnKind::Int),
            DataType::Float64 => Some(ColumnKind::Float),
            DataType::Boolean => Some(ColumnKind::Bool),
            DataType::Utf8 => Some(ColumnKind::Text),
            _ => None,
        };
        let params = columns.fields().iter().filter_map(|field| Some((field.name().strip_prefix("param.")?, field)));
        let params = params
            .map(|(name, field)| Some(ParamColumn { name: name.to_owned(), kind: kind(field.data_type())? }))
            .collect::<Option<_>>()?;
        let found = Self::new(params);
        (found.chunk.fields() == columns.fields()).then_some(found)
    }

    /// The axes, in order.
    pub fn params(&self) -> &[ParamColumn] {
        &self.params
    }

    /// Columns of a chunk file.
    pub fn chunk(&self) -> &SchemaRef {
        &self.chunk
    }

    /// Columns of a leaderboard.
    pub fn leaderboard(&self) -> &SchemaRef {
        &self.leaderboard
    }

    /// Bytes one row takes in memory as Arrow columns, estimated generously: fixed widths, and for texts a usual
    /// length with its offset.
    pub fn row_bytes(&self) -> usize {
        let width = |field: &Arc<Field>| match (field.name().as_str(), field.data_type()) {
            ("config_hash", _) => 68,
            ("rules_hash", _) => 20,
            (_, DataType::Utf8) => 32,
            (_, DataType::Boolean) => 1,
            _ => 9,
        };
        self.leaderboard.fields().iter().map(width).sum()
    }

    /// Position of the first metric column in a chunk.
    pub(crate) fn first_metric(&self) -> usize {
        CHUNK_HEAD + self.params.len()
    }

    /// Rows as the columns of a chunk.
    ///
    /// `params` gives the values of a trial's axes, in order; it must push exactly one value per axis, of the kind of
    /// its column or null.
    pub fn batch(
        &self,
        rows: &[Done<'_, Outcome>],
        params: &mut dyn FnMut(u64, &mut Vec<ParamValue>),
    ) -> Result<RecordBatch, BadRow> {
        let trial = rows.iter().map(|row| row.trial).collect::<UInt64Array>();
        let config_hash = StringArray::from_iter_values(rows.iter().map(|row| hex(row.config_hash)));
        let rules_hash = StringArray::from_iter_values(rows.iter().map(|row| hex(&row.rules_hash)));
        let status = StringArray::from_iter_values(rows.iter().map(|row| match row.outcome {
            Outcome::Done { .. } => DONE,
            Outcome::Failed { .. } => FAILED,
        }));
        let reason = rows.iter().map(|row| reason_text(row.outcome)).collect::<StringArray>();
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(trial), Arc::new(config_hash), Arc::new(rules_hash), Arc::new(status), Arc::new(reason)];
        columns.extend(self.param_columns(rows, params)?);
        columns.extend(Metric::ALL.into_iter().map(|metric| metric_column(rows, metric)));
        columns.push(Arc::new(rows.iter().map(|row| row.rng_seed).collect::<UInt64Array>()));
        RecordBatch::try_new(self.chunk.clone(), columns).map_err(|e| BadRow { trial: 0, reason: e.to_string() })
    }

    fn param_columns(
        &self,
        rows: &[Done<'_, Outcome>],
        params: &mut dyn FnMut(u64, &mut Vec<ParamValue>),
    ) -> Result<Vec<ArrayRef>, BadRow> {
        let mut builders: Vec<ParamBuilder> = self.params.iter().map(|axis| ParamBuilder::new(axis.kind)).collect();
        let mut values = Vec::with_capacity(self.params.len());
        for row in rows {
            values.clear();
            params(row.trial, &mut values);
            if values.len() != builders.len() {
                let reason = format!("{} axis values for {} axes", values.len(), builders.len());
                return Err(BadRow { trial: row.trial, reason });
            }
            for ((builder, axis), value) in builders.iter_mut().zip(&self.params).zip(values.drain(..)) {
                builder.push(value).map_err(|value| BadRow {
                    trial: row.trial,
                    reason: format!("axis `{}` is {:?}, found {value:?}", axis.name, axis.kind),
                })?;
            }
        }
        Ok(builders.into_iter().map(ParamBuilder::finish).collect())
    }
}

/// A row does not fit its columns: a mistake of the caller, not of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trial {trial}: {reason}")]
pub struct BadRow {
    /// The trial.
    pub trial: u64,
    /// What does not fit.
    pub reason: String,
}

/// `E4003: why` of a failed trial, the reason of one without a trade.
fn reason_text(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Done { no_trade_reason, .. } => no_trade_reason.clone(),
        Outcome::Failed { code, reason } => Some(format!("{code}: {reason}")),
    }
}

fn metric_column(rows: &[Done<'_, Outcome>], metric: Metric) -> ArrayRef {
    let value = |row: &Done<'_, Outcome>| match row.outcome {
        // A number that is not finite must never get here (E4302); should it, it is undefined and not infinite.
        Outcome::Done { values, .. } => values.get(metric).filter(|value| value.is_finite()),
        Outcome::Failed { .. } => None,
    };
    if metric.def().unit.is_integer() {
        Arc::new(rows.iter().map(|row| value(row).map(|v| v as i64)).collect::<Int64Array>())
    } else {
        Arc::new(rows.iter().map(value).collect::<Float64Array>())
    }
}

pub(crate) enum ParamBuilder {
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
}

impl ParamBuilder {
    pub(crate) fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Int => Self::Int(Int64Builder::new()),
            ColumnKind::Float => Self::Float(Float64Builder::new()),
            ColumnKind::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnKind::Text => Self::Text(StringBuilder::new()),
        }
    }

    /// Gives the value back where it is of another kind.
    pub(crate) fn push(&mut self, value: ParamValue) -> Result<(), ParamValue> {
        match (self, value) {
            (Self::Int(column), ParamValue::Int(value)) => column.append_value(value),
            (Self::Int(column), ParamValue::Null) => column.append_null(),
            (Self::Float(column), ParamValue::Float(value)) => column.append_value(value),
            (Self::Float(column), ParamValue::Null) => column.append_null(),
            (Self::Bool(column), ParamValue::Bool(value)) => column.append_value(value),
            (Self::Bool(column), ParamValue::Null) => column.append_null(),
            (Self::Text(column), ParamValue::Text(value)) => column.append_value(value),
            (Self::Text(column), ParamValue::Null) => column.append_null(),
            (_, value) => return Err(value),
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> ArrayRef {
        match self {
            Self::Int(mut column) => Arc::new(column.finish()),
            Self::Float(mut column) => Arc::new(column.finish()),
            Self::Bool(mut column) => Arc::new(column.finish()),
            Self::Text(mut column) => Arc::new(column.finish()),
        }
    }
}

/// A batch whose columns are those of a chunk, or the leading ones and the metrics of it.
#[derive(Debug)]
pub(crate) struct ChunkColumns<'a> {
    pub(crate) trial: &'a UInt64Array,
    pub(crate) config_hash: &'a StringArray,
    pub(crate) rules_hash: &'a StringArray,
    pub(crate) status: &'a StringArray,
    pub(crate) reason: &'a StringArray,
    params: &'a [ArrayRef],
    metrics: Vec<MetricColumn<'a>>,
    pub(crate) rng_seed: &'a UInt64Array,
}

#[derive(Debug)]
enum MetricColumn<'a> {
    Int(&'a Int64Array),
    Float(&'a Float64Array),
}

impl<'a> ChunkColumns<'a> {
    /// The columns of `batch`, which has the chunk columns of `schema`; `None` if it has others.
    pub(crate) fn new(schema: &RowSchema, batch: &'a RecordBatch) -> Option<Self> {
        let columns = batch.columns();
        let first_metric = schema.first_metric();
        if columns.len() != first_metric + METRIC_COUNT + 1 {
            return None;
        }
        Some(Self {
            trial: columns[0].as_primitive_opt::<UInt64Type>()?,
            config_hash: columns[1].as_string_opt()?,
            rules_hash: columns[2].as_string_opt()?,
            status: columns[3].as_string_opt()?,
            reason: columns[4].as_string_opt()?,
            params: &columns[CHUNK_HEAD..first_metric],
            metrics: columns[first_metric..first_metric + METRIC_COUNT]
                .iter()
                .map(|column| match column.data_type() {
                    DataType::Int64 => column.as_primitive_opt::<Int64Type>().map(MetricColumn::Int),
                    _ => column.as_primitive_opt::<Float64Type>().map(MetricColumn::Float),
                })
                .collect::<Option<_>>()?,
            rng_seed: columns[first_metric + METRIC_COUNT].as_primitive_opt::<UInt64Type>()?,
        })
    }

    pub(crate) fn failed(&self, i: usize) -> bool {
        self.status.value(i) == FAILED
    }

    pub(crate) fn reason(&self, i: usize) -> Option<&'a str> {
        self.reason.is_valid(i).then(|| self.reason.value(i))
    }

    pub(crate) fn metrics(&self, i: usize) -> MetricValues {
        let mut values = MetricValues::UNDEFINED;
        self.read_metrics(i, &Metric::ALL, &mut values);
        values
    }

    /// Sets these metrics of `values` to those of row `i`.
    pub(crate) fn read_metrics(&self, i: usize, metrics: &[Metric], values: &mut MetricValues) {
        for metric in metrics {
            let value = match &self.metrics[*metric as usize] {
                MetricColumn::Int(array) => array.is_valid(i).then(|| array.value(i) as f64),
                MetricColumn::Float(array) => array.is_valid(i).then(|| array.value(i)),
            };
            values.set(*metric, value);
        }
    }

    pub(crate) fn params(&self, i: usize) -> Vec<ParamValue> {
        self.params.iter().map(|column| param_value(column, i)).collect()
    }

    /// The row as it was before it was written; `None` where a digest is no digest.
    pub(crate) fn row(&self, i: usize) -> Option<Row> {
        let outcome = if self.failed(i) {
            let (code, reason) = self.reason(i)?.split_once(": ")?;
            Outcome::Failed { code: code.to_owned(), reason: reason.to_owned() }
        } else {
            Outcome::Done { values: self.metrics(i), no_trade_reason: self.reason(i).map(str::to_owned) }
        };
        Some(Row {
            trial: self.trial.value(i),
            config_hash: unhex(self.config_hash.value(i))?,
            rules_hash: unhex(self.rules_hash.value(i))?,
            outcome,
            rng_seed: self.rng_seed.value(i),
        })
    }
}

pub(crate) fn param_value(column: &ArrayRef, i: usize) -> ParamValue {
    if column.is_null(i) {
        return ParamValue::Null;
    }
    match column.data_type() {
        DataType::Int64 => ParamValue::Int(column.as_primitive::<Int64Type>().value(i)),
        DataType::Float64 => ParamValue::Float(column.as_primitive::<Float64Type>().value(i)),
        DataType::Boolean => ParamValue::Bool(column.as_boolean().value(i)),
        DataType::Utf8 => ParamValue::Text(column.as_string::<i32>().value(i).to_owned()),
        _ => ParamValue::Null,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two axes of each interesting kind.
    pub(crate) fn schema() -> RowSchema {
        let axis = |name: &str, kind| ParamColumn { name: name.to_owned(), kind };
        RowSchema::new(vec![
            axis("length", ColumnKind::Int),
            axis("z", ColumnKind::Float),
            axis("on", ColumnKind::Bool),
            axis("levels", ColumnKind::Text),
        ])
    }

    pub(crate) fn params(trial: u64, out: &mut Vec<ParamValue>) {
        out.push(ParamValue::Int(trial as i64 % 7 + 10));
        out.push(if trial % 5 == 4 { ParamValue::Null } else { ParamValue::Float(trial as f64 * 0.25 - 2.0) });
        out.push(ParamValue::Bool(trial.is_multiple_of(2)));
        out.push(ParamValue::Text(format!("[{trial},\"x\"]")));
    }

    /// Every kind of row, in a fixed mixture; neighbours share a rules hash.
    pub(crate) fn row(trial: u64) -> Row {
        let scrambled = trial.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995;
        let mut config_hash = [0; 32];
        config_hash[..8].copy_from_slice(&scrambled.to_be_bytes());
        config_hash[8..16].copy_from_slice(&trial.to_be_bytes());
        let outcome = if trial % 11 == 10 {
            Outcome::Failed { code: "E4003".into(), reason: format!("needs {trial}: bars, \"more\"") }
        } else {
            let mut values = MetricValues::UNDEFINED;
            let trades = if trial % 13 == 12 { 0.0 } else { (scrambled % 200) as f64 };
            values.set(Metric::TotalTrades, Some(trades));
            values.set(Metric::ProfitNet, Some(if trades == 0.0 { 0.0 } else { (scrambled % 1000) as f64 / 7.0 }));
            values.set(Metric::MaxDrawdown, Some((scrambled % 97) as f64 / 300.0));
            if trades > 0.0 && trial % 17 != 16 {
                values.set(Metric::SharpeEquityDaily, Some((scrambled % 31) as f64 / 3.0 - 5.0));
            }
            let no_trade_reason = (trades == 0.0).then(|| "no_signal".to_owned());
            Outcome::Done { values, no_trade_reason }
        };
        Row { trial, config_hash, rules_hash: (trial / 2).to_be_bytes(), outcome, rng_seed: 42 + trial % 2 }
    }

    #[test]
    fn columns_stand_in_the_order_of_the_design() {
        let schema = schema();
        let names: Vec<&str> = schema.leaderboard().fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names[..7], ["rank", "trial", "config_hash", "rules_hash", "status", "reason", "objective"]);
        assert_eq!(names[7..11], ["param.length", "param.z", "param.on", "param.levels"]);
        let keys: Vec<&str> = CATALOGUE.iter().map(|metric| metric.key).collect();
        assert_eq!(names[11..11 + METRIC_COUNT], keys);
        assert_eq!(names[11 + METRIC_COUNT..], ["rng_seed"]);
        let chunk: Vec<&str> = schema.chunk().fields().iter().map(|f| f.name().as_str()).collect();
        let without: Vec<&str> = names.iter().copied().filter(|name| !["rank", "objective"].contains(name)).collect();
        assert_eq!(chunk, without);
        assert_eq!(RowSchema::of_chunk(schema.chunk()).unwrap().params(), schema.params());
        assert!(RowSchema::of_chunk(schema.leaderboard()).is_none());
    }

    #[test]
    fn rows_come_back_from_their_columns() {
        let rows: Vec<Row> = (100..180).map(row).collect();
        let schema = schema();
        let done: Vec<_> = rows.iter().map(Row::done).collect();
        let batch = schema.batch(&done, &mut params).unwrap();
        let columns = ChunkColumns::new(&schema, &batch).unwrap();
        for (i, expected) in rows.iter().enumerate() {
            assert_eq!(columns.row(i).as_ref(), Some(expected));
            let mut values = Vec::new();
            params(expected.trial, &mut values);
            assert_eq!(columns.params(i), values);
        }
    }

    #[test]
    fn a_value_of_another_kind_is_refused_with_the_trial() {
        let mut wrong = |_: u64, out: &mut Vec<ParamValue>| {
            out.extend([ParamValue::Text("x".into()), ParamValue::Null, ParamValue::Null, ParamValue::Null]);
        };
        let error = schema().batch(&[row(3).done()], &mut wrong).unwrap_err();
        assert_eq!(error.to_string(), "trial 3: axis `length` is Int, found Text(\"x\")");
        let error = schema().batch(&[row(3).done()], &mut |_, _| ()).unwrap_err();
        assert_eq!(error.to_string(), "trial 3: 0 axis values for 4 axes");
    }

    #[test]
    fn nothing_infinite_gets_into_a_column() {
        let mut values = MetricValues::UNDEFINED;
        values.set(Metric::ProfitFactor, Some(f64::INFINITY));
        let outcome = Outcome::Done { values, no_trade_reason: None };
        let batch = schema().batch(&[Row { outcome, ..row(0) }.done()], &mut params).unwrap();
        assert!(batch.column_by_name("profit_factor").unwrap().is_null(0));
    }

    #[test]
    fn json_values_take_the_kind_of_their_column() {
        use serde_json::json;
        assert_eq!(ParamValue::from_json(&json!(3), ColumnKind::Float), Some(ParamValue::Float(3.0)));
        assert_eq!(ParamValue::from_json(&json!(3.5), ColumnKind::Int), None);
        assert_eq!(
            ParamValue::from_json(&json!([1, "a"]), ColumnKind::Text),
            Some(ParamValue::Text("[1,\"a\"]".into()))
        );
        assert_eq!(ParamValue::from_json(&json!(null), ColumnKind::Bool), Some(ParamValue::Null));
        assert_eq!(ParamValue::Float(0.1).to_text(), "0.1");
        assert_eq!(ParamValue::Float(-2.0).to_text(), "-2");
    }
}
