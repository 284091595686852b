//! Round trips booked for several settings side by side, one to a lane of a vector.
//!
//! Each account takes its own round trips in its own order, by the code that also takes them one by one
//! ([`Account::book`]): a lane holds what the setting would hold alone, to the bit.

use std::cmp::Reverse;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::backtest::exits::{Deals, Trip};
use crate::backtest::jump::{Account, Course, Deal, Packed, Progress};
use crate::simd::{MOST_LANES as LANES, lane_bits};

/// Round trips that a run still has to take.
pub(super) struct Queue<'t, 'a> {
    pub(super) course: &'t Course<'a>,
    pub(super) progress: &'t mut Progress,
    /// Where they stand among the places given to [`settle`].
    pub(super) trips: Range<usize>,
}

/// Every run takes its round trips; `places`: where they are in `deals`, in order. Nothing is left of all three.
pub(super) fn settle(queues: &mut Vec<Queue<'_, '_>>, places: &mut Vec<u32>, deals: &mut Deals) {
    deals.reckon();
    // The longest first: then few lanes are idle at the end.
    queues.sort_by_key(|queue| Reverse(queue.trips.len()));
    Arch::new().dispatch(Settle { queues, places, deals });
    queues.clear();
    places.clear();
    deals.clear();
}

struct Settle<'s, 't, 'a> {
    queues: &'s mut [Queue<'t, 'a>],
    places: &'s [u32],
    deals: &'s Deals,
}

impl WithSimd for Settle<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { queues, places, deals } = self;
        let width = S::F64_LANES.min(LANES);
        let mut waiting = queues.iter_mut();
        let mut lanes: [Option<&mut Queue<'_, '_>>; LANES] = [const { None }; LANES];
        // The next round trip of each lane, and the first one that its account does not know yet.
        let (mut heads, mut opened) = ([0_usize; LANES], [0_usize; LANES]);
        let mut accounts: Account<S> = Account::zeroed();
        let close = |queue: &mut Queue<'_, '_>, accounts: &Account<S>, lane: usize, opened: usize| {
            if queue.trips.start > opened {
                let last = deals.trip(places[queue.trips.start - 1]);
                queue.progress.set_account(accounts.lane(lane), &last.held);
            }
        };
        loop {
            // Lanes that are done take the next run.
            let (mut busy, mut steps) = (0_u64, usize::MAX);
            for (lane, slot) in lanes.iter_mut().enumerate().take(width) {
                if let Some(queue) = slot.take_if(|queue| queue.trips.is_empty()) {
                    close(queue, &accounts, lane, opened[lane]);
                }
                if slot.is_none()
                    && let Some(queue) = waiting.find(|queue| !queue.trips.is_empty())
                {
                    accounts.set_lane(lane, &queue.progress.account());
                    opened[lane] = queue.trips.start;
                    *slot = Some(queue);
                }
                // An idle lane follows any round trips, and nobody looks at it.
                heads[lane] = slot.as_ref().map_or(0, |queue| queue.trips.start);
                if let Some(queue) = slot {
                    busy |= 1 << lane;
                    steps = steps.min(queue.trips.len());
                }
            }
            if busy == 0 {
                return;
            }
            let (after, taken, loud) = run(simd, accounts, &heads, steps, busy, (places, deals));
            accounts = after;
            for (lane, queue) in lanes.iter_mut().enumerate().filter_map(|(lane, slot)| Some((lane, slot.as_mut()?))) {
                queue.trips.start += taken;
                if loud >> lane & 1 == 1 {
                    queue.trips.start -= 1;
                    close(queue, &accounts, lane, opened[lane]);
                    let Trip { deal, held } = deals.trip(places[queue.trips.start]);
                    queue.progress.round_trip(queue.course, &Deal::unpack(deal), held);
                    queue.trips.start += 1;
                    accounts.set_lane(lane, &queue.progress.account());
                    opened[lane] = queue.trips.start;
                }
            }
        }
    }
}

/// Takes up to `steps` round trips in each busy lane, until one of them needs a look at single bars. Returns the
/// accounts, the steps taken, and the lanes that did not take the last of them because it needs that look.
#[inline(always)]
fn run<S: Simd>(
    simd: S,
    mut accounts: Account<S>,
    heads: &[usize; LANES],
    steps: usize,
    busy: u64,
    (places, deals): (&[u32], &Deals),
) -> (Account<S>, usize, u64) {
    for step in 0..steps {
        let trips: [&Packed; LANES] = std::array::from_fn(|lane| &deals.trip(places[heads[lane] + step]).deal);
        let trips = Deal::side_by_side(simd, |lane| trips[lane]);
        let quiet = accounts.is_quiet(simd, &trips);
        let loud = !lane_bits::<S>(quiet) & busy;
        if loud != 0 {
            let mut after = accounts;
            after.book(simd, &trips);
            return (Account::select(simd, quiet, after, accounts), step + 1, loud);
        }
        accounts.book(simd, &trips);
    }
    (accounts, steps, 0)
}
