//! Types and ranges of what a grid may vary, and the check of single values against them.

use engine::strategy::ParamKind;
use engine::strategy::check_kind;
use serde_json::Value;

use crate::document::{Node, NodeKind};
use crate::expression::{Datum, Type};
use crate::space::axis::decimal;

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
            ValueKind::Param(ParamKind::Choice(_) | ParamKind::Timeframe(_) | ParamKind::Text) => Type::Text,
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

    /// The value of a node as this type writes it: whole decimals (20, 20.0, 2e1) as integers where integers are due,
    /// every number as a double where doubles are. Not checked.
    pub fn read(&self, node: &Node) -> Value {
        match &node.kind {
            NodeKind::Number(literal) if self.is_whole() => {
                let whole = decimal(literal).ok().filter(|x| x.fract().is_zero()).and_then(|x| i64::try_from(x).ok());
                whole.map_or_else(|| node.to_json(), Value::from)
            }
            NodeKind::Number(literal) if self.is_numeric() => {
                // Adding zero makes -0 the same value as 0.
                literal.parse::<f64>().map_or_else(|_| node.to_json(), |x| Value::from(x + 0.0))
            }
            _ => node.to_json(),
        }
    }

    /// Checks type and range of a value.
    ///
    /// # Errors
    /// The rule and the value found.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        match self.kind {
            ValueKind::Param(kind) if !(value.is_null() && self.nullable) => check_kind(&kind, value),
            ValueKind::Param(_) | ValueKind::Json => Ok(()),
        }
    }

    /// The valid values in words: `int >= 2`, `one of above, below, none`.
    pub fn range_text(&self) -> String {
        let range = match self.kind {
            ValueKind::Json => "any value".to_owned(),
            ValueKind::Param(kind) => kind.range_text(),
        };
        if self.nullable { format!("{range} or null") } else { range }
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
