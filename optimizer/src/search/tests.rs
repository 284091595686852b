//! Random search, and what both searches refuse.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::random::IndexStream;
use super::*;
use crate::space::tests::space;

fn random(lens: &[u32], constraints: &[&str], trials: u64, seed: u64) -> Result<Trials, SearchError> {
    Trials::new(Arc::new(space(lens, constraints)), Search::Random { trials }, seed)
}

fn indices(trials: &Trials) -> Vec<u128> {
    trials.settings(0..trials.len()).map(|setting| setting.lattice_index).collect()
}

/// The stream must never change: stored runs would be continued with other settings.
#[test]
fn first_draws_are_pinned() {
    let draw = |seed, size, n| {
        let mut stream = IndexStream::new(seed, size);
        (0..n).map(|_| stream.draw()).collect::<Vec<u128>>()
    };
    assert_eq!(draw(42, 1, 3), [0, 0, 0]);
    insta::assert_snapshot!(format!("{:?}", draw(42, 1000, 6)), @"[135, 246, 994, 715, 573, 922]");
    insta::assert_snapshot!(format!("{:?}", draw(42, 1 << 64, 2)), @"[6424161053832095879, 9102960255288774902]");
    insta::assert_snapshot!(format!("{:?}", draw(7, 10_u128.pow(35), 2)), @"[39916013166348456551532161671674483, 35446050728509687321255182600764590]");
    insta::assert_snapshot!(format!("{:?}", draw(0, u128::MAX, 2)), @"[214862621372812569626334780301148880958, 40014150482047532849411027352805082156]");
}

#[test]
fn ends_when_the_lattice_is_exhausted() {
    let trials = random(&[3, 4], &["a0 < a1"], 1000, 5).unwrap();
    assert_eq!(trials.len(), 6);
    assert_eq!(indices(&trials).into_iter().collect::<BTreeSet<_>>().len(), 6);
}

#[test]
fn samples_spaces_that_no_grid_could_hold() {
    let trials = random(&[10_000_000; 5], &["a0 < a4"], 2000, 9).unwrap();
    assert_eq!(trials.len(), 2000);
    let first = trials.setting(0).unwrap();
    assert!(first.value_index[0] < first.value_index[4]);
    assert_eq!(trials.trial_of(trials.setting(1234).unwrap().lattice_index), Some(1234));
}

#[test]
fn refusals() {
    let grid = |lens: &[u32], constraints: &[&str]| {
        Trials::new(Arc::new(space(lens, constraints)), Search::Grid, 0).unwrap_err()
    };
    let all = [
        grid(&[10_000, 10_000, 10_000], &[]),
        grid(&[10_000, 1_000_000, 10_000], &["a0 < a2"]),
        grid(&[10_000, 100_000, 100_000], &["a0 < a2"]),
        grid(&[10, 20], &["a0 > a1 + 9"]),
        grid(&[10, 20], &["a0 > a1", "a1 > a0"]),
        random(&[10, 20], &["a0 > a1", "a1 > a0"], 5, 0).unwrap_err(),
        random(&[1_000_000, 1_000_000], &["a0 == a1"], 500, 0).unwrap_err(),
        random(&[10, 20], &[], 200_000_000, 0).unwrap_err(),
    ]
    .map(|error| format!("{error}\n  {}", error.hint().unwrap_or_default()));
    insta::assert_snapshot!(all.join("\n"), @r##"
    the grid has 1,000,000,000,000 settings; `search: grid` takes at most 1,000,000,000
      sample it: `search: {method: random, trials: 5000}`; or take larger steps or fewer axes
    the grid has up to 100,000,000,000,000 settings; `search: grid` takes at most 1,000,000,000
      sample it: `search: {method: random, trials: 5000}`; or take larger steps or fewer axes
    the grid has up to 100,000,000,000,000 settings; `search: grid` takes at most 1,000,000,000
      sample it: `search: {method: random, trials: 5000}`; or take larger steps or fewer axes
    no setting is left: `a0 > a1 + 9` leaves none of 200
      loosen a constraint or widen an axis it reads
    no setting is left: `a0 > a1` leaves out 155 of 200, `a1 > a0` leaves out 55 of 200
      loosen a constraint or widen an axis it reads
    no setting is left: `a0 > a1` leaves out 155 of 200, `a1 > a0` leaves out 55 of 200
      loosen a constraint or widen an axis it reads
    only 2 of 500 feasible settings found in 1,000,000 draws
      ask for at most 2 trials, or loosen the constraints
    `search.trials` is at most 100,000,000, got 200,000,000
      a few thousand trials tell as much about a large space
    "##);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Without repeats, feasible, the same for the same seed, and a longer search begins with the shorter one.
    #[test]
    fn prop_draws_are_distinct_and_reproducible(
        lens in prop::collection::vec(1_u32..40, 2..4),
        wanted in 1_u64..60,
        seed in any::<u64>(),
    ) {
        let Ok(trials) = random(&lens, &["a0 <= a1 + 5"], wanted, seed) else { return Ok(()) };
        let drawn = indices(&trials);
        prop_assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), drawn.len());
        for (trial, index) in drawn.iter().enumerate() {
            prop_assert!(trials.space().is_feasible(&trials.space().value_index(*index)));
            prop_assert_eq!(trials.trial_of(*index), Some(trial as u64));
        }
        prop_assert_eq!(&indices(&random(&lens, &["a0 <= a1 + 5"], wanted, seed).unwrap()), &drawn);
        let longer = indices(&random(&lens, &["a0 <= a1 + 5"], wanted + 7, seed).unwrap());
        prop_assert_eq!(&longer[..drawn.len()], &drawn[..]);
    }
}
