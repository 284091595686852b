//! Every metric of a backtest by name: unit, domain, source, meaning. One list, read by the artefacts, the
//! leaderboard, the objective and the gates.

/// Unit of a metric; decides how it is rounded for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Whole number of things.
    Count,
    /// Whole number of bars.
    Bars,
    /// Whole number of UTC days.
    Days,
    /// Money of the account; 2 decimals.
    AccountCurrency,
    /// Dimensionless; 6 decimals.
    Ratio,
    /// Multiples of risk; 6 decimals.
    RMultiple,
    /// Trades per day; 6 decimals.
    Trades,
    /// Mean number of bars; 6 decimals.
    MeanBars,
}

impl Unit {
    /// Name as in `definitions.unit`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bars | Self::MeanBars => "bars",
            Self::Days => "days",
            Self::AccountCurrency => "account_currency",
            Self::Ratio => "ratio",
            Self::RMultiple => "r_multiple",
            Self::Trades => "trades",
        }
    }

    /// Decimals shown to people.
    pub fn decimals(self) -> u32 {
        match self {
            Self::Count | Self::Bars | Self::Days => 0,
            Self::AccountCurrency => 2,
            Self::Ratio | Self::RMultiple | Self::Trades | Self::MeanBars => 6,
        }
    }

    /// The value is a whole number and stored as one.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Count | Self::Bars | Self::Days)
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricDef {
    /// Key in `metrics.json` and column name in the leaderboard.
    pub key: &'static str,
    /// Unit.
    pub unit: Unit,
    /// Values it can take.
    pub domain: &'static str,
    /// `trades` or `equity`.
    pub source: &'static str,
    /// Formula in words.
    pub description: &'static str,
    /// May be `"n/a"` in `metrics.json` (type `number|string`).
    pub text_when_undefined: bool,
    /// Part of `metrics.json`; the others are leaderboard columns only.
    pub in_artefact: bool,
}

const fn def(
    key: &'static str,
    unit: Unit,
    domain: &'static str,
    source: &'static str,
    description: &'static str,
) -> MetricDef {
    MetricDef { key, unit, domain, source, description, text_when_undefined: false, in_artefact: true }
}

const fn ratio_na(key: &'static str, source: &'static str, description: &'static str) -> MetricDef {
    MetricDef {
        key,
        unit: Unit::Ratio,
        domain: "any",
        source,
        description,
        text_when_undefined: true,
        in_artefact: true,
    }
}

const fn row_only(key: &'static str, unit: Unit, domain: &'static str, description: &'static str) -> MetricDef {
    MetricDef { key, unit, domain, source: "trades", description, text_when_undefined: false, in_artefact: false }
}

macro_rules! catalogue {
    ($($variant:ident => $def:expr),+ $(,)?) => {
        /// Name of a metric in code; its position is its index in [`CATALOGUE`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "described by the catalogue entry of the same position")]
        pub enum Metric { $($variant),+ }

        /// Number of metrics.
        pub const METRIC_COUNT: usize = [$(stringify!($variant)),+].len();

        /// All metrics in the order of the leaderboard's columns: those of `metrics.json`, then the further ones.
        pub const CATALOGUE: [MetricDef; METRIC_COUNT] = [$($def),+];

        impl Metric {
            /// All metrics, in order.
            pub const ALL: [Self; METRIC_COUNT] = [$(Self::$variant),+];
        }
    };
}

catalogue! {
    TotalTrades => def("total_trades", Unit::Count, ">=0", "trades", "number of closed trades"),
    Wins => def("wins", Unit::Count, ">=0", "trades", "trades with result > 0"),
    Losses => def("losses", Unit::Count, ">=0", "trades", "trades with result < 0"),
    WinRate => def("win_rate", Unit::Ratio, "0..1", "trades", "wins / total_trades"),
    ProfitGross => def("profit_gross", Unit::AccountCurrency, "any", "trades", "sum of results before fees"),
    FeesTotal => def("fees_total", Unit::AccountCurrency, ">=0", "trades", "all booked fees, entries still open included"),
    ProfitNet => def("profit_net", Unit::AccountCurrency, "any", "trades", "profit_gross - fees_total"),
    AvgTradePnl => def("avg_trade_pnl", Unit::AccountCurrency, "any", "trades", "profit_net / total_trades"),
    AvgWin => def("avg_win", Unit::AccountCurrency, ">=0", "trades", "mean of positive results"),
    AvgLoss => def("avg_loss", Unit::AccountCurrency, ">=0", "trades", "mean of absolute negative results"),
    LargestWin => def("largest_win", Unit::AccountCurrency, ">=0", "trades", "largest positive result"),
    LargestLoss => def("largest_loss", Unit::AccountCurrency, ">=0", "trades", "largest absolute negative result"),
    ProfitFactor => def("profit_factor", Unit::Ratio, ">=0", "trades", "sum of positive results / absolute sum of negative results"),
    AvgRMultiple => def("avg_r_multiple", Unit::RMultiple, "any", "trades", "mean of result / risk_per_trade"),
    Expectancy => def("expectancy", Unit::RMultiple, "any", "trades", "equal to avg_r_multiple"),
    ActiveDays => def("active_days", Unit::Days, ">=0", "trades", "distinct UTC days with an entry"),
    TradesPerDay => def("trades_per_day", Unit::Trades, ">=0", "trades", "total_trades / active_days"),
    MaxDrawdown => def("max_drawdown", Unit::Ratio, "0..1", "equity", "largest fall from the running peak, as a share of the peak"),
    MaxDrawdownAbs => def("max_drawdown_abs", Unit::AccountCurrency, ">=0", "equity", "largest fall from the running peak, in money"),
    MaxDrawdownDurationBars => def("max_drawdown_duration_bars", Unit::Bars, ">=0", "equity", "bars from the peak to the recovery of the largest relative fall"),
    CalmarRatio => def("calmar_ratio", Unit::Ratio, "any", "equity", "annualised growth / max_drawdown"),
    SharpeTradeR => ratio_na("sharpe_trade_r", "trades", "mean / sample deviation of result / risk_per_trade"),
    SortinoTradeR => ratio_na("sortino_trade_r", "trades", "mean / downside deviation of result / risk_per_trade"),
    SharpeEquityDaily => ratio_na("sharpe_equity_daily", "equity", "mean / sample deviation of daily returns, times sqrt(252)"),
    SortinoEquityDaily => ratio_na("sortino_equity_daily", "equity", "mean / downside deviation of daily returns, times sqrt(252)"),
    AvgRStop => row_only("avg_r_stop", Unit::RMultiple, "any", "mean of price move / initial stop distance"),
    TradesLong => row_only("trades_long", Unit::Count, ">=0", "closed long trades"),
    TradesShort => row_only("trades_short", Unit::Count, ">=0", "closed short trades"),
    AvgHoldBars => row_only("avg_hold_bars", Unit::MeanBars, ">=0", "mean of exit bar - entry bar"),
    Exposure => row_only("exposure", Unit::Ratio, "0..1", "share of tradable bars on which a position of an earlier bar is open or closes"),
    MaxConsecutiveLosses => row_only("max_consecutive_losses", Unit::Count, ">=0", "longest run of losing trades in exit order"),
    Signals => row_only("signals", Unit::Count, ">=0", "entry signals, refused ones included"),
    OrdersRejected => row_only("orders_rejected", Unit::Count, ">=0", "signals refused by the stop guard or the smallest lot"),
    OpenPositionsAtEnd => row_only("open_positions_at_end", Unit::Count, ">=0", "positions open after the last bar"),
}

impl Metric {
    /// Its entry in the catalogue.
    pub fn def(self) -> &'static MetricDef {
        &CATALOGUE[self as usize]
    }

    /// Its key.
    pub fn key(self) -> &'static str {
        self.def().key
    }

    /// The metric with this key.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.key() == key)
    }
}

/// One value per metric, unrounded, in catalogue order; `None` is undefined (null in the leaderboard). Whole numbers
/// are held as floats without loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricValues([Option<f64>; METRIC_COUNT]);

impl MetricValues {
    /// All undefined.
    pub const UNDEFINED: Self = Self([None; METRIC_COUNT]);

    /// The value, if defined.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0[metric as usize]
    }

    /// Sets a value.
    pub fn set(&mut self, metric: Metric, value: Option<f64>) {
        self.0[metric as usize] = value;
    }

    /// Values in catalogue order.
    pub fn iter(&self) -> impl Iterator<Item = (Metric, Option<f64>)> + '_ {
        Metric::ALL.into_iter().zip(self.0)
    }
}

/// `sign(x)·floor(|x|·10^decimals + 0.5)/10^decimals`; negative zero becomes zero. The rounding of all metrics.
pub fn round_half_away(x: f64, decimals: u32) -> f64 {
    let scale = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8][decimals.min(8) as usize];
    let magnitude = (x.abs() * scale + 0.5).floor() / scale;
    if magnitude == 0.0 { 0.0 } else { magnitude.copysign(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// metrics-and-outputs §1, table of roundings.
    #[test]
    fn rounds_half_away_from_zero_on_doubles() {
        assert_eq!(round_half_away(0.125, 2), 0.13);
        assert_eq!(round_half_away(-0.125, 2), -0.13);
        assert_eq!(round_half_away(1.005, 2), 1.0);
        assert_eq!(round_half_away(-0.001, 2).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn keys_are_unique_and_found_again() {
        for metric in Metric::ALL {
            assert_eq!(Metric::from_key(metric.key()), Some(metric));
        }
    }
}
