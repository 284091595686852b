//! From the name of a column to its values on the primary bars, and to the history it needs.

use crate::data::{Bars, MarketData, Quotes};
use crate::error::Error;
use crate::units::Timeframe;

use super::cache::Column;
use super::dmi::{Movement, adx, directional};
use super::ewm::{ema, macd_line, macd_signal};
use super::garch::{garch_sigma, kalman_garch_z, mask_min_periods, returns};
use super::kalman::kalman_mean;
use super::key::{ColumnKey, HtfMethod, Series};
use super::momentum::{roc, rsi};
use super::mtf::{MtfOptions, carried, read_at, reduced, update_points, visible_bars};
use super::range::{atr, choppiness, true_range};
use super::rolling::{delayed, rolling_max, rolling_mean, rolling_min, rolling_sd};
use super::zscore::residual_z;

/// Values of a column, one per primary bar of `market`.
///
/// A timeframe other than the primary one is computed on its own bars, its warm-up history included, and read at the
/// visible bar (`Native`), or computed on the reduced series of visible bars and carried forward (`Stepwise`; prices
/// themselves are not carried). A value at `i` depends on bars up to `i` only.
///
/// # Errors
/// [`Error::IndicatorNotAvailable`] if the bars of the timeframe are not loaded.
pub fn compute(key: &ColumnKey, market: &MarketData, options: &MtfOptions) -> Result<Vec<f64>, Error> {
    let bars = bars_of(key, market)?;
    let quotes = bars.side(key.side);
    Ok(if key.timeframe == market.bars.timeframe {
        evaluate_alone(key.series, quotes)
    } else {
        of_other_timeframe(key, market, bars, options)
    })
}

pub(super) fn bars_of<'a>(key: &ColumnKey, market: &'a MarketData) -> Result<&'a Bars, Error> {
    market.timeframe(key.timeframe).ok_or_else(|| Error::IndicatorNotAvailable {
        column: key.to_string(),
        timeframe: key.timeframe,
        reason: format!("no {} bars are loaded", key.timeframe),
    })
}

pub(super) fn of_other_timeframe(key: &ColumnKey, market: &MarketData, bars: &Bars, options: &MtfOptions) -> Vec<f64> {
    let visible = visible_bars(&market.bars, bars, options);
    let quotes = bars.side(key.side);
    let is_price = matches!(key.series, Series::Open | Series::High | Series::Low | Series::Close);
    match key.method {
        HtfMethod::Stepwise if !is_price => {
            let points = update_points(&visible);
            let values = evaluate_alone(key.series, &reduced(quotes, &visible, &points));
            carried(&values, &points, visible.len())
        }
        HtfMethod::Native | HtfMethod::Stepwise => read_at(&visible, &evaluate_alone(key.series, quotes)),
    }
}

fn evaluate_alone(series: Series, quotes: &Quotes) -> Vec<f64> {
    evaluate(series, quotes, &|inner| Column::from(evaluate_alone(inner, quotes)))
}

/// Values of `series` on the bars of `quotes`. `inner` gives a series this one is built of, on the same bars: computed
/// afresh or remembered, the values are the same.
pub(super) fn evaluate(series: Series, quotes: &Quotes, inner: &dyn Fn(Series) -> Column) -> Vec<f64> {
    let Quotes { high, low, close, .. } = quotes;
    let ranges = || true_range(high, low, close);
    match series {
        Series::Open => quotes.open.to_vec(),
        Series::High => high.to_vec(),
        Series::Low => low.to_vec(),
        Series::Close => close.to_vec(),
        Series::Sma(n) | Series::RollingMean(n) => rolling_mean(close, n),
        Series::Ema(n) => ema(close, n),
        Series::Atr(n) => atr(&ranges(), n),
        Series::RollingSd(n) => rolling_sd(close, n),
        Series::ZRolling { window } => residual_z(close, &inner(Series::Sma(window)), window),
        Series::ZEma { window, ema } => residual_z(close, &inner(Series::Ema(ema)), window),
        Series::KalmanMean { r, q } => kalman_mean(close, r.get(), q.get()),
        Series::KalmanZ { window, r, q } => residual_z(close, &inner(Series::KalmanMean { r, q }), window),
        Series::Return { log, scale } => returns(close, log, scale.get()),
        Series::GarchSigma { garch, min_periods: 0 } => {
            garch_sigma(&inner(Series::Return { log: garch.log_returns, scale: garch.scale }), &garch, 0)
        }
        Series::GarchSigma { garch, min_periods } => {
            mask_min_periods(&inner(Series::GarchSigma { garch, min_periods: 0 }), min_periods)
        }
        Series::KalmanGarchZ { r, q, garch, min_periods } => {
            let sigma = inner(Series::GarchSigma { garch, min_periods: 0 });
            let mean = inner(Series::KalmanMean { r, q });
            mask_z(kalman_garch_z(close, &mean, &sigma), &sigma, min_periods)
        }
        Series::Rsi(n) => rsi(close, n),
        Series::MacdLine { fast, slow } => macd_line(&inner(Series::Ema(fast)), &inner(Series::Ema(slow))),
        Series::MacdSignal { fast, slow, signal } => macd_signal(&inner(Series::MacdLine { fast, slow }), signal),
        Series::Roc(n) => roc(close, n),
        Series::DiPlus(n) => directional(high, low, &ranges(), n, Movement::Plus),
        Series::DiMinus(n) => directional(high, low, &ranges(), n, Movement::Minus),
        Series::Adx(n) => adx(&inner(Series::DiPlus(n)), &inner(Series::DiMinus(n)), n),
        Series::Choppiness(n) => choppiness(&ranges(), high, low, n),
        Series::ChannelHigh(n) => delayed(rolling_max(high, n)),
        Series::ChannelLow(n) => delayed(rolling_min(low, n)),
        Series::HighestHigh(n) => rolling_max(high, n),
        Series::LowestLow(n) => rolling_min(low, n),
    }
}

/// A z is undefined where its deviation is masked.
fn mask_z(mut z: Vec<f64>, sigma: &[f64], min_periods: u32) -> Vec<f64> {
    let first = sigma.iter().position(|value| !value.is_nan()).unwrap_or(sigma.len());
    let masked = first.saturating_add(min_periods as usize).min(z.len());
    z[..masked].fill(f64::NAN);
    z
}

/// First index at which the series is defined on data without gaps.
///
/// Where it depends on the data, the earliest possible: RSI and ADX are defined from the first change on.
pub fn first_index(series: &Series) -> usize {
    let before = |n: u32| (n as usize).saturating_sub(1);
    match *series {
        Series::Open | Series::High | Series::Low | Series::Close => 0,
        Series::Ema(_) | Series::KalmanMean { .. } | Series::MacdLine { .. } | Series::MacdSignal { .. } => 0,
        Series::DiPlus(_) | Series::DiMinus(_) => 0,
        Series::Sma(n) | Series::RollingMean(n) | Series::RollingSd(n) => before(n),
        Series::Atr(n) | Series::Choppiness(n) => before(n),
        Series::HighestHigh(n) | Series::LowestLow(n) => before(n),
        Series::ZRolling { window } => 2 * before(window),
        Series::ZEma { window, .. } | Series::KalmanZ { window, .. } => before(window),
        Series::Return { .. } | Series::Rsi(_) | Series::Adx(_) => 1,
        Series::GarchSigma { min_periods, .. } | Series::KalmanGarchZ { min_periods, .. } => 1 + min_periods as usize,
        Series::Roc(n) | Series::ChannelHigh(n) | Series::ChannelLow(n) => n as usize,
    }
}

/// Smallest `warmup_bars` with which every column is defined on the first tradable bar: the first index on the primary
/// timeframe, one more on any other, whose last bar may not have ended.
pub fn warmup_needed(keys: &[ColumnKey], primary: Timeframe) -> usize {
    keys.iter().map(|key| needed_by(key, primary)).max().unwrap_or(0)
}

fn needed_by(key: &ColumnKey, primary: Timeframe) -> usize {
    first_index(&key.series) + usize::from(key.timeframe != primary)
}

/// Refuses a setting whose columns are not all defined on the first tradable bar. Variant `v2` only; late guards are
/// evaluated where they are defined and need no check.
///
/// # Errors
/// [`Error::WarmupTooShort`] naming the column that needs most.
pub fn check_warmup(keys: &[ColumnKey], primary: Timeframe, warmup_bars: usize) -> Result<(), Error> {
    let needed = warmup_needed(keys, primary);
    if needed <= warmup_bars {
        return Ok(());
    }
    // The first in the given order that needs most, so that the message depends on the setting alone.
    match keys.iter().find(|key| needed_by(key, primary) == needed) {
        None => Ok(()),
        Some(key) => Err(Error::WarmupTooShort {
            column: key.to_string(),
            timeframe: key.timeframe,
            first_index: first_index(&key.series),
            warmup_bars,
            needed,
        }),
    }
}
