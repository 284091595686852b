//! A YAML or JSON text as a tree in which every key and value knows its place.
//!
//! What the values mean is decided by the readers of grids, run configs and nightly plans; they address what they
//! complain about by a dotted path, and [`crate::diagnostic`] shows it. Numbers keep their decimal text, so that
//! lattices stay exact.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::diagnostic::Diagnostics;

/// Deepest nesting accepted: far above any real file, far below what the stack bears.
const MAX_DEPTH: usize = 64;

/// A text and the name it is shown under.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// File as the user addressed it, or the flag the text came from.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A place in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The text it is in.
    pub source: Arc<Source>,
    /// First byte.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Span {
    /// The bytes `offset .. offset + len` of `source`, both clamped to whole characters inside the text.
    pub fn new(source: &Arc<Source>, offset: usize, len: usize) -> Self {
        let text = &source.text;
        let start = floor_boundary(text, offset);
        let end = floor_boundary(text, start.saturating_add(len)).max(start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            source: Arc::clone(source),
            offset: start,
            len: end - start,
            line: before.matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
        }
    }

    /// A part of this span, `offset` and `len` in bytes from its start.
    #[must_use]
    pub fn part(&self, offset: usize, len: usize) -> Self {
        let offset = offset.min(self.len);
        Self::new(&self.source, self.offset + offset, len.min(self.len - offset))
    }

    /// The text covered.
    pub fn text(&self) -> &str {
        self.source.text.get(self.offset..self.offset + self.len).unwrap_or_default()
    }
}

impl fmt::Display for Span {
    /// `file:line:column`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source.name, self.line, self.column)
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// One value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it stands. Of a list or map only the start is known.
    pub span: Span,
    /// What it is.
    pub kind: NodeKind,
}

/// The kinds of value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as decimal text: the literal where it is one.
    Number(String),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in order of appearance, keys unique.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its place.
    pub key_span: Span,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// The kind in words, for messages: `a whole number`, `a list`.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            NodeKind::Null => "null",
            NodeKind::Bool(_) => "true/false",
            NodeKind::Number(text) if is_whole(text) => "a whole number",
            NodeKind::Number(_) => "a number",
            NodeKind::Text(_) => "text",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map",
        }
    }

    /// The value in a few characters, for messages: `text "abc"`, `12`, `a list`.
    pub fn describe(&self) -> String {
        match &self.kind {
            NodeKind::Null => "null".to_owned(),
            NodeKind::Bool(value) => value.to_string(),
            NodeKind::Number(text) => text.clone(),
            NodeKind::Text(text) => {
                let short: String = text.chars().take(40).collect();
                let dots = if short.len() < text.len() { "…" } else { "" };
                format!("text \"{short}{dots}\"")
            }
            NodeKind::List(items) => format!("a list of {}", items.len()),
            NodeKind::Map(_) => "a map".to_owned(),
        }
    }

    /// The entries, if it is a map.
    pub fn as_map(&self) -> Option<&[Entry]> {
        match &self.kind {
            NodeKind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.kind {
            NodeKind::List(items) => Some(items),
            _ => None,
        }
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a key, if it is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A key with its value, if it is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.as_map()?.iter().find(|entry| entry.key == key)
    }

    /// The value is null.
    pub fn is_null(&self) -> bool {
        matches!(self.kind, NodeKind::Null)
    }

    /// The value as JSON: whole literals become integers, the others doubles.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(value) => Value::Bool(*value),
            NodeKind::Number(text) => number_to_json(text),
            NodeKind::Text(text) => Value::String(text.clone()),
            NodeKind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            NodeKind::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
            }
        }
    }

    /// Sets the value at a path of keys, making the maps on the way; an empty list on the way counts as an empty map
    /// (`trade_management.rules: []`).
    ///
    /// # Errors
    /// The dotted path at which something else than a map stands.
    pub fn set(&mut self, path: &[&str], key_span: &Span, value: Self) -> Result<(), String> {
        let mut node = self;
        let mut walked = String::new();
        let mut parts = path.iter().peekable();
        while let Some(part) = parts.next() {
            if matches!(&node.kind, NodeKind::Null) || matches!(&node.kind, NodeKind::List(items) if items.is_empty()) {
                node.kind = NodeKind::Map(Vec::new());
            }
            let NodeKind::Map(entries) = &mut node.kind else { return Err(walked) };
            if !walked.is_empty() {
                walked.push('.');
            }
            walked.push_str(part);
            let index = entries.iter().position(|entry| entry.key == *part).unwrap_or_else(|| {
                entries.push(Entry {
                    key: (*part).to_owned(),
                    key_span: key_span.clone(),
                    value: Self { span: value.span.clone(), kind: NodeKind::Map(Vec::new()) },
                });
                entries.len() - 1
            });
            if parts.peek().is_none() {
                key_span.clone_into(&mut entries[index].key_span);
                entries[index].value = value;
                return Ok(());
            }
            node = &mut entries[index].value;
        }
        Ok(())
    }
}

fn is_whole(literal: &str) -> bool {
    !literal.contains(['.', 'e', 'E'])
}

fn number_to_json(literal: &str) -> Value {
    if let Ok(value) = literal.parse::<i64>() {
        return Value::from(value);
    }
    if let Ok(value) = literal.parse::<u64>() {
        return Value::from(value);
    }
    literal.parse::<f64>().map_or(Value::Null, Value::from)
}

/// A place found for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The key, where the value has one.
    pub key: Option<Span>,
    /// The value.
    pub value: Span,
    /// The value is a list or map, of which only the start is known.
    pub is_collection: bool,
    /// The whole path exists; otherwise this is its deepest part that does.
    pub exact: bool,
}

impl Place {
    /// What to point at: the key when the complaint is about it, when the value is a collection, or when the path
    /// itself does not exist.
    pub fn span(&self, about_key: bool) -> Span {
        match &self.key {
            Some(key) if about_key || self.is_collection || !self.exact => key.clone(),
            _ => self.value.clone(),
        }
    }
}

/// A parsed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The text itself.
    pub source: Arc<Source>,
    /// Its value.
    pub root: Node,
}

impl Document {
    /// Parses YAML or JSON (which is YAML). Keys are text and unique within a map; merge keys, several documents and
    /// numbers beyond the doubles are refused.
    ///
    /// # Errors
    /// What is wrong and where.
    pub fn parse(name: impl Into<String>, text: impl Into<String>) -> Result<Self, Box<Diagnostics>> {
        let source = Arc::new(Source { name: name.into(), text: text.into() });
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
            merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
            with_snippet: false,
        };
        match serde_saphyr::from_str_with_options::<Spanned<Raw>>(&source.text, options) {
            Ok(raw) => Ok(Self { root: to_node(raw, &source), source }),
            Err(error) => Err(Box::new(syntax_error(&source, &error))),
        }
    }

    /// Reads and parses a file; `name` is how messages call it.
    ///
    /// # Errors
    /// The file cannot be read, or what is wrong in it and where.
    pub fn read(path: &Path, name: impl Into<String>) -> Result<Self, Box<Diagnostics>> {
        let name = name.into();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(name, text),
            Err(error) => Err(Box::new(Diagnostics::unreadable(&name, &error))),
        }
    }

    /// A document made of a part of another one; spans still point into the original text.
    pub fn of_node(root: Node) -> Self {
        Self { source: Arc::clone(&root.span.source), root }
    }

    /// The whole value as JSON.
    pub fn to_json(&self) -> Value {
        self.root.to_json()
    }

    /// Finds a dotted path (`account.risk_per_trade`, `sessions[1].start`, `parameters.costs.fee_multiplier`: keys may
    /// hold dots), or the deepest part of it that exists.
    pub fn locate(&self, path: &str) -> Place {
        let mut place = Place {
            key: None,
            value: self.root.span.clone(),
            is_collection: matches!(self.root.kind, NodeKind::List(_) | NodeKind::Map(_)),
            exact: path.is_empty(),
        };
        descend(&self.root, path, &mut place);
        place
    }
}

/// Walks as deep as the path goes, leaving the deepest place in `place`.
fn descend(node: &Node, path: &str, place: &mut Place) {
    if path.is_empty() {
        place.exact = true;
        return;
    }
    let (key_span, value, rest) = match &node.kind {
        NodeKind::Map(entries) => {
            let Some((entry, rest)) = entries
                .iter()
                .filter_map(|entry| {
                    let rest = path.strip_prefix(entry.key.as_str())?;
                    (rest.is_empty() || rest.starts_with(['.', '['])).then_some((entry, rest))
                })
                .max_by_key(|(entry, _)| entry.key.len())
            else {
                return;
            };
            (Some(&entry.key_span), &entry.value, rest.strip_prefix('.').unwrap_or(rest))
        }
        NodeKind::List(items) => {
            let Some((item, rest)) =
                path.strip_prefix('[').and_then(|path| path.split_once(']')).and_then(|(index, rest)| {
                    Some((items.get(index.parse::<usize>().ok()?)?, rest.strip_prefix('.').unwrap_or(rest)))
                })
            else {
                return;
            };
            (None, item, rest)
        }
        _ => return,
    };
    *place = Place {
        key: key_span.cloned(),
        value: value.span.clone(),
        is_collection: matches!(value.kind, NodeKind::List(_) | NodeKind::Map(_)),
        exact: false,
    };
    descend(value, rest, place);
}

fn syntax_error(source: &Arc<Source>, error: &serde_saphyr::Error) -> Diagnostics {
    let offset = error.location().map_or(0, |location| byte_offset(&source.text, location));
    let span = Span::new(source, offset, 1);
    let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    // The reader ends its messages with the place, which the snippet shows already.
    let message = text.split(" at line ").next().unwrap_or(&text);
    let language = if source.name.ends_with(".json") { "JSON" } else { "YAML" };
    Diagnostics::at(span, "", format!("not valid {language}: {message}"))
}

fn byte_offset(text: &str, location: serde_saphyr::Location) -> usize {
    if let Some(offset) = location.span().byte_offset() {
        return usize::try_from(offset).unwrap_or(usize::MAX);
    }
    let line = usize::try_from(location.line()).unwrap_or(usize::MAX).saturating_sub(1);
    let column = usize::try_from(location.column()).unwrap_or(usize::MAX).saturating_sub(1);
    let mut offset = 0;
    for (number, content) in text.split_inclusive('\n').enumerate() {
        if number == line {
            return offset + content.chars().take(column).map(char::len_utf8).sum::<usize>();
        }
        offset += content.len();
    }
    text.len()
}

/// What the YAML reader hands over, before numbers get their literals back.
enum Raw {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

fn to_node(raw: Spanned<Raw>, source: &Arc<Source>) -> Node {
    let span = to_span(raw.referenced, source);
    let kind = match raw.value {
        Raw::Null => NodeKind::Null,
        Raw::Bool(value) => NodeKind::Bool(value),
        Raw::Number(value) => NodeKind::Number(literal_of(&value, &to_span(raw.defined, source))),
        Raw::Text(text) => NodeKind::Text(text),
        Raw::List(items) => NodeKind::List(items.into_iter().map(|item| to_node(item, source)).collect()),
        Raw::Map(entries) => NodeKind::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key_span: to_span(key.referenced, source),
                    key: key.value,
                    value: to_node(value, source),
                })
                .collect(),
        ),
    };
    Node { span, kind }
}

fn to_span(location: serde_saphyr::Location, source: &Arc<Source>) -> Span {
    let offset = byte_offset(&source.text, location);
    let len = location.span().byte_len().map_or(1, |len| usize::try_from(len).unwrap_or(1));
    let trimmed = source.text.get(offset..offset.saturating_add(len)).map_or(len, |text| text.trim_end().len());
    Span::new(source, offset, trimmed)
}

/// The literal as written if it is plain decimal notation for the number read, else the number's shortest text
/// (`0x10`, `.5e`, tags).
fn literal_of(value: &str, span: &Span) -> String {
    let literal = span.text().trim();
    let plain = literal.trim_start_matches(['+', '-']);
    let decimal = plain.starts_with(|c: char| c.is_ascii_digit())
        && plain.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    match (decimal, literal.parse::<f64>(), value.parse::<f64>()) {
        (true, Ok(a), Ok(b)) if a.to_bits() == b.to_bits() || a == b => literal.trim_start_matches('+').to_owned(),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Document {
        Document::parse("test.yaml", text).unwrap()
    }

    #[test]
    fn numbers_keep_their_literals() {
        let doc = parse("{a: 0.10, b: 1e3, c: -3, d: 0x10, e: 18446744073709551615, f: '5'}");
        let literal = |key: &str| doc.root.get(key).unwrap().kind.clone();
        assert_eq!(literal("a"), NodeKind::Number("0.10".to_owned()));
        assert_eq!(literal("b"), NodeKind::Number("1e3".to_owned()));
        assert_eq!(literal("d"), NodeKind::Number("16".to_owned()));
        assert_eq!(literal("f"), NodeKind::Text("5".to_owned()));
        assert_eq!(doc.to_json().to_string(), r#"{"a":0.1,"b":1000.0,"c":-3,"d":16,"e":18446744073709551615,"f":"5"}"#);
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let doc =
            parse("name: x\nparameters:\n  ä: 1\n  costs.fee_multiplier: {min: 0.5, max: 2}\nlist: [a, {b: 7}]\n");
        let place = doc.locate("parameters.costs.fee_multiplier.max");
        assert!(place.exact);
        assert_eq!((place.value.line, place.value.column, place.value.text()), (4, 41, "2"));
        assert_eq!(place.key.unwrap().text(), "max");
        let place = doc.locate("list[1].b");
        assert_eq!((place.value.line, place.value.column, place.value.text()), (5, 15, "7"));
        assert_eq!(doc.locate("parameters.ä").value.column, 6);
        let place = doc.locate("parameters.missing.deeper");
        assert!(!place.exact);
        assert_eq!(place.span(false).text(), "parameters");
    }

    #[test]
    fn json_is_read_with_the_same_places() {
        let doc =
            Document::parse("c.json", "{\n\t\"account\": {\"risk_per_trade\": -5},\n\t\"s\": \"a\\u00e9\\\"\"\n}")
                .unwrap();
        let place = doc.locate("account.risk_per_trade");
        assert_eq!((place.value.line, place.value.text()), (2, "-5"));
        assert_eq!(doc.root.get("s").unwrap().as_text(), Some("aé\""));
    }

    #[test]
    fn words_of_yaml_1_1_stay_text() {
        assert_eq!(
            parse("[none, off, no, y, 010, 1_000, null, ~, true]").to_json().to_string(),
            r#"["none","off","no","y","010","1_000",null,null,true]"#
        );
    }

    #[test]
    fn a_value_is_set_at_a_path() {
        let mut doc = parse("a: {b: 1}\nrules: []\n");
        let source = parse("9").root;
        doc.root.set(&["a", "c", "d"], &source.span, source.clone()).unwrap();
        doc.root.set(&["rules", "x"], &source.span, source.clone()).unwrap();
        assert_eq!(doc.root.set(&["a", "b", "c"], &source.span, source.clone()), Err("a.b".to_owned()));
        assert_eq!(doc.to_json().to_string(), r#"{"a":{"b":1,"c":{"d":9}},"rules":{"x":9}}"#);
    }

    #[test]
    fn refuses_what_it_cannot_hold() {
        for text in ["a: 1\na: 2\n", "a: .nan", "a: 1e999", "a: [1, 2", "--- 1\n--- 2\n", "<<: {a: 1}\n"] {
            assert!(Document::parse("t", text).is_err(), "{text}");
        }
        let deep = "[".repeat(10_000);
        assert!(Document::parse("t", deep).is_err());
    }
}
