//! The JSON schemas of the repository, ready to judge documents.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly")]

use std::fs;
use std::path::Path;

use jsonschema::Validator;
use serde_json::Value;

/// One schema of `schemas/`.
pub(crate) struct Schema {
    name: &'static str,
    validator: Validator,
}

impl Schema {
    pub(crate) fn load(name: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(format!("{name}.json"));
        let schema: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, validator }
    }

    /// What is wrong with a document, one line each.
    pub(crate) fn faults(&self, document: &Value) -> Vec<String> {
        let line = |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
        self.validator.iter_errors(document).map(line).collect()
    }

    pub(crate) fn check(&self, document: &Value) {
        let faults = self.faults(document);
        assert!(faults.is_empty(), "{}: {}", self.name, faults.join("\n"));
    }
}

/// The schemas of a run folder.
pub(crate) struct RunSchemas {
    pub(crate) meta: Schema,
    pub(crate) trades: Schema,
    pub(crate) metrics: Schema,
    pub(crate) config: Schema,
}

impl RunSchemas {
    pub(crate) fn load() -> Self {
        Self {
            meta: Schema::load("meta"),
            trades: Schema::load("trades"),
            metrics: Schema::load("metrics"),
            config: Schema::load("run-config"),
        }
    }

    /// Reads and judges the four artefacts of a run folder.
    pub(crate) fn read(&self, folder: &Path) -> Artefacts {
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let json = |name: &str| {
            let text = text(name);
            assert_layout(&text, name);
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let artefacts = Artefacts {
            meta: json("meta.json"),
            trades: json("trades.json"),
            metrics: json("metrics.json"),
            equity: read_equity(&text("equity.csv")),
        };
        self.meta.check(&artefacts.meta);
        self.config.check(&artefacts.meta["config"]["snapshot"]);
        self.trades.check(&artefacts.trades);
        self.metrics.check(&artefacts.metrics);
        artefacts
    }
}

/// The four files of a run, parsed.
pub(crate) struct Artefacts {
    pub(crate) meta: Value,
    pub(crate) trades: Value,
    pub(crate) metrics: Value,
    /// Stamp, nanoseconds, equity, balance, drawdown, high water.
    pub(crate) equity: Vec<(String, i64, [f64; 4])>,
}

/// metrics-and-outputs §7.3.
fn read_equity(text: &str) -> Vec<(String, i64, [f64; 4])> {
    let mut lines = text.strip_suffix('\n').unwrap().split('\n');
    assert_eq!(lines.next(), Some("timestamp,timestamp_ns,equity,balance,drawdown,high_water"));
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), 6, "{line}");
        let number = |k: usize| cells[k].parse::<f64>().unwrap();
        (cells[0].to_owned(), cells[1].parse().unwrap(), [2, 3, 4, 5].map(number))
    });
    rows.collect()
}

/// metrics-and-outputs §7: two blanks of indent, keys sorted, no trailing blanks, one final newline, floats as Python
/// writes them. Only numbers may be written otherwise than serde_json does.
fn assert_layout(text: &str, name: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    let expected = format!("{value:#}\n");
    assert_eq!(text.lines().count(), expected.lines().count(), "{name}");
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{name}");
    for (found, expected) in text.lines().zip(expected.lines()).filter(|(found, expected)| found != expected) {
        let split = |line: &str| {
            let at = line.find("\": ").map_or_else(|| line.len() - line.trim_start().len(), |at| at + 3);
            let (head, number) = line.split_at(at);
            (head.to_owned(), number.trim_end_matches(',').parse::<f64>().ok(), line.ends_with(','))
        };
        let (found, expected) = (split(found), split(expected));
        assert!(found.1.is_some() && found == expected, "{name}: {found:?} {expected:?}");
    }
}
