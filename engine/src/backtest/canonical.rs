//! Numbers and documents as text that never varies: what is hashed and what is written.

use std::io::{self, Write};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// A float as Python's `repr` writes it: the shortest decimal that round-trips, always with a point or an exponent.
///
/// Exponent form below 1e−4 and from 1e16 on, with at least two digits: `10000.0`, `0.0001`, `1e-05`, `1e+16`.
/// Not finite: `nan`, `inf`, `-inf`, which no document may hold.
pub fn float_text(x: f64) -> String {
    if x.is_nan() {
        return "nan".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let fixed = x.to_string();
    if fixed.contains('.') { fixed } else { fixed + ".0" }
}

/// Canonical JSON: keys sorted bytewise, no blanks, UTF-8, integers as integers, floats as [`float_text`].
///
/// The metrics specification §7.5 asks for the "f64 shortest form" without naming its exponent notation; the one of
/// §7 for all artefacts is taken, which is also what Python's `json.dumps` gives.
pub fn canonical_json(value: &Value) -> String {
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let _ = write_json(&mut text, value, Layout::Compact);
    String::from_utf8(text).unwrap_or_default()
}

/// SHA-256 of [`canonical_json`], lower-case hex: `config.hash` of a normalised, default-filled config.
pub fn canonical_hash(value: &Value) -> String {
    hex_digest(&canonical_json(value))
}

/// Identity of one run: first 16 hex digits of SHA-256 of `<config hash>:<manifest hash>`; a seed that was drawn
/// (`prod` without one) is appended as `:<seed>`.
pub fn run_id(config_hash: &str, manifest_sha256: &str, drawn_seed: Option<u64>) -> String {
    let seed = drawn_seed.map_or_else(String::new, |seed| format!(":{seed}"));
    let mut id = hex_digest(&format!("{config_hash}:{manifest_sha256}{seed}"));
    id.truncate(16);
    id
}

fn hex_digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// No blanks.
    Compact,
    /// Two-space indent; the number is the depth of the value.
    Indented(usize),
}

impl Layout {
    fn deeper(self) -> Self {
        match self {
            Self::Compact => Self::Compact,
            Self::Indented(depth) => Self::Indented(depth + 1),
        }
    }

    fn new_line(self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Compact => Ok(()),
            Self::Indented(depth) => write!(out, "\n{:width$}", "", width = 2 * depth),
        }
    }
}

/// Writes `value` with sorted keys, without a final newline.
pub fn write_json(out: &mut impl Write, value: &Value, layout: Layout) -> io::Result<()> {
    match value {
        Value::Null => out.write_all(b"null"),
        Value::Bool(flag) => write!(out, "{flag}"),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => out.write_all(float_text(float).as_bytes()),
            None => write!(out, "{number}"),
        },
        Value::String(text) => write_text(out, text),
        Value::Array(items) if items.is_empty() => out.write_all(b"[]"),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                out.write_all(if i == 0 { b"[" } else { b"," })?;
                layout.deeper().new_line(out)?;
                write_json(out, item, layout.deeper())?;
            }
            layout.new_line(out)?;
            out.write_all(b"]")
        }
        Value::Object(map) => write_object(out, map, layout),
    }
}

fn write_object(out: &mut impl Write, map: &Map<String, Value>, layout: Layout) -> io::Result<()> {
    if map.is_empty() {
        return out.write_all(b"{}");
    }
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
    for (i, (key, value)) in entries.into_iter().enumerate() {
        out.write_all(if i == 0 { b"{" } else { b"," })?;
        layout.deeper().new_line(out)?;
        write_text(out, key)?;
        out.write_all(if layout == Layout::Compact { b":" } else { b": " })?;
        write_json(out, value, layout.deeper())?;
    }
    layout.new_line(out)?;
    out.write_all(b"}")
}

fn write_text(out: &mut impl Write, text: &str) -> io::Result<()> {
    Ok(serde_json::to_writer(out, text)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Taken from CPython 3.12 (`repr`).
    #[test]
    fn floats_as_python_writes_them() {
        for (x, text) in [
            (10000.0, "10000.0"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00012345, "0.00012345"),
            (0.00001, "1e-05"),
            (-0.000012, "-1.2e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (9007199254740993.0, "9007199254740992.0"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (100.0 / 3.0, "33.333333333333336"),
        ] {
            assert_eq!(float_text(x), text);
        }
    }

    /// metrics-and-outputs §7.5.
    #[test]
    fn the_hashes_of_the_specification() {
        let document = json!({"c": {"y": "EURUSD", "x": null}, "a": [1, 2], "b": 1.0});
        assert_eq!(canonical_json(&document), r#"{"a":[1,2],"b":1.0,"c":{"x":null,"y":"EURUSD"}}"#);
        assert_eq!(canonical_hash(&document), "956ffe4d70c53ddc2bb3b41258700085e08f85e45d3340cf67704b995f146bc5");
        assert_eq!(run_id(&"0".repeat(64), &"1".repeat(64), None), "05a6594204b91658");
        assert_eq!(
            run_id(
                "3a0be012acfb5a75a038f02e8a0e0ce95c4639713d8c6610da0f41b6698fd297",
                "80f42153ea79e84dfd338521bb308d2524ce5f8785fd3772d60d222ce695c8e3",
                None
            ),
            "0f8b62bd282da577"
        );
        assert_ne!(run_id("a", "b", Some(7)), run_id("a", "b", None));
    }

    #[test]
    fn keys_sort_by_bytes_and_text_stays_unescaped() {
        let document = json!({"z": 1, "Z": 2, "é": "ü\n\u{1}\"", "a_": -3, "a": [], "b": {}});
        assert_eq!(
            canonical_json(&document),
            "{\"Z\":2,\"a\":[],\"a_\":-3,\"b\":{},\"z\":1,\"é\":\"ü\\n\\u0001\\\"\"}"
        );
    }

    #[test]
    fn indented_as_python_does() {
        let mut text = Vec::new();
        write_json(&mut text, &json!({"b": [1, {"c": 0.5}], "a": {}}), Layout::Indented(0)).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"c\": 0.5\n    }\n  ]\n}"
        );
    }
}
