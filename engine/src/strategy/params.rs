//! Parameters of a strategy: reading a JSON object against what the strategy declares, strictly, with every
//! violation collected, and the words in which ranges are told to people.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{BuildContext, DeclaredConstraint, ParamDefault, ParamKind, ParamSpec, Violations};
use crate::error::{Error, Violation, nearest};
use crate::units::Timeframe;

/// Largest bar count a parameter may name; counts are `u32` in column keys.
const MAX_COUNT: i64 = u32::MAX as i64;

impl ParamKind {
    /// Whole number `>= min`, small enough for a bar count.
    pub const fn count(min: i64) -> Self {
        Self::Int { min, max: MAX_COUNT }
    }

    /// Any finite number.
    pub const fn number() -> Self {
        Self::Float { min: f64::NEG_INFINITY, min_inclusive: false, max: f64::INFINITY, max_inclusive: false }
    }

    /// Finite number `> min`.
    pub const fn above(min: f64) -> Self {
        Self::Float { min, min_inclusive: false, max: f64::INFINITY, max_inclusive: false }
    }

    /// Finite number `>= min`.
    pub const fn at_least(min: f64) -> Self {
        Self::Float { min, min_inclusive: true, max: f64::INFINITY, max_inclusive: false }
    }

    /// Finite number `< max`.
    pub const fn below(max: f64) -> Self {
        Self::Float { min: f64::NEG_INFINITY, min_inclusive: false, max, max_inclusive: false }
    }

    /// Number in `min ..= max`.
    pub const fn between(min: f64, max: f64) -> Self {
        Self::Float { min, min_inclusive: true, max, max_inclusive: true }
    }

    /// Type and range for people: `float > 0`, `int 1 to 6`, `one of long, short, both`.
    pub fn range_text(&self) -> String {
        match *self {
            Self::Int { min, max } => format!("int{}", int_range(min, max)),
            Self::Float { min, min_inclusive, max, max_inclusive } => {
                let low = min.is_finite().then(|| format!("{} {min}", if min_inclusive { ">=" } else { ">" }));
                let high = max.is_finite().then(|| format!("{} {max}", if max_inclusive { "<=" } else { "<" }));
                let bounds: Vec<String> = low.into_iter().chain(high).collect();
                if bounds.is_empty() { "float".to_owned() } else { format!("float {}", bounds.join(" and ")) }
            }
            Self::Bool => "true or false".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Text => "text".to_owned(),
            Self::Timeframe([]) => "timeframe".to_owned(),
            Self::Timeframe(words) => format!("timeframe or {}", words.join(", ")),
            Self::IntList { min, max } => format!("list of int{}", int_range(min, max)),
            Self::TextList => "list of text".to_owned(),
            Self::Object => "object".to_owned(),
        }
    }
}

fn int_range(min: i64, max: i64) -> String {
    match (min == i64::MIN, max >= MAX_COUNT) {
        (true, true) => String::new(),
        (true, false) => format!(" <= {max}"),
        (false, true) => format!(" >= {min}"),
        (false, false) => format!(" {min} to {max}"),
    }
}

impl ParamDefault {
    /// The default as JSON.
    pub fn to_value(&self) -> Value {
        match *self {
            Self::Null => Value::Null,
            Self::Int(value) => value.into(),
            Self::Float(value) => value.into(),
            Self::Bool(value) => value.into(),
            Self::Text(value) => value.into(),
            Self::Ints(values) => values.to_vec().into(),
            Self::Texts(values) => values.to_vec().into(),
        }
    }
}

impl ParamSpec {
    /// Declares a parameter that is never null.
    pub const fn new(name: &'static str, kind: ParamKind, default: ParamDefault, doc: &'static str) -> Self {
        Self { name, kind, nullable: false, default, doc }
    }

    /// The same with null as a value of its own and as the default.
    #[must_use]
    pub const fn or_null(mut self) -> Self {
        self.nullable = true;
        self.default = ParamDefault::Null;
        self
    }

    /// Type and range for people: `float > 0`, `int >= 1 or null`.
    pub fn range_text(&self) -> String {
        let mut text = self.kind.range_text();
        if self.nullable {
            text.push_str(" or null");
        }
        text
    }

    /// Default for people, as JSON: `2.0`, `["low","mid"]`, `null`.
    pub fn default_text(&self) -> String {
        self.default.to_value().to_string()
    }
}

/// Checks type and range of one value. Null passes only where the parameter is nullable.
///
/// # Errors
/// The rule and the value found: `must be float > 0, got -1`.
pub fn check_value(spec: &ParamSpec, value: &Value) -> Result<(), String> {
    if value.is_null() && spec.nullable {
        return Ok(());
    }
    match check_kind(&spec.kind, value) {
        Err(_) if spec.nullable => Err(format!("must be {}, got {}", spec.range_text(), found(value))),
        result => result,
    }
}

/// Checks type and range of one value that must not be null.
///
/// Types are strict: a whole number where a whole number is due (`20.0` is none), any number where a number is due; text
/// and booleans never stand for numbers.
///
/// # Errors
/// The rule and the value found: `must be int >= 1, got "20"`.
pub fn check_kind(kind: &ParamKind, value: &Value) -> Result<(), String> {
    let fits = match *kind {
        ParamKind::Int { min, max } => int_fits(value, min, max),
        ParamKind::Float { min, min_inclusive, max, max_inclusive } => value
            .as_f64()
            .filter(|x| x.is_finite())
            .is_some_and(|x| (x > min || (min_inclusive && x == min)) && (x < max || (max_inclusive && x == max))),
        ParamKind::Bool => value.is_boolean(),
        ParamKind::Choice(words) => value.as_str().is_some_and(|text| words.contains(&text)),
        ParamKind::Text => value.is_string(),
        ParamKind::Timeframe(words) => value.as_str().is_some_and(|text| timeframe_fits(text, words)),
        ParamKind::IntList { min, max } => {
            value.as_array().is_some_and(|items| items.iter().all(|item| int_fits(item, min, max)))
        }
        ParamKind::TextList => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
        ParamKind::Object => value.is_object(),
    };
    if fits {
        return Ok(());
    }
    let mut reason = format!("must be {}, got {}", kind.range_text(), found(value));
    if let (ParamKind::Choice(words), Some(text)) = (kind, value.as_str())
        && let Some(name) = nearest(text, words.iter().copied())
    {
        let _ = write!(reason, " (did you mean `{name}`?)");
    }
    Err(reason)
}

fn int_fits(value: &Value, min: i64, max: i64) -> bool {
    value.as_i64().is_some_and(|x| (min..=max).contains(&x))
}

fn timeframe_fits(text: &str, words: &[&str]) -> bool {
    let text = text.trim();
    let none = text.is_empty() && words.contains(&"NONE");
    none || words.iter().any(|word| word.eq_ignore_ascii_case(text)) || text.parse::<Timeframe>().is_ok()
}

/// A value as it stands in JSON, shortened to fit a message.
pub(super) fn found(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// See [`super::Family::check_parameter`].
pub(super) fn check_parameter(
    specs: &[ParamSpec],
    dynamic: Option<ParamKind>,
    key: &str,
    value: &Value,
) -> Result<(), Violation> {
    let checked = match (specs.iter().find(|spec| spec.name == key), dynamic) {
        (Some(spec), _) => check_value(spec, value),
        (None, Some(kind)) => check_kind(&kind, value),
        (None, None) => return Err(unknown(key, key, specs)),
    };
    checked.map_err(|reason| Violation::value(key, reason))
}

pub(super) fn unknown(path: impl Into<String>, key: &str, specs: &[ParamSpec]) -> Violation {
    Violation::unknown_key(path, nearest(key, specs.iter().map(|spec| spec.name)))
}

/// Checks the relations a family declares.
///
/// `lookup` reads a parameter: given value or default. Each broken relation is one violation at its first parameter,
/// with the values found.
pub fn check_constraints(
    constraints: &[DeclaredConstraint],
    lookup: &dyn Fn(&str) -> Value,
    context: &BuildContext,
) -> Violations {
    let broken = constraints.iter().filter(|constraint| !(constraint.holds)(lookup, context));
    broken
        .map(|constraint| {
            let values: Vec<String> =
                constraint.parameters.iter().map(|name| format!("{name} = {}", found(&lookup(name)))).collect();
            let path = constraint.parameters.first().copied().unwrap_or_default();
            Violation::value(path, format!("`{}` must hold, got {}", constraint.text, values.join(", ")))
        })
        .collect()
}

/// Checked values of declared parameters: what was given, else the default.
///
/// Holds valid values only, so the typed getters never fail: an invalid value has left a violation behind and reads as
/// the default.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamValues {
    specs: Cow<'static, [ParamSpec]>,
    given: Map<String, Value>,
}

impl ParamValues {
    /// Reads `given` against `specs`; keys of a pattern get their kind from `dynamic`. Every violation is added to
    /// `violations`, with the key as its path.
    ///
    /// Null equals absent, unless null is a value of the parameter.
    pub fn read(
        specs: impl Into<Cow<'static, [ParamSpec]>>,
        given: &Map<String, Value>,
        dynamic: &dyn Fn(&str) -> Option<ParamKind>,
        violations: &mut Violations,
    ) -> Self {
        let mut values = Self { specs: specs.into(), given: given.clone() };
        for (key, value) in given {
            let spec = values.specs.iter().find(|spec| spec.name == key);
            // A declared name follows no pattern: the look-up is spared.
            let pattern = if spec.is_some() { None } else { dynamic(key) };
            let null_is_absent = value.is_null() && !spec.is_some_and(|spec| spec.nullable);
            if null_is_absent && (spec.is_some() || pattern.is_some()) {
                values.given.remove(key);
                continue;
            }
            let checked = match (spec, pattern) {
                (Some(spec), _) => check_value(spec, value),
                (None, Some(kind)) => check_kind(&kind, value),
                (None, None) => {
                    violations.push(unknown(key, key, &values.specs));
                    values.given.remove(key);
                    continue;
                }
            };
            if let Err(reason) = checked {
                violations.push(Violation::value(key, reason));
                values.given.remove(key);
            }
        }
        values
    }

    /// Declarations the values were read against.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// The key was given, validly.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Everything given, validly.
    pub fn given(&self) -> &Map<String, Value> {
        &self.given
    }

    /// Puts checked values over these.
    pub fn overlay(&mut self, values: &Map<String, Value>) {
        self.given.extend(values.iter().map(|(key, value)| (key.clone(), value.clone())));
    }

    /// Gives a value another key.
    pub(super) fn rename(&mut self, from: &str, to: String) {
        if let Some(value) = self.given.remove(from) {
            self.given.insert(to, value);
        }
    }

    /// The value given, else the default; null for a name that is not declared.
    pub fn value(&self, name: &str) -> Value {
        match self.given.get(name) {
            Some(value) => value.clone(),
            None => self.default_of(name).to_value(),
        }
    }

    fn default_of(&self, name: &str) -> ParamDefault {
        let spec = self.specs.iter().find(|spec| spec.name == name);
        debug_assert!(spec.is_some(), "`{name}` is not declared");
        spec.map_or(ParamDefault::Null, |spec| spec.default)
    }

    /// Whole number, if not null.
    pub fn opt_int(&self, name: &str) -> Option<i64> {
        match self.given.get(name) {
            Some(value) => value.as_i64(),
            None => match self.default_of(name) {
                ParamDefault::Int(value) => Some(value),
                _ => None,
            },
        }
    }

    /// Whole number; 0 if null.
    pub fn int(&self, name: &str) -> i64 {
        self.opt_int(name).unwrap_or_default()
    }

    /// Bar count: [`Self::int`] held within `u32`.
    pub fn count(&self, name: &str) -> u32 {
        u32::try_from(self.int(name).clamp(0, MAX_COUNT)).unwrap_or(u32::MAX)
    }

    /// Number, if not null.
    pub fn opt_float(&self, name: &str) -> Option<f64> {
        match self.given.get(name) {
            Some(value) => value.as_f64(),
            None => match self.default_of(name) {
                ParamDefault::Float(value) => Some(value),
                _ => None,
            },
        }
    }

    /// Number; 0 if null.
    pub fn float(&self, name: &str) -> f64 {
        self.opt_float(name).unwrap_or_default()
    }

    /// Switch; off if null.
    pub fn flag(&self, name: &str) -> bool {
        match self.given.get(name) {
            Some(value) => value.as_bool().unwrap_or_default(),
            None => self.default_of(name) == ParamDefault::Bool(true),
        }
    }

    /// Word; empty if null.
    pub fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some(value) => value.as_str().unwrap_or_default(),
            None => match self.default_of(name) {
                ParamDefault::Text(text) => text,
                _ => "",
            },
        }
    }

    /// Whole numbers of a list.
    pub fn ints(&self, name: &str) -> Vec<i64> {
        match self.given.get(name) {
            Some(value) => value.as_array().into_iter().flatten().filter_map(Value::as_i64).collect(),
            None => match self.default_of(name) {
                ParamDefault::Ints(values) => values.to_vec(),
                _ => Vec::new(),
            },
        }
    }

    /// Words of a list.
    pub fn texts(&self, name: &str) -> Vec<&str> {
        match self.given.get(name) {
            Some(value) => value.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
            None => match self.default_of(name) {
                ParamDefault::Texts(values) => values.to_vec(),
                _ => Vec::new(),
            },
        }
    }

    /// Entries of an object; none if null.
    pub fn object(&self, name: &str) -> Option<&Map<String, Value>> {
        self.given.get(name).and_then(Value::as_object)
    }
}

/// Success, or [`Error::Config`] with every violation.
pub(super) fn finish(violations: Violations) -> Result<(), Error> {
    if violations.is_empty() { Ok(()) } else { Err(Error::Config(violations)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SPECS: [ParamSpec; 4] = [
        ParamSpec::new("fast_length", ParamKind::count(1), ParamDefault::Int(20), "bars"),
        ParamSpec::new("atr_mult", ParamKind::above(0.0), ParamDefault::Float(2.0), "stop distance"),
        ParamSpec::new("lots", ParamKind::above(0.0), ParamDefault::Null, "size").or_null(),
        ParamSpec::new(
            "direction_filter",
            ParamKind::Choice(&["long", "short", "both"]),
            ParamDefault::Text("both"),
            "side",
        ),
    ];

    fn read(given: &Value) -> (ParamValues, Vec<String>) {
        let mut violations = Violations::new();
        let map = given.as_object().unwrap();
        let values = ParamValues::read(SPECS.to_vec(), map, &|_| None, &mut violations);
        (values, violations.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_violation_is_told_with_rule_value_and_nearest_name() {
        let (_, violations) =
            read(&json!({"atr_mult": "2", "direction_filter": "bth", "fast_lenght": 3, "fast_length": 0, "lots": 0}));
        assert_eq!(
            violations,
            [
                "atr_mult: must be float > 0, got \"2\"",
                "direction_filter: must be one of long, short, both, got \"bth\" (did you mean `both`?)",
                "fast_lenght: unknown key (did you mean `fast_length`?)",
                "fast_length: must be int >= 1, got 0",
                "lots: must be float > 0 or null, got 0",
            ]
        );
    }

    #[test]
    fn absent_and_null_read_as_the_default() {
        let (values, violations) = read(&json!({"fast_length": null, "lots": null, "atr_mult": 3}));
        assert!(violations.is_empty());
        assert_eq!(values.int("fast_length"), 20);
        assert_eq!(values.float("atr_mult"), 3.0);
        assert_eq!(values.opt_float("lots"), None);
        assert!(values.is_given("lots") && !values.is_given("fast_length"));
    }

    #[test]
    fn each_type_takes_its_own_values_only() {
        let accepted = [
            (ParamKind::count(1), json!(1)),
            (ParamKind::number(), json!(-3)),
            (ParamKind::at_least(0.0), json!(0)),
            (ParamKind::between(0.0, 100.0), json!(100.0)),
            (ParamKind::Bool, json!(false)),
            (ParamKind::Text, json!("")),
            (ParamKind::Timeframe(&["NONE", "AUTO"]), json!("auto")),
            (ParamKind::Timeframe(&["NONE"]), json!("")),
            (ParamKind::Timeframe(&[]), json!(" h4 ")),
            (ParamKind::IntList { min: 1, max: 6 }, json!([1, 6])),
            (ParamKind::TextList, json!(["low"])),
            (ParamKind::Object, json!({})),
        ];
        for (kind, value) in accepted {
            assert_eq!(check_kind(&kind, &value), Ok(()), "{}", kind.range_text());
        }
        let refused = [
            (ParamKind::count(1), json!(20.0)),
            (ParamKind::count(1), json!("20")),
            (ParamKind::count(1), json!(u64::MAX)),
            (ParamKind::number(), json!(true)),
            (ParamKind::above(0.0), json!(0.0)),
            (ParamKind::below(0.0), json!(0.0)),
            (ParamKind::Bool, json!(1)),
            (ParamKind::Timeframe(&["NONE"]), json!("AUTO")),
            (ParamKind::Timeframe(&[]), json!("")),
            (ParamKind::IntList { min: 1, max: 6 }, json!([1, 7])),
            (ParamKind::IntList { min: 1, max: 6 }, json!(1)),
            (ParamKind::TextList, json!([1])),
            (ParamKind::Object, json!([])),
            (ParamKind::Object, Value::Null),
        ];
        for (kind, value) in refused {
            assert!(check_kind(&kind, &value).is_err(), "{} took {value}", kind.range_text());
        }
    }

    #[test]
    fn ranges_read_as_text() {
        assert_eq!(ParamKind::count(1).range_text(), "int >= 1");
        assert_eq!(ParamKind::IntList { min: 1, max: 6 }.range_text(), "list of int 1 to 6");
        assert_eq!(ParamKind::between(0.0, 100.0).range_text(), "float >= 0 and <= 100");
        assert_eq!(ParamKind::number().range_text(), "float");
        assert_eq!(SPECS[2].range_text(), "float > 0 or null");
        assert_eq!(SPECS[3].default_text(), "\"both\"");
    }
}
