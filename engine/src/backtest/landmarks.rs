//! What every jump over the same bars looks up: middle prices, extremes per block, the days.

use std::sync::Arc;

use pulp::{Arch, Simd, WithSimd};

use crate::data::{Bars, Quotes};
use crate::indicators::{Budget, Reservation, ZONE, Zones};
use crate::simd::lane_bits;
use crate::units::{DAY_NS, Direction};

/// Bars of the wider blocks over [`ZONE`].
const WIDE: usize = 64;

/// Made once per data set.
#[derive(Debug)]
pub(crate) struct Landmarks {
    /// `(bid close + ask close)/2`: what open positions are marked at.
    pub(crate) mid: Vec<f64>,
    pub(crate) mid_zones: Zones,
    /// UTC day of each bar, counted from 0 over days that have bars.
    pub(crate) day_of: Vec<u32>,
    /// Last bar of each of these days.
    pub(crate) day_last: Vec<usize>,
    bid: Ranges,
    ask: Ranges,
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
        let (mut day_of, mut day_last) = (Vec::with_capacity(len), Vec::new());
        let mut day = None;
        for (i, time) in bars.open_time.iter().enumerate() {
            let of_bar = time.div_euclid(DAY_NS);
            if day != Some(of_bar) {
                day = Some(of_bar);
                day_last.push(i);
            }
            if let Some(last) = day_last.last_mut() {
                *last = i;
            }
            day_of.push(day_last.len() as u32 - 1);
        }
        let mid_zones = Zones::new(&mid);
        let (bid, ask) = (Ranges::new(&bars.bid), Ranges::new(&bars.ask));
        Self { mid, mid_zones, day_of, day_last, bid, ask, _reservation: reservation }
    }

    /// The first bar of `from .. end` on which a position of `direction` reaches `bracket`.
    pub(crate) fn first_reached(
        &self,
        bars: &Bars,
        direction: Direction,
        bracket: Bracket,
        from: usize,
        end: usize,
    ) -> Option<usize> {
        if bracket.is_open() || from >= end {
            return None;
        }
        let (quotes, ranges) = match direction {
            Direction::Long => (&bars.bid, &self.bid),
            Direction::Short => (&bars.ask, &self.ask),
        };
        let (lows, highs) = (&quotes.low[..end], &quotes.high[..end]);
        let Bracket { lower, upper } = bracket;
        // The rest of the first block, then whole blocks as far as nothing in them is reached.
        let first_end = (from / ZONE + 1) * ZONE;
        if let Some(found) = scan(lows, highs, lower, upper, from, first_end.min(end)) {
            return Some(found);
        }
        let blocks = end.div_ceil(ZONE);
        let mut block = from / ZONE + 1;
        while block < blocks {
            if block.is_multiple_of(WIDE) {
                let skip = |wide: usize| !(ranges.wide_low[wide] <= lower || ranges.wide_high[wide] >= upper);
                let mut wide = block / WIDE;
                while wide < ranges.wide_low.len() && skip(wide) {
                    wide += 1;
                }
                block = block.max(wide * WIDE);
                if block >= blocks {
                    return None;
                }
            }
            if ranges.low[block] <= lower || ranges.high[block] >= upper {
                let start = block * ZONE;
                // In the last block what reaches it may lie behind the end.
                if let Some(found) = scan(lows, highs, lower, upper, start, (start + ZONE).min(end)) {
                    return Some(found);
                }
            }
            block += 1;
        }
        None
    }
}

/// The first bar of `from .. end` that reaches a level.
fn scan(lows: &[f64], highs: &[f64], lower: f64, upper: f64, from: usize, end: usize) -> Option<usize> {
    let (lows, highs) = (&lows[from..end], &highs[from..end]);
    Arch::new().dispatch(Scan { lows, highs, lower, upper }).map(|at| from + at)
}

/// Bars of equal number; `lows[k] <= lower` or `highs[k] >= upper` is looked for.
struct Scan<'a> {
    lows: &'a [f64],
    highs: &'a [f64],
    lower: f64,
    upper: f64,
}

impl WithSimd for Scan<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Option<usize> {
        let Self { lows, highs, lower, upper } = self;
        let Some(rest) = lows.len().checked_sub(S::F64_LANES) else {
            return lows.iter().zip(highs).position(|(low, high)| *low <= lower || *high >= upper);
        };
        let (below, above) = (simd.splat_f64s(lower), simd.splat_f64s(upper));
        let first = |low: S::f64s, high: S::f64s| {
            let reached =
                simd.or_m64s(simd.less_than_or_equal_f64s(low, below), simd.less_than_or_equal_f64s(above, high));
            lane_bits::<S>(reached).trailing_zeros() as usize
        };
        let (lows_of, highs_of) = (S::as_simd_f64s(lows).0, S::as_simd_f64s(highs).0);
        for (at, (low, high)) in lows_of.iter().zip(highs_of).enumerate() {
            let lane = first(*low, *high);
            if lane < S::F64_LANES {
                return Some(at * S::F64_LANES + lane);
            }
        }
        // What is left over is looked at together with bars before it that do not reach a level.
        let (low, high) = (S::as_simd_f64s(&lows[rest..]).0.first()?, S::as_simd_f64s(&highs[rest..]).0.first()?);
        let lane = first(*low, *high);
        (lane < S::F64_LANES).then_some(rest + lane)
    }
}

#[cfg(test)]
mod tests {
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
            let (from, end) = (k * 17 % 5000, 9000 - k * 11 % 3000);
            let side = if direction == Direction::Long { &bars.bid } else { &bars.ask };
            let plain = (from..end).find(|i| side.low[*i] <= bracket.lower || side.high[*i] >= bracket.upper);
            assert_eq!(landmarks.first_reached(&bars, direction, bracket, from, end), plain, "{k}");
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
                for found in crate::simd::on_all_widths(|| Scan { lows: &low, highs: &high, lower, upper }) {
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
