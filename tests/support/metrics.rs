//! The metrics of a run once more, slowly: two passes, vectors, nothing shared with the engine but names.

use std::collections::{BTreeMap, BTreeSet};

use engine::backtest::walk::EquityPoint;
use engine::metrics::{Counters, MetricValues};
use engine::portfolio::Trade;
use engine::units::{DAY_NS, Direction};

/// What metrics are made of.
pub(crate) struct Facts<'a> {
    pub(crate) trades: &'a [Trade],
    pub(crate) equity: &'a [EquityPoint],
    pub(crate) counters: &'a Counters,
    pub(crate) initial_balance: f64,
    pub(crate) risk: f64,
    /// Fees of entries still open at the end.
    pub(crate) open_entry_fees: f64,
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn sharpe(values: &[f64], factor: f64) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() >= 2)?;
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    let level: f64 = values.iter().map(|x| x * x).sum();
    let varies = squares > 1e-12 * level;
    varies.then(|| factor * mean / (squares / (values.len() - 1) as f64).sqrt())
}

fn sortino(values: &[f64], factor: f64) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() >= 2)?;
    let losses: f64 = values.iter().map(|x| x.min(0.0) * x.min(0.0)).sum();
    (losses > 0.0).then(|| factor * mean / (losses / values.len() as f64).sqrt())
}

/// Relative fall, absolute fall and duration of the deepest relative one, by the definition of metrics §3.
fn drawdown(equity: &[f64], initial: f64) -> (f64, f64, f64) {
    let mut peak = initial;
    let peaks: Vec<f64> = equity
        .iter()
        .map(|e| {
            peak = peak.max(*e);
            peak
        })
        .collect();
    let falls: Vec<f64> = equity.iter().zip(&peaks).map(|(e, h)| if *h > 0.0 { (h - e) / h } else { 0.0 }).collect();
    let deepest = falls.iter().copied().fold(0.0, f64::max);
    let absolute = equity.iter().zip(&peaks).map(|(e, h)| h - e).fold(0.0, f64::max);
    let Some(at) = falls.iter().position(|fall| *fall == deepest).filter(|_| deepest > 0.0) else {
        return (0.0, absolute, 0.0);
    };
    let from = (0..=at).rev().find(|j| equity[*j] >= peaks[at]).map_or(-1, |j| j as i64);
    let to = (at + 1..equity.len()).find(|j| equity[*j] >= peaks[at]).unwrap_or(equity.len() - 1) as i64;
    (deepest.min(1.0), absolute, (to - from) as f64)
}

fn day_ends(equity: &[EquityPoint]) -> Vec<f64> {
    let mut ends: BTreeMap<i64, f64> = BTreeMap::new();
    for point in equity {
        ends.insert(point.time_ns.div_euclid(DAY_NS), point.equity);
    }
    ends.into_values().collect()
}

fn calmar(equity: &[EquityPoint], deepest: f64) -> Option<f64> {
    let (first, last) = (equity.first()?, equity.last()?);
    let years = (last.time_ns - first.time_ns) as f64 / (365.25 * DAY_NS as f64);
    if equity.len() < 2 || deepest == 0.0 || first.equity <= 0.0 || years <= 0.0 {
        return None;
    }
    // No generated run is a year long.
    assert!(years < 1.0, "{years} years");
    Some((last.equity / first.equity - 1.0) / years / deepest)
}

/// Every metric of the catalogue by key.
pub(crate) fn recompute(facts: &Facts<'_>) -> BTreeMap<&'static str, Option<f64>> {
    let Facts { trades, equity, counters, .. } = facts;
    let results: Vec<f64> = trades.iter().map(|trade| trade.result).collect();
    let won: Vec<f64> = results.iter().copied().filter(|r| *r > 0.0).collect();
    let lost: Vec<f64> = results.iter().filter(|r| **r < 0.0).map(|r| -r).collect();
    let rs: Vec<f64> = results.iter().map(|r| r / facts.risk).collect();
    let stops: Vec<f64> = trades.iter().filter_map(|trade| trade.r_multiple).collect();
    let holds: Vec<f64> = trades.iter().map(|trade| (trade.exit_bar - trade.entry_bar) as f64).collect();
    let n = trades.len() as f64;
    let fees = trades.iter().map(|trade| trade.entry_fee + trade.exit_fee).sum::<f64>() + facts.open_entry_fees;
    let gross: f64 = results.iter().sum();
    let any = |value: f64| (n > 0.0).then_some(value);
    let days: BTreeSet<i64> = trades.iter().map(|trade| trade.entry_time_ns.div_euclid(DAY_NS)).collect();
    let values: Vec<f64> = equity.iter().map(|point| point.equity).collect();
    let (relative, absolute, duration) = drawdown(&values, facts.initial_balance);
    let ends = day_ends(equity);
    let daily: Vec<f64> =
        ends.windows(2).filter(|pair| pair[0] > 0.0).map(|pair| (pair[1] - pair[0]) / pair[0]).collect();
    let streak = results.split(|r| *r >= 0.0).map(<[f64]>::len).max().unwrap_or(0);
    let largest = |of: &[f64]| of.iter().copied().reduce(f64::max);
    let count = |n: usize| Some(n as f64);
    BTreeMap::from([
        ("total_trades", Some(n)),
        ("wins", count(won.len())),
        ("losses", count(lost.len())),
        ("win_rate", any(won.len() as f64 / n)),
        ("profit_gross", Some(gross)),
        ("fees_total", Some(fees)),
        ("profit_net", Some(gross - fees)),
        ("avg_trade_pnl", any((gross - fees) / n)),
        ("avg_win", mean(&won)),
        ("avg_loss", mean(&lost)),
        ("largest_win", largest(&won)),
        ("largest_loss", largest(&lost)),
        ("profit_factor", (!lost.is_empty()).then(|| won.iter().sum::<f64>() / lost.iter().sum::<f64>())),
        ("avg_r_multiple", mean(&rs)),
        ("expectancy", mean(&rs)),
        ("active_days", count(days.len())),
        ("trades_per_day", any(n / days.len() as f64)),
        ("max_drawdown", Some(relative)),
        ("max_drawdown_abs", Some(absolute)),
        ("max_drawdown_duration_bars", Some(duration)),
        ("calmar_ratio", calmar(equity, relative)),
        ("sharpe_trade_r", sharpe(&rs, 1.0)),
        ("sortino_trade_r", sortino(&rs, 1.0)),
        ("sharpe_equity_daily", sharpe(&daily, 252_f64.sqrt())),
        ("sortino_equity_daily", sortino(&daily, 252_f64.sqrt())),
        ("avg_r_stop", mean(&stops)),
        ("trades_long", count(trades.iter().filter(|trade| trade.direction == Direction::Long).count())),
        ("trades_short", count(trades.iter().filter(|trade| trade.direction == Direction::Short).count())),
        ("avg_hold_bars", mean(&holds)),
        ("exposure", Some(counters.exposed_bars as f64 / equity.len() as f64)),
        ("max_consecutive_losses", count(streak)),
        ("signals", Some(counters.signals as f64)),
        ("orders_rejected", Some(counters.orders_rejected as f64)),
        ("open_positions_at_end", Some(counters.open_positions_at_end as f64)),
    ])
}

/// Equal to `relative`; what is undefined here is undefined there. `scale` is what small differences are small to.
pub(crate) fn assert_agree(found: &MetricValues, expected: &BTreeMap<&'static str, Option<f64>>, relative: f64) {
    assert_eq!(expected.len(), engine::metrics::METRIC_COUNT, "a metric nobody recomputes");
    for (metric, value) in found.iter() {
        let key = metric.key();
        match (value, expected[key]) {
            (None, None) => {}
            (Some(found), Some(expected)) => {
                let scale = found.abs().max(expected.abs()).max(1e-3);
                assert!((found - expected).abs() <= relative * scale, "{key}: found {found}, recomputed {expected}");
            }
            (found, expected) => panic!("{key}: found {found:?}, recomputed {expected:?}"),
        }
    }
}
