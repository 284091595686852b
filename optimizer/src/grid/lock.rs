//! A grid written out in full: the lock file of a run folder, itself a valid grid file, and what identifies the rows.

use serde_json::{Value, json};

use crate::grid::{CsvRows, Grid, Holdout};
use crate::objective::Goal;
use crate::search::Search;
use crate::space::Space;
use crate::space::axis::{Member, Values, decimal};
use crate::space::constraint::Origin;

impl Grid {
    /// Everything that decides the rows of a sweep on the side of the grid: run config, space, search, seed.
    /// `normalised` is the run config as the engine filled it.
    pub fn identity(&self, space: &Space, normalised: &Value) -> Value {
        json!({
            "config": normalised,
            "space": space.identity(),
            "search": search(self.search),
            "seed": self.seed,
        })
    }

    /// The grid fully resolved, as YAML: run config inline and filled, axes as exact lattices or lists, fixed
    /// parameters and `--set` put in. Reading it back gives the same trials. Memory and time limits and the output
    /// folder stay out: they may differ between equal runs. `chunk` is the number of trials per chunk.
    pub fn lock_yaml(&self, space: &Space, normalised: &Value, chunk: u64) -> String {
        let mut text = String::new();
        let mut line = |indent: usize, content: String| {
            text.push_str(&" ".repeat(indent));
            text.push_str(&content);
            text.push('\n');
        };
        line(0, format!("name: {}", json!(self.name)));
        line(0, format!("seed: {}", self.seed));
        line(0, "config:".to_owned());
        for (key, value) in normalised.as_object().into_iter().flatten() {
            line(2, format!("{}: {value}", json!(key)));
        }
        let (single, linked): (Vec<_>, Vec<_>) = space.axes().iter().partition(|axis| axis.members.len() == 1);
        line(0, if single.is_empty() { "parameters: {}" } else { "parameters:" }.to_owned());
        for member in single.iter().flat_map(|axis| &axis.members) {
            line(2, format!("{}: {}", json!(member.name), values(member)));
        }
        line(0, if linked.is_empty() { "linked: []" } else { "linked:" }.to_owned());
        for axis in linked {
            let names: Vec<&str> = axis.members.iter().map(|member| member.name.as_str()).collect();
            let rows: Vec<Vec<Value>> =
                (0..axis.len()).map(|k| axis.members.iter().map(|member| member.values.get(k)).collect()).collect();
            line(2, format!("- {{\"names\": {}, \"values\": {}}}", json!(names), json!(rows)));
        }
        let own = space.constraints().iter().filter(|constraint| constraint.origin == Origin::Grid);
        line(0, format!("constraints: {}", json!(own.map(|constraint| &constraint.text).collect::<Vec<_>>())));
        line(0, format!("search: {}", search(self.search)));
        let goal = if self.objective.goal == Goal::Maximize { "maximize" } else { "minimize" };
        line(0, format!("objective: {}", json!({goal: self.objective.text()})));
        line(0, format!("gates: {}", json!(self.gates.texts().collect::<Vec<_>>())));
        if let Some(windows) = &self.walk_forward {
            let texts = |lengths: &[super::Length]| -> Value {
                match lengths {
                    [one] => Value::from(one.to_string()),
                    several => several.iter().map(|length| Value::from(length.to_string())).collect(),
                }
            };
            let mut map = json!({
                "mode": windows.mode.as_str(),
                "train": texts(&windows.train),
                "test": texts(&windows.test),
                "verdict": windows.verdict.texts().collect::<Vec<_>>(),
            });
            if let Value::Object(map) = &mut map {
                for (key, length) in [("step", windows.step), ("embargo", windows.embargo)] {
                    if let Some(length) = length {
                        map.insert(key.to_owned(), Value::from(length.to_string()));
                    }
                }
                if windows.allow_overlap {
                    map.insert("allow_overlap".to_owned(), Value::from(true));
                }
                match windows.holdout {
                    Some(Holdout::Last(length)) => map.insert("holdout".to_owned(), Value::from(length.to_string())),
                    Some(Holdout::From(day)) => map.insert("holdout".to_owned(), json!({"from": day.to_string()})),
                    None => None,
                };
            }
            line(0, format!("walk_forward: {map}"));
        }
        line(0, format!("limits: {}", json!({"chunk": chunk})));
        let csv = match self.output.csv {
            CsvRows::All => Value::from("all"),
            CsvRows::Best(rows) => Value::from(rows),
        };
        line(0, format!("output: {}", json!({"csv": csv, "top": self.output.top})));
        text
    }
}

fn search(search: Search) -> Value {
    match search {
        Search::Grid => json!({"method": "grid"}),
        Search::Random { trials } => json!({"method": "random", "trials": trials}),
    }
}

/// The axis as a grid writes it; the end of a lattice is its last value.
fn values(member: &Member) -> String {
    match &member.values {
        Values::Lattice { low, step, count, .. } => {
            let last = step.checked_mul((count - 1).into()).and_then(|range| low.checked_add(range));
            let last =
                last.map_or_else(|| member.values.get(count - 1).to_string(), |last| last.normalize().to_string());
            debug_assert!(decimal(&last).is_ok());
            format!("{{\"min\": {low}, \"max\": {last}, \"step\": {step}}}")
        }
        Values::List(values) => format!("{{\"values\": {}}}", json!(values)),
    }
}
