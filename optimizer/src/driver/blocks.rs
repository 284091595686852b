//! The order in which settings are worked on, by the columns they read: in blocks of few columns of each kind compared
//! with few of the others. A tile that is a block of 25 by 25 columns fetches 50 of them; a row of 625 would fetch 626.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use engine::indicators::ColumnKey;
use rayon::prelude::*;

/// Where a list of columns stands: its block, and its place among all.
pub(super) type Place = (u64, u64);

/// Places of `lists`, which are distinct and sorted, in blocks of about `target` of them. Of each list the first column is
/// of one kind, the second of another, and so on.
pub(super) fn places<'c>(lists: Vec<&'c [ColumnKey]>, target: usize) -> HashMap<&'c [ColumnKey], Place> {
    let positions = if lists.len() > target { lists.iter().map(|list| list.len()).max().unwrap_or(0) } else { 0 };
    let ranks: Vec<HashMap<&ColumnKey, u64>> = (0..positions).into_par_iter().map(|at| ranks_at(&lists, at)).collect();
    let ranks: Vec<(usize, HashMap<&ColumnKey, u64>)> =
        ranks.into_iter().enumerate().filter(|(_, ranks)| ranks.len() > 1).collect();
    let sides = sides(&ranks.iter().map(|(_, ranks)| ranks.len()).collect::<Vec<_>>(), target);
    let block_of = |list: &&[ColumnKey]| -> Vec<u64> {
        let rank =
            |(at, ranks): &(usize, HashMap<&ColumnKey, u64>)| list.get(*at).and_then(|key| ranks.get(key)).copied();
        ranks.iter().zip(&sides).map(|(ranks, side)| rank(ranks).unwrap_or(0) / side).collect()
    };
    let mut order: Vec<(Vec<u64>, &[ColumnKey])> = lists.into_par_iter().map(|list| (block_of(&list), list)).collect();
    order.par_sort_unstable();
    let mut block = 0;
    let number = |(place, (_, list)): (usize, &(Vec<u64>, &'c [ColumnKey]))| {
        block += u64::from(place > 0 && order[place - 1].0 != order[place].0);
        (*list, (block, place as u64))
    };
    order.iter().enumerate().map(number).collect()
}

/// Numbers of the columns at one position of the lists, in their order.
fn ranks_at<'c>(lists: &[&'c [ColumnKey]], at: usize) -> HashMap<&'c ColumnKey, u64> {
    distinct(lists.par_iter().filter_map(|list| list.get(at))).into_iter().zip(0..).collect()
}

/// Distinct values in their order.
pub(super) fn distinct<T: Copy + Ord + Hash + Send>(values: impl ParallelIterator<Item = T>) -> Vec<T> {
    let add = |mut seen: HashSet<T>, value| {
        seen.insert(value);
        seen
    };
    let join = |a: HashSet<T>, b: HashSet<T>| if a.len() < b.len() { &b | &a } else { &a | &b };
    let mut distinct: Vec<T> = values.fold(HashSet::new, add).reduce(HashSet::new, join).into_iter().collect();
    distinct.sort_unstable();
    distinct
}

/// Sides of blocks of about `target` over kinds of which there are so many: as near to a cube as they allow, and all blocks
/// of about the same size.
fn sides(kinds: &[usize], target: usize) -> Vec<u64> {
    let mut by_size: Vec<usize> = (0..kinds.len()).collect();
    by_size.sort_by_key(|kind| kinds[*kind]);
    let mut sides = vec![1; kinds.len()];
    let mut left = target.max(1);
    for (done, kind) in by_size.into_iter().enumerate() {
        let open = (kinds.len() - done) as u32;
        let side = (1..=left).take_while(|side: &usize| side.saturating_pow(open) <= left).last().unwrap_or(1);
        let blocks = kinds[kind].div_ceil(side).max(1);
        sides[kind] = kinds[kind].div_ceil(blocks).max(1) as u64;
        left /= side.min(kinds[kind]).max(1);
    }
    sides
}

#[cfg(test)]
mod tests {
    use engine::indicators::Series;
    use engine::units::Timeframe;

    use super::*;

    #[test]
    fn blocks_are_nearly_cubes_of_equal_size() {
        assert_eq!(sides(&[100, 100], 1024), [25, 25]);
        assert_eq!(sides(&[100, 100], 300), [17, 17]);
        assert_eq!(sides(&[3, 1000], 300), [3, 100]);
        assert_eq!(sides(&[10, 4], 1024), [10, 4]);
        assert_eq!(sides(&[7], 2), [2]);
        assert_eq!(sides(&[5, 5], 1), [1, 1]);
        assert_eq!(sides(&[], 10), [0_u64; 0]);
    }

    #[test]
    fn places_are_distinct_and_follow_the_blocks() {
        let key = |n: u32| ColumnKey::bid(Timeframe::H1, Series::Sma(n));
        let mut lists: Vec<Vec<ColumnKey>> = Vec::new();
        for fast in 1..=10 {
            lists.extend((100..=119).map(|slow| vec![key(fast), key(50), key(slow)]));
        }
        lists.sort_unstable();
        let slices = || lists.iter().map(Vec::as_slice).collect::<Vec<_>>();
        let found = places(slices(), 25);
        let mut order: Vec<(Place, &[ColumnKey])> = found.iter().map(|(list, place)| (*place, *list)).collect();
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(at, ((_, place), _))| *place == at as u64));
        assert!(order.windows(2).all(|pair| pair[0].0.0 <= pair[1].0.0));
        let columns_of = |block: u64| -> HashSet<&ColumnKey> {
            order.iter().filter(|((of, _), _)| *of == block).flat_map(|(_, list)| list.iter()).collect()
        };
        // Five by five of both kinds, and the one they share.
        assert!((0..8).all(|block| columns_of(block).len() == 11), "{order:?}");
        // What fits into one block stays in its order.
        let whole = places(slices(), 200);
        assert!(lists.iter().zip(0..).all(|(list, at)| whole[list.as_slice()] == (0, at)));
    }
}
