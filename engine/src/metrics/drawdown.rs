//! The running peak of equity and the falls from it, bar by bar.

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
    /// Largest absolute fall since the running peak was reached.
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
    use super::*;

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
