//! Which settings are tried, and under which number.
//!
//! [`Trials`] answers both ways for every method: number → setting and lattice point → number. Trial numbers depend on
//! the space, the method and its seed only.

mod random;

use std::sync::Arc;

use crate::space::constraint::{Constraint, Origin};
use crate::space::index::FeasibleIndex;
use crate::space::{Setting, Space};
pub use random::{Draws, MAX_RANDOM_TRIALS};

/// Most settings a grid search may have.
pub const MAX_GRID_SETTINGS: u128 = 1_000_000_000;

/// How settings are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// Every feasible setting, in canonical order.
    Grid,
    /// Feasible settings drawn without repeats.
    Random {
        /// How many.
        trials: u64,
    },
}

impl Search {
    /// `grid` or `random`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grid => "grid",
            Self::Random { .. } => "random",
        }
    }
}

/// Why a search cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// The grid is too large to be tried as a whole.
    #[error("the grid has {settings} settings; `search: grid` takes at most {}", group(MAX_GRID_SETTINGS))]
    GridTooLarge {
        /// Settings (points, where they were too many to count), in words.
        settings: String,
    },
    /// No setting satisfies the constraints.
    #[error("no setting is left: {}", .constraints.join(", "))]
    NoSetting {
        /// What each guilty constraint does, in words.
        constraints: Vec<String>,
        /// Their indices in the space.
        guilty: Vec<usize>,
    },
    /// Too many trials wanted.
    #[error("`search.trials` is at most {}, got {}", group(u128::from(MAX_RANDOM_TRIALS)), group(u128::from(*.wanted)))]
    TooManyTrials {
        /// Trials wanted.
        wanted: u64,
    },
    /// Drawing found too few feasible settings.
    #[error("only {found} of {wanted} feasible settings found in {} draws", group(u128::from(*.draws)))]
    DrawsExhausted {
        /// Settings found.
        found: u64,
        /// Settings wanted.
        wanted: u64,
        /// Draws made.
        draws: u64,
    },
}

impl SearchError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::GridTooLarge { .. } => {
                "sample it: `search: {method: random, trials: 5000}`; or take larger steps or fewer axes".to_owned()
            }
            Self::NoSetting { .. } => "loosen a constraint or widen an axis it reads".to_owned(),
            Self::TooManyTrials { .. } => "a few thousand trials tell as much about a large space".to_owned(),
            Self::DrawsExhausted { found, .. } => {
                format!("ask for at most {found} trials, or loosen the constraints")
            }
        })
    }
}

/// The settings of a sweep, by trial number.
#[derive(Debug)]
pub struct Trials {
    space: Arc<Space>,
    search: Search,
    numbering: Numbering,
    len: u64,
}

#[derive(Debug)]
enum Numbering {
    Grid(FeasibleIndex),
    Random(Draws),
}

impl Trials {
    /// Numbers the settings of a space; `seed` drives the drawing.
    ///
    /// # Errors
    /// Too many settings, none at all, or too few found by drawing.
    pub fn new(space: Arc<Space>, search: Search, seed: u64) -> Result<Self, SearchError> {
        refuse_impossible_constraints(&space)?;
        let (numbering, len) = match search {
            Search::Grid => {
                let index = FeasibleIndex::new(&space)
                    .ok_or_else(|| SearchError::GridTooLarge { settings: format!("up to {}", group(space.size())) })?;
                let feasible = index.feasible();
                if feasible == 0 {
                    return Err(no_setting(&space, index.broken()));
                }
                if feasible > MAX_GRID_SETTINGS {
                    return Err(SearchError::GridTooLarge { settings: group(feasible) });
                }
                (Numbering::Grid(index), feasible as u64)
            }
            Search::Random { trials } => {
                let draws = Draws::new(&space, trials, seed).map_err(|error| match error {
                    // Nothing found and nothing there: name the constraints instead.
                    SearchError::DrawsExhausted { found: 0, .. } => match FeasibleIndex::new(&space) {
                        Some(index) if index.feasible() == 0 => no_setting(&space, index.broken()),
                        _ => error,
                    },
                    _ => error,
                })?;
                let len = draws.len();
                (Numbering::Random(draws), len)
            }
        };
        Ok(Self { space, search, numbering, len })
    }

    /// The space.
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// The method.
    pub fn search(&self) -> Search {
        self.search
    }

    /// Number of trials.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// There is no trial; never true of trials that could be made.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The setting of a trial; none from [`Self::len`] on.
    pub fn setting(&self, trial: u64) -> Option<Setting> {
        let index = match &self.numbering {
            Numbering::Grid(index) => index.lattice_index(&self.space, trial)?,
            Numbering::Random(draws) => draws.get(trial)?,
        };
        Some(self.space.setting(trial, index))
    }

    /// The settings of consecutive trials; faster than asking one by one.
    pub fn settings(&self, trials: std::ops::Range<u64>) -> Settings<'_> {
        Settings { trials: self, next: trials.start, end: trials.end.min(self.len), last: None }
    }

    /// Trial number of a lattice point, if it is tried.
    pub fn trial_of(&self, lattice_index: u128) -> Option<u64> {
        match &self.numbering {
            Numbering::Grid(index) => index.trial_of(&self.space, lattice_index),
            Numbering::Random(draws) => draws.trial_of(lattice_index),
        }
    }

    /// Settings of the lattice that break each constraint, in the order of [`Space::constraints`]; one setting may
    /// break several. None for a constraint that was never counted (random search in a large space).
    pub fn broken(&self) -> Vec<Option<u128>> {
        match &self.numbering {
            Numbering::Grid(index) => index.broken().iter().map(|count| Some(*count)).collect(),
            Numbering::Random(_) => {
                self.space.constraints().iter().map(|constraint| broken(&self.space, constraint)).collect()
            }
        }
    }
}

/// Consecutive settings, in trial order.
#[derive(Debug)]
pub struct Settings<'a> {
    trials: &'a Trials,
    next: u64,
    end: u64,
    last: Option<u128>,
}

impl Iterator for Settings<'_> {
    type Item = Setting;

    fn next(&mut self) -> Option<Setting> {
        if self.next >= self.end {
            return None;
        }
        let trial = self.next;
        let space = &self.trials.space;
        let setting = match (&self.trials.numbering, self.last) {
            // The next feasible point after the last one: no search from the start of the block.
            (Numbering::Grid(index), Some(last)) => match index.next_feasible(space, last) {
                Some(next) => space.setting(trial, next),
                None => self.trials.setting(trial)?,
            },
            _ => self.trials.setting(trial)?,
        };
        self.last = Some(setting.lattice_index);
        self.next += 1;
        Some(setting)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

fn broken(space: &Space, constraint: &Constraint) -> Option<u128> {
    constraint.broken_combinations().map(|count| u128::from(count) * (space.size() / constraint.combinations().max(1)))
}

/// A constraint that no combination of its own axes satisfies is found without looking at the lattice.
fn refuse_impossible_constraints(space: &Space) -> Result<(), SearchError> {
    let guilty: Vec<usize> = (0..space.constraints().len())
        .filter(|number| {
            let constraint = &space.constraints()[*number];
            constraint.broken_combinations().is_some_and(|count| u128::from(count) == constraint.combinations())
        })
        .collect();
    if guilty.is_empty() {
        return Ok(());
    }
    let constraints = guilty
        .iter()
        .map(|number| format!("{} leaves none of {}", named(&space.constraints()[*number]), group(space.size())))
        .collect();
    Err(SearchError::NoSetting { constraints, guilty })
}

fn named(constraint: &Constraint) -> String {
    match constraint.origin {
        Origin::Grid => format!("`{}`", constraint.text),
        Origin::Strategy => format!("`{}` (of the strategy)", constraint.text),
    }
}

fn no_setting(space: &Space, broken: &[u128]) -> SearchError {
    let guilty: Vec<usize> = (0..broken.len()).filter(|number| broken[*number] > 0).collect();
    let constraints = guilty
        .iter()
        .map(|number| {
            let (name, count) = (named(&space.constraints()[*number]), group(broken[*number]));
            format!("{name} leaves out {count} of {}", group(space.size()))
        })
        .collect();
    SearchError::NoSetting { constraints, guilty }
}

/// A count of things for people: `1 chunk`, `1,000 chunks`. `thing` takes an s where there is not exactly one.
pub fn counted(count: impl Into<u128>, thing: &str) -> String {
    let count = count.into();
    format!("{} {thing}{}", group(count), if count == 1 { "" } else { "s" })
}

/// A count with its digits in groups of three: `1,000,000`.
pub fn group(count: u128) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
