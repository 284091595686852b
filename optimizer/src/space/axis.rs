//! One dimension of a space: its exact values, by index.
//!
//! Lattices are computed in decimals, `low + k * step`, and each value is converted to `f64` once, by parsing its
//! decimal text. Nothing is stored per value.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::space::value::{ColumnKind, ValueType};

/// Most values one axis may have.
pub const MAX_VALUES: u64 = 10_000_000;

/// Significant digits of the inner points of a logarithmic axis.
const LOG_DIGITS: usize = 6;

/// Why a set of values is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxisFault {
    /// The rule and the values found.
    pub message: String,
    /// A remedy.
    pub hint: Option<String>,
}

impl AxisFault {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Where the value of an axis goes in a run config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A key of `strategy_parameters`; it may hold dots.
    Parameter(String),
    /// A dotted path from the root of the run config.
    Config(String),
}

impl Target {
    /// The keys that lead to it from the root of a run config.
    pub fn path(&self) -> Vec<&str> {
        match self {
            Self::Parameter(name) => vec!["strategy_parameters", name],
            Self::Config(path) => path.split('.').collect(),
        }
    }
}

/// The values of an axis.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `low + k * step`, `k = 0 .. count`.
    Lattice {
        /// First value.
        low: Decimal,
        /// Distance, > 0.
        step: Decimal,
        /// Number of values, ≥ 1.
        count: u32,
        /// Values are integers.
        whole: bool,
    },
    /// Listed values, distinct.
    List(Vec<Value>),
}

impl Values {
    /// The lattice from `low` to at most `high`; `whole` demands integers.
    ///
    /// # Errors
    /// Empty range, step not above 0, too many values, fractions where integers are due.
    pub fn lattice(low: Decimal, high: Decimal, step: Decimal, whole: bool) -> Result<Self, AxisFault> {
        if low > high {
            return Err(AxisFault::new(format!("`low <= high` must hold, got low={low}, high={high}")));
        }
        if step <= Decimal::ZERO {
            return Err(AxisFault::new(format!("the step must be > 0, got {step}")));
        }
        if whole && let Some(fraction) = [low, step].into_iter().find(|x| !x.fract().is_zero()) {
            return Err(AxisFault::new(format!("the values must be whole numbers, got {fraction}")));
        }
        let steps = high.checked_sub(low).and_then(|range| range.checked_div(step)).map(|steps| steps.trunc());
        let mut last = steps
            .and_then(|steps| u64::try_from(steps).ok())
            .filter(|steps| *steps < MAX_VALUES)
            .ok_or_else(|| too_many(steps.map_or_else(|| "far more".to_owned(), |s| (s + Decimal::ONE).to_string())))?;
        // The quotient is rounded to 28 digits; the last value decides.
        if last > 0 && at(low, step, last).is_none_or(|value| value > high) {
            last -= 1;
        }
        let (low, step) = (low.normalize(), step.normalize());
        let values = Self::Lattice { low, step, count: u32::try_from(last + 1).unwrap_or(u32::MAX), whole };
        let digits = "the step is finer than a double can tell apart";
        for k in [0, last.saturating_sub(1)] {
            if last > 0 && number(at(low, step, k)) >= number(at(low, step, k + 1)) {
                return Err(AxisFault::new(format!("{digits}: low={low}, step={step}")));
            }
        }
        if whole && [at(low, step, 0), at(low, step, last)].iter().any(|x| x.and_then(as_integer).is_none()) {
            return Err(AxisFault::new(format!("{low} .. {high} exceeds the 64-bit integers")));
        }
        Ok(values)
    }

    /// `points` values from `low` to `high` with equal ratios. The ends are exact, the points between are rounded to 6
    /// significant digits (to integers if `whole`).
    ///
    /// # Errors
    /// Empty range, `low <= 0`, fewer than 2 or too many points, points that coincide after rounding.
    pub fn log(low: Decimal, high: Decimal, points: u64, whole: bool) -> Result<Self, AxisFault> {
        if low > high {
            return Err(AxisFault::new(format!("`min <= max` must hold, got min={low}, max={high}")));
        }
        if low <= Decimal::ZERO {
            return Err(AxisFault::new(format!("`min` of a logarithmic axis must be > 0, got {low}")));
        }
        if points < 2 {
            return Err(AxisFault::new(format!("a logarithmic axis has at least 2 points, got {points}")));
        }
        if points > MAX_VALUES {
            return Err(too_many(points.to_string()));
        }
        if whole && let Some(fraction) = [low, high].into_iter().find(|x| !x.fract().is_zero()) {
            return Err(AxisFault::new(format!("the values must be whole numbers, got {fraction}")));
        }
        let (from, to) = (libm::log(number(Some(low))), libm::log(number(Some(high))));
        let mut values = Vec::new();
        let mut previous = f64::NEG_INFINITY;
        for k in 0..points {
            let exact = if k == 0 { Some(low) } else { (k == points - 1).then_some(high) };
            let value = exact.map_or_else(
                || log_point(from + (to - from) * (k as f64 / (points - 1) as f64), whole),
                |end| number(Some(end)),
            );
            if value <= previous {
                return Err(AxisFault::new(format!("two of the {points} points coincide at {value} after rounding"))
                    .with_hint("take fewer points or a wider range"));
            }
            previous = value;
            values.push(match exact.and_then(as_integer) {
                Some(integer) if whole => Value::from(integer),
                _ if whole => Value::from(value as i64),
                _ => Value::from(value),
            });
        }
        Ok(Self::List(values))
    }

    /// Listed values in their order.
    ///
    /// # Errors
    /// No value, too many, or one listed twice.
    pub fn list(values: Vec<Value>) -> Result<Self, AxisFault> {
        if values.is_empty() {
            return Err(AxisFault::new("at least one value is needed, got an empty list"));
        }
        if values.len() as u64 > MAX_VALUES {
            return Err(too_many(values.len().to_string()));
        }
        let mut keys: Vec<String> = values.iter().map(Value::to_string).collect();
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(AxisFault::new(format!("the value {} is listed twice", twice[0])));
        }
        Ok(Self::List(values))
    }

    /// Number of values.
    pub fn len(&self) -> u32 {
        match self {
            Self::Lattice { count, .. } => *count,
            Self::List(values) => u32::try_from(values.len()).unwrap_or(u32::MAX),
        }
    }

    /// Never true of a value that was constructed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Value `k`; null beyond the end.
    pub fn get(&self, k: u32) -> Value {
        match self {
            Self::Lattice { low, step, count, whole } => {
                let decimal = if k < *count { at(*low, *step, u64::from(k)) } else { None };
                match decimal {
                    None => Value::Null,
                    Some(decimal) if *whole => as_integer(decimal).map_or(Value::Null, Value::from),
                    Some(decimal) => Value::from(number(Some(decimal))),
                }
            }
            Self::List(values) => values.get(k as usize).cloned().unwrap_or(Value::Null),
        }
    }

    /// The values that bound all others: the ends of a lattice, every value of a list.
    pub fn extremes(&self) -> Vec<(u32, Value)> {
        match self {
            Self::Lattice { count: 1, .. } => vec![(0, self.get(0))],
            Self::Lattice { count, .. } => vec![(0, self.get(0)), (count - 1, self.get(count - 1))],
            Self::List(values) => values.iter().cloned().enumerate().map(|(k, value)| (k as u32, value)).collect(),
        }
    }

    /// In one canonical form, for the identity of a space: `{"low":…,"step":…,"count":…}` or the list.
    pub fn describe(&self) -> Value {
        match self {
            Self::Lattice { low, step, count, .. } => {
                serde_json::json!({"low": low.to_string(), "step": step.to_string(), "count": count})
            }
            Self::List(values) => Value::Array(values.clone()),
        }
    }
}

fn too_many(found: String) -> AxisFault {
    AxisFault::new(format!("an axis has at most {MAX_VALUES} values, this one {found}")).with_hint("take a larger step")
}

fn at(low: Decimal, step: Decimal, k: u64) -> Option<Decimal> {
    step.checked_mul(Decimal::from(k)).and_then(|offset| low.checked_add(offset)).map(|value| value.normalize())
}

/// The double nearest to a decimal, by parsing its text; NaN for none.
fn number(decimal: Option<Decimal>) -> f64 {
    decimal.and_then(|decimal| decimal.to_string().parse().ok()).unwrap_or(f64::NAN)
}

fn as_integer(decimal: Decimal) -> Option<i64> {
    if decimal.fract().is_zero() { i64::try_from(decimal).ok() } else { None }
}

fn log_point(exponent: f64, whole: bool) -> f64 {
    let value = libm::exp(exponent);
    if whole { value.round() } else { format!("{value:.*e}", LOG_DIGITS - 1).parse().unwrap_or(f64::NAN) }
}

/// The exact decimal of a number's literal.
///
/// # Errors
/// The literal has more digits than a decimal of 28 digits holds.
pub fn decimal(literal: &str) -> Result<Decimal, AxisFault> {
    let parsed =
        if literal.contains(['e', 'E']) { Decimal::from_scientific(literal) } else { Decimal::from_str_exact(literal) };
    parsed.map_err(|_| AxisFault::new(format!("{literal} is not a decimal of at most 28 digits")))
}

/// One named series of values on an axis; linked axes have several.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Key in the grid; column `param.<name>`.
    pub name: String,
    /// Where the value goes.
    pub target: Target,
    /// Type and range.
    pub value_type: ValueType,
    /// The values.
    pub values: Values,
}

impl Member {
    /// Type of its column.
    pub fn column_kind(&self) -> ColumnKind {
        self.value_type.column_kind()
    }
}

/// One dimension of the lattice.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What moves along it: one member, or several linked ones of equal length.
    pub members: Vec<Member>,
}

impl Axis {
    /// Number of points.
    pub fn len(&self) -> u32 {
        self.members.first().map_or(0, |member| member.values.len())
    }

    /// It has no point; never true of an axis of a space.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its names: `ema_length`, or `ema_length+b_b_length`.
    pub fn name(&self) -> String {
        self.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join("+")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dec(text: &str) -> Decimal {
        decimal(text).unwrap()
    }

    fn lattice(low: &str, high: &str, step: &str, whole: bool) -> Result<Values, AxisFault> {
        Values::lattice(dec(low), dec(high), dec(step), whole)
    }

    fn all(values: &Values) -> String {
        (0..values.len()).map(|k| values.get(k).to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn decimal_steps_are_exact() {
        let tenths = lattice("0.1", "1", "0.1", false).unwrap();
        assert_eq!(all(&tenths), "0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1.0");
        for k in 0..tenths.len() {
            assert_eq!(tenths.get(k).as_f64().unwrap(), format!("{}e-1", k + 1).parse::<f64>().unwrap());
        }
        assert_eq!(all(&lattice("-3.0", "-1.0", "0.75", false).unwrap()), "-3.0 -2.25 -1.5");
        assert_eq!(all(&lattice("40", "70.0", "1e1", true).unwrap()), "40 50 60 70");
        assert_eq!(all(&lattice("5", "5", "3", true).unwrap()), "5");
        assert_eq!(
            lattice("0", "1", "0.0000001", false).unwrap_err().message,
            "an axis has at most 10000000 values, this one 10000001"
        );
        assert_eq!(lattice("0.0000001", "1", "0.0000001", false).unwrap().len(), 10_000_000);
    }

    #[test]
    fn logarithmic_ends_are_exact() {
        let values = Values::log(dec("0.5"), dec("4.0"), 6, false).unwrap();
        assert_eq!(all(&values), "0.5 0.757858 1.1487 1.7411 2.63902 4.0");
        let odd = Values::log(dec("0.123456789"), dec("7.7777777777"), 3, false).unwrap();
        assert_eq!((odd.get(0).as_f64(), odd.get(2).as_f64()), (Some(0.123456789), Some(7.777_777_777_7)));
        assert_eq!(all(&Values::log(dec("1"), dec("1000"), 4, true).unwrap()), "1 10 100 1000");
    }

    #[test]
    fn refuses_what_is_no_axis() {
        let faults = [
            lattice("30", "10", "5", true),
            lattice("1", "2", "0", false),
            lattice("1", "2", "-1", false),
            lattice("1", "20", "2.5", true),
            lattice("0", "1e20", "1e19", true),
            lattice("1", "1.0000000000000000001", "1e-20", false),
            lattice("-1e28", "1e28", "1e-28", false),
            Values::log(dec("0"), dec("1"), 3, false),
            Values::log(dec("1"), dec("2"), 1, false),
            Values::log(dec("2"), dec("1"), 3, false),
            Values::log(dec("1"), dec("3"), 5, true),
            Values::log(dec("1"), dec("1"), 2, false),
            Values::list(vec![]),
            Values::list(vec![Value::from(1), Value::from("1"), Value::from(1)]),
        ]
        .map(|result| result.unwrap_err().message);
        insta::assert_snapshot!(faults.join("\n"), @r##"
        `low <= high` must hold, got low=30, high=10
        the step must be > 0, got 0
        the step must be > 0, got -1
        the values must be whole numbers, got 2.5
        0 .. 100000000000000000000 exceeds the 64-bit integers
        the step is finer than a double can tell apart: low=1, step=0.00000000000000000001
        an axis has at most 10000000 values, this one far more
        `min` of a logarithmic axis must be > 0, got 0
        a logarithmic axis has at least 2 points, got 1
        `min <= max` must hold, got min=2, max=1
        two of the 5 points coincide at 1 after rounding
        two of the 2 points coincide at 1 after rounding
        at least one value is needed, got an empty list
        the value 1 is listed twice
        "##);
    }
}
