//! What every jump over the same bars looks up: middle prices, extremes per block, the days.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow_buffer::ScalarBuffer;
use pulp::Simd;

use crate::data::{Bars, Quotes};
use crate::indicators::{Budget, Extremes, Reservation, ZONE, Zones};
use crate::simd::{gather_lanes, lane_bits};
use crate::units::{DAY_NS, Direction};

/// Bars of the wider blocks over [`ZONE`].
const WIDE: usize = 64;
/// Bars behind an entry that are looked at one by one, before blocks of them are.
const NEAR: usize = 128;
/// Vectors of them looked at together: in which of them a level is reached nobody can guess, and each wrong guess costs more
/// than the vectors looked at in vain.
const TOGETHER: usize = 4;

/// Made once per data set.
#[derive(Debug)]
pub(crate) struct Landmarks {
    /// `(bid close + ask close)/2`: what open positions are marked at.
    pub(crate) mid: ScalarBuffer<f64>,
    pub(crate) mid_zones: Zones,
    /// UTC day of each bar, counted from 0 over days that have bars.
    pub(crate) day_of: Vec<u32>,
    /// Last bar of each of these days.
    pub(crate) day_last: Vec<usize>,
    /// Made when a position on that side is first looked at.
    bid: OnceLock<Ranges>,
    ask: OnceLock<Ranges>,
    /// Dropped with the rest. None: the budget had no room, which must not fail a trial.
    _reservation: Option<Reservation>,
}

/// Lowest lows and highest highs of one quote side, per block and per [`WIDE`] blocks.
#[derive(Debug)]
struct Ranges {
    low: Vec<f64>,
    high: Vec<f64>,
    wide_low: Vec<f64>,
    wide_high: Vec<f64>,
}

impl Ranges {
    fn new(quotes: &Quotes) -> Self {
        let (lows, highs) = (Zones::new(&quotes.low), Zones::new(&quotes.high));
        let (low, high) = (lows.min().to_vec(), highs.max().to_vec());
        let wide_low = Zones::new(&low).min().to_vec();
        let wide_high = Zones::new(&high).max().to_vec();
        Self { low, high, wide_low, wide_high }
    }
}

/// Levels of a position as tests on the exit side: leaves where `low <= lower` or `high >= upper`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bracket {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

impl Bracket {
    /// The tests of [`crate::execution::level_exit`], made once per position. A missing level is never reached.
    pub(crate) fn new(direction: Direction, stop: Option<f64>, target: Option<f64>, buffer: f64) -> Self {
        let (below, above) = match direction {
            Direction::Long => (stop, target),
            Direction::Short => (target, stop),
        };
        Self {
            lower: below.map_or(f64::NEG_INFINITY, |level| level + buffer),
            upper: above.map_or(f64::INFINITY, |level| level - buffer),
        }
    }

    /// One bit per bar.
    #[inline(always)]
    fn reached_in<S: Simd>(&self, simd: S, low: S::f64s, high: S::f64s) -> u64 {
        let below = simd.less_than_or_equal_f64s(low, simd.splat_f64s(self.lower));
        lane_bits::<S>(simd.or_m64s(below, simd.less_than_or_equal_f64s(simd.splat_f64s(self.upper), high)))
    }

    /// No bar can leave.
    fn is_open(&self) -> bool {
        self.lower == f64::NEG_INFINITY && self.upper == f64::INFINITY
    }
}

impl Landmarks {
    /// Those of `bars`, booked with `budget` where it has room.
    pub(crate) fn new(bars: &Bars, budget: &Arc<dyn Budget>) -> Self {
        let len = bars.len();
        let per_bar = size_of::<f64>() + size_of::<u32>();
        let reservation = Reservation::take(budget, len * per_bar + 3 * Zones::bytes_for(len));
        let mid: Vec<f64> = bars.bid.close.iter().zip(bars.ask.close.iter()).map(|(b, a)| (b + a) / 2.0).collect();
        let (mut day_of, mut day_last): (Vec<u32>, Vec<usize>) = (Vec::with_capacity(len), Vec::new());
        let mut rest = &*bars.open_time;
        while let Some(first) = rest.first() {
            let next_day = (first.div_euclid(DAY_NS) + 1).saturating_mul(DAY_NS);
            let (of_day, later) = rest.split_at(rest.iter().position(|time| *time >= next_day).unwrap_or(rest.len()));
            day_of.resize(day_of.len() + of_day.len(), day_last.len() as u32);
            day_last.push(day_of.len() - 1);
            rest = later;
        }
        let mid_zones = Zones::new(&mid);
        let (bid, ask) = (OnceLock::new(), OnceLock::new());
        Self { mid: ScalarBuffer::from(mid), mid_zones, day_of, day_last, bid, ask, _reservation: reservation }
    }

    /// Extremes of the middle price.
    pub(crate) fn mids(&self, bars: Range<usize>) -> (f64, f64) {
        self.mid_zones.extremes_of(&self.mid, bars)
    }

    /// The first bar behind `entry` and before `end` on which a position of `direction` reaches `bracket`; and where that
    /// was seen on the way, the extremes of the middle price from `entry` to the bar before it.
    #[inline(always)]
    pub(crate) fn first_reached<S: Simd>(
        &self,
        simd: S,
        bars: &Bars,
        direction: Direction,
        bracket: Bracket,
        entry: usize,
        end: usize,
    ) -> (Option<usize>, Option<(f64, f64)>) {
        if bracket.is_open() || entry + 1 >= end {
            return (None, None);
        }
        let (quotes, ranges) = match direction {
            Direction::Long => (&bars.bid, &self.bid),
            Direction::Short => (&bars.ask, &self.ask),
        };
        let near = end.min(entry + 1 + NEAR);
        let (lows, highs) = (&quotes.low[entry + 1..near], &quotes.high[entry + 1..near]);
        // One bar earlier than the others: how far a bar goes is seen once the next one leaves or not.
        let mids = &self.mid[entry..near - 1];
        let mut extremes = Extremes::new(simd);
        let lanes = gather_lanes::<S::u64s, u64>(|lane| lane as u64);
        let (lows, highs, mids) = (S::as_simd_f64s(lows).0, S::as_simd_f64s(highs).0, S::as_simd_f64s(mids).0);
        let (lows, highs) = (lows.as_chunks::<TOGETHER>().0, highs.as_chunks::<TOGETHER>().0);
        for (at, ((low, high), mid)) in lows.iter().zip(highs).zip(mids.as_chunks::<TOGETHER>().0).enumerate() {
            let mut reached = 0;
            for vector in 0..TOGETHER {
                reached |= bracket.reached_in(simd, low[vector], high[vector]) << (vector * S::F64_LANES);
            }
            if reached != 0 {
                let bar = reached.trailing_zeros() as usize;
                for (vector, mid) in mid.iter().enumerate() {
                    // Up to the lane that is reached; none of a vector behind it.
                    let lanes = simd.add_u64s(lanes, simd.splat_u64s((vector * S::F64_LANES) as u64));
                    extremes.take_where(simd, simd.less_than_or_equal_u64s(lanes, simd.splat_u64s(bar as u64)), *mid);
                }
                return (Some(entry + 1 + at * TOGETHER * S::F64_LANES + bar), Some(extremes.finish(simd)));
            }
            for mid in mid {
                extremes.take(simd, *mid);
            }
        }
        let seen = entry + lows.len() * TOGETHER * S::F64_LANES;
        let ranges = ranges.get_or_init(|| Ranges::new(quotes));
        let Some(bar) = ranges.first_reached(simd, quotes, bracket, seen + 1, end) else { return (None, None) };
        let (low, high) = self.mid_zones.extremes_in(simd, &self.mid, seen..bar);
        extremes.take(simd, simd.splat_f64s(low));
        extremes.take(simd, simd.splat_f64s(high));
        (Some(bar), Some(extremes.finish(simd)))
    }
}

impl Ranges {
    /// The first bar of `from .. end` that reaches `bracket`.
    #[inline(always)]
    fn first_reached<S: Simd>(
        &self,
        simd: S,
        quotes: &Quotes,
        bracket: Bracket,
        from: usize,
        end: usize,
    ) -> Option<usize> {
        let Bracket { lower, upper } = bracket;
        // The rest of the first block, then whole blocks as far as nothing in them is reached.
        let blocks = end.div_ceil(ZONE);
        let mut block = from.div_ceil(ZONE);
        if let Some(found) = scan(simd, quotes, bracket, from..end.min(block * ZONE)) {
            return Some(found);
        }
        while block < blocks {
            if block.is_multiple_of(WIDE) {
                let mut wide = block / WIDE;
                while wide < self.wide_low.len() && !(self.wide_low[wide] <= lower || self.wide_high[wide] >= upper) {
                    wide += 1;
                }
                block = block.max(wide * WIDE);
                if block >= blocks {
                    return None;
                }
            }
            if self.low[block] <= lower || self.high[block] >= upper {
                let start = block * ZONE;
                // In the last block what reaches it may lie behind the end.
                if let Some(found) = scan(simd, quotes, bracket, start..end.min(start + ZONE)) {
                    return Some(found);
                }
            }
            block += 1;
        }
        None
    }
}

/// The first bar of `range` that reaches a level.
#[inline(always)]
fn scan<S: Simd>(simd: S, quotes: &Quotes, bracket: Bracket, range: Range<usize>) -> Option<usize> {
    let (lows, highs) = (&quotes.low[range.clone()], &quotes.high[range.clone()]);
    let Some(rest) = lows.len().checked_sub(S::F64_LANES) else {
        for (at, (low, high)) in lows.iter().zip(highs).enumerate() {
            if *low <= bracket.lower || *high >= bracket.upper {
                return Some(range.start + at);
            }
        }
        return None;
    };
    for (at, (low, high)) in S::as_simd_f64s(lows).0.iter().zip(S::as_simd_f64s(highs).0).enumerate() {
        let reached = bracket.reached_in(simd, *low, *high);
        if reached != 0 {
            return Some(range.start + at * S::F64_LANES + reached.trailing_zeros() as usize);
        }
    }
    // What is left over is looked at together with bars before it that do not reach a level.
    let (low, high) = (S::as_simd_f64s(&lows[rest..]).0.first()?, S::as_simd_f64s(&highs[rest..]).0.first()?);
    let reached = bracket.reached_in(simd, *low, *high);
    if reached == 0 { None } else { Some(range.start + rest + reached.trailing_zeros() as usize) }
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;
    use crate::indicators::Unlimited;
    use crate::units::Timeframe;

    fn bars(len: usize) -> Bars {
        let wave = |k: usize| 100.0 + ((k * k) % 97) as f64 / 10.0 + (k / 500) as f64;
        let quotes = |shift: f64| {
            let close: Vec<f64> = (0..len).map(|k| wave(k) + shift).collect();
            let open = close.clone();
            Quotes {
                high: close.iter().map(|x| x + 0.5).collect::<Vec<_>>().into(),
                low: close.iter().map(|x| x - 0.5).collect::<Vec<_>>().into(),
                open: open.into(),
                close: close.into(),
                volume: vec![0.0; len].into(),
            }
        };
        let open_time: Vec<i64> =
            (0..len as i64).map(|k| k * 3_600_000_000_000 + (k / 100) * 86_400_000_000_000).collect();
        Bars { timeframe: Timeframe::H1, open_time: open_time.into(), bid: quotes(0.0), ask: quotes(0.2) }
    }

    #[test]
    fn blocks_skip_to_the_bar_a_plain_scan_finds() {
        let bars = bars(9000);
        let budget: Arc<dyn Budget> = Arc::new(Unlimited);
        let landmarks = Landmarks::new(&bars, &budget);
        for (k, direction) in [Direction::Long, Direction::Short].into_iter().cycle().enumerate().take(400) {
            let level = |step: usize| (k % step > 0).then(|| 90.0 + (k * 13 % 400) as f64 / 10.0);
            let (stop, target) = (level(3).map(|x| x - 12.0), level(4).map(|x| x + 14.0));
            let bracket = Bracket::new(direction, stop, target, 0.25);
            let (from, end) = (1 + k * 17 % 5000, 9000 - k * 11 % 3000);
            let side = if direction == Direction::Long { &bars.bid } else { &bars.ask };
            let plain = (from..end).find(|i| side.low[*i] <= bracket.lower || side.high[*i] >= bracket.upper);
            let mids = plain.map(|bar| landmarks.mids(from - 1..bar));
            for found in crate::simd::on_all_widths(|| Reached {
                landmarks: &landmarks,
                bars: &bars,
                direction,
                bracket,
                from,
                end,
            }) {
                assert_eq!(found, (plain, mids), "{k}");
            }
        }
    }

    struct Reached<'r> {
        landmarks: &'r Landmarks,
        bars: &'r Bars,
        direction: Direction,
        bracket: Bracket,
        from: usize,
        end: usize,
    }

    impl WithSimd for Reached<'_> {
        type Output = (Option<usize>, Option<(f64, f64)>);

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> <Self as WithSimd>::Output {
            let Self { landmarks, bars, direction, bracket, from, end } = self;
            landmarks.first_reached(simd, bars, direction, bracket, from - 1, end)
        }
    }

    struct Scan<'r> {
        quotes: &'r Quotes,
        bracket: Bracket,
    }

    impl WithSimd for Scan<'_> {
        type Output = Option<usize>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Option<usize> {
            scan(simd, self.quotes, self.bracket, 0..self.quotes.low.len())
        }
    }

    #[test]
    fn every_width_finds_the_bar_a_plain_scan_finds() {
        for len in 0..40 {
            let low: Vec<f64> = (0..len).map(|k| ((k * 31 + len) % 17) as f64).collect();
            let high: Vec<f64> = low.iter().enumerate().map(|(k, low)| low + (k % 5) as f64).collect();
            for (lower, upper) in
                [(0.0, 20.0), (-1.0, 19.0), (-1.0, 30.0), (f64::NEG_INFINITY, 18.0), (2.0, f64::INFINITY)]
            {
                let plain = (0..len).find(|k| low[*k] <= lower || high[*k] >= upper);
                let bracket = Bracket { lower, upper };
                let quotes = Quotes { low: low.clone().into(), high: high.clone().into(), ..bars(len).bid };
                for found in crate::simd::on_all_widths(|| Scan { quotes: &quotes, bracket }) {
                    assert_eq!(found, plain, "{len} {lower} {upper}");
                }
            }
        }
    }

    #[test]
    fn days_are_counted_where_there_are_bars() {
        let bars = bars(300);
        let budget: Arc<dyn Budget> = Arc::new(Unlimited);
        let landmarks = Landmarks::new(&bars, &budget);
        for i in 1..300 {
            let days = |k: usize| bars.open_time[k].div_euclid(DAY_NS);
            let changed = days(i) != days(i - 1);
            assert_eq!(landmarks.day_of[i] - landmarks.day_of[i - 1], u32::from(changed), "{i}");
            if changed {
                assert_eq!(landmarks.day_last[landmarks.day_of[i - 1] as usize], i - 1);
            }
        }
        assert_eq!(landmarks.day_last.last(), Some(&299));
    }
}
