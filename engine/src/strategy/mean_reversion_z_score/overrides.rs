//! Parameters per symbol, timeframe and direction (variant `v2`).
//!
//! Written as an object `overrides`, or as dotted keys `overrides.<SYMBOL|*>/<TF|*>[.long|.short].<key>`, which is how an
//! axis of a grid names one; a dotted key wins over the object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::params::found;
use super::super::{BuildContext, ParamKind, ParamSpec, ParamValues, Violations};
use super::overlay::FlatKey;
use super::parameters::{NOT_OVERRIDABLE, PARAMETERS};
use super::settings::check_contents;
use crate::error::Violation;
use crate::units::{Direction, Timeframe};

/// Blocks by `<SYMBOL or *>/<TF or *>`, upper case.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    blocks: BTreeMap<String, Block>,
}

#[derive(Debug, Clone, Default)]
struct Block {
    plain: Map<String, Value>,
    long: Map<String, Value>,
    short: Map<String, Value>,
}

impl Block {
    fn of(&self, direction: Direction) -> &Map<String, Value> {
        match direction {
            Direction::Long => &self.long,
            Direction::Short => &self.short,
        }
    }
}

/// A dotted key, taken apart.
struct DottedKey<'a> {
    target: &'a str,
    direction: Option<Direction>,
    key: &'a str,
}

impl<'a> DottedKey<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("overrides.")?;
        // A symbol may contain dots (`US500.C`), a timeframe does not.
        let slash = rest.find('/')?;
        let dot = slash + rest[slash..].find('.')?;
        let (target, rest) = (&rest[..dot], &rest[dot + 1..]);
        let directed = [Direction::Long, Direction::Short].into_iter().find_map(|direction| {
            let key = rest.strip_prefix(direction.as_str())?.strip_prefix('.')?;
            Some((Some(direction), key))
        });
        let (direction, key) = directed.unwrap_or((None, rest));
        Some(Self { target, direction, key })
    }
}

/// Type and range of the parameter a dotted override key names.
pub(super) fn dotted_kind(text: &str) -> Option<ParamKind> {
    let key = DottedKey::parse(text)?.key;
    let declared = PARAMETERS.iter().find(|spec| spec.name == key && !NOT_OVERRIDABLE.contains(&key));
    declared.map(|spec| spec.kind).or_else(|| FlatKey::parse(key).map(|flat| flat.kind))
}

impl Overrides {
    /// Reads and checks the object and the dotted keys among `values`.
    pub(super) fn read(values: &ParamValues, context: &BuildContext, violations: &mut Violations) -> Self {
        let mut overrides = Self::default();
        for (name, block) in values.object("overrides").into_iter().flatten() {
            overrides.read_block(name, block, values.specs(), context, violations);
        }
        for (name, value) in values.given() {
            if let Some(dotted) = DottedKey::parse(name) {
                overrides.read_dotted(&dotted, name, value, values.specs(), context, violations);
            }
        }
        overrides
    }

    fn read_block(
        &mut self,
        name: &str,
        block: &Value,
        specs: &[ParamSpec],
        context: &BuildContext,
        violations: &mut Violations,
    ) {
        let path = format!("overrides.{name}");
        let Some(target) = target(name, &path, violations) else { return };
        if self.blocks.contains_key(&target) {
            violations.push(Violation::value(path, format!("`{target}` is given twice")));
            return;
        }
        let Some(entries) = block.as_object() else {
            violations.push(Violation::value(path, format!("must be object, got {}", found(block))));
            return;
        };
        let mut plain = entries.clone();
        let mut part = |direction: Direction, violations: &mut Violations| {
            let path = format!("{path}.{direction}");
            match plain.remove(direction.as_str()) {
                Some(Value::Object(entries)) => read_part(&entries, &path, specs, context, violations),
                None | Some(Value::Null) => Map::new(),
                Some(other) => {
                    violations.push(Violation::value(path, format!("must be object, got {}", found(&other))));
                    Map::new()
                }
            }
        };
        let (long, short) = (part(Direction::Long, violations), part(Direction::Short, violations));
        let plain = read_part(&plain, &path, specs, context, violations);
        self.blocks.insert(target, Block { plain, long, short });
    }

    fn read_dotted(
        &mut self,
        dotted: &DottedKey<'_>,
        path: &str,
        value: &Value,
        specs: &[ParamSpec],
        context: &BuildContext,
        violations: &mut Violations,
    ) {
        let Some(target) = target(dotted.target, path, violations) else { return };
        let prefix = path.strip_suffix(dotted.key).unwrap_or(path).trim_end_matches('.');
        let entry = Map::from_iter([(dotted.key.to_owned(), value.clone())]);
        let part = read_part(&entry, prefix, specs, context, violations);
        let block = self.blocks.entry(target).or_default();
        match dotted.direction {
            None => block.plain.extend(part),
            Some(Direction::Long) => block.long.extend(part),
            Some(Direction::Short) => block.short.extend(part),
        }
    }

    /// Puts the blocks that concern this run over `values`: `*/*`, `s/*`, `*/f`, `s/f`, each first its plain part, then the
    /// part of the direction. False if there is nothing to put.
    pub(super) fn apply(&self, values: &mut ParamValues, direction: Direction, context: &BuildContext) -> bool {
        let mut changed = false;
        for part in self.blocks_of(context).flat_map(|block| [&block.plain, block.of(direction)]) {
            values.overlay(part);
            changed |= !part.is_empty();
        }
        changed
    }

    /// Nothing is overridden for any symbol or timeframe.
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Keys that are overridden for `direction` in this run.
    pub(super) fn keys(&self, direction: Direction, context: &BuildContext) -> Vec<&str> {
        let mut keys: Vec<&str> = Vec::new();
        for block in self.blocks_of(context) {
            keys.extend(block.plain.keys().chain(block.of(direction).keys()).map(String::as_str));
        }
        keys
    }

    fn blocks_of(&self, context: &BuildContext) -> impl Iterator<Item = &Block> {
        let (symbol, timeframe) = (context.symbol.to_uppercase(), context.primary);
        let order =
            ["*/*".to_owned(), format!("{symbol}/*"), format!("*/{timeframe}"), format!("{symbol}/{timeframe}")];
        order.into_iter().filter_map(|target| self.blocks.get(&target))
    }
}

/// `<SYMBOL or *>/<TF or *>` in upper case.
fn target(name: &str, path: &str, violations: &mut Violations) -> Option<String> {
    let upper = name.trim().to_uppercase();
    let well_formed = upper.split_once('/').is_some_and(|(symbol, timeframe)| {
        !symbol.is_empty() && (timeframe == "*" || timeframe.parse::<Timeframe>().is_ok())
    });
    if !well_formed {
        let reason = format!("must be named `<SYMBOL or *>/<timeframe or *>`, got {}", Value::from(name));
        violations.push(Violation::value(path, reason));
    }
    well_formed.then_some(upper)
}

fn read_part(
    entries: &Map<String, Value>,
    path: &str,
    specs: &[ParamSpec],
    context: &BuildContext,
    violations: &mut Violations,
) -> Map<String, Value> {
    let mut found = Violations::new();
    let (refused, admitted): (Vec<_>, Vec<_>) = entries
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .partition(|(key, _)| NOT_OVERRIDABLE.contains(&key.as_str()));
    for (key, _) in refused {
        found.push(Violation::value(key, "cannot be overridden: it belongs to the strategy as a whole"));
    }
    let flat_kind = |key: &str| FlatKey::parse(key).map(|flat| flat.kind);
    let specs: Vec<ParamSpec> = specs.iter().filter(|spec| !NOT_OVERRIDABLE.contains(&spec.name)).copied().collect();
    let mut values = ParamValues::read(specs, &admitted.into_iter().collect(), &flat_kind, &mut found);
    super::unify_flat_keys(&mut values, context, &mut found);
    check_contents(values.given(), "", context, &mut found);
    violations.extend(
        found.into_iter().map(|violation| Violation { path: format!("{path}.{}", violation.path), ..violation }),
    );
    values.given().clone()
}
