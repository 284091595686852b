//! What is worth telling before a run starts: scenarios that can never fire, parameters without effect.

use super::super::{BuildContext, Variant};
use super::settings::Settings;
use super::{Resolved, overlay, scenarios};
use crate::rules::Expr;
use crate::units::Direction;

const BOTH: [Direction; 2] = [Direction::Long, Direction::Short];

/// All of them, each once, in a fixed order.
pub(super) fn warnings(resolved: &Resolved, context: &BuildContext) -> Vec<String> {
    let enabled = resolved.enabled();
    let directions: Vec<Direction> = BOTH.into_iter().filter(|direction| resolved.admits(*direction)).collect();
    let settings: Vec<(Direction, Settings)> = directions
        .iter()
        .map(|direction| (*direction, Settings::read(resolved.of(*direction), *direction, context)))
        .collect();
    let mut told = Vec::new();
    shadowed(&enabled, &mut told);
    for (direction, settings) in &settings {
        never(&enabled, *direction, settings, context, &mut told);
        ignored_filters(&enabled, settings, context, &mut told);
        impossible_labels(&enabled, settings, &mut told);
    }
    hidden_plain_keys(resolved, &enabled, &directions, context, &mut told);
    hidden_by_overrides(resolved, &directions, context, &mut told);
    let settings: Vec<&Settings> = settings.iter().map(|(_, settings)| settings).collect();
    without_effect(resolved, &enabled, &directions, &settings, &mut told);
    let mut unique = Vec::new();
    for warning in told {
        if !unique.contains(&warning) {
            unique.push(warning);
        }
    }
    unique
}

fn shadowed(enabled: &[u8], told: &mut Vec<String>) {
    let shadowed: Vec<String> =
        enabled.iter().filter(|number| scenarios::is_shadowed(**number, enabled)).map(ToString::to_string).collect();
    if !shadowed.is_empty() {
        told.push(format!(
            "scenarios {} never open a position while scenario 2 is enabled: they ask for everything it asks for and come \
             after it",
            shadowed.join(", ")
        ));
    }
}

fn never(enabled: &[u8], direction: Direction, settings: &Settings, context: &BuildContext, told: &mut Vec<String>) {
    for number in enabled.iter().filter(|number| !scenarios::is_shadowed(**number, enabled)) {
        let rule = scenarios::rule(*number, direction, settings, context);
        if let Some(Expr::Never(why)) = rule.when.first() {
            told.push(format!("scenario {number} never opens a position: {why}"));
        }
    }
}

fn ignored_filters(enabled: &[u8], settings: &Settings, context: &BuildContext, told: &mut Vec<String>) {
    if context.variant != Variant::V2 || enabled == [1] {
        return;
    }
    for (filter, key) in settings.filters.iter().zip(["htf_filter", "extra_htf_filter"]) {
        if filter.is_active() && filter.timeframe.is_none() {
            told.push(format!("`{key}` is not counted: its timeframe is NONE"));
        }
    }
}

fn impossible_labels(enabled: &[u8], settings: &Settings, told: &mut Vec<String>) {
    let cluster = &settings.cluster;
    if !enabled.contains(&5) || scenarios::is_shadowed(5, enabled) {
        return;
    }
    for label in cluster.allowed.iter().filter(|label| !scenarios::can_occur(label, cluster.k)) {
        told.push(format!("`intraday_vol_allowed`: no cluster is called `{label}` when there are {}", cluster.k));
    }
}

fn hidden_plain_keys(
    resolved: &Resolved,
    enabled: &[u8],
    directions: &[Direction],
    context: &BuildContext,
    told: &mut Vec<String>,
) {
    if !enabled.contains(&6) {
        return;
    }
    for direction in directions {
        for (timeframe, hidden) in overlay::hidden(resolved.of(*direction), context) {
            if hidden == *direction {
                told.push(format!(
                    "`scenario6_params.{timeframe}`: its plain keys are ignored for {direction}, which has keys of its own"
                ));
            }
        }
    }
}

fn hidden_by_overrides(resolved: &Resolved, directions: &[Direction], context: &BuildContext, told: &mut Vec<String>) {
    for direction in directions {
        for key in resolved.overrides.keys(*direction, context) {
            if resolved.values.is_given(key) {
                told.push(format!("`{key}` has no effect for {direction}: it is overridden in `overrides`"));
            }
        }
    }
}

/// Given keys that no enabled scenario reads.
fn without_effect(
    resolved: &Resolved,
    enabled: &[u8],
    directions: &[Direction],
    settings: &[&Settings],
    told: &mut Vec<String>,
) {
    let effective: Vec<u8> =
        enabled.iter().copied().filter(|number| !scenarios::is_shadowed(*number, enabled)).collect();
    for key in resolved.values.given().keys() {
        let read = effective.iter().any(|number| reads(*number, key));
        let side = match key.as_str() {
            "z_score_long" => directions.contains(&Direction::Long),
            "z_score_short" => directions.contains(&Direction::Short),
            _ => true,
        };
        if !read {
            told.push(format!("`{key}` has no effect: no scenario that can open a position reads it"));
        } else if !side {
            told.push(format!("`{key}` has no effect: its direction is filtered out"));
        } else if let Some((index, mode)) = filter_of(key)
            && settings.iter().all(|settings| !settings.filters[index].is_active())
        {
            told.push(format!("`{key}` has no effect on trades: `{mode}` lets everything pass"));
        }
    }
}

/// The filter a key belongs to and its mode key, for the keys that matter only while that filter is active.
fn filter_of(key: &str) -> Option<(usize, &'static str)> {
    match key {
        "htf_tf" | "htf_ema" => Some((0, "htf_filter")),
        "extra_htf_tf" | "extra_htf_ema" => Some((1, "extra_htf_filter")),
        _ => None,
    }
}

/// Scenario `number` reads parameter `key`.
fn reads(number: u8, key: &str) -> bool {
    match key {
        "ema_length" => matches!(number, 1 | 3),
        "window_length" => number != 4,
        "tp_min_distance" => number == 3,
        "local_z_lookback" => number == 4,
        "cluster_hysteresis_bars" => number == 5,
        _ if key.starts_with("garch_") => matches!(number, 4 | 5),
        _ if key.starts_with("intraday_vol_") => number == 5,
        _ if key.starts_with("scenario6_") => number == 6,
        _ if ["kalman_", "htf_", "extra_htf_", "trend_"].iter().any(|prefix| key.starts_with(prefix)) => number != 1,
        "b_b_length" | "std_factor" => number != 1,
        // Stops, thresholds and what concerns the strategy as a whole.
        _ => true,
    }
}
