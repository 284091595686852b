//! Types and ranges of what a grid may vary, and the check of single values against them.

use engine::strategy::ParamKind;
use engine::units::Timeframe;
use serde_json::Value;

use crate::document::{Node, NodeKind};
use crate::expression::{Datum, Type};
use crate::space::axis::{AxisFault, decimal};

/// Type of a column of settings in chunks and the leaderboard. Every column is nullable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// 64-bit integers.
    Int,
    /// Doubles.
    Float,
    /// Truth values.
    Bool,
    /// Text; lists and objects as JSON text.
    Text,
}

/// Type and range of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueType {
    /// What it is.
    pub kind: ValueKind,
    /// Null is valid too.
    pub nullable: bool,
}

/// Kinds of values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueKind {
    /// As a strategy declares its parameters.
    Param(ParamKind),
    /// Any text.
    Text,
    /// Anything; the run config decides.
    Json,
}

impl ValueType {
    /// The type of its column.
    pub fn column_kind(&self) -> ColumnKind {
        match self.kind {
            ValueKind::Param(ParamKind::Int { .. }) => ColumnKind::Int,
            ValueKind::Param(ParamKind::Float { .. }) => ColumnKind::Float,
            ValueKind::Param(ParamKind::Bool) => ColumnKind::Bool,
            _ => ColumnKind::Text,
        }
    }

    /// What an expression may do with it.
    pub fn expression_type(&self) -> Type {
        match self.kind {
            ValueKind::Param(ParamKind::Int { .. } | ParamKind::Float { .. }) => Type::Number,
            ValueKind::Param(ParamKind::Bool) => Type::Bool,
            ValueKind::Param(ParamKind::Choice(_) | ParamKind::Timeframe(_)) | ValueKind::Text => Type::Text,
            _ => Type::Any,
        }
    }

    /// It is a number.
    pub fn is_numeric(&self) -> bool {
        self.expression_type() == Type::Number
    }

    /// Its values are integers.
    pub fn is_whole(&self) -> bool {
        self.column_kind() == ColumnKind::Int
    }

    /// A single value is itself a list.
    pub fn is_list(&self) -> bool {
        matches!(self.kind, ValueKind::Param(ParamKind::IntList { .. } | ParamKind::TextList))
    }

    /// The value of a node, typed and checked.
    ///
    /// # Errors
    /// The rule broken and the value found.
    pub fn read(&self, node: &Node) -> Result<Value, AxisFault> {
        let fault = |message: String| AxisFault { message, hint: None };
        let value = match &node.kind {
            NodeKind::Number(literal) if self.is_whole() => {
                // A whole decimal is an integer however it is written: 20, 20.0, 2e1.
                let whole = decimal(literal).ok().filter(|x| x.fract().is_zero()).and_then(|x| i64::try_from(x).ok());
                whole.map_or_else(|| node.to_json(), Value::from)
            }
            NodeKind::Number(literal) if self.is_numeric() => {
                literal.parse::<f64>().map_or_else(|_| node.to_json(), |x| Value::from(x + 0.0))
            }
            _ => node.to_json(),
        };
        self.check(&value).map_err(|rule| fault(format!("{rule}, got {}", node.describe())))?;
        Ok(value)
    }

    /// Checks a value against type and range.
    ///
    /// # Errors
    /// The rule broken.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let valid = match self.kind {
            _ if value.is_null() && self.nullable => true,
            ValueKind::Json => true,
            ValueKind::Text => value.is_string(),
            ValueKind::Param(kind) => param_accepts(&kind, value),
        };
        if valid { Ok(()) } else { Err(format!("must be {}", self.range_text())) }
    }

    /// The valid values in words: `a whole number >= 2`.
    pub fn range_text(&self) -> String {
        let range = match self.kind {
            ValueKind::Json => "a value".to_owned(),
            ValueKind::Text => "text".to_owned(),
            ValueKind::Param(kind) => param_range(&kind),
        };
        if self.nullable { format!("{range}, or null") } else { range }
    }
}

fn param_accepts(kind: &ParamKind, value: &Value) -> bool {
    match *kind {
        ParamKind::Int { min, max } => value.as_i64().is_some_and(|x| (min..=max).contains(&x)),
        ParamKind::Float { min, min_inclusive, max, max_inclusive } => value.as_f64().is_some_and(|x| {
            (x > min || (min_inclusive && x == min)) && (x < max || (max_inclusive && x == max)) && x.is_finite()
        }),
        ParamKind::Bool => value.is_boolean(),
        ParamKind::Choice(words) => value.as_str().is_some_and(|word| words.contains(&word)),
        ParamKind::Timeframe(words) => {
            value.as_str().is_some_and(|word| words.contains(&word) || word.parse::<Timeframe>().is_ok())
        }
        ParamKind::IntList { min, max } => value
            .as_array()
            .is_some_and(|list| list.iter().all(|x| x.as_i64().is_some_and(|x| (min..=max).contains(&x)))),
        ParamKind::Text => value.is_string(),
        ParamKind::TextList => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
        ParamKind::Object => value.is_object(),
    }
}

fn param_range(kind: &ParamKind) -> String {
    match *kind {
        ParamKind::Int { min, max } => format!("a whole number{}", whole_range(min, max)),
        ParamKind::Float { min, min_inclusive, max, max_inclusive } => {
            let low = (min > f64::MIN).then(|| format!("{} {min}", if min_inclusive { ">=" } else { ">" }));
            let high = (max < f64::MAX).then(|| format!("{} {max}", if max_inclusive { "<=" } else { "<" }));
            match (low, high) {
                (None, None) => "a number".to_owned(),
                (Some(bound), None) | (None, Some(bound)) => format!("a number {bound}"),
                (Some(low), Some(high)) => format!("a number {low} and {high}"),
            }
        }
        ParamKind::Bool => "true or false".to_owned(),
        ParamKind::Choice(words) => format!("one of {}", words.join(", ")),
        ParamKind::Timeframe([]) => "a timeframe (M1 … W1)".to_owned(),
        ParamKind::Timeframe(words) => format!("a timeframe (M1 … W1) or one of {}", words.join(", ")),
        ParamKind::IntList { min, max } => format!("a list of whole numbers{}", whole_range(min, max)),
        ParamKind::Text => "text".to_owned(),
        ParamKind::TextList => "a list of texts".to_owned(),
        ParamKind::Object => "a map".to_owned(),
    }
}

fn whole_range(min: i64, max: i64) -> String {
    match (min > i64::MIN, max < i64::MAX) {
        (false, false) => String::new(),
        (true, false) => format!(" >= {min}"),
        (false, true) => format!(" <= {max}"),
        (true, true) => format!(" >= {min} and <= {max}"),
    }
}

/// The value as an expression sees it. `text` keeps lists and objects as JSON text.
pub(crate) fn datum<'a>(value: &'a Value, text: &'a str) -> Datum<'a> {
    match value {
        Value::Null => Datum::Undefined,
        Value::Bool(value) => Datum::Bool(*value),
        Value::Number(number) => number.as_f64().map_or(Datum::Undefined, Datum::number),
        Value::String(word) => Datum::Text(word),
        Value::Array(_) | Value::Object(_) => Datum::Text(text),
    }
}

/// A value as people read it: text bare, floats in their shortest form, lists and objects as JSON.
pub fn display(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(word) => word.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(x) if number.is_f64() => x.to_string(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}
