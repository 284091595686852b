//! Strict reading of maps: unknown keys and wrong types are collected, each with its place.

use engine::error::nearest;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::{Entry, Node, NodeKind, Span};
use crate::expression::ExpressionError;

/// Collects what is wrong while a document is read.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) found: Diagnostics,
}

/// One value about to be read, with the path it is reported under.
#[derive(Debug, Clone)]
pub(crate) struct At<'a> {
    pub(crate) path: String,
    pub(crate) node: &'a Node,
}

impl<'a> At<'a> {
    pub(crate) fn key(&self, key: &str) -> Option<At<'a>> {
        self.node.get(key).filter(|node| !node.is_null()).map(|node| At { path: join(&self.path, key), node })
    }

    pub(crate) fn item(&self, index: usize, node: &'a Node) -> At<'a> {
        At { path: format!("{}[{index}]", self.path), node }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Reader {
    pub(crate) fn fault(&mut self, span: &Span, path: impl Into<String>, message: impl Into<String>) {
        self.found.push(Diagnostic::new(Some(span.clone()), path, message));
    }

    pub(crate) fn fault_with_hint(
        &mut self,
        span: &Span,
        path: impl Into<String>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let mut fault = Diagnostic::new(Some(span.clone()), path, message);
        fault.hint = hint;
        self.found.push(fault);
    }

    /// `rule` is broken by the value found.
    pub(crate) fn wrong(&mut self, at: &At<'_>, rule: &str) {
        self.fault(&at.node.span, at.path.clone(), format!("must be {rule}, got {}", at.node.describe()));
    }

    /// A culprit inside an expression; its place is found in the text as written, whatever quotes surround it.
    pub(crate) fn expression(&mut self, at: &At<'_>, text: &str, error: ExpressionError) {
        let span = &at.node.span;
        let place = span
            .text()
            .find(text)
            .map_or_else(|| span.clone(), |start| span.part(start + error.offset.min(text.len()), error.len.max(1)));
        self.fault_with_hint(&place, at.path.clone(), error.message, error.hint);
    }

    /// The entries of a map whose keys are all known.
    pub(crate) fn map<'a>(&mut self, at: &At<'a>, known: &[&str]) -> &'a [Entry] {
        let Some(entries) = at.node.as_map() else {
            self.wrong(at, "a map");
            return &[];
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let hint = nearest(&entry.key, known.iter().copied()).map_or_else(
                    || format!("valid keys: {}", known.join(", ")),
                    |name| format!("did you mean `{name}`?"),
                );
                let path = join(&at.path, &entry.key);
                self.fault_with_hint(&entry.key_span, path, "unknown key", Some(hint));
            }
        }
        entries
    }

    pub(crate) fn list<'a>(&mut self, at: &At<'a>) -> &'a [Node] {
        at.node.as_list().unwrap_or_else(|| {
            self.wrong(at, "a list");
            &[]
        })
    }

    pub(crate) fn text<'a>(&mut self, at: &At<'a>) -> Option<&'a str> {
        let text = at.node.as_text();
        if text.is_none() {
            self.wrong(at, "text");
        }
        text
    }

    pub(crate) fn flag(&mut self, at: &At<'_>) -> Option<bool> {
        match at.node.kind {
            NodeKind::Bool(flag) => Some(flag),
            _ => {
                self.wrong(at, "true or false");
                None
            }
        }
    }

    /// A whole number in `min ..= max`.
    pub(crate) fn whole(&mut self, at: &At<'_>, min: u64, max: u64) -> Option<u64> {
        let value = match &at.node.kind {
            NodeKind::Number(literal) => literal.parse::<u64>().ok().filter(|x| (min..=max).contains(x)),
            _ => None,
        };
        if value.is_none() {
            let rule = match max {
                u64::MAX => format!("a whole number >= {min}"),
                _ => format!("a whole number from {min} to {max}"),
            };
            self.wrong(at, &rule);
        }
        value
    }

    pub(crate) fn word<T: Copy>(&mut self, at: &At<'_>, words: &[(&str, T)]) -> Option<T> {
        let found = at.node.as_text().and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let hint = at
                .node
                .as_text()
                .and_then(|text| nearest(text, names.iter().copied()))
                .map(|name| format!("did you mean `{name}`?"));
            let message = format!("must be one of {}, got {}", names.join(", "), at.node.describe());
            self.fault_with_hint(&at.node.span, at.path.clone(), message, hint);
        }
        found.map(|(_, value)| *value)
    }
}
