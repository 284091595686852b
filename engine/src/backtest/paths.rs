//! Runs of which nothing matters but the bar of the next entry and the bar of its exit, followed several at a time: while
//! the processor waits for the bar that one of them goes on from, it works on the others.

use std::hint::select_unpredictable;

use pulp::{Arch, Simd, WithSimd};

use crate::backtest::exits::{End, ExitRule, ExitTable, Search};
use crate::backtest::runner::{Found, Runner, Scene};
use crate::backtest::settle::Queue;
use crate::indicators::ZONE;

/// Runs followed at a time.
const PATHS: usize = 4;

/// Memory of the runs followed at a time.
pub(super) type Paths = [Path; PATHS];

/// The way of one run through a piece. Bars are counted from the first one of the piece's first block.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// Bars on which it may enter, and one more word that ends every search.
    words: Vec<u64>,
    /// Per word: the next one that is not 0.
    following: Vec<u32>,
    /// The first bar it may enter on.
    from: usize,
    /// The end of the piece, or of the run if that is earlier.
    end: usize,
    /// The end of the run, counted from the first bar of all.
    run_end: usize,
    /// Places among the deals.
    trips: Vec<u32>,
    /// Trips taken at once, without a question to the run.
    straight: u64,
}

/// Where a step leads.
enum Step {
    /// To the bar after an exit.
    Exit,
    /// To a bar on which an entry comes to something else, or to something not known yet.
    Question(usize),
    /// Out of the piece.
    End,
}

impl Path {
    #[inline(never)]
    fn begin(&mut self, runner: &Runner<'_>, scene: &Scene<'_, '_>) {
        let (width, base) = (scene.blocks.len(), scene.base());
        self.words.resize(width + 1, 0);
        runner.entries(scene, 0, &mut self.words[..width]);
        self.words[width] = 1;
        self.following.resize(width, 0);
        let mut next = width as u32;
        for (at, (following, word)) in self.following.iter_mut().zip(&self.words).enumerate().rev() {
            *following = next;
            next = if *word == 0 { next } else { at as u32 };
        }
        self.from = runner.progress.next.max(scene.piece.start) - base;
        self.end = scene.piece.end.min(runner.course.end) - base;
        self.run_end = runner.course.end;
        self.trips.clear();
        self.straight = 0;
    }

    /// From one bar on which it may enter to the next.
    #[inline(always)]
    fn step(&mut self, table: &ExitTable, base: usize) -> Step {
        if self.from >= self.end {
            return Step::End;
        }
        // Without branches: where the next entry is, nobody can guess.
        let at = self.from / ZONE;
        let bits = self.words[at] & (!0 << (self.from % ZONE));
        let next = self.following[at] as usize;
        let (at, bits) = select_unpredictable(bits == 0, (next, self.words[next]), (at, bits));
        let bar = at * ZONE + bits.trailing_zeros() as usize;
        if bar >= self.end {
            return Step::End;
        }
        let (end, place) = table.end(base + bar);
        if self.leaves(end, place, base) { Step::Exit } else { Step::Question(bar) }
    }

    /// Goes on behind the exit, if the round trip ends within the run.
    #[inline(always)]
    fn leaves(&mut self, end: End, place: u32, base: usize) -> bool {
        if end.bar() >= self.run_end {
            return false;
        }
        self.trips.push(place);
        self.straight += 1;
        self.from = end.bar() + 1 - base;
        true
    }
}

/// Follows `runners`, which are plain and under the same terms, through the piece; what they gather goes to `queues`.
pub(super) fn follow<'t, 'a: 't>(
    runners: impl Iterator<Item = &'t mut Runner<'a>>,
    (scene, exit): (&Scene<'_, 'a>, &ExitRule<'a>),
    found: &mut Found<'_>,
    queues: &mut Vec<Queue<'t, 'a>>,
    paths: &mut Paths,
) {
    Arch::new().dispatch(Follow { runners, scene, exit, found, queues, paths });
}

struct Follow<'f, 's, 'd, 't, 'a, I> {
    runners: I,
    scene: &'f Scene<'s, 'a>,
    exit: &'f ExitRule<'a>,
    found: &'f mut Found<'d>,
    queues: &'f mut Vec<Queue<'t, 'a>>,
    paths: &'f mut Paths,
}

impl<'t, 'a: 't, I: Iterator<Item = &'t mut Runner<'a>>> WithSimd for Follow<'_, '_, '_, 't, 'a, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { mut runners, scene, exit, found, queues, paths } = self;
        let base = scene.base();
        let mut lanes = paths.each_mut().map(|path| (None, path));
        let mut busy = 0;
        for (slot, path) in &mut lanes {
            *slot = runners.next();
            if let Some(runner) = slot {
                path.begin(runner, scene);
                busy += 1;
            }
        }
        while busy > 0 {
            for (slot, path) in &mut lanes {
                let Some(runner) = slot else { continue };
                match path.step(&found.tables[0], base) {
                    Step::Exit => continue,
                    Step::Question(bar) => {
                        let search = Search {
                            exit,
                            conditions: scene.conditions,
                            ground: runner.ground(scene),
                            bar: base + bar,
                        };
                        let (end, place) = found.tables[0].reckon(simd, &runner.course, search, found.deals);
                        if path.leaves(end, place, base) {
                            continue;
                        }
                        path.from = runner.asks(search, found, &mut path.trips) - base;
                        if runner.failure.is_none() {
                            continue;
                        }
                    }
                    Step::End => {}
                }
                // Nobody asks such a run when its last signal was.
                runner.progress.count_signals(path.straight);
                runner.progress.next = base + path.from.max(path.end);
                let start = found.trips.len();
                found.trips.extend_from_slice(&path.trips);
                if let Some(Runner { course, progress, .. }) = slot.take() {
                    queues.push(Queue { course, progress, trips: start..found.trips.len() });
                }
                *slot = runners.next();
                match slot {
                    Some(runner) => path.begin(runner, scene),
                    None => busy -= 1,
                }
            }
        }
    }
}
