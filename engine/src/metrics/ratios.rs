//! Sharpe, Sortino and Calmar ratios in one pass, without memory.

use pulp::{Scalar, Simd};

use crate::simd::lanes;
use crate::units::{DAY_NS, EpochNs};

lanes! {
    /// Sample moments around a fixed offset `c`: `a = Σ(x−c)`, `b = Σ(x−c)²`, and `Σ min(x,0)²`, summed in order.
    ///
    /// `μ = c + a/m`, `σ² = (b − a²/m)/(m−1)`, taken as 0 when `b − a²/m ≤ 1e−12·b`. Safe because neither mean is large
    /// against its deviation. Source: metrics specification §4.
    pub(crate) struct Moments {
        offset: f64s,
        count: u64s,
        a: f64s,
        b: f64s,
        downside: f64s,
    }
}

impl<S: Simd> Moments<S> {
    /// Takes the next value.
    #[inline(always)]
    pub(crate) fn push(&mut self, simd: S, x: S::f64s) {
        let zero = simd.splat_f64s(0.0);
        let d = simd.sub_f64s(x, self.offset);
        self.count = simd.add_u64s(self.count, simd.splat_u64s(1));
        self.a = simd.add_f64s(self.a, d);
        self.b = simd.add_f64s(self.b, simd.mul_f64s(d, d));
        let loss = simd.select_f64s(simd.less_than_f64s(x, zero), x, zero);
        self.downside = simd.add_f64s(self.downside, simd.mul_f64s(loss, loss));
    }

    /// Takes the next value of trade results, whose offset is the first of them.
    #[inline(always)]
    pub(crate) fn push_from_first(&mut self, simd: S, x: S::f64s) {
        let first = simd.equal_u64s(self.count, simd.splat_u64s(0));
        self.offset = simd.select_f64s(first, x, self.offset);
        self.push(simd, x);
    }

    /// Takes `count` zeros; the offset is 0, so no sum changes.
    #[inline(always)]
    fn push_zeros(&mut self, simd: S, count: S::u64s) {
        self.count = simd.add_u64s(self.count, count);
    }
}

impl Moments {
    /// Nothing yet, with offset `c`: 0 for daily returns.
    pub(crate) const fn new(offset: f64) -> Self {
        Self { offset, count: 0, a: 0.0, b: 0.0, downside: 0.0 }
    }

    /// Values taken.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// `f·μ/σ`; none if fewer than 2 values or σ = 0. Sharpe (1994), J. Portfolio Management 21(1), 49–58.
    pub(crate) fn sharpe(&self, factor: f64) -> Option<f64> {
        let m = self.count as f64;
        let spread = self.b - self.a * self.a / m;
        if self.count < 2 || spread <= 1e-12 * self.b {
            return None;
        }
        Some(factor * self.mean() / (spread / (m - 1.0)).sqrt())
    }

    /// `f·μ/δ`, `δ² = Σ min(x,0)²/m` over all values; none if fewer than 2 values or δ = 0.
    pub(crate) fn sortino(&self, factor: f64) -> Option<f64> {
        if self.count < 2 || self.downside == 0.0 {
            return None;
        }
        Some(factor * self.mean() / (self.downside / self.count as f64).sqrt())
    }

    fn mean(&self) -> f64 {
        self.offset + self.a / self.count as f64
    }
}

/// Returns from day end to day end: last equity of each UTC day that has rows; the first day yields none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DailyReturns {
    /// Bounds of the running day; empty before the first bar.
    day: (EpochNs, EpochNs),
    last: f64,
    ends: DayEnds,
}

impl Default for DailyReturns {
    fn default() -> Self {
        Self { day: (0, 0), last: 0.0, ends: DayEnds::default() }
    }
}

lanes! {
    /// [`DailyReturns`] for those who know where days end.
    pub(crate) struct DayEnds {
        /// Last equity of the day before; NaN on the first day.
        previous: f64s,
        ..moments: Moments,
    }
}

impl Default for DayEnds {
    fn default() -> Self {
        Self { previous: f64::NAN, moments: Moments::new(0.0) }
    }
}

impl<S: Simd> DayEnds<S> {
    /// Takes the last equity of the next day where `ended`.
    #[inline(always)]
    pub(crate) fn push(&mut self, simd: S, ended: S::m64s, equity: S::f64s) {
        let defined = simd.less_than_f64s(simd.splat_f64s(0.0), self.previous);
        let mut moments = self.moments;
        moments.push(simd, simd.div_f64s(simd.sub_f64s(equity, self.previous), self.previous));
        self.moments = Moments::select(simd, simd.and_m64s(ended, defined), moments, self.moments);
        self.previous = simd.select_f64s(ended, equity, self.previous);
    }

    /// Takes `days` further days that end at the equity of the last one.
    #[inline(always)]
    pub(crate) fn push_unchanged(&mut self, simd: S, days: S::u64s) {
        let defined = simd.less_than_f64s(simd.splat_f64s(0.0), self.previous);
        self.moments.push_zeros(simd, simd.select_u64s(defined, days, simd.splat_u64s(0)));
    }

    /// The moments of all returns.
    pub(crate) fn finish(self) -> Moments<S> {
        self.moments
    }
}

impl DailyReturns {
    /// Takes the equity of the next bar, stamped with its open time.
    #[inline]
    pub fn push(&mut self, time_ns: EpochNs, equity: f64) {
        // A division per bar would be the dearest step of a bar without a position.
        if time_ns < self.day.0 || time_ns >= self.day.1 {
            self.begin_day(time_ns);
        }
        self.last = equity;
    }

    fn begin_day(&mut self, time_ns: EpochNs) {
        self.end_day();
        let start = time_ns - time_ns.rem_euclid(DAY_NS);
        self.day = (start, start + DAY_NS);
    }

    /// Closes the last day and hands out the moments of all returns.
    pub(crate) fn finish(mut self) -> Moments {
        self.end_day();
        self.ends.finish()
    }

    fn end_day(&mut self) {
        if self.day.0 != self.day.1 {
            self.ends.push(Scalar::new(), true, self.last);
        }
    }
}

/// Annualised growth over the largest relative drawdown; none where the artefacts say 0: fewer than two bars, no
/// drawdown, a first equity ≤ 0, no time span.
///
/// `g = (E_last − E_first)/E_first`, `y` years of 365.25 days; `(1+g)^{1/y} − 1` if `y ≥ 1` (−1 if `1+g ≤ 0`), else
/// `g/y`. Source: metrics specification §5.
pub fn calmar(first: (EpochNs, f64), last: (EpochNs, f64), bars: u64, max_drawdown: f64) -> Option<f64> {
    const YEAR_NS: f64 = 365.25 * 86_400e9;
    let years = (last.0 - first.0) as f64 / YEAR_NS;
    if bars < 2 || max_drawdown == 0.0 || first.1 <= 0.0 || years <= 0.0 {
        return None;
    }
    let growth = (last.1 - first.1) / first.1;
    let annualised = if years < 1.0 {
        growth / years
    } else if 1.0 + growth <= 0.0 {
        -1.0
    } else {
        libm::pow(1.0 + growth, 1.0 / years) - 1.0
    };
    Some(annualised / max_drawdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// metrics-and-outputs §5, table.
    #[test]
    fn calmar_golden_table() {
        let cases = [
            (10_000., 10_100., 90., 0.02, 2.029167),
            (10_000., 12_100., 730.5, 0.05, 2.0),
            (10_000., 10_500., 365.25, 0.1, 0.5),
            (10_000., 9_000., 365.25, 0.2, -0.5),
        ];
        for (first, last, days, drawdown, expected) in cases {
            let end = (days * 86_400e9) as i64;
            let ratio = calmar((0, first), (end, last), 2, drawdown).unwrap();
            assert!((ratio - expected).abs() < 5e-7, "{ratio} against {expected}");
        }
        assert_eq!(calmar((0, 1.0), (1, 2.0), 2, 0.0), None);
    }

    #[test]
    fn returns_before_1970_belong_to_their_own_day() {
        let mut returns = DailyReturns::default();
        returns.push(-1, 100.0);
        returns.push(0, 110.0);
        assert_eq!(returns.finish().count(), 1);
    }

    #[test]
    fn values_without_variation_have_no_sharpe() {
        let mut moments = Moments::new(0.1);
        (0..50).for_each(|_| moments.push(Scalar::new(), 0.1 + 0.2));
        assert_eq!(moments.sharpe(1.0), None);
    }
}
