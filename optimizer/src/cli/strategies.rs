//! `omega-opt strategies`: what there is to search.

use std::io::{self, Write as _};

use clap::Args;
use comfy_table::{Table, presets};
use engine::strategy::{Family, families, find};
use serde_json::{Value, json};

use crate::error::{CommandError, ExitCode};

/// List strategies, or the parameters of one.
#[derive(Debug, Args)]
pub struct StrategiesArgs {
    /// Strategy whose parameters are shown.
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// An unknown name.
pub fn run(args: &StrategiesArgs) -> Result<ExitCode, CommandError> {
    let text = match (&args.name, args.json) {
        (None, false) => list(),
        (None, true) => Value::Array(families().iter().map(|family| describe(*family)).collect()).to_string(),
        (Some(name), false) => parameters(find(name)?),
        (Some(name), true) => describe(find(name)?).to_string(),
    };
    let _ = writeln!(io::stdout(), "{text}");
    Ok(ExitCode::Done)
}

fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn list() -> String {
    let rows = families()
        .iter()
        .map(|family| vec![family.name().to_owned(), family.version().to_owned(), family.summary().to_owned()]);
    table(&["strategy", "version", "what it does"], rows)
}

fn parameters(family: &dyn Family) -> String {
    let rows = family
        .parameters()
        .iter()
        .map(|spec| vec![spec.name.to_owned(), spec.range_text(), spec.default_text(), spec.doc.to_owned()]);
    let constraints: Vec<&str> = family.constraints().iter().map(|constraint| constraint.text).collect();
    let mut text = format!("{} {}: {}\n\n", family.name(), family.version(), family.summary());
    text.push_str(&table(&["parameter", "values", "default", "meaning"], rows));
    if !constraints.is_empty() {
        text.push_str("\n\nconstraints: ");
        text.push_str(&constraints.join("; "));
    }
    text
}

/// A strategy and its parameters, as `--json` prints it.
pub fn describe(family: &dyn Family) -> Value {
    let parameters: Vec<Value> = family
        .parameters()
        .iter()
        .map(|spec| {
            json!({
                "name": spec.name,
                "values": spec.range_text(),
                "default": spec.default.to_value(),
                "meaning": spec.doc,
            })
        })
        .collect();
    json!({
        "name": family.name(),
        "version": family.version(),
        "summary": family.summary(),
        "parameters": parameters,
        "constraints": family.constraints().iter().map(|constraint| constraint.text).collect::<Vec<_>>(),
    })
}
