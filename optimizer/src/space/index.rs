//! From trial number to lattice point and back, without a list of settings.
//!
//! Axes before the first and after the last one that any constraint reads are free: the pattern of feasible points
//! repeats over the former and each of its points stands for all of the latter. Only the axes between, the *core*, are
//! counted, once, in blocks; a trial number is then found by its block and a scan inside it.

use rayon::prelude::*;

use crate::space::Space;

/// Core points per counted block.
const BLOCK: u64 = 4096;

/// Largest core that is counted: beyond, the counting itself would take minutes.
pub const MAX_CORE: u128 = 2_000_000_000;

/// Counts of feasible points per block of the core.
#[derive(Debug)]
pub struct FeasibleIndex {
    /// Axes of the core.
    core: std::ops::Range<usize>,
    /// Points of the core.
    core_size: u64,
    /// Points of the axes after the core.
    inner: u128,
    /// Feasible core points before each block, and at the end all of them.
    before: Vec<u64>,
    /// Feasible points of the whole lattice.
    feasible: u128,
    /// Settings of the whole lattice that break each constraint.
    broken: Vec<u128>,
}

impl FeasibleIndex {
    /// Counts; none if the core is too large to be counted.
    pub fn new(space: &Space) -> Option<Self> {
        let read: Vec<usize> =
            space.constraints().iter().flat_map(|constraint| constraint.axes().iter().copied()).collect();
        let core = match (read.iter().min(), read.iter().max()) {
            (Some(first), Some(last)) => *first..last + 1,
            _ => 0..0,
        };
        let product = |range: std::ops::Range<usize>| -> u128 {
            space.axes()[range].iter().map(|axis| u128::from(axis.len())).product()
        };
        let (core_size, inner) = (product(core.clone()), product(core.end..space.axes().len()));
        if core_size > MAX_CORE {
            return None;
        }
        let core_size = core_size as u64;
        let untabulated: Vec<usize> = (0..space.constraints().len())
            .filter(|number| space.constraints()[*number].broken_combinations().is_none())
            .collect();
        let blocks: Vec<(u64, Vec<u64>)> = (0..core_size.div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| count_block(space, &core, block, core_size, &untabulated))
            .collect();

        let mut before = Vec::with_capacity(blocks.len() + 1);
        let mut total = 0_u64;
        for (feasible, _) in &blocks {
            before.push(total);
            total += feasible;
        }
        before.push(total);
        let copies = space.size() / u128::from(core_size.max(1));
        let broken = space
            .constraints()
            .iter()
            .enumerate()
            .map(|(number, constraint)| match constraint.broken_combinations() {
                Some(broken) => u128::from(broken) * (space.size() / constraint.combinations().max(1)),
                None => {
                    let slot = untabulated.iter().position(|other| *other == number).unwrap_or(0);
                    copies * blocks.iter().map(|(_, broken)| u128::from(broken[slot])).sum::<u128>()
                }
            })
            .collect();
        Some(Self { core, core_size, inner, before, feasible: u128::from(total) * copies, broken })
    }

    /// Feasible settings.
    pub fn feasible(&self) -> u128 {
        self.feasible
    }

    /// Settings that break each constraint, in their order; one setting may break several.
    pub fn broken(&self) -> &[u128] {
        &self.broken
    }

    /// Lattice index of a trial; none beyond the end.
    pub fn lattice_index(&self, space: &Space, trial: u64) -> Option<u128> {
        if u128::from(trial) >= self.feasible {
            return None;
        }
        let per_core = u128::from(*self.before.last()?) * self.inner;
        let (outer, rest) = (u128::from(trial) / per_core, u128::from(trial) % per_core);
        let (rank, inner) = ((rest / self.inner) as u64, rest % self.inner);
        let block = self.before.partition_point(|before| *before <= rank) - 1;
        let wanted = rank - self.before.get(block)?;
        let mut walk = CoreWalk::new(space, &self.core, block as u64 * BLOCK);
        let mut seen = 0;
        while walk.index < self.core_size {
            if space.is_feasible(&walk.point) {
                if seen == wanted {
                    return Some((outer * u128::from(self.core_size) + u128::from(walk.index)) * self.inner + inner);
                }
                seen += 1;
            }
            walk.advance(space, &self.core);
        }
        None
    }

    /// The feasible point that follows a feasible one, if it is near; none if it is far or there is none.
    pub(crate) fn next_feasible(&self, space: &Space, last: u128) -> Option<u128> {
        if !(last + 1).is_multiple_of(self.inner) {
            return Some(last + 1);
        }
        let mut index = last + 1;
        for _ in 0..BLOCK {
            if index >= space.size() {
                return None;
            }
            if space.is_feasible(&space.value_index(index)) {
                return Some(index);
            }
            index += self.inner;
        }
        None
    }

    /// Trial number of a lattice point; none if it is infeasible or outside.
    pub fn trial_of(&self, space: &Space, lattice_index: u128) -> Option<u64> {
        if lattice_index >= space.size() || !space.is_feasible(&space.value_index(lattice_index)) {
            return None;
        }
        let (rest, inner) = (lattice_index / self.inner, lattice_index % self.inner);
        let core_size = u128::from(self.core_size);
        let (outer, core_index) = (rest / core_size, (rest % core_size) as u64);
        let block = core_index / BLOCK;
        let mut walk = CoreWalk::new(space, &self.core, block * BLOCK);
        let mut rank = *self.before.get(block as usize)?;
        while walk.index < core_index {
            rank += u64::from(space.is_feasible(&walk.point));
            walk.advance(space, &self.core);
        }
        let per_core = u128::from(*self.before.last()?) * self.inner;
        u64::try_from(outer * per_core + u128::from(rank) * self.inner + inner).ok()
    }
}

fn count_block(
    space: &Space,
    core: &std::ops::Range<usize>,
    block: u64,
    core_size: u64,
    untabulated: &[usize],
) -> (u64, Vec<u64>) {
    let mut walk = CoreWalk::new(space, core, block * BLOCK);
    let end = core_size.min((block + 1) * BLOCK);
    let mut feasible = 0;
    let mut broken = vec![0; untabulated.len()];
    while walk.index < end {
        feasible += u64::from(space.is_feasible(&walk.point));
        for (count, number) in broken.iter_mut().zip(untabulated) {
            *count += u64::from(!space.constraints()[*number].holds(&walk.point, space.axes()));
        }
        walk.advance(space, core);
    }
    (feasible, broken)
}

/// A point that moves over the core in canonical order; the other axes stand at 0, which no constraint reads.
struct CoreWalk {
    point: Vec<u32>,
    index: u64,
}

impl CoreWalk {
    fn new(space: &Space, core: &std::ops::Range<usize>, index: u64) -> Self {
        let mut point = vec![0; space.axes().len()];
        let mut rest = index;
        for axis in core.clone().rev() {
            let len = u64::from(space.axes()[axis].len());
            point[axis] = (rest % len) as u32;
            rest /= len;
        }
        Self { point, index }
    }

    fn advance(&mut self, space: &Space, core: &std::ops::Range<usize>) {
        self.index += 1;
        for axis in core.clone().rev() {
            self.point[axis] += 1;
            if self.point[axis] < space.axes()[axis].len() {
                return;
            }
            self.point[axis] = 0;
        }
    }
}
