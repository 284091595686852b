//! Names of columns by content: two settings that need the same numbers name the same column.

use std::fmt;

use crate::units::{Bits, PriceSide, Timeframe};

/// Parameters of the GARCH(1,1) recursion. `min_periods` is not among them: it masks values, it does not change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GarchKey {
    /// Weight of the last squared shock, ≥ 0.
    pub alpha: Bits,
    /// Weight of the last variance, ≥ 0; `alpha + beta < 1`.
    pub beta: Bits,
    /// Constant term; `None` is automatic.
    pub omega: Option<Bits>,
    /// Log returns instead of simple ones.
    pub log_returns: bool,
    /// Factor applied to returns, > 0.
    pub scale: Bits,
    /// Smallest scaled deviation, ≥ 0.
    pub sigma_floor: Bits,
}

/// One indicator with exact parameters. Lengths are bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Series {
    /// Bar open.
    Open,
    /// Bar high.
    High,
    /// Bar low.
    Low,
    /// Bar close.
    Close,
    /// Simple moving average of the close.
    Sma(u32),
    /// Exponential moving average of the close, seeded with the first close.
    Ema(u32),
    /// Wilder's average true range.
    Atr(u32),
    /// Rolling mean of the close, all values required (the middle band; equals [`Series::Sma`]).
    RollingMean(u32),
    /// Rolling sample deviation of the close.
    RollingSd(u32),
    /// z-score around an SMA of the same window.
    ZRolling {
        /// Window of mean and deviation.
        window: u32,
    },
    /// z-score around an EMA.
    ZEma {
        /// Window of the residual deviation.
        window: u32,
        /// Period of the EMA.
        ema: u32,
    },
    /// Kalman mean of the close. Depends on `q / r` only, but keyed by both so that digits are those of a single run.
    KalmanMean {
        /// Measurement variance.
        r: Bits,
        /// Process variance.
        q: Bits,
    },
    /// z-score around the Kalman mean.
    KalmanZ {
        /// Window of the residual deviation.
        window: u32,
        /// Measurement variance.
        r: Bits,
        /// Process variance.
        q: Bits,
    },
    /// Returns of the close, as the GARCH recursion reads them.
    Return {
        /// Log returns instead of simple ones.
        log: bool,
        /// Factor applied, > 0.
        scale: Bits,
    },
    /// GARCH(1,1) deviation of returns; values before `1 + min_periods` are NaN.
    GarchSigma {
        /// The recursion.
        garch: GarchKey,
        /// Returns needed before the first value.
        min_periods: u32,
    },
    /// Distance of the close from the Kalman mean in units of the GARCH deviation.
    KalmanGarchZ {
        /// Measurement variance.
        r: Bits,
        /// Process variance.
        q: Bits,
        /// The recursion.
        garch: GarchKey,
        /// Returns needed before the first value.
        min_periods: u32,
    },
    /// Relative strength index.
    Rsi(u32),
    /// MACD line.
    MacdLine {
        /// Fast EMA period.
        fast: u32,
        /// Slow EMA period.
        slow: u32,
    },
    /// Signal line of the MACD.
    MacdSignal {
        /// Fast EMA period.
        fast: u32,
        /// Slow EMA period.
        slow: u32,
        /// Period of the signal EMA.
        signal: u32,
    },
    /// Rate of change in per cent.
    Roc(u32),
    /// Plus directional indicator.
    DiPlus(u32),
    /// Minus directional indicator.
    DiMinus(u32),
    /// Average directional index.
    Adx(u32),
    /// Choppiness index.
    Choppiness(u32),
    /// Highest high of the `length` bars before the bar (first index `length`).
    ChannelHigh(u32),
    /// Lowest low of the `length` bars before the bar (first index `length`).
    ChannelLow(u32),
    /// Highest high of the last `length` bars, the bar included (first index `length - 1`).
    HighestHigh(u32),
    /// Lowest low of the last `length` bars, the bar included (first index `length - 1`).
    LowestLow(u32),
}

/// How values of another timeframe come to the primary bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HtfMethod {
    /// `v2`: computed on all bars of the timeframe, read at the visible bar.
    Native,
    /// `v1_parity`: computed on the reduced series of visible closes and carried forward.
    Stepwise,
}

/// A column: one value per primary bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColumnKey {
    /// Timeframe whose bars are used.
    pub timeframe: Timeframe,
    /// Price side whose bars are used.
    pub side: PriceSide,
    /// The indicator.
    pub series: Series,
    /// How a timeframe other than the primary one is read. `Native` for the primary timeframe.
    pub method: HtfMethod,
}

impl ColumnKey {
    /// A column of the primary (or any natively read) timeframe.
    pub fn new(timeframe: Timeframe, side: PriceSide, series: Series) -> Self {
        Self { timeframe, side, series, method: HtfMethod::Native }
    }

    /// The same column on bid bars.
    pub fn bid(timeframe: Timeframe, series: Series) -> Self {
        Self::new(timeframe, PriceSide::Bid, series)
    }

    /// The same column on ask bars.
    pub fn ask(timeframe: Timeframe, series: Series) -> Self {
        Self::new(timeframe, PriceSide::Ask, series)
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Open => f.write_str("open"),
            Self::High => f.write_str("high"),
            Self::Low => f.write_str("low"),
            Self::Close => f.write_str("close"),
            Self::Sma(n) => write!(f, "sma({n})"),
            Self::Ema(n) => write!(f, "ema({n})"),
            Self::Atr(n) => write!(f, "atr({n})"),
            Self::RollingMean(n) => write!(f, "rolling_mean({n})"),
            Self::RollingSd(n) => write!(f, "rolling_sd({n})"),
            Self::ZRolling { window } => write!(f, "z_rolling({window})"),
            Self::ZEma { window, ema } => write!(f, "z_ema(window {window}, ema {ema})"),
            Self::KalmanMean { r, q } => write!(f, "kalman_mean(r {}, q {})", r.get(), q.get()),
            Self::KalmanZ { window, r, q } => {
                write!(f, "kalman_z(window {window}, r {}, q {})", r.get(), q.get())
            }
            Self::Return { log: true, scale } => write!(f, "log_return(scale {})", scale.get()),
            Self::Return { log: false, scale } => write!(f, "simple_return(scale {})", scale.get()),
            Self::GarchSigma { garch, min_periods } => {
                write!(
                    f,
                    "garch_sigma(alpha {}, beta {}, min_periods {min_periods})",
                    garch.alpha.get(),
                    garch.beta.get()
                )
            }
            Self::KalmanGarchZ { r, q, garch, min_periods } => write!(
                f,
                "kalman_garch_z(r {}, q {}, alpha {}, beta {}, min_periods {min_periods})",
                r.get(),
                q.get(),
                garch.alpha.get(),
                garch.beta.get()
            ),
            Self::Rsi(n) => write!(f, "rsi({n})"),
            Self::MacdLine { fast, slow } => write!(f, "macd_line({fast}, {slow})"),
            Self::MacdSignal { fast, slow, signal } => write!(f, "macd_signal({fast}, {slow}, {signal})"),
            Self::Roc(n) => write!(f, "roc({n})"),
            Self::DiPlus(n) => write!(f, "di_plus({n})"),
            Self::DiMinus(n) => write!(f, "di_minus({n})"),
            Self::Adx(n) => write!(f, "adx({n})"),
            Self::Choppiness(n) => write!(f, "choppiness({n})"),
            Self::ChannelHigh(n) => write!(f, "channel_high({n})"),
            Self::ChannelLow(n) => write!(f, "channel_low({n})"),
            Self::HighestHigh(n) => write!(f, "highest_high({n})"),
            Self::LowestLow(n) => write!(f, "lowest_low({n})"),
        }
    }
}

impl fmt::Display for ColumnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.series, self.timeframe, self.side)
    }
}
