//! Bars of other timeframes as seen from the primary ones: which bar is visible, and how its values are read.

use crate::data::{Bars, Quotes};
use crate::units::{EpochNs, Timeframe};

/// When higher-timeframe bars become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Visibility {
    /// Rule C: bars that ended at or before the close of the primary bar.
    Close,
    /// Rule O: bars that ended at or before the open of the primary bar.
    Open,
}

/// How long a bar of another timeframe counts after it first became visible (`v1_parity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StaleLimit {
    /// `max(1, 2·max(1, floor(D_h / Δ)))` primary bars: twice the nominal length.
    Automatic,
    /// This many primary bars.
    Bars(usize),
}

impl StaleLimit {
    /// Reads `stale_bar_limit_bars`, where 0 means automatic.
    pub fn from_bars(bars: usize) -> Self {
        if bars == 0 { Self::Automatic } else { Self::Bars(bars) }
    }

    fn bars(self, primary: Timeframe, other: Timeframe) -> usize {
        match self {
            Self::Bars(bars) => bars,
            Self::Automatic => {
                let ratio = (other.duration_ns() / primary.duration_ns()).max(1);
                usize::try_from(2 * ratio).unwrap_or(usize::MAX)
            }
        }
    }
}

/// How other timeframes are read. The default is that of variant `v2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MtfOptions {
    /// Rule C or O.
    pub visibility: Visibility,
    /// Timeframes whose stamps are close stamps (`v1_parity`, `higher_tf_timestamps_mode`).
    pub close_stamped: Vec<Timeframe>,
    /// None: a bar stays visible until the next one (`v2`).
    pub stale_limit: Option<StaleLimit>,
}

impl Default for MtfOptions {
    fn default() -> Self {
        Self { visibility: Visibility::Close, close_stamped: Vec::new(), stale_limit: None }
    }
}

/// In a result of [`visible_bars`]: no bar is visible, or it is stale.
pub const NO_BAR: u32 = u32::MAX;

/// Index of the bar of `other` visible at each primary bar, [`NO_BAR`] where there is none.
///
/// The visible bar at `i` is the largest `k` with `E_k <= c_i` (rule C, `c_i` the close instant) or `E_k <= t_i` (rule
/// O, `t_i` the open), where `E_k` is the bar's open plus its nominal length, or the stamp itself if the timeframe is
/// close-stamped. With a stale limit `l`, a bar that first became visible at `i₀` counts as missing when
/// `i − i₀ > l`. Result `[n]`, one index per primary bar.
pub fn visible_bars(primary: &Bars, other: &Bars, options: &MtfOptions) -> Vec<u32> {
    let length = if options.close_stamped.contains(&other.timeframe) { 0 } else { other.timeframe.duration_ns() };
    let offset = match options.visibility {
        Visibility::Close => primary.timeframe.duration_ns(),
        Visibility::Open => 0,
    };
    let limit = options.stale_limit.map(|limit| limit.bars(primary.timeframe, other.timeframe));
    let ends: &[EpochNs] = &other.open_time;
    let mut finished = 0;
    let mut visible_since = 0;
    let visible = primary.open_time.iter().enumerate().map(|(i, open)| {
        let instant = open.saturating_add(offset);
        let before = finished;
        while ends.get(finished).is_some_and(|stamp| stamp.saturating_add(length) <= instant) {
            finished += 1;
        }
        if finished != before {
            visible_since = i;
        }
        let stale = limit.is_some_and(|limit| i - visible_since > limit);
        match finished.checked_sub(1).map(u32::try_from) {
            Some(Ok(bar)) if !stale => bar,
            _ => NO_BAR,
        }
    });
    visible.collect()
}

/// Native reading: the value of the visible bar, NaN where there is none.
pub(super) fn read_at(visible: &[u32], values: &[f64]) -> Vec<f64> {
    visible.iter().map(|&bar| values.get(bar as usize).copied().unwrap_or(f64::NAN)).collect()
}

/// Primary bars at which the visible bar changes. Stretches without a bar are skipped and are no change.
pub(super) fn update_points(visible: &[u32]) -> Vec<usize> {
    let mut last = NO_BAR;
    let mut points = Vec::new();
    for (i, &bar) in visible.iter().enumerate() {
        if bar != NO_BAR && bar != last {
            points.push(i);
            last = bar;
        }
    }
    points
}

/// The bars visible at the update points: what the stepwise form computes on.
pub(super) fn reduced(quotes: &Quotes, visible: &[u32], points: &[usize]) -> Quotes {
    let pick = |values: &[f64]| -> Vec<f64> {
        points.iter().map(|&i| values.get(visible[i] as usize).copied().unwrap_or(f64::NAN)).collect()
    };
    Quotes {
        open: pick(&quotes.open).into(),
        high: pick(&quotes.high).into(),
        low: pick(&quotes.low).into(),
        close: pick(&quotes.close).into(),
        volume: pick(&quotes.volume).into(),
    }
}

/// Writes values of the reduced series at their update points and carries the last defined one forward.
pub(super) fn carried(values: &[f64], points: &[usize], len: usize) -> Vec<f64> {
    let mut out = vec![f64::NAN; len];
    let mut last = f64::NAN;
    for (n, &start) in points.iter().enumerate() {
        if !values[n].is_nan() {
            last = values[n];
        }
        let end = points.get(n + 1).copied().unwrap_or(len);
        out[start..end].fill(last);
    }
    out
}
