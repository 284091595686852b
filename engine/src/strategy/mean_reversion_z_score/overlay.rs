//! Scenario 6: which timeframes form the chain and with which parameters each is judged.

use serde_json::{Map, Value};

use super::super::params::{check_kind, found};
use super::super::{BuildContext, ParamKind, ParamValues, Violations};
use super::settings::{Bands, Settings, timeframe_or_primary, unknown_timeframe};
use crate::error::{Violation, nearest};
use crate::units::{Direction, Timeframe};

/// One timeframe of the chain, resolved for one direction.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Overlay {
    pub(super) timeframe: Timeframe,
    pub(super) window_length: u32,
    pub(super) bands: Bands,
    pub(super) kalman_r: f64,
    pub(super) kalman_q: f64,
    pub(super) z_score_long: f64,
    pub(super) z_score_short: f64,
}

impl Overlay {
    /// The threshold of `direction`.
    pub(super) fn threshold(&self, direction: Direction) -> f64 {
        match direction {
            Direction::Long => self.z_score_long,
            Direction::Short => self.z_score_short,
        }
    }
}

/// Keys of a timeframe's block. Thresholds may have either sign here, since `z_score` serves both directions.
const KEYS: [(&str, ParamKind); 8] = [
    ("window_length", ParamKind::count(2)),
    ("b_b_length", ParamKind::count(2)),
    ("std_factor", ParamKind::at_least(0.0)),
    ("kalman_r", ParamKind::above(0.0)),
    ("kalman_q", ParamKind::at_least(0.0)),
    ("z_score_long", ParamKind::number()),
    ("z_score_short", ParamKind::number()),
    ("z_score", ParamKind::number()),
];

/// A flat key `scenario6_<TF>_<long|short>_<key>`, taken apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FlatKey<'a> {
    /// As written.
    timeframe: &'a str,
    direction: Direction,
    key: &'static str,
    /// Type and range of the value.
    pub(super) kind: ParamKind,
}

impl<'a> FlatKey<'a> {
    /// Any letter case; none if `text` does not follow the pattern.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (head, rest) = text.split_at_checked("scenario6_".len())?;
        if !head.eq_ignore_ascii_case("scenario6_") {
            return None;
        }
        let (timeframe, rest) = rest.split_once('_')?;
        let (direction, key) = rest.split_once('_')?;
        let direction = [Direction::Long, Direction::Short]
            .into_iter()
            .find(|candidate| candidate.as_str().eq_ignore_ascii_case(direction))?;
        let (key, kind) = KEYS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?;
        // The primary timeframe is not known here and not needed: any will do to see whether the name is one.
        timeframe_or_primary(timeframe, Timeframe::M1)?;
        Some(Self { timeframe, direction, key, kind })
    }

    /// The one way of writing the key.
    pub(super) fn canonical(&self, primary: Timeframe) -> String {
        let timeframe = timeframe_or_primary(self.timeframe, primary).unwrap_or(primary);
        flat_name(timeframe, self.direction, self.key)
    }
}

fn flat_name(timeframe: Timeframe, direction: Direction, key: &str) -> String {
    format!("scenario6_{timeframe}_{direction}_{key}")
}

/// Checks an object `scenario6_params`: timeframe → parameters, plain or per direction.
pub(super) fn check_params(
    params: &Map<String, Value>,
    path: &str,
    context: &BuildContext,
    violations: &mut Violations,
) {
    let mut seen = Vec::new();
    for (name, block) in params {
        let path = format!("{path}.{name}");
        match timeframe_or_primary(name, context.primary) {
            None => violations.push(unknown_timeframe(path.clone(), name)),
            Some(timeframe) if seen.contains(&timeframe) => {
                violations.push(Violation::value(path.clone(), format!("{timeframe} is given twice")));
            }
            Some(timeframe) => seen.push(timeframe),
        }
        check_block(block, &path, true, violations);
    }
}

fn check_block(block: &Value, path: &str, with_directions: bool, violations: &mut Violations) {
    let Some(entries) = block.as_object() else {
        if !block.is_null() {
            violations.push(Violation::value(path, format!("must be object, got {}", found(block))));
        }
        return;
    };
    for (key, value) in entries {
        let path = format!("{path}.{key}");
        if with_directions && (key == "long" || key == "short") {
            check_block(value, &path, false, violations);
            continue;
        }
        match KEYS.iter().find(|(name, _)| name == key) {
            None => {
                let directions = if with_directions { &["long", "short"][..] } else { &[] };
                let names = KEYS.iter().map(|(name, _)| *name).chain(directions.iter().copied());
                violations.push(Violation::unknown_key(path, nearest(key, names)));
            }
            Some(_) if value.is_null() => {}
            Some((_, kind)) => {
                violations.extend(check_kind(kind, value).err().map(|reason| Violation::value(path, reason)));
            }
        }
    }
}

/// The chain of `direction`: the timeframes in the order given, each with its own parameters.
pub(super) fn resolve(
    values: &ParamValues,
    base: &Settings,
    direction: Direction,
    context: &BuildContext,
) -> Vec<Overlay> {
    let mut chain: Vec<Overlay> = Vec::new();
    for name in values.texts("scenario6_timeframes") {
        // Blanks are dropped; names that are none have been refused.
        let Some(timeframe) = timeframe_or_primary(name, context.primary) else { continue };
        if chain.iter().all(|overlay| overlay.timeframe != timeframe) {
            chain.push(resolve_one(values, base, timeframe, direction, context.primary));
        }
    }
    chain
}

fn resolve_one(
    values: &ParamValues,
    base: &Settings,
    timeframe: Timeframe,
    direction: Direction,
    primary: Timeframe,
) -> Overlay {
    let block = block_of(values, timeframe, primary);
    let own = block.get(direction.as_str()).and_then(Value::as_object);
    let flat = flat_keys(values, timeframe, direction);
    // One flat key creates the direction's block and so hides the plain keys beside it: kept from V1.
    let source = match own {
        Some(own) => own.iter().chain(&flat).map(|(key, value)| (key.clone(), value.clone())).collect(),
        None if flat.is_empty() => block,
        None => flat,
    };
    let number = |key: &str, fallback: f64| source.get(key).and_then(Value::as_f64).unwrap_or(fallback);
    let count = |key: &str, fallback: u32| {
        source.get(key).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()).unwrap_or(fallback)
    };
    let both = source.get("z_score").and_then(Value::as_f64);
    Overlay {
        timeframe,
        window_length: count("window_length", base.window_length),
        bands: Bands {
            length: count("b_b_length", base.bands.length),
            std_factor: number("std_factor", base.bands.std_factor),
        },
        kalman_r: number("kalman_r", base.kalman_r),
        kalman_q: number("kalman_q", base.kalman_q),
        z_score_long: both.unwrap_or_else(|| number("z_score_long", base.z_score_long)),
        z_score_short: both.unwrap_or_else(|| number("z_score_short", base.z_score_short)),
    }
}

fn block_of(values: &ParamValues, timeframe: Timeframe, primary: Timeframe) -> Map<String, Value> {
    let blocks = values.object("scenario6_params").into_iter().flatten();
    blocks
        .filter(|(name, _)| timeframe_or_primary(name, primary) == Some(timeframe))
        .find_map(|(_, block)| block.as_object().cloned())
        .unwrap_or_default()
}

fn flat_keys(values: &ParamValues, timeframe: Timeframe, direction: Direction) -> Map<String, Value> {
    let given = |key: &str| values.given().get(&flat_name(timeframe, direction, key)).cloned();
    KEYS.iter().filter_map(|(key, _)| Some(((*key).to_owned(), given(key)?))).collect()
}

/// Timeframes and directions whose plain keys are hidden by a block of the direction's own, flat or nested.
pub(super) fn hidden(values: &ParamValues, context: &BuildContext) -> Vec<(Timeframe, Direction)> {
    let mut hidden = Vec::new();
    for name in values.texts("scenario6_timeframes") {
        let Some(timeframe) = timeframe_or_primary(name, context.primary) else { continue };
        let block = block_of(values, timeframe, context.primary);
        let plain = block.keys().any(|key| KEYS.iter().any(|(name, _)| name == key));
        for direction in [Direction::Long, Direction::Short] {
            let own = block.get(direction.as_str()).is_some_and(Value::is_object);
            if plain && (own || !flat_keys(values, timeframe, direction).is_empty()) {
                hidden.push((timeframe, direction));
            }
        }
    }
    hidden
}
