//! Candle series of both quote sides, shared by reference and never copied per trial.

use arrow_buffer::ScalarBuffer;

use crate::units::{EpochNs, PriceSide, Timeframe};

/// Open, high, low and close of one quote side; all of the same length. Cloning shares the memory.
#[derive(Debug, Clone)]
pub struct Quotes {
    /// First price of the bar.
    pub open: ScalarBuffer<f64>,
    /// Highest price.
    pub high: ScalarBuffer<f64>,
    /// Lowest price.
    pub low: ScalarBuffer<f64>,
    /// Last price.
    pub close: ScalarBuffer<f64>,
    /// Volume as delivered.
    pub volume: ScalarBuffer<f64>,
}

impl Quotes {
    fn slice(&self, start: usize, len: usize) -> Self {
        Self {
            open: self.open.slice(start, len),
            high: self.high.slice(start, len),
            low: self.low.slice(start, len),
            close: self.close.slice(start, len),
            volume: self.volume.slice(start, len),
        }
    }
}

/// Aligned bid and ask bars of one symbol and timeframe, strictly increasing in time. Cloning shares the memory.
#[derive(Debug, Clone)]
pub struct Bars {
    /// Bar length.
    pub timeframe: Timeframe,
    /// Open times, epoch nanoseconds.
    pub open_time: ScalarBuffer<EpochNs>,
    /// Bid side.
    pub bid: Quotes,
    /// Ask side.
    pub ask: Quotes,
}

impl Bars {
    /// Number of bars.
    pub fn len(&self) -> usize {
        self.open_time.len()
    }

    /// True without a bar.
    pub fn is_empty(&self) -> bool {
        self.open_time.is_empty()
    }

    /// One side.
    pub fn side(&self, side: PriceSide) -> &Quotes {
        match side {
            PriceSide::Bid => &self.bid,
            PriceSide::Ask => &self.ask,
        }
    }

    /// Close instant of bar `i`: open time plus the nominal length.
    pub fn close_instant(&self, i: usize) -> EpochNs {
        self.open_time[i] + self.timeframe.duration_ns()
    }

    /// Bars `start .. start + len`, sharing memory.
    #[must_use]
    pub fn slice(&self, start: usize, len: usize) -> Self {
        Self {
            timeframe: self.timeframe,
            open_time: self.open_time.slice(start, len),
            bid: self.bid.slice(start, len),
            ask: self.ask.slice(start, len),
        }
    }

    /// The bars that have closed by `cut`.
    #[must_use]
    pub fn closed_by(&self, cut: EpochNs) -> Self {
        let length = self.timeframe.duration_ns();
        self.slice(0, self.open_time.partition_point(|open| open.saturating_add(length) <= cut))
    }

    /// Bars whose ask is moved away from the bid: `bid + m·(ask − bid)` for each of the four prices.
    /// `m = 1` shares the memory and changes no bit.
    #[must_use]
    pub fn with_spread_multiplier(&self, m: f64) -> Self {
        if m == 1.0 {
            return self.clone();
        }
        let widen = |bid: &[f64], ask: &[f64]| -> ScalarBuffer<f64> {
            bid.iter().zip(ask).map(|(b, a)| b + m * (a - b)).collect::<Vec<_>>().into()
        };
        let ask = Quotes {
            open: widen(&self.bid.open, &self.ask.open),
            high: widen(&self.bid.high, &self.ask.high),
            low: widen(&self.bid.low, &self.ask.low),
            close: widen(&self.bid.close, &self.ask.close),
            volume: self.ask.volume.clone(),
        };
        Self { ask, ..self.clone() }
    }
}

/// The bars of one backtest: the primary series and every higher (or lower) timeframe it reads.
#[derive(Debug, Clone)]
pub struct MarketData {
    /// Instrument, upper case.
    pub symbol: String,
    /// Primary bars: warm-up history followed by the window.
    pub bars: Bars,
    /// First tradable index of `bars`.
    pub first_tradable: usize,
    /// Other timeframes, each with its own warm-up history, in ascending order of length.
    pub others: Vec<Bars>,
}

impl MarketData {
    /// Bars of `timeframe`, if loaded.
    pub fn timeframe(&self, timeframe: Timeframe) -> Option<&Bars> {
        if self.bars.timeframe == timeframe {
            return Some(&self.bars);
        }
        self.others.iter().find(|bars| bars.timeframe == timeframe)
    }

    /// The same data without anything known only after `cut`: on every timeframe, the bars that have closed by then.
    /// The first tradable index stays, and may lie behind the end.
    #[must_use]
    pub fn closed_by(&self, cut: EpochNs) -> Self {
        Self {
            symbol: self.symbol.clone(),
            bars: self.bars.closed_by(cut),
            first_tradable: self.first_tradable,
            others: self.others.iter().map(|bars| bars.closed_by(cut)).collect(),
        }
    }

    /// The same data with another ask side (see [`Bars::with_spread_multiplier`]).
    #[must_use]
    pub fn with_spread_multiplier(&self, m: f64) -> Self {
        Self {
            symbol: self.symbol.clone(),
            bars: self.bars.with_spread_multiplier(m),
            first_tradable: self.first_tradable,
            others: self.others.iter().map(|bars| bars.with_spread_multiplier(m)).collect(),
        }
    }
}
