//! `mean_reversion_z_score`: six ways of fading a stretched price, long and short, with trend filters on other
//! timeframes, a volatility guard and a chain of overlays.
//!
//! Stop and target come from the bar of the signal; exits, sizing, costs and time gates belong to execution.

#[cfg(test)]
mod bars;
mod notes;
mod overlay;
mod overrides;
mod parameters;
mod scenarios;
mod settings;
#[cfg(test)]
mod statements;
#[cfg(test)]
mod vectors;
mod warnings;

use std::borrow::Cow;

use serde_json::{Map, Value};

use self::overlay::FlatKey;
use self::overrides::Overrides;
use self::settings::Settings;
use super::params::{check_constraints, finish};
use super::{
    BuildContext, DataSlice, DeclaredConstraint, Family, ParamKind, ParamSpec, ParamValues, SignalNotes, Strategy,
    Variant, Violations,
};
use crate::error::{Error, Violation};
use crate::indicators::ColumnKey;
use crate::rules::{Rule, RuleSet};
use crate::units::{Direction, Timeframe};

/// Family of `mean_reversion_z_score`.
#[derive(Debug, Clone, Copy)]
pub struct MeanReversionZScore;

const NAME: &str = "mean_reversion_z_score";
const VERSION: &str = "1";

/// Decimals of stop and target in variant `v1_parity`, whatever the symbol.
const V1_LEVEL_DECIMALS: u8 = 5;

impl Family for MeanReversionZScore {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> &'static str {
        VERSION
    }

    fn summary(&self) -> &'static str {
        "fades a price stretched away from its mean: six scenarios of z-score, bands, trend filters and volatility"
    }

    fn parameters(&self) -> &'static [ParamSpec] {
        &parameters::PARAMETERS
    }

    fn parameters_in(&self, context: &BuildContext) -> Cow<'static, [ParamSpec]> {
        parameters::parameters_in(context)
    }

    fn dynamic_parameter(&self, key: &str) -> Option<ParamKind> {
        FlatKey::parse(key).map(|flat| flat.kind).or_else(|| overrides::dotted_kind(key))
    }

    fn check_parameter(&self, key: &str, value: &Value, context: &BuildContext) -> Result<(), Violation> {
        let alone = Map::from_iter([(key.to_owned(), value.clone())]);
        let specs = self.parameters_in(context);
        super::params::check_parameter(&specs, self.dynamic_parameter(key), key, value)?;
        let mut violations = Violations::new();
        Resolved::read(&alone, context, &mut violations);
        violations.into_iter().next().map_or(Ok(()), Err)
    }

    fn constraints(&self) -> &'static [DeclaredConstraint] {
        &parameters::CONSTRAINTS
    }

    fn build(&self, parameters: &Map<String, Value>, context: &BuildContext) -> Result<Box<dyn Strategy>, Error> {
        let mut violations = Violations::new();
        let resolved = Resolved::read(parameters, context, &mut violations);
        if violations.is_empty() {
            resolved.check_relations(context, &mut violations);
        }
        finish(violations)?;
        Ok(Box::new(MeanReversion::new(&resolved, context)))
    }

    fn warnings(&self, parameters: &Map<String, Value>, context: &BuildContext) -> Vec<String> {
        let mut violations = Violations::new();
        let resolved = Resolved::read(parameters, context, &mut violations);
        if violations.is_empty() { warnings::warnings(&resolved, context) } else { Vec::new() }
    }
}

/// Checked parameters: as given, and per direction with overrides applied.
struct Resolved {
    values: ParamValues,
    /// Where overrides change something.
    long: Option<ParamValues>,
    short: Option<ParamValues>,
    overrides: Overrides,
}

impl Resolved {
    fn read(parameters: &Map<String, Value>, context: &BuildContext, violations: &mut Violations) -> Self {
        let dynamic = |key: &str| MeanReversionZScore.dynamic_parameter(key);
        let specs = MeanReversionZScore.parameters_in(context);
        let mut values = ParamValues::read(specs, parameters, &dynamic, violations);
        unify_flat_keys(&mut values, context, violations);
        settings::check_contents(values.given(), "", context, violations);
        let overrides = match context.variant {
            Variant::V2 => Overrides::read(&values, context, violations),
            Variant::V1Parity => {
                refuse_in_v1(&values, violations);
                Overrides::default()
            }
        };
        if overrides.is_empty() {
            return Self { values, long: None, short: None, overrides };
        }
        let of = |direction| {
            let mut overridden = values.clone();
            let changed = overrides.apply(&mut overridden, direction, context);
            changed.then_some(overridden)
        };
        let (long, short) = (of(Direction::Long), of(Direction::Short));
        Self { values, long, short, overrides }
    }

    /// Relations between parameters must hold as given and for either direction.
    fn check_relations(&self, context: &BuildContext, violations: &mut Violations) {
        for values in [Some(&self.values), self.long.as_ref(), self.short.as_ref()].into_iter().flatten() {
            for violation in check_constraints(&parameters::CONSTRAINTS, &|name| values.value(name), context) {
                if !violations.contains(&violation) {
                    violations.push(violation);
                }
            }
        }
    }

    fn of(&self, direction: Direction) -> &ParamValues {
        match direction {
            Direction::Long => self.long.as_ref().unwrap_or(&self.values),
            Direction::Short => self.short.as_ref().unwrap_or(&self.values),
        }
    }

    /// Enabled scenarios, ascending; an empty list means all six.
    fn enabled(&self) -> Vec<u8> {
        let listed = self.values.ints("enabled_scenarios");
        (1..=6).filter(|number| listed.is_empty() || listed.contains(&i64::from(*number))).collect()
    }

    fn admits(&self, direction: Direction) -> bool {
        let filter = self.values.text("direction_filter");
        filter == "both" || filter == direction.as_str()
    }
}

/// Brings flat scenario-6 keys to one spelling, so that overrides meet the keys they override.
fn unify_flat_keys(values: &mut ParamValues, context: &BuildContext, violations: &mut Violations) {
    let spelt: Vec<(String, String)> = values
        .given()
        .keys()
        .filter_map(|key| Some((key.clone(), FlatKey::parse(key)?.canonical(context.primary))))
        .collect();
    let mut seen: Vec<&str> = Vec::new();
    for (key, canonical) in &spelt {
        if seen.contains(&canonical.as_str()) {
            violations.push(Violation::value(key, format!("`{canonical}` is given twice")));
        }
        seen.push(canonical);
    }
    for (key, canonical) in spelt {
        values.rename(&key, canonical);
    }
}

fn refuse_in_v1(values: &ParamValues, violations: &mut Violations) {
    for key in values.given().keys() {
        let v2_only = key == "trend_min_filters_required" || key == "overrides" || key.starts_with("overrides.");
        if v2_only && !values.given()[key].is_null() {
            violations.push(Violation::value(key, "exists in execution_variant v2 only"));
        }
    }
}

/// The strategy for one setting.
#[derive(Debug)]
struct MeanReversion {
    context: BuildContext,
    long: Settings,
    short: Settings,
    rules: RuleSet,
    timeframes: Vec<Timeframe>,
    max_holding_minutes: Option<i64>,
    uses_position_manager: bool,
}

impl MeanReversion {
    fn new(resolved: &Resolved, context: &BuildContext) -> Self {
        let long = Settings::read(resolved.of(Direction::Long), Direction::Long, context);
        let short = match (&resolved.long, &resolved.short) {
            (None, None) => long.turned(&resolved.values, Direction::Short, context),
            _ => Settings::read(resolved.of(Direction::Short), Direction::Short, context),
        };
        let enabled = resolved.enabled();
        let admitted: Vec<Direction> =
            [Direction::Long, Direction::Short].into_iter().filter(|direction| resolved.admits(*direction)).collect();
        let of = |direction: &Direction| if *direction == Direction::Long { &long } else { &short };
        let stated: Vec<(u8, Direction)> = scenarios::ORDER
            .into_iter()
            .filter(|(number, direction)| enabled.contains(number) && admitted.contains(direction))
            .filter(|(number, _)| !scenarios::is_shadowed(*number, &enabled))
            .collect();
        // Of a known length: a search holds settings by the hundred thousand, and rules are large.
        let rules: Vec<Rule> = stated
            .into_iter()
            .map(|(number, direction)| scenarios::rule(number, direction, of(&direction), context))
            .collect();
        let timeframes = match context.variant {
            // V1 loads `timeframes.additional` and nothing else.
            Variant::V1Parity => Vec::new(),
            Variant::V2 => declared_timeframes(admitted.iter().map(of), &enabled, context.primary),
        };
        Self {
            context: context.clone(),
            rules: RuleSet {
                rules,
                level_decimals: (context.variant == Variant::V1Parity).then_some(V1_LEVEL_DECIMALS),
            },
            long,
            short,
            timeframes,
            max_holding_minutes: resolved.values.opt_int("max_holding_minutes").filter(|minutes| *minutes > 0),
            uses_position_manager: resolved.values.flag("use_position_manager"),
        }
    }

    fn settings(&self, direction: Direction) -> &Settings {
        match direction {
            Direction::Long => &self.long,
            Direction::Short => &self.short,
        }
    }
}

/// Timeframes of active filters and of the chain. Filters count only where a scenario that asks them is enabled: a file
/// nobody reads need not exist.
fn declared_timeframes<'a>(
    settings: impl Iterator<Item = &'a Settings>,
    enabled: &[u8],
    primary: Timeframe,
) -> Vec<Timeframe> {
    let mut timeframes = Vec::new();
    for settings in settings {
        if enabled.iter().any(|number| *number > 1) {
            let active = settings.filters.iter().filter(|filter| filter.is_active());
            timeframes.extend(active.filter_map(|filter| filter.timeframe));
        }
        if enabled.contains(&6) {
            timeframes.extend(settings.chain.iter().map(|overlay| overlay.timeframe));
        }
    }
    timeframes.retain(|timeframe| *timeframe != primary);
    timeframes.sort_unstable();
    timeframes.dedup();
    timeframes
}

impl Strategy for MeanReversion {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> &'static str {
        VERSION
    }

    fn primary_timeframe(&self) -> Timeframe {
        self.context.primary
    }

    fn timeframes(&self) -> Vec<Timeframe> {
        self.timeframes.clone()
    }

    fn rules(&self) -> Option<&RuleSet> {
        Some(&self.rules)
    }

    fn max_holding_minutes(&self) -> Option<i64> {
        self.max_holding_minutes
    }

    fn uses_position_manager(&self) -> bool {
        self.uses_position_manager
    }

    fn note_columns(&self) -> Vec<ColumnKey> {
        notes::columns(self)
    }

    fn signal_meta(&self, rule: usize, slice: &DataSlice<'_>) -> SignalNotes {
        self.rules.rules.get(rule).map(|rule| notes::notes(self, rule, slice)).unwrap_or_default()
    }
}
