//! The running peak of equity and the falls from it, bar by bar.

use pulp::{Simd, bytemuck};

use crate::simd::lane_bits;

/// Follows equity and keeps the largest falls.
///
/// `H_i = max(E_init, max_{j≤i} E_j)`, `a_i = H_i − E_i`, `D_i = a_i/H_i` (0 if `H_i ≤ 0`). The largest relative and
/// the largest absolute fall may stem from different bars. Source: metrics specification §3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawdown {
    peak: f64,
    peak_index: i64,
    next_index: i64,
    max_relative: f64,
    max_absolute: f64,
    /// No fall from the running peak up to this one is more than the largest ones: it needs no look.
    fall: f64,
    deepest: Option<Episode>,
}

/// The episode of the largest relative fall: from its peak to the first bar back at it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Episode {
    peak: f64,
    peak_index: i64,
    recovered_at: Option<i64>,
}

/// Bars below the running peak whose falls are not taken yet.
pub(crate) struct Below<S: Simd> {
    lowest: S::f64s,
}

impl<S: Simd> Below<S> {
    /// No bars.
    #[inline(always)]
    pub(crate) fn new(simd: S) -> Self {
        Self { lowest: simd.splat_f64s(f64::INFINITY) }
    }
}

impl Drawdown {
    /// Before the first bar.
    pub fn new(initial_equity: f64) -> Self {
        Self {
            peak: initial_equity,
            peak_index: -1,
            next_index: 0,
            max_relative: 0.0,
            max_absolute: 0.0,
            fall: 0.0,
            deepest: None,
        }
    }

    /// Takes the equity of the next bar.
    #[inline]
    pub fn push(&mut self, equity: f64) {
        self.push_run(equity, 1);
    }

    /// Takes `bars ≥ 1` bars of the same equity.
    #[inline]
    pub fn push_run(&mut self, equity: f64, bars: usize) {
        let index = self.next_index;
        self.next_index += bars as i64;
        if equity >= self.peak {
            self.peak = equity;
            self.peak_index = self.next_index - 1;
            self.fall = 0.0;
            if let Some(episode) = &mut self.deepest
                && episode.recovered_at.is_none()
                && equity >= episode.peak
            {
                episode.recovered_at = Some(index);
            }
            return;
        }
        self.fall_to(equity);
    }

    /// Takes `bars` bars whose equity stays below the running peak; `lowest` is the least of it. The falls in between
    /// are from the same peak and no deeper: they change nothing.
    #[inline]
    pub fn push_below_peak(&mut self, lowest: f64, bars: usize) {
        debug_assert!(lowest < self.peak);
        self.next_index += bars as i64;
        self.fall_to(lowest);
    }

    /// Equity below the running peak.
    #[inline]
    fn fall_to(&mut self, equity: f64) {
        let absolute = self.peak - equity;
        // Rounding is monotone: a fall from the same peak that is no deeper is relatively no deeper either.
        if absolute <= self.fall {
            return;
        }
        self.fall = absolute;
        if absolute > self.max_absolute {
            self.max_absolute = absolute;
        }
        let relative = if self.peak > 0.0 { absolute / self.peak } else { 0.0 };
        if relative > self.max_relative {
            self.max_relative = relative;
            self.deepest = Some(Episode { peak: self.peak, peak_index: self.peak_index, recovered_at: None });
        }
    }

    /// Takes the next bars, one to a lane in order; lanes without a bar are undefined. What stays below the running peak
    /// gathers in `below`, to be given to [`Drawdown::push_gathered`] in the end.
    #[inline(always)]
    pub(crate) fn push_lanes<S: Simd>(&mut self, simd: S, below: &mut Below<S>, equity: S::f64s, bars: usize) {
        let reached = lane_bits::<S>(simd.less_than_or_equal_f64s(simd.splat_f64s(self.peak), equity));
        if reached == 0 {
            below.lowest = simd.select_f64s(simd.less_than_f64s(equity, below.lowest), equity, below.lowest);
            self.next_index += bars as i64;
            return;
        }
        self.push_gathered(simd, below);
        self.rise(bytemuck::cast_slice(std::slice::from_ref(&equity)), bars, reached.trailing_zeros());
    }

    /// Takes the falls of bars that were counted already.
    #[inline(always)]
    pub(crate) fn push_gathered<S: Simd>(&mut self, simd: S, below: &mut Below<S>) {
        self.fall_to(simd.reduce_min_f64s(below.lowest));
        *below = Below::new(simd);
    }

    /// Takes lanes of which `first` is the first one to reach the running peak. Without branches, as new peaks come when
    /// they like; one by one only if there is a fall larger than all before.
    #[inline(always)]
    fn rise(&mut self, lanes: &[f64], bars: usize, first: u32) {
        let (mut peak, mut last, mut worst) = (self.peak, 0, 0.0);
        for (lane, equity) in lanes.iter().enumerate() {
            let reaches = *equity >= peak;
            peak = if reaches { *equity } else { peak };
            last = if reaches { lane } else { last };
            let fall = peak - *equity;
            worst = if fall > worst { fall } else { worst };
        }
        // The peaks of all these falls are at least the first one, and division is monotone also after rounding.
        if worst > self.max_absolute || self.peak <= 0.0 || worst / self.peak > self.max_relative {
            lanes[..bars].iter().for_each(|equity| self.push(*equity));
            return;
        }
        if let Some(episode) = &mut self.deepest
            && episode.recovered_at.is_none()
        {
            // Until then no peak is above its own.
            episode.recovered_at = Some(self.next_index + i64::from(first));
        }
        (self.peak, self.peak_index, self.fall) = (peak, self.next_index + last as i64, 0.0);
        self.next_index += bars as i64;
    }

    /// Running peak `H_i`.
    #[inline]
    pub fn high_water(&self) -> f64 {
        self.peak
    }

    /// `min(1, D_i)` for the equity just pushed.
    #[inline]
    pub fn current(&self, equity: f64) -> f64 {
        if self.peak > 0.0 { ((self.peak - equity) / self.peak).min(1.0) } else { 0.0 }
    }

    /// `min(1, max D_i)`.
    pub fn max_relative(&self) -> f64 {
        self.max_relative.min(1.0)
    }

    /// `max a_i`, account currency.
    pub fn max_absolute(&self) -> f64 {
        self.max_absolute
    }

    /// Bars from the peak of the deepest fall to its recovery, or to the last bar; 0 without a fall.
    pub fn duration_bars(&self) -> i64 {
        self.deepest.map_or(0, |episode| episode.recovered_at.unwrap_or(self.next_index - 1) - episode.peak_index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use pulp::WithSimd;

    use super::*;
    use crate::simd::gather_lanes;

    struct Lanes<'e>(Drawdown, &'e [f64]);

    impl WithSimd for Lanes<'_> {
        type Output = Drawdown;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Drawdown {
            let Self(mut drawdown, equity) = self;
            let mut below = Below::new(simd);
            for chunk in equity.chunks(S::F64_LANES) {
                let lanes = gather_lanes(|lane| chunk.get(lane).copied().unwrap_or(f64::NAN));
                drawdown.push_lanes(simd, &mut below, lanes, chunk.len());
            }
            drawdown.push_gathered(simd, &mut below);
            drawdown
        }
    }

    proptest! {
        #[test]
        fn prop_lanes_are_bars_one_by_one(
            initial in prop_oneof![Just(0.0), Just(-3.0), 90.0..110.0],
            runs in vec(vec(prop_oneof![(-6..6_i32).prop_map(|x| f64::from(x) + 100.0), 80.0..120.0, -5.0..5.0], 0..40), 1..6),
        ) {
            let mut plain = Drawdown::new(initial);
            let facts = |x: &Drawdown| (x.high_water(), x.max_relative(), x.max_absolute(), x.duration_bars());
            let mut wide = crate::simd::on_all_widths(|| Lanes(plain, &[]));
            for run in &runs {
                run.iter().for_each(|equity| plain.push(*equity));
                let mut before = wide.into_iter();
                wide = crate::simd::on_all_widths(|| Lanes(before.next().unwrap(), run));
                for found in &wide {
                    prop_assert_eq!(facts(found), facts(&plain));
                }
            }
        }
    }

    /// metrics-and-outputs §3, table.
    #[test]
    fn golden_table() {
        let cases: [(&[f64], f64, f64, f64, i64); 9] = [
            (&[10000., 10000., 10000.], 10000., 0., 0., 0),
            (&[10000., 9000., 10000.], 10000., 0.1, 1000., 2),
            (&[10000., 9500., 9000., 8500.], 10000., 0.15, 1500., 3),
            (&[10000., 9500., 10500., 9450., 10500.], 10000., 0.1, 1050., 2),
            (&[9990., 10000., 10100.], 10000., 0.001, 10., 2),
            (&[9990., 9980.], 10000., 0.002, 20., 2),
            (&[10000., 10100., 10050., 10100., 9900., 9950., 10100., 10200.], 10000., 0.019802, 200., 3),
            (&[10000., 12000., 11400., 11400., 11400., 11400., 12000., 10800., 12000.], 10000., 0.1, 1200., 2),
            (&[100., -50.], 100., 1., 150., 1),
        ];
        for (equity, initial, relative, absolute, duration) in cases {
            let mut drawdown = Drawdown::new(initial);
            equity.iter().for_each(|e| drawdown.push(*e));
            assert!((drawdown.max_relative() - relative).abs() < 5e-7, "{equity:?}");
            assert_eq!(drawdown.max_absolute(), absolute, "{equity:?}");
            assert_eq!(drawdown.duration_bars(), duration, "{equity:?}");
        }
    }
}
