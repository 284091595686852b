//! What a space comes to, found out by resolving settings without running them: distinct rules, columns, masks, exit
//! tables, and what jumps.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use engine::backtest::{Environment, Prepared};
use engine::rules::{Comparison, Condition, LateGuard};
use engine::units::Bits;
use rayon::prelude::*;

use crate::row::Way;
use crate::search::Trials;
use crate::space::Setting;
use crate::trial::{Resolver, TrialConfigs};

/// Spaces of up to this many settings are resolved as a whole.
pub const MOST_RESOLVED: u64 = 200_000;
/// Settings of a larger space that are looked at for columns, masks, exits and ways.
const SAMPLED: u64 = 20_000;
/// Settings of a larger space whose neighbours on every axis are looked at for what they share.
const COMPARED: u64 = 256;
/// Values tried per axis at most.
const MOST_NEIGHBOURS: u32 = 64;

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Survey {
    /// Settings of the space.
    pub settings: u64,
    /// Settings resolved for columns, masks, exits and ways: all of them, or a sample.
    pub resolved: u64,
    /// Distinct `rules_hash`; estimated if not all settings were resolved.
    pub distinct: u64,
    /// Settings compared with their neighbours on every axis, where `distinct` is estimated.
    pub compared: u64,
    /// Distinct columns seen.
    pub columns: usize,
    /// Distinct conditions seen: one bit per bar each.
    pub masks: usize,
    /// Distinct ways of leaving a position seen: one table of exits each.
    pub exit_tables: usize,
    /// Distinct questions of late guards seen: one answer per bar looked at.
    pub guard_questions: usize,
    /// Resolved settings by the way they are evaluated.
    pub ways: BTreeMap<Way, u64>,
    /// Settings that do not resolve, by error code.
    pub failures: BTreeMap<String, u64>,
}

/// What one part of the settings adds.
#[derive(Default)]
struct Found {
    rules: HashSet<[u8; 8]>,
    columns: BTreeSet<engine::indicators::ColumnKey>,
    masks: HashSet<Condition>,
    exits: HashSet<u64>,
    questions: HashSet<LateGuard>,
    ways: BTreeMap<Way, u64>,
    failures: BTreeMap<String, u64>,
}

impl Found {
    fn see(&mut self, prepared: Result<Prepared, engine::Error>) {
        match prepared {
            Ok(prepared) => {
                *self.ways.entry(Way::of(&prepared)).or_default() += 1;
                if !self.rules.insert(prepared.rules_hash()) {
                    return;
                }
                self.columns.extend(prepared.columns());
                self.masks.extend(prepared.conditions());
                self.exits.insert(prepared.exit_hint());
                self.questions.extend(questions(&prepared));
            }
            Err(error) => {
                *self.ways.entry(Way::Unresolved).or_default() += 1;
                *self.failures.entry(error.code().to_owned()).or_default() += 1;
            }
        }
    }

    fn join(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self.columns.extend(other.columns);
        self.masks.extend(other.masks);
        self.exits.extend(other.exits);
        self.questions.extend(other.questions);
        other.ways.into_iter().for_each(|(way, count)| *self.ways.entry(way).or_default() += count);
        other.failures.into_iter().for_each(|(code, count)| *self.failures.entry(code).or_default() += count);
        self
    }
}

/// The late guards of a setting without what does not enter the answers they remember.
pub(crate) fn questions(prepared: &Prepared) -> Vec<LateGuard> {
    let mut guards = prepared.late_guards();
    for guard in &mut guards {
        match guard {
            LateGuard::LocalKalmanGarchZ { comparison, threshold, .. } => {
                (*comparison, *threshold) = (Comparison::Less, Bits::new(0.0));
            }
            LateGuard::VolCluster { hysteresis_bars, allowed, .. } => {
                *hysteresis_bars = 0;
                allowed.clear();
            }
        }
    }
    guards
}

/// Looks at the settings of a search, on the threads of the pool it is called in.
pub fn survey(trials: &Trials, configs: &TrialConfigs, environment: &Environment) -> Survey {
    survey_within(trials, configs, environment, MOST_RESOLVED)
}

fn survey_within(trials: &Trials, configs: &TrialConfigs, environment: &Environment, most: u64) -> Survey {
    let settings = trials.len();
    let all = settings <= most;
    let resolved = if all { settings } else { SAMPLED.min(most).min(settings) };
    let number = |i: u64| if all { i } else { spread(i, settings) };
    let found = (0..resolved)
        .into_par_iter()
        .fold(
            || (Found::default(), Resolver::new(configs, environment)),
            |(mut found, mut resolver), i| {
                if let Some(setting) = trials.setting(number(i)) {
                    found.see(resolver.resolve(&setting).prepared);
                }
                (found, resolver)
            },
        )
        .map(|(found, _)| found)
        .reduce(Found::default, Found::join);
    let (distinct, compared) =
        if all { (found.rules.len() as u64, 0) } else { estimate(trials, configs, environment, most) };
    Survey {
        settings,
        resolved,
        distinct,
        compared,
        columns: found.columns.len(),
        masks: found.masks.len(),
        exit_tables: found.exits.len(),
        guard_questions: found.questions.len(),
        ways: found.ways,
        failures: found.failures,
    }
}

/// The `i`-th trial of a sample that depends on nothing but the number of trials: multiples of the golden section of
/// 2^64, scaled to it. Consecutive ones lie far apart and no step of the lattice falls in with them.
fn spread(i: u64, trials: u64) -> u64 {
    let point = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u64::try_from((u128::from(point) * u128::from(trials)) >> 64).unwrap_or(0)
}

/// Distinct `rules_hash` of a space that is too large to be resolved, and the settings compared.
///
/// The number of classes is the sum over all settings of one over the size of their class. Settings share their rules
/// because some parameters do not matter; on each axis the values that give the same rules are counted, everything else
/// fixed, and the size of the class is taken for the product of these counts.
fn estimate(trials: &Trials, configs: &TrialConfigs, environment: &Environment, most: u64) -> (u64, u64) {
    let settings = trials.len();
    let compared = COMPARED.min(most).min(settings);
    let shares: Vec<f64> = (0..compared)
        .into_par_iter()
        .map_init(
            || Resolver::new(configs, environment),
            |resolver, i| trials.setting(spread(i, settings)).map_or(1.0, |setting| share(trials, resolver, &setting)),
        )
        .collect();
    let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    ((settings as f64 * mean).round() as u64, compared)
}

/// One over the estimated number of settings with the rules of `setting`.
fn share(trials: &Trials, resolver: &mut Resolver<'_>, setting: &Setting) -> f64 {
    let space = trials.space();
    let Ok(prepared) = resolver.resolve(setting).prepared else { return 1.0 };
    let own = prepared.rules_hash();
    let mut share = 1.0;
    for (at, axis) in space.axes().iter().enumerate() {
        let mut point = setting.value_index.clone();
        let tried = axis.len().min(MOST_NEIGHBOURS);
        let (mut same, mut feasible) = (0_u32, 0_u32);
        for k in 0..tried {
            // All values, or some spread over the axis with the setting's own among them.
            let step = axis.len() / tried;
            point[at] = if tried == axis.len() { k } else { setting.value_index[at] % step + k * step };
            if !space.is_feasible(&point) {
                continue;
            }
            feasible += 1;
            let neighbour = space.setting(setting.trial, space.lattice_index(&point));
            let hash = resolver.resolve(&neighbour).prepared.map(|prepared| prepared.rules_hash());
            same += u32::from(hash.is_ok_and(|hash| hash == own));
        }
        if same > 1 {
            let missed = f64::from(axis.len()) / f64::from(tried);
            share /= f64::from(same) * if feasible == tried { missed } else { 1.0 };
        }
    }
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_and_within() {
        let numbers: Vec<u64> = (0..1000).map(|i| spread(i, 2_004_750)).collect();
        assert!(numbers.iter().all(|n| *n < 2_004_750));
        let distinct: HashSet<&u64> = numbers.iter().collect();
        assert!(distinct.len() > 990, "{}", distinct.len());
        // No half and no residue is left out.
        assert!(numbers.iter().filter(|n| **n < 1_002_375).count() > 400);
        for modulus in [2, 3, 5, 7, 11] {
            for rest in 0..modulus {
                assert!(numbers.iter().any(|n| n % modulus == rest), "{rest} of {modulus}");
            }
        }
        assert_eq!(spread(12_345, 1), 0);
    }
}
