//! What a walk-forward says about itself: efficiency, consistency, concentration, and how sure its daily returns are.
//! Source: statistical-validity specification §1, §2, §12.

use std::f64::consts::FRAC_1_SQRT_2;

/// Profit and length of the two parts of one window; both of the chosen setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Earned {
    /// Net profit in sample, account currency.
    pub in_sample: f64,
    /// Calendar days of the train part, > 0.
    pub in_sample_days: f64,
    /// Net profit out of sample, account currency.
    pub out_of_sample: f64,
    /// Calendar days of the test part, > 0.
    pub out_of_sample_days: f64,
}

impl Earned {
    /// `(P_oos/D_oos)/(P_is/D_is)`; none if `P_is ≤ 0`. Pardo (2008), the chapter on walk-forward analysis.
    pub fn efficiency(&self) -> Option<f64> {
        efficiency(std::slice::from_ref(self))
    }
}

/// `(ΣP_oos/ΣD_oos)/(ΣP_is/ΣD_is)` over windows that made a choice; none if the denominator is not above 0.
/// Pardo (2008), the chapter on walk-forward analysis.
pub fn efficiency(windows: &[Earned]) -> Option<f64> {
    let sum = |part: fn(&Earned) -> f64| windows.iter().map(part).sum::<f64>();
    let per_day_in = sum(|w| w.in_sample) / sum(|w| w.in_sample_days);
    let per_day_out = sum(|w| w.out_of_sample) / sum(|w| w.out_of_sample_days);
    (per_day_in > 0.0).then(|| per_day_out / per_day_in)
}

/// Share of windows with a profit out of sample, those without a choice or a trade included; none without a window.
pub fn consistency(profits: &[f64]) -> Option<f64> {
    let winning = profits.iter().filter(|profit| **profit > 0.0).count();
    (!profits.is_empty()).then(|| winning as f64 / profits.len() as f64)
}

/// Largest positive profit over the sum of the positive ones; none where no window earned anything.
pub fn concentration(profits: &[f64]) -> Option<f64> {
    let largest = profits.iter().copied().fold(0.0, f64::max);
    let sum: f64 = profits.iter().filter(|profit| **profit > 0.0).sum();
    (largest > 0.0).then(|| largest / sum)
}

/// Daily returns on the initial balance, described.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Daily {
    /// Days with at least one bar.
    pub days: u64,
    /// Mean over sample deviation, per day; 0 where nothing varies around 0; none with fewer than 2 days or with equal
    /// returns that are not 0.
    pub sharpe: Option<f64>,
    /// `m3/m2^1.5`.
    pub skew: Option<f64>,
    /// `m4/m2²`, 3 for a normal distribution.
    pub kurt: Option<f64>,
    /// Probability that the true Sharpe ratio is above 0.
    pub psr: Option<f64>,
    /// `SR·√n`.
    pub t: Option<f64>,
}

impl Daily {
    /// Describes returns, two passes. "No variation" is judged relative to the size of the returns.
    pub fn of(returns: &[f64]) -> Self {
        let n = returns.len() as f64;
        let days = returns.len() as u64;
        if returns.len() < 2 {
            return Self { days, ..Self::default() };
        }
        let mean = returns.iter().sum::<f64>() / n;
        let (mut m2, mut m3, mut m4, mut size) = (0.0, 0.0, 0.0, 0.0);
        for x in returns {
            let d = x - mean;
            m2 += d * d;
            m3 += d * d * d;
            m4 += d * d * d * d;
            size += x * x;
        }
        if m2 <= 1e-20 * size {
            let sharpe = (size == 0.0).then_some(0.0);
            return Self { days, sharpe, t: sharpe, ..Self::default() };
        }
        let sharpe = mean / (m2 / (n - 1.0)).sqrt();
        let (m2, m3, m4) = (m2 / n, m3 / n, m4 / n);
        let (skew, kurt) = (m3 / (m2 * m2.sqrt()), m4 / (m2 * m2));
        Self {
            days,
            sharpe: Some(sharpe),
            skew: Some(skew),
            kurt: Some(kurt),
            psr: probabilistic_sharpe(sharpe, 0.0, n, skew, kurt),
            t: Some(sharpe * n.sqrt()),
        }
    }
}

/// `Φ((SR − SR0)·√(n−1) / √(1 − γ3·SR + (γ4−1)/4·SR²))`; none where the root's argument is below 1e-12.
///
/// `sharpe`, `benchmark`: per period; `n`: periods; `skew` γ3; `kurt` γ4, not in excess of 3.
///
/// Bailey and López de Prado (2012), The Sharpe ratio efficient frontier, §3.
pub fn probabilistic_sharpe(sharpe: f64, benchmark: f64, n: f64, skew: f64, kurt: f64) -> Option<f64> {
    let bracket = 1.0 - skew * sharpe + (kurt - 1.0) / 4.0 * sharpe * sharpe;
    (bracket >= 1e-12).then(|| normal_cdf((sharpe - benchmark) * (n - 1.0).sqrt() / bracket.sqrt()))
}

/// Φ, through `erfc`, accurate in both tails.
fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean rank. None with fewer than 3 pairs or
/// where one side does not vary. Spearman (1904), American Journal of Psychology 15, 72–101.
pub fn rank_correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() < 3 || a.len() != b.len() {
        return None;
    }
    let (a, b) = (mean_ranks(a), mean_ranks(b));
    // Ranks always have this mean.
    let mean = (a.len() as f64 + 1.0) / 2.0;
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(&b) {
        ab += (x - mean) * (y - mean);
        aa += (x - mean) * (x - mean);
        bb += (y - mean) * (y - mean);
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

fn mean_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|i, j| values[*i].total_cmp(&values[*j]).then(i.cmp(j)));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let tied = order[from..].iter().take_while(|i| values[**i] == values[order[from]]).count();
        let rank = (2 * from + tied + 1) as f64 / 2.0;
        order[from..from + tied].iter().for_each(|i| ranks[*i] = rank);
        from += tied;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: Option<f64>, expected: f64) {
        // Six decimals are given in the specification.
        assert!((found.unwrap() - expected).abs() < 5e-7, "{found:?} is not {expected}");
    }

    /// statistical-validity §12, the example of five windows.
    #[test]
    fn efficiency_consistency_and_concentration_of_the_specification() {
        let profits = [(5200.0, 900.0), (4100.0, -300.0), (6300.0, 1500.0), (2500.0, 700.0), (-400.0, 250.0)];
        let windows = profits.map(|(in_sample, out_of_sample)| Earned {
            in_sample,
            in_sample_days: 180.0,
            out_of_sample,
            out_of_sample_days: 60.0,
        });
        let each = windows.map(|window| window.efficiency());
        for (found, expected) in each.iter().zip([0.519231, -0.219512, 0.714286, 0.84]) {
            near(*found, expected);
        }
        assert_eq!(each[4], None);
        near(efficiency(&windows), 0.516949);
        let out = windows.map(|window| window.out_of_sample);
        assert_eq!(consistency(&out), Some(0.8));
        near(concentration(&out), 0.447761);
    }

    #[test]
    fn nothing_is_reckoned_from_nothing() {
        assert_eq!((efficiency(&[]), consistency(&[]), concentration(&[])), (None, None, None));
        assert_eq!((consistency(&[0.0, -1.0]), concentration(&[0.0, -1.0])), (Some(0.0), None));
        assert_eq!(Daily::of(&[0.1]), Daily { days: 1, ..Daily::default() });
        let flat = Daily::of(&[0.0; 5]);
        assert_eq!((flat.sharpe, flat.psr), (Some(0.0), None));
        assert_eq!(Daily::of(&[0.001; 5]).sharpe, None);
    }

    /// statistical-validity §2.2, the published example of 24 months.
    #[test]
    fn probability_of_a_sharpe_ratio_above_zero() {
        let monthly = 1.585 / 12.0_f64.sqrt();
        near(probabilistic_sharpe(monthly, 0.0, 24.0, -2.448, 10.164), 0.913234);
        near(probabilistic_sharpe(monthly, 0.0, 24.0, 0.0, 3.0), 0.981591);
    }

    #[test]
    fn moments_of_daily_returns() {
        // By hand: mean 0.5, deviations ±0.5, ±1.5; m2 = 1.25, m4 = 2.5625.
        let daily = Daily::of(&[-1.0, 0.0, 1.0, 2.0]);
        assert_eq!((daily.days, daily.skew), (4, Some(0.0)));
        near(daily.kurt, 2.5625 / 1.5625);
        near(daily.sharpe, 0.5 / (5.0_f64 / 3.0).sqrt());
        near(daily.t, 2.0 * 0.5 / (5.0_f64 / 3.0).sqrt());
    }

    #[test]
    fn rank_correlation_knows_ties() {
        assert_eq!(rank_correlation(&[1.0, 2.0, 3.0], &[10.0, 20.0, 90.0]), Some(1.0));
        assert_eq!(rank_correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        // Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / √(4.5 · 5).
        near(rank_correlation(&[1.0, 2.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0]), 4.5 / 22.5_f64.sqrt());
        assert_eq!(rank_correlation(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(rank_correlation(&[1.0, 2.0], &[1.0, 2.0]), None);
    }
}
