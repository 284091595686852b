//! The grid file: what a sweep varies, how it searches, what it looks for, where it writes.
//!
//! Reading is strict and collects every fault with its place. It has two steps, because types and ranges of parameters
//! are known only once the run config has named its strategy: [`Grid::load`] reads the file, [`Grid::space`] types
//! and checks the axes.

mod axes;
pub mod config_keys;
mod lock;
pub(crate) mod reader;
pub(crate) mod sections;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::strategy::{BuildContext, Family};
use serde_json::Value;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::{Document, Entry, Node, NodeKind, Source, Span};
use crate::objective::{Gates, Objective};
use crate::search::{Search, SearchError, Trials};
use crate::space::Space;
use axes::{AxisEntry, ConstraintEntry, LinkedEntry};
use reader::{At, Reader};
pub use sections::{CsvRows, Holdout, Length, Limits, Output, WalkForward, WindowMode};

/// Keys of a grid file.
const KEYS: [&str; 12] = [
    "name",
    "config",
    "seed",
    "parameters",
    "linked",
    "constraints",
    "search",
    "objective",
    "gates",
    "walk_forward",
    "limits",
    "output",
];

/// Seed of a grid that names none.
pub const DEFAULT_SEED: u64 = 42;

/// A grid file, read and checked as far as it goes without its strategy.
#[derive(Debug, Clone)]
pub struct Grid {
    /// The file with the changes of `--set`.
    document: Document,
    /// The run config as given, before `parameters` with one value are put in.
    given_config: Document,
    /// Name of the run folder, without its hash.
    pub name: String,
    /// Drives the drawing of settings and later statistics; slippage has its own seed in the run config.
    pub seed: u64,
    /// Run config file, if it is one of its own: relative to the working directory like the grid file itself.
    pub config_path: Option<PathBuf>,
    /// Base run config with fixed parameters and `--set` put in; not normalised.
    pub config: Document,
    /// How settings are chosen.
    pub search: Search,
    /// What is maximised or minimised.
    pub objective: Objective,
    /// Conditions a row must meet.
    pub gates: Gates,
    /// Windows, for a walk-forward.
    pub walk_forward: Option<WalkForward>,
    /// Bounds of the run.
    pub limits: Limits,
    /// Where and how much is written.
    pub output: Output,
    parameters: Vec<AxisEntry>,
    linked: Vec<LinkedEntry>,
    constraints: Vec<ConstraintEntry>,
}

impl Grid {
    /// Reads a grid file and the run config it names.
    ///
    /// # Errors
    /// Every fault of the grid file, or that of a file that cannot be read or parsed.
    pub fn load(path: &Path) -> Result<Self, Box<Diagnostics>> {
        let document = Document::read(path, path.display().to_string())?;
        let folder = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        Self::parse(document, &folder, &stem_of(path))
    }

    /// Reads a grid from a document; `folder` is where relative paths start, `stem` names a grid without a name.
    ///
    /// # Errors
    /// As [`Grid::load`].
    pub fn parse(document: Document, folder: &Path, stem: &str) -> Result<Self, Box<Diagnostics>> {
        let mut reader = Reader::default();
        let (given_config, config_path) = read_config(&mut reader, &document, folder)?;
        Self::build(document, given_config, config_path, stem, reader)
    }

    fn build(
        document: Document,
        given_config: Document,
        config_path: Option<PathBuf>,
        stem: &str,
        mut reader: Reader,
    ) -> Result<Self, Box<Diagnostics>> {
        let root = At { path: String::new(), node: &document.root };
        reader.map(&root, &KEYS);
        let name = root.key("name").map_or_else(|| Some(stem.to_owned()), |name| read_name(&mut reader, &name));
        let seed = root.key("seed").and_then(|seed| reader.whole(&seed, 0, u64::MAX)).unwrap_or(DEFAULT_SEED);
        let (parameters, fixed) = axes::read_parameters(&mut reader, root.key("parameters"));
        let linked = axes::read_linked(&mut reader, root.key("linked"), &parameters, &fixed);
        let constraints = axes::read_constraints(&mut reader, root.key("constraints"));
        let search = sections::read_search(&mut reader, root.key("search"));
        let objective = sections::read_objective(&mut reader, root.key("objective"));
        let gates = sections::read_gates(&mut reader, root.key("gates"));
        let walk_forward = sections::read_walk_forward(&mut reader, root.key("walk_forward"));
        let limits = sections::read_limits(&mut reader, root.key("limits"));
        let output = sections::read_output(&mut reader, root.key("output"));

        let mut config = given_config.clone();
        use_current_spelling(&mut config.root);
        for entry in &fixed {
            if let Err(obstacle) = config.root.set(&entry.config_path(), &entry.key_span, entry.node.clone()) {
                reader.fault(&entry.key_span, entry.path(), format!("`{obstacle}` of the run config is no map"));
            }
        }
        reader.found.or(())?;
        Ok(Self {
            name: name.unwrap_or_default(),
            seed,
            config_path,
            config,
            search,
            objective,
            gates,
            walk_forward,
            limits,
            output,
            parameters,
            linked,
            constraints,
            document,
            given_config,
        })
    }

    /// Applies `--set key=value`, the value written as in the file: replaces or adds an axis or fixed value under
    /// `parameters`, or sets a key of the run config or (`search.trials=500`) of the grid itself.
    ///
    /// # Errors
    /// No `=`, a value that is no YAML, or whatever the changed grid is refused for.
    pub fn set(&mut self, assignment: &str) -> Result<(), Box<Diagnostics>> {
        let Some((key, text)) = assignment.split_once('=').map(|(key, text)| (key.trim(), text.trim())) else {
            let fault = Diagnostic::new(None, "--set", format!("must be key=value, got `{assignment}`"));
            return Err(Box::new(fault.with_hint("for example `--set z_score_long=-3..-1:0.5`").into()));
        };
        let source = format!("--set {key}");
        let value = Document::parse(source.clone(), text)?.root;
        let key_source = Arc::new(Source { name: source, text: key.to_owned() });
        let key_span = Span::new(&key_source, 0, key.len());
        let (mut document, mut given_config) = (self.document.clone(), self.given_config.clone());
        let parts: Vec<&str> = key.split('.').collect();
        let head = parts.first().copied().unwrap_or_default();

        let obstacle = if KEYS.contains(&head) {
            document.root.set(&parts, &key_span, value)
        } else if self.linked.iter().any(|linked| linked.has(key)) {
            let message = format!("`{key}` is one of several linked axes; --set replaces single axes");
            return Err(Box::new(Diagnostics::at(key_span, key, message)));
        } else if axes::is_axis_key(key) {
            set_parameter(&mut document.root, key, &key_span, value)
        } else {
            given_config.root.set(&parts, &key_span, value)
        };
        if let Err(obstacle) = obstacle {
            return Err(Box::new(Diagnostics::at(key_span, key, format!("`{obstacle}` is no map"))));
        }
        if head == "config"
            && self.config_path.is_none()
            && let Some(node) = document.root.get("config")
        {
            given_config = Document::of_node(node.clone());
        }
        *self = Self::build(document, given_config, self.config_path.clone(), &self.name, Reader::default())?;
        Ok(())
    }

    /// The base run config as JSON, for the engine to normalise and check.
    pub fn config_json(&self) -> Value {
        self.config.to_json()
    }

    /// Types and checks the axes for a strategy and binds all constraints, the grid's and the strategy's.
    ///
    /// `normalised` is the run config as the engine filled it (`RunConfig::document`): constraints read from it what
    /// is no axis.
    ///
    /// # Errors
    /// Every unknown name, wrong type, value out of range and faulty constraint, at its place.
    pub fn space(
        &self,
        family: &dyn Family,
        context: &BuildContext,
        normalised: &Value,
    ) -> Result<Space, Box<Diagnostics>> {
        axes::build_space(self, family, context, normalised)
    }

    /// Numbers the settings of a space made by [`Grid::space`].
    ///
    /// # Errors
    /// Too many settings for a grid search, none at all, or too few found by drawing.
    pub fn trials(&self, space: Arc<Space>) -> Result<Trials, Box<Diagnostics>> {
        Trials::new(Arc::clone(&space), self.search, self.seed).map_err(|error| {
            let (place, path) = match &error {
                SearchError::NoSetting { guilty, .. } => {
                    let span = guilty.iter().find_map(|number| space.constraints()[*number].span.clone());
                    (span, "constraints")
                }
                SearchError::TooManyTrials { .. } => (None, "search.trials"),
                SearchError::GridTooLarge { .. } | SearchError::DrawsExhausted { .. } => (None, "search"),
            };
            let span = place.unwrap_or_else(|| self.section(path));
            let mut fault = Diagnostic::new(Some(span), path, error.to_string());
            fault.hint = error.hint();
            Box::new(fault.into())
        })
    }

    /// A fault of the walk-forward section that shows only once the bars are known.
    pub(crate) fn walk_forward_fault(&self, key: &str, message: impl Into<String>, hint: &str) -> Diagnostic {
        let path = if key.is_empty() { "walk_forward".to_owned() } else { format!("walk_forward.{key}") };
        let place = self.document.locate(&path);
        Diagnostic::new(Some(place.span(true)), path, message).with_hint(hint)
    }

    /// Place of a section, or of the axes where the file does not have it.
    fn section(&self, path: &str) -> Span {
        let place = self.document.locate(path);
        let place = if place.exact { place } else { self.document.locate("parameters") };
        place.span(true)
    }
}

/// The old key `strategy_params` gets its present name, so that fixed parameters join those given there.
fn use_current_spelling(config: &mut Node) {
    let current = config.get("strategy_parameters").is_some();
    if let NodeKind::Map(entries) = &mut config.kind
        && !current
        && let Some(entry) = entries.iter_mut().find(|entry| entry.key == "strategy_params")
    {
        entry.key = "strategy_parameters".to_owned();
    }
}

/// Replaces the entry of `parameters` with the same target, or adds one at the end.
fn set_parameter(root: &mut Node, key: &str, key_span: &Span, value: Node) -> Result<(), String> {
    let NodeKind::Map(entries) = &mut root.kind else { return Err("the grid".to_owned()) };
    let index = entries.iter().position(|entry| entry.key == "parameters").unwrap_or_else(|| {
        let empty = Node { span: key_span.clone(), kind: NodeKind::Map(Vec::new()) };
        entries.push(Entry { key: "parameters".to_owned(), key_span: key_span.clone(), value: empty });
        entries.len() - 1
    });
    let parameters = &mut entries[index].value;
    if parameters.is_null() {
        parameters.kind = NodeKind::Map(Vec::new());
    }
    let NodeKind::Map(parameters) = &mut parameters.kind else { return Err("parameters".to_owned()) };
    let target = axes::target_of(key);
    match parameters.iter_mut().find(|entry| axes::target_of(&entry.key) == target) {
        Some(entry) => {
            entry.key_span = key_span.clone();
            entry.value = value;
        }
        None => parameters.push(Entry { key: key.to_owned(), key_span: key_span.clone(), value }),
    }
    Ok(())
}

/// The name of a file that names itself nowhere: that of the file without its ending, as far as a folder can have it.
pub(crate) fn stem_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    stem.chars().map(|c| if is_name_char(c) { c } else { '-' }).take(64).collect()
}

/// Letters, digits, `-`, `_`, `.`: what names of run folders are made of.
pub(crate) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

pub(crate) fn read_name(reader: &mut Reader, at: &At<'_>) -> Option<String> {
    let text = reader.text(at)?;
    if text.is_empty() || text.len() > 64 || text.starts_with('.') || !text.chars().all(is_name_char) {
        // It becomes the name of a folder.
        reader.wrong(at, "1 to 64 letters, digits, `-`, `_` or `.`, not starting with `.`");
        return None;
    }
    Some(text.to_owned())
}

/// The run config: inline, or a file relative to the grid's folder.
fn read_config(
    reader: &mut Reader,
    document: &Document,
    folder: &Path,
) -> Result<(Document, Option<PathBuf>), Box<Diagnostics>> {
    let root = At { path: String::new(), node: &document.root };
    let empty = || Document::of_node(Node { span: document.root.span.clone(), kind: NodeKind::Map(Vec::new()) });
    let Some(at) = root.key("config") else {
        if document.root.as_map().is_some() {
            let hint = Some("`config: ../configs/x.json`, or the keys of a run config inline".to_owned());
            reader.fault_with_hint(&document.root.span, "config", "is required", hint);
        }
        return Ok((empty(), None));
    };
    match &at.node.kind {
        NodeKind::Map(_) => Ok((Document::of_node(at.node.clone()), None)),
        NodeKind::Text(file) => {
            let path = folder.join(file);
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let config = Document::parse(path.display().to_string(), text)?;
                    Ok((config, Some(path)))
                }
                Err(error) => {
                    let reason = Diagnostics::unreadable(&path.display().to_string(), &error).to_string();
                    reader.fault(&at.node.span, at.path, reason);
                    Ok((empty(), None))
                }
            }
        }
        _ => {
            reader.wrong(&at, "a path or a map");
            Ok((empty(), None))
        }
    }
}

#[cfg(test)]
mod tests;
