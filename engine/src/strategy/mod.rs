//! What a strategy is, what it may see, and which ones exist.

mod donchian_breakout;
mod mean_reversion_z_score;
mod params;
mod registry;
mod rsi_reversion;
mod rule_strategy;
mod sma_cross;
#[cfg(test)]
mod text;

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

use crate::data::MarketData;
use crate::error::{Error, Violation};
use crate::indicators::ColumnKey;
use crate::rules::RuleSet;
use crate::units::{Direction, EpochNs, PriceSide, Timeframe};

pub use crate::indicators::Visibility;
pub use donchian_breakout::DonchianBreakout;
pub use mean_reversion_z_score::MeanReversionZScore;
pub use params::{ParamValues, check_constraints, check_kind, check_value};
pub use registry::{families, find};
pub use rsi_reversion::RsiReversion;
pub use sma_cross::SmaCross;

/// Semantics of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// Canonical semantics.
    V2,
    /// Reproduces the V1 reference for regression.
    V1Parity,
}

/// What a strategy is built for, beside its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildContext {
    /// Instrument, upper case.
    pub symbol: String,
    /// Primary timeframe.
    pub primary: Timeframe,
    /// Timeframes named in `timeframes.additional`.
    pub additional: Vec<Timeframe>,
    /// Semantics.
    pub variant: Variant,
    /// `sessions` is given (not null) in the run config.
    pub sessions_given: bool,
}

/// Type and range of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ParamKind {
    /// Whole number in `min ..= max`.
    Int {
        /// Smallest valid value.
        min: i64,
        /// Largest valid value.
        max: i64,
    },
    /// Finite number in the interval.
    Float {
        /// Lower end.
        min: f64,
        /// `min` itself is valid.
        min_inclusive: bool,
        /// Upper end.
        max: f64,
        /// `max` itself is valid.
        max_inclusive: bool,
    },
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// A timeframe name or one of these words, in any letter case; empty text means `NONE` where that is allowed.
    Timeframe(&'static [&'static str]),
    /// List of whole numbers in `min ..= max`.
    IntList {
        /// Smallest valid member.
        min: i64,
        /// Largest valid member.
        max: i64,
    },
    /// List of text.
    TextList,
    /// Nested object, checked by the strategy.
    Object,
}

/// Default of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ParamDefault {
    /// Null: off, or decided by the strategy as documented.
    Null,
    /// Whole number.
    Int(i64),
    /// Number.
    Float(f64),
    /// Switch.
    Bool(bool),
    /// Word.
    Text(&'static str),
    /// List of whole numbers.
    Ints(&'static [i64]),
    /// List of words.
    Texts(&'static [&'static str]),
}

/// Declaration of one parameter: what a grid may search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParamSpec {
    /// Key in `strategy_parameters`.
    pub name: &'static str,
    /// Type and range.
    pub kind: ParamKind,
    /// Null is a valid value.
    pub nullable: bool,
    /// Value when absent.
    pub default: ParamDefault,
    /// One line for people: unit and effect.
    pub doc: &'static str,
}

/// Reads a parameter by name: the axis value, the given one, or the default.
pub type ParamLookup<'a> = dyn Fn(&str) -> Value + 'a;

/// A relation between parameters that every admissible setting satisfies. Settings that break one are left out of a
/// sweep and refused in a single run.
#[derive(Debug, Clone, Copy)]
pub struct DeclaredConstraint {
    /// For people: `fast_length < slow_length`.
    pub text: &'static str,
    /// Parameters it reads.
    pub parameters: &'static [&'static str],
    /// True when the setting is admissible.
    pub holds: fn(&ParamLookup<'_>, &BuildContext) -> bool,
}

/// A registered kind of strategy: its parameters and how to make one for a setting.
pub trait Family: Send + Sync {
    /// Registry name.
    fn name(&self) -> &'static str;
    /// Version of the rules; part of no hash, shown to people.
    fn version(&self) -> &'static str;
    /// One line for people.
    fn summary(&self) -> &'static str;
    /// Declared parameters, with the ranges and defaults of variant `v2`.
    fn parameters(&self) -> &'static [ParamSpec];
    /// Declared parameters with the ranges and defaults of one run (variant, primary timeframe): what
    /// [`Family::build`] checks against.
    fn parameters_in(&self, _context: &BuildContext) -> Cow<'static, [ParamSpec]> {
        Cow::Borrowed(self.parameters())
    }
    /// Checks one value as an axis of a grid names it: declared or patterned key, type, range. Relations between
    /// parameters are left to [`Family::constraints`].
    ///
    /// # Errors
    /// The violation, its path being `key`.
    fn check_parameter(&self, key: &str, value: &Value, context: &BuildContext) -> Result<(), Violation> {
        params::check_parameter(&self.parameters_in(context), self.dynamic_parameter(key), key, value)
    }
    /// Type and range of a key that is not declared by name but follows a pattern (flat scenario-6 keys).
    fn dynamic_parameter(&self, _key: &str) -> Option<ParamKind> {
        None
    }
    /// Declared relations between parameters.
    fn constraints(&self) -> &'static [DeclaredConstraint] {
        &[]
    }
    /// Checks types, ranges, names and constraints (all violations, paths relative to `strategy_parameters`) and
    /// makes the strategy.
    ///
    /// # Errors
    /// [`Error::Config`] with every violation.
    fn build(&self, parameters: &Map<String, Value>, context: &BuildContext) -> Result<Box<dyn Strategy>, Error>;
    /// Things worth telling at the start: scenarios that can never fire, keys without effect.
    fn warnings(&self, _parameters: &Map<String, Value>, _context: &BuildContext) -> Vec<String> {
        Vec::new()
    }
}

/// One strategy with fixed parameters. Pure: no state between bars, no randomness, nothing but bars `<= i`.
pub trait Strategy: Send + Sync + fmt::Debug {
    /// Registry name.
    fn name(&self) -> &'static str;
    /// Version of the rules.
    fn version(&self) -> &'static str;
    /// Timeframe it trades.
    fn primary_timeframe(&self) -> Timeframe;
    /// Called once per run, before the first bar.
    ///
    /// # Errors
    /// Whatever keeps the strategy from running on this data.
    fn on_init(&mut self, _market: &MarketData) -> Result<(), Error> {
        Ok(())
    }
    /// Timeframes it needs beside the primary one.
    fn timeframes(&self) -> Vec<Timeframe> {
        Vec::new()
    }
    /// Columns it reads, sorted, without repetitions.
    fn columns(&self) -> Vec<ColumnKey> {
        self.rules().map(RuleSet::columns).unwrap_or_default()
    }
    /// Further columns that only [`Strategy::signal_meta`] reads. They take no part in the warm-up check and are not
    /// needed in a search; a missing one becomes null in the meta.
    fn note_columns(&self) -> Vec<ColumnKey> {
        Vec::new()
    }
    /// The strategy as rules; none: it implements [`Strategy::evaluate`].
    fn rules(&self) -> Option<&RuleSet>;
    /// Decides at the close of the slice's last bar. Called only for strategies that are not rules.
    ///
    /// # Errors
    /// [`Error::StrategyFailure`] and the like; the run fails.
    fn evaluate(&self, _slice: &DataSlice<'_>) -> Result<Option<TradeSignal>, Error> {
        Ok(None)
    }
    /// Looks at an open position at the close of the slice's last bar. Called only when
    /// [`Strategy::manages_positions`] says so.
    ///
    /// # Errors
    /// [`Error::StrategyFailure`] and the like; the run fails.
    fn manage_position(&self, _position: &Position, _slice: &DataSlice<'_>) -> Result<PositionAction, Error> {
        Ok(PositionAction::Hold)
    }
    /// [`Strategy::manage_position`] does something.
    fn manages_positions(&self) -> bool {
        false
    }
    /// Limit of the holding time in minutes that the strategy's own parameters ask for, if any.
    fn max_holding_minutes(&self) -> Option<i64> {
        None
    }
    /// The strategy's parameters ask for the holding-time rule.
    fn uses_position_manager(&self) -> bool {
        false
    }
    /// Descriptive JSON of a signal of rule `rule` at bar `slice.index()`; built for artefacts only, never in a search.
    fn signal_meta(&self, _rule: usize, _slice: &DataSlice<'_>) -> SignalNotes {
        SignalNotes::default()
    }
}

/// Tags and meta of one signal, for people.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SignalNotes {
    /// Ordered tags.
    pub tags: Vec<String>,
    /// Further values.
    pub meta: Map<String, Value>,
}

/// What a strategy sees at a bar: bars and columns up to and including it.
pub struct DataSlice<'a> {
    market: &'a MarketData,
    index: usize,
    columns: &'a dyn ColumnView,
}

/// Read access to the columns a strategy declared.
pub trait ColumnView {
    /// All values of a column, one per primary bar; none if it was not declared.
    fn column(&self, key: &ColumnKey) -> Option<&[f64]>;
}

impl<'a> DataSlice<'a> {
    /// The view at the close of bar `index`.
    pub fn new(market: &'a MarketData, index: usize, columns: &'a dyn ColumnView) -> Self {
        Self { market, index, columns }
    }

    /// Index of the last visible bar.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Instrument.
    pub fn symbol(&self) -> &str {
        &self.market.symbol
    }

    /// Primary timeframe.
    pub fn timeframe(&self) -> Timeframe {
        self.market.bars.timeframe
    }

    /// Open time of the last visible bar.
    pub fn open_time(&self) -> EpochNs {
        self.market.bars.open_time[self.index]
    }

    /// Open times up to the bar.
    pub fn open_times(&self) -> &[EpochNs] {
        &self.market.bars.open_time[..=self.index]
    }

    /// Opens of one side up to the bar.
    pub fn opens(&self, side: PriceSide) -> &[f64] {
        &self.market.bars.side(side).open[..=self.index]
    }

    /// Highs of one side up to the bar.
    pub fn highs(&self, side: PriceSide) -> &[f64] {
        &self.market.bars.side(side).high[..=self.index]
    }

    /// Lows of one side up to the bar.
    pub fn lows(&self, side: PriceSide) -> &[f64] {
        &self.market.bars.side(side).low[..=self.index]
    }

    /// Closes of one side up to the bar.
    pub fn closes(&self, side: PriceSide) -> &[f64] {
        &self.market.bars.side(side).close[..=self.index]
    }

    /// Value of a declared column at the bar; none if it was not declared or is undefined there.
    pub fn value(&self, key: &ColumnKey) -> Option<f64> {
        self.columns.column(key).map(|values| values[self.index]).filter(|value| !value.is_nan())
    }

    /// A declared column up to the bar.
    pub fn column(&self, key: &ColumnKey) -> Option<&[f64]> {
        self.columns.column(key).map(|values| &values[..=self.index])
    }
}

/// How an entry is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderType {
    /// At the close of the signal's bar.
    Market,
    /// At the price or better, in a later bar.
    Limit,
    /// At the price or worse once it is reached, in a later bar.
    Stop,
}

impl OrderType {
    /// `market`, `limit` or `stop`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Market => "market",
            Self::Limit => "limit",
            Self::Stop => "stop",
        }
    }
}

/// An intent to enter.
#[derive(Debug, Clone, PartialEq)]
pub struct TradeSignal {
    /// Side.
    pub direction: Direction,
    /// Execution.
    pub order_type: OrderType,
    /// Requested price, > 0.
    pub entry_price: f64,
    /// Stop, > 0; without one the size must be explicit.
    pub stop_loss: Option<f64>,
    /// Target.
    pub take_profit: Option<f64>,
    /// Explicit size in lots, > 0; otherwise sized by risk.
    pub lots: Option<f64>,
    /// Scenario number, 0 = none.
    pub scenario_id: u8,
    /// Label of the trade.
    pub label: String,
    /// Why.
    pub reason: String,
    /// Tags and values for people.
    pub notes: SignalNotes,
}

/// An open position as a strategy sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// Ascending number within the run, from 1.
    pub id: u64,
    /// Side.
    pub direction: Direction,
    /// Bar of the fill.
    pub entry_bar: usize,
    /// Open time of that bar.
    pub entry_time_ns: EpochNs,
    /// Fill price.
    pub entry_price: f64,
    /// Size in lots.
    pub lots: f64,
    /// Stop now.
    pub stop_loss: Option<f64>,
    /// Stop at entry.
    pub initial_stop_loss: Option<f64>,
    /// Target now.
    pub take_profit: Option<f64>,
    /// Scenario number.
    pub scenario_id: u8,
}

/// What to do with an open position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PositionAction {
    /// Nothing.
    Hold,
    /// Close at this bar's close.
    Close,
    /// Move the stop from the next bar on; taken only if it tightens.
    ModifyStop(f64),
    /// Move the target from the next bar on.
    ModifyTarget(f64),
}

/// Every violation collected while reading parameters.
pub type Violations = Vec<Violation>;
