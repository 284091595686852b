//! One run as one JSON document (config-and-errors specification §6.1, §8.2): what a caller in another language gets,
//! and the four artefacts written back from it.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::backtest::artefact::{
    ArtefactError, RunDocuments, check, json_document, list_document, meta_json, trades_json, write_equity, write_file,
    write_whole,
};
use crate::backtest::walk::EquityPoint;
use crate::error::{Category, Error};
use crate::metrics::Summary;

/// Blocks of the success document beside `ok`, `meta` and `warnings`. The equity curve has an object per bar, tens of
/// megabytes for some years of minutes; whoever does not read it leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Include {
    /// `trades`.
    pub trades: bool,
    /// `metrics` and `metric_definitions`.
    pub metrics: bool,
    /// `equity_curve`.
    pub equity_curve: bool,
}

impl Include {
    /// Every block.
    pub const ALL: Self = Self { trades: true, metrics: true, equity_curve: true };
    /// Names of the blocks.
    pub const NAMES: [&'static str; 3] = ["trades", "metrics", "equity_curve"];

    /// The blocks named; the name that is none of them otherwise.
    ///
    /// # Errors
    /// The unknown name.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let mut include = Self { trades: false, metrics: false, equity_curve: false };
        for name in names {
            match name {
                "trades" => include.trades = true,
                "metrics" => include.metrics = true,
                "equity_curve" => include.equity_curve = true,
                unknown => return Err(unknown),
            }
        }
        Ok(include)
    }
}

/// The success document: `ok`, `meta`, `warnings`, the blocks asked for, and `profiling` if there is one.
///
/// # Errors
/// A number that is not finite, metrics that are not those of the catalogue.
pub fn success_document(
    documents: &RunDocuments<'_>,
    include: Include,
    warnings: &[String],
    profiling: Option<&Value>,
) -> Result<String, ArtefactError> {
    check(documents)?;
    let mut out = Vec::new();
    // Writing to memory does not fail, and every text is UTF-8.
    let _ = write_success(&mut out, documents, include, warnings, profiling);
    Ok(String::from_utf8(out).unwrap_or_default())
}

fn write_success(
    out: &mut Vec<u8>,
    documents: &RunDocuments<'_>,
    include: Include,
    warnings: &[String],
    profiling: Option<&Value>,
) -> io::Result<()> {
    write!(out, "{{\"ok\":true,\"meta\":{},\"warnings\":{}", meta_json(documents.meta), json!(warnings))?;
    if include.metrics {
        let (metrics, definitions) = (json!(documents.metrics), json!(Summary::definitions()));
        write!(out, ",\"metrics\":{metrics},\"metric_definitions\":{definitions}")?;
    }
    if include.trades {
        write_list(out, "trades", trades_json(documents), |out, trade| Ok(serde_json::to_writer(out, &trade)?))?;
    }
    if include.equity_curve {
        write_list(out, "equity_curve", documents.equity.iter(), |out, point| {
            let EquityPoint { time_ns, equity, balance, drawdown, high_water } = point;
            write!(out, "{{\"timestamp_ns\":{time_ns}")?;
            let named = [("equity", equity), ("balance", balance), ("drawdown", drawdown), ("high_water", high_water)];
            for (name, value) in named {
                write!(out, ",\"{name}\":")?;
                serde_json::to_writer(&mut *out, value)?;
            }
            out.write_all(b"}")
        })?;
    }
    if let Some(profiling) = profiling {
        write!(out, ",\"profiling\":{profiling}")?;
    }
    out.write_all(b"}")
}

fn write_list<T>(
    out: &mut Vec<u8>,
    name: &str,
    items: impl Iterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T) -> io::Result<()>,
) -> io::Result<()> {
    write!(out, ",\"{name}\":[")?;
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.write_all(b",")?;
        }
        write(out, item)?;
    }
    out.write_all(b"]")
}

/// The error document of a run that failed.
pub fn error_document(error: &Error) -> Value {
    let message = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    failure(error.code(), error.category(), &message, error.details())
}

/// The error document of a failure known by its code, such as a row of a sweep keeps.
pub fn failure(code: &str, category: Category, message: &str, details: Value) -> Value {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    json!({
        "ok": false,
        "error": { "code": code, "category": category.as_str(), "message": line, "details": details },
    })
}

/// Writes the four artefacts of a success document, the same bytes the run itself writes, as `folder`.
///
/// # Errors
/// A document that is no success or lacks a block, files that cannot be written.
pub fn write_result(folder: &Path, result: &Value) -> Result<(), ArtefactError> {
    if result.get("ok") != Some(&Value::Bool(true)) {
        return Err(malformed("ok", "true", result.get("ok")));
    }
    let object = |name: &str| -> Result<&Map<String, Value>, ArtefactError> {
        let found = result.get(name);
        found.and_then(Value::as_object).ok_or_else(|| malformed(name, "an object", found))
    };
    let list = |name: &str| -> Result<&Vec<Value>, ArtefactError> {
        let found = result.get(name);
        found.and_then(Value::as_array).ok_or_else(|| malformed(name, "a list", found))
    };
    let (meta, trades) = (object("meta")?, list("trades")?);
    let metrics = json!({ "definitions": object("metric_definitions")?, "metrics": object("metrics")? });
    let equity = list("equity_curve")?.iter().enumerate().map(|(row, point)| {
        let float = |name: &str| {
            let found = point.get(name);
            found
                .and_then(Value::as_f64)
                .ok_or_else(|| malformed(&format!("equity_curve[{row}].{name}"), "a number", found))
        };
        let time = point.get("timestamp_ns");
        let wrong_time = || malformed(&format!("equity_curve[{row}].timestamp_ns"), "an integer", time);
        Ok(EquityPoint {
            time_ns: time.and_then(Value::as_i64).ok_or_else(wrong_time)?,
            equity: float("equity")?,
            balance: float("balance")?,
            drawdown: float("drawdown")?,
            high_water: float("high_water")?,
        })
    });
    let equity = equity.collect::<Result<Vec<_>, ArtefactError>>()?;
    write_whole(folder, |unfinished| {
        write_file(&unfinished.join("meta.json"), |out| json_document(out, &Value::Object(meta.clone())))?;
        write_file(&unfinished.join("trades.json"), |out| list_document(out, trades.iter().cloned()))?;
        write_file(&unfinished.join("equity.csv"), |out| write_equity(out, &equity))?;
        write_file(&unfinished.join("metrics.json"), |out| json_document(out, &metrics))
    })
}

fn malformed(field: &str, rule: &'static str, found: Option<&Value>) -> ArtefactError {
    let found = match found {
        None => "nothing".to_owned(),
        Some(Value::Array(items)) => format!("a list of {}", items.len()),
        Some(Value::Object(_)) => "an object".to_owned(),
        Some(scalar) => scalar.to_string(),
    };
    ArtefactError::Result { field: field.to_owned(), rule, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_chosen_by_name() {
        assert_eq!(Include::of(Include::NAMES), Ok(Include::ALL));
        assert_eq!(Include::of(["trades", "equity"]), Err("equity"));
        assert!(!Include::of(["metrics"]).unwrap().equity_curve);
    }

    #[test]
    fn an_error_is_one_line_with_all_its_parts() {
        let error = Error::DataFile {
            kind: "FileNotFound",
            path: "EURUSD/EURUSD_H1_BID.parquet".into(),
            reason: "FileNotFound:\n no such file".to_owned(),
        };
        let document = error_document(&error);
        assert_eq!(document["ok"], false);
        let error = &document["error"];
        assert_eq!((&error["code"], &error["category"]), (&json!("E4100"), &json!("market_data")));
        assert_eq!(error["details"]["timeframe"], "H1");
        let message = error["message"].as_str().unwrap();
        assert!(!message.contains('\n') && message.contains("FileNotFound: no such file"), "{message}");
    }

    #[test]
    fn what_is_no_result_is_refused_and_nothing_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        let whole = json!({
            "ok": true, "meta": {}, "trades": [], "metrics": {}, "metric_definitions": {},
            "equity_curve": [{"timestamp_ns": 0, "equity": 1.0, "balance": 1.0, "drawdown": 0.0, "high_water": 1}],
        });
        for (key, value, told) in [
            ("ok", json!(false), "`ok` must be true, got false"),
            ("meta", json!(1), "`meta` must be an object, got 1"),
            ("equity_curve", Value::Null, "`equity_curve` must be a list, got null"),
            ("equity_curve", json!([{}]), "`equity_curve[0].timestamp_ns` must be an integer, got nothing"),
        ] {
            let mut broken = whole.clone();
            broken[key] = value;
            let error = write_result(&folder, &broken).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        assert!(!folder.exists());
        write_result(&folder, &whole).unwrap();
        let equity = std::fs::read_to_string(folder.join("equity.csv")).unwrap();
        assert!(equity.ends_with("\n1970-01-01T00:00:00+00:00,0,1.0,1.0,0.0,1.0\n"), "{equity}");
        assert_eq!(std::fs::read_to_string(folder.join("trades.json")).unwrap(), "[]\n");
    }
}
