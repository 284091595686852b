//! Typed access to a JSON document that collects every violation instead of stopping at the first.

use serde_json::{Map, Value};

use crate::error::{Error, Violation, nearest};
use crate::units::{EpochNs, Timeframe};

/// An instant as written: `date_only` texts name a whole day.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Instant {
    pub(super) first_ns: EpochNs,
    pub(super) date_only: bool,
    /// Normalised text: a date, or a date-time in UTC ending in `Z`.
    pub(super) text: String,
}

/// Collects violations while values are read.
pub(super) struct Reader {
    strict: bool,
    violations: Vec<Violation>,
    warnings: Vec<Violation>,
}

pub(super) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

impl Reader {
    pub(super) fn new(strict: bool) -> Self {
        Self { strict, violations: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn finish(self) -> (Vec<Violation>, Vec<Violation>) {
        (self.violations, self.warnings)
    }

    pub(super) fn require(&mut self, holds: bool, path: &str, reason: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(Violation::value(path, reason()));
        }
    }

    pub(super) fn known_keys(&mut self, parent: &str, map: &Map<String, Value>, known: &[&str]) {
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            let violation = Violation::unknown_key(join(parent, key), nearest(key, known.iter().copied()));
            if self.strict { self.violations.push(violation) } else { self.warnings.push(violation) }
        }
    }

    fn wrong_type(&mut self, parent: &str, key: &str, expected: &str, found: &Value) {
        let found = match found {
            Value::Object(_) => "an object".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            other => other.to_string(),
        };
        self.violations.push(Violation::value(join(parent, key), format!("must be {expected}, got {found}")));
    }

    /// The value, unless absent or null.
    fn given<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
        map.get(key).filter(|value| !value.is_null())
    }

    /// `default` none: required.
    pub(super) fn text(
        &mut self,
        map: &Map<String, Value>,
        parent: &str,
        key: &str,
        default: Option<&str>,
    ) -> Option<String> {
        match Self::given(map, key) {
            None if default.is_none() => {
                self.violations.push(Violation::value(join(parent, key), "is required"));
                None
            }
            None => default.map(str::to_owned),
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => {
                self.wrong_type(parent, key, "text", other);
                None
            }
        }
    }

    pub(super) fn choice(
        &mut self,
        map: &Map<String, Value>,
        parent: &str,
        key: &str,
        choices: &[&str],
        default: &str,
    ) -> String {
        let Some(text) = self.text(map, parent, key, Some(default)) else { return default.to_owned() };
        if choices.contains(&text.as_str()) {
            return text;
        }
        let listed = choices.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(" or ");
        let mut violation = Violation::value(join(parent, key), format!("must be {listed}, got \"{text}\""));
        if let Some(near) = nearest(&text, choices.iter().copied()) {
            violation = violation.with_hint(format!("did you mean `{near}`?"));
        }
        self.violations.push(violation);
        default.to_owned()
    }

    pub(super) fn boolean(&mut self, map: &Map<String, Value>, parent: &str, key: &str, default: bool) -> bool {
        self.optional_bool(map, parent, key).unwrap_or(default)
    }

    pub(super) fn optional_bool(&mut self, map: &Map<String, Value>, parent: &str, key: &str) -> Option<bool> {
        match Self::given(map, key) {
            None => None,
            Some(Value::Bool(value)) => Some(*value),
            Some(other) => {
                self.wrong_type(parent, key, "true or false", other);
                None
            }
        }
    }

    pub(super) fn int(
        &mut self,
        map: &Map<String, Value>,
        parent: &str,
        key: &str,
        default: i64,
        min: i64,
        max: i64,
    ) -> i64 {
        self.optional_int(map, parent, key, min, max).unwrap_or(default)
    }

    pub(super) fn optional_int(
        &mut self,
        map: &Map<String, Value>,
        parent: &str,
        key: &str,
        min: i64,
        max: i64,
    ) -> Option<i64> {
        let value = Self::given(map, key)?;
        let Some(number) = value.as_i64() else {
            self.wrong_type(parent, key, "a whole number", value);
            return None;
        };
        if number < min || number > max {
            let rule = if number < min { format!(">= {min}") } else { format!("<= {max}") };
            self.violations.push(Violation::value(join(parent, key), format!("must be {rule}, got {number}")));
            return None;
        }
        Some(number)
    }

    pub(super) fn optional_u64(&mut self, map: &Map<String, Value>, parent: &str, key: &str) -> Option<u64> {
        let value = Self::given(map, key)?;
        let number = value.as_u64();
        if number.is_none() {
            self.wrong_type(parent, key, "a whole number from 0 to 18446744073709551615", value);
        }
        number
    }

    pub(super) fn optional_number(
        &mut self,
        map: &Map<String, Value>,
        parent: &str,
        key: &str,
        valid: impl Fn(f64) -> bool,
        rule: &str,
    ) -> Option<f64> {
        let value = Self::given(map, key)?;
        let Some(number) = value.as_f64() else {
            self.wrong_type(parent, key, "a number", value);
            return None;
        };
        if !number.is_finite() || !valid(number) {
            self.violations.push(Violation::value(join(parent, key), format!("{rule}, got {number}")));
            return None;
        }
        Some(number)
    }

    pub(super) fn positive(&mut self, map: &Map<String, Value>, parent: &str, key: &str, default: f64) -> f64 {
        self.optional_number(map, parent, key, |x| x > 0.0, "must be > 0").unwrap_or(default)
    }

    pub(super) fn not_negative(&mut self, map: &Map<String, Value>, parent: &str, key: &str, default: f64) -> f64 {
        self.optional_number(map, parent, key, |x| x >= 0.0, "must be >= 0").unwrap_or(default)
    }

    pub(super) fn object(&mut self, map: &Map<String, Value>, parent: &str, key: &str) -> Option<Map<String, Value>> {
        match Self::given(map, key)? {
            Value::Object(object) => Some(object.clone()),
            other => {
                self.wrong_type(parent, key, "an object", other);
                None
            }
        }
    }

    pub(super) fn array(&mut self, map: &Map<String, Value>, parent: &str, key: &str) -> Option<Vec<Value>> {
        match Self::given(map, key)? {
            Value::Array(list) => Some(list.clone()),
            other => {
                self.wrong_type(parent, key, "a list", other);
                None
            }
        }
    }

    pub(super) fn texts(&mut self, map: &Map<String, Value>, parent: &str, key: &str) -> Option<Vec<String>> {
        let list = self.array(map, parent, key)?;
        let mut texts = Vec::with_capacity(list.len());
        for (k, item) in list.iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text.clone()),
                other => self.wrong_type(parent, &format!("{key}[{k}]"), "text", other),
            }
        }
        Some(texts)
    }

    /// `choices`: those of the place, for the message.
    pub(super) fn timeframe(&mut self, path: &str, text: &str, choices: &str) -> Option<Timeframe> {
        match text.parse() {
            Ok(timeframe) => Some(timeframe),
            Err(_) => {
                self.violations.push(Violation::value(path, format!("must be one of {choices}, got \"{text}\"")));
                None
            }
        }
    }

    /// Takes over the violations of a configuration error.
    pub(super) fn refuse(&mut self, error: Error) {
        match error {
            Error::Config(violations) => self.violations.extend(violations),
            other => self.violations.push(Violation::value("", other.to_string())),
        }
    }

    pub(super) fn instant(&mut self, path: &str, text: &str) -> Option<Instant> {
        let instant = parse_instant(text.trim());
        self.require(instant.is_some(), path, || {
            format!("must be YYYY-MM-DD or an ISO-8601 date-time (naive = UTC), got \"{text}\"")
        });
        instant
    }
}

fn parse_instant(text: &str) -> Option<Instant> {
    if text.len() == 10 {
        let date: jiff::civil::Date = text.parse().ok()?;
        let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        let first_ns = i64::try_from(zoned.timestamp().as_nanosecond()).ok()?;
        return Some(Instant { first_ns, date_only: true, text: date.to_string() });
    }
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let naive: jiff::civil::DateTime = text.parse().ok()?;
        Some(naive.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })?;
    let first_ns = i64::try_from(timestamp.as_nanosecond()).ok()?;
    Some(Instant { first_ns, date_only: false, text: timestamp.to_string() })
}
