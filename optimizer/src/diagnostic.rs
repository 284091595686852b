//! Refusals for people: file, line, column, the line itself with a mark under what is wrong, the rule broken, the
//! value found, the nearest valid name. Several faults are listed together.

use std::fmt;
use std::io::IsTerminal;

use engine::Violation;
use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan,
    SpanContents,
};

use crate::document::{Document, Span};

/// One fault of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where, if it stands in a text.
    pub span: Option<Span>,
    /// Dotted path of what is wrong; empty for the text as a whole.
    pub path: String,
    /// The rule and the value found.
    pub message: String,
    /// Nearest valid name or another remedy.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A fault at a place.
    pub fn new(span: Option<Span>, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { span, path: path.into(), message: message.into(), hint: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `path: message`, or the message alone.
    fn headline(&self) -> String {
        if self.path.is_empty() { self.message.clone() } else { format!("{}: {}", self.path, self.message) }
    }
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: path: message (hint)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(span) = &self.span {
            write!(f, "{span}: ")?;
        }
        f.write_str(&self.headline())?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Everything found wrong, in order of discovery; never empty as an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics {
    /// The faults.
    pub items: Vec<Diagnostic>,
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    /// One line per fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, item) in self.items.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(item: Diagnostic) -> Self {
        Self { items: vec![item] }
    }
}

impl Diagnostics {
    /// Code of the interface for every refusal of a configuration.
    pub const CODE: &'static str = "E4002";

    /// One fault at a place.
    pub fn at(span: Span, path: impl Into<String>, message: impl Into<String>) -> Self {
        Diagnostic::new(Some(span), path, message).into()
    }

    /// A file that cannot be read.
    pub fn unreadable(name: &str, error: &std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            std::io::ErrorKind::InvalidData => "not UTF-8 text".to_owned(),
            std::io::ErrorKind::IsADirectory => "is a folder, not a file".to_owned(),
            _ => error.to_string(),
        };
        Diagnostic::new(None, "", format!("{name}: cannot be read: {reason}")).into()
    }

    /// Violations of a document, each with its place in it.
    pub fn from_violations(document: &Document, violations: &[Violation]) -> Self {
        let items = violations
            .iter()
            .map(|violation| Diagnostic {
                span: Some(document.locate(&violation.path).span(violation.about_key)),
                path: violation.path.clone(),
                message: violation.reason.clone(),
                hint: violation.hint.clone(),
            })
            .collect();
        Self { items }
    }

    /// Adds a fault.
    pub fn push(&mut self, item: Diagnostic) {
        self.items.push(item);
    }

    /// Takes over the faults of another list.
    pub fn extend(&mut self, other: Self) {
        self.items.extend(other.items);
    }

    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// `value` if nothing is wrong, else the faults.
    ///
    /// # Errors
    /// The faults, if there are any.
    pub fn or<T>(self, value: T) -> Result<T, Box<Self>> {
        if self.is_empty() { Ok(value) } else { Err(Box::new(self)) }
    }

    /// The faults with their lines and marks, for a terminal of `width` columns.
    pub fn render(&self, color: bool, width: usize) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler =
            GraphicalReportHandler::new_themed(theme).with_width(width).with_context_lines(1).with_links(false);
        let mut text = String::new();
        for (number, item) in self.items.iter().enumerate() {
            if number > 0 {
                text.push('\n');
            }
            // Writing to a String fails only if the handler itself does; the plain line always works.
            if handler.render_report(&mut text, &Report(item)).is_err() {
                text.push_str(&format!("{item}\n"));
            }
        }
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// As [`Self::render`], for standard error: coloured only on a terminal and without `NO_COLOR`.
    pub fn render_for_stderr(&self) -> String {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        self.render(!plain && std::io::stderr().is_terminal(), 100)
    }
}

/// A fault in the form miette shows.
#[derive(Debug)]
struct Report<'a>(&'a Diagnostic);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.headline())
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.0.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.span.as_ref().map(|span| span as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.0.span.as_ref()?;
        // Only the first line of the place is marked: a mark over several lines hides more than it shows.
        let len = span.text().lines().next().map_or(0, str::len);
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(None, (span.offset, len)))))
    }
}

impl SourceCode for Span {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let contents = self.source.text.as_str().read_span(span, before, after)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.source.name.clone(),
            contents.data(),
            *contents.span(),
            contents.line(),
            contents.column(),
            contents.line_count(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_shown_at_their_places() {
        let doc = Document::parse("configs/x.json", "{\"account\": {\"risk_per_trade\": -5},\n \"symbl\": \"EURUSD\"}")
            .unwrap();
        let all = Diagnostics::from_violations(
            &doc,
            &[
                Violation::value("account.risk_per_trade", "must be > 0, got -5"),
                Violation::unknown_key("symbl", Some("symbol")),
                Violation::value("strategy_name", "is required"),
            ],
        );
        insta::assert_snapshot!(all.render(false, 100), @r##"
         × account.risk_per_trade: must be > 0, got -5
          ╭─[configs/x.json:1:32]
        1 │ {"account": {"risk_per_trade": -5},
          ·                                ──
        2 │  "symbl": "EURUSD"}
          ╰────

         × symbl: unknown key
          ╭─[configs/x.json:2:2]
        1 │ {"account": {"risk_per_trade": -5},
        2 │  "symbl": "EURUSD"}
          ·  ───────
          ╰────
         help: did you mean `symbol`?

         × strategy_name: is required
          ╭─[configs/x.json:1:1]
        1 │ {"account": {"risk_per_trade": -5},
          · ─
        2 │  "symbl": "EURUSD"}
          ╰────
        "##);
        insta::assert_snapshot!(all.to_string(), @r##"
        configs/x.json:1:32: account.risk_per_trade: must be > 0, got -5
        configs/x.json:2:2: symbl: unknown key (did you mean `symbol`?)
        configs/x.json:1:1: strategy_name: is required
        "##);
    }

    #[test]
    fn broken_yaml_is_shown_where_it_breaks() {
        let error = Document::parse("grid.yaml", "name: x\nparameters:\n  a: [1, 2\nseed: 1\n").unwrap_err();
        insta::assert_snapshot!(error.render(false, 100), @r##"
         × not valid YAML: illegal placement of ':' indicator
          ╭─[grid.yaml:4:5]
        3 │   a: [1, 2
        4 │ seed: 1
          ·     ─
          ╰────
        "##);
        let error = Document::parse("grid.yaml", "name: x\nseed: 1\nname: y\n").unwrap_err();
        insta::assert_snapshot!(error.render(false, 100), @r##"
         × not valid YAML: duplicate mapping key `name` is not allowed here
          ╭─[grid.yaml:3:1]
        2 │ seed: 1
        3 │ name: y
          · ─
          ╰────
        "##);
    }
}
