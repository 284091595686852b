//! YAML as a tree, so that a wrong value can be named by its path and unknown keys can be passed over.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result};

/// A node of a YAML document. Mapping keys keep their order and are texts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Yaml {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(usize),
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    /// Parses `bytes`; `label` names the file in the error.
    pub(crate) fn parse(bytes: &[u8], label: &str) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::config(label, format!("is not YAML: not UTF-8 ({error})")))?;
        serde_saphyr::from_str(text).map_err(|error| {
            let reason = error.to_string();
            Error::config(
                label,
                format!(
                    "is not YAML: {}",
                    reason.lines().next().unwrap_or_default().trim_start_matches("error: ").trim()
                ),
            )
        })
    }

    fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(text) => format!("`{text}`"),
            Self::List(len) => format!("a list of {len}"),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// A mapping together with where it stands, for reading typed values out of it. An absent mapping reads as empty.
#[derive(Debug, Clone)]
pub(crate) struct Block<'a> {
    path: String,
    entries: &'a [(String, Yaml)],
}

impl<'a> Block<'a> {
    /// The root of a document; an empty document is an empty mapping.
    pub(crate) fn root(node: &'a Yaml, label: &str) -> Result<Self> {
        Self::at(format!("{label}: "), Some(node))
    }

    fn at(path: String, node: Option<&'a Yaml>) -> Result<Self> {
        match node {
            None | Some(Yaml::Null) => Ok(Self { path, entries: &[] }),
            Some(Yaml::Map(entries)) => Ok(Self { path, entries }),
            Some(other) => Err(Error::config(
                path.trim_end_matches([':', ' ', '.']),
                format!("must be a mapping, got {}", other.describe()),
            )),
        }
    }

    /// The mapping under `key`.
    pub(crate) fn block(&self, key: &str) -> Result<Self> {
        Self::at(format!("{}{key}.", self.path), self.value(key))
    }

    /// Every key, in file order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.entries.iter().map(|(key, _)| key.as_str())
    }

    /// A finite number that satisfies `holds`; `rule` says what that is (`> 0`).
    pub(crate) fn number(&self, key: &str, rule: &str, holds: impl Fn(f64) -> bool) -> Result<Option<f64>> {
        match self.value(key) {
            None | Some(Yaml::Null) => Ok(None),
            Some(Yaml::Number(value)) if value.is_finite() && holds(*value) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(key, &format!("must be a number {rule}"), other)),
        }
    }

    /// A text that is not blank, trimmed.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.value(key) {
            None | Some(Yaml::Null) => Ok(None),
            Some(Yaml::Text(text)) if !text.trim().is_empty() => Ok(Some(text.trim())),
            Some(other) => Err(self.wrong(key, "must be a text", other)),
        }
    }

    /// One of `names`, exactly.
    pub(crate) fn choice<T: Copy>(&self, key: &str, names: &[(&str, T)]) -> Result<Option<T>> {
        let Some(node) = self.value(key).filter(|node| **node != Yaml::Null) else { return Ok(None) };
        let found = names.iter().find(|(name, _)| matches!(node, Yaml::Text(text) if text.trim() == *name));
        let known = || names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found
            .map(|(_, value)| Some(*value))
            .ok_or_else(|| self.wrong(key, &format!("must be one of {}", known()), node))
    }

    /// A violation of the value under `key`.
    pub(crate) fn refuse(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::config(format!("{}{key}", self.path), reason)
    }

    fn wrong(&self, key: &str, rule: &str, found: &Yaml) -> Error {
        self.refuse(key, format!("{rule}, got {}", found.describe()))
    }

    fn value(&self, key: &str) -> Option<&'a Yaml> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tree;

        impl<'de> Visitor<'de> for Tree {
            type Value = Yaml;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }

            fn visit_unit<E>(self) -> Result<Yaml, E> {
                Ok(Yaml::Null)
            }

            fn visit_none<E>(self) -> Result<Yaml, E> {
                Ok(Yaml::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
                Yaml::deserialize(deserializer)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
                Ok(Yaml::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
                Ok(Yaml::Number(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
                Ok(Yaml::Number(value as f64))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
                Ok(Yaml::Number(value))
            }

            fn visit_str<E>(self, text: &str) -> Result<Yaml, E> {
                Ok(Yaml::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Yaml, A::Error> {
                let mut len = 0;
                while seq.next_element::<Yaml>()?.is_some() {
                    len += 1;
                }
                Ok(Yaml::List(len))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Yaml, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Yaml>()? {
                    entries.push((key, value));
                }
                Ok(Yaml::Map(entries))
            }
        }

        deserializer.deserialize_any(Tree)
    }
}
