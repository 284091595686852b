//! What the stitched result of a walk-forward must meet: conditions over its figures, each told as passed or failed.

use engine::error::nearest;
use engine::metrics::{Metric, MetricValues, Unit};

use crate::expression::{Datum, Expression, ExpressionError, Type};

/// A figure of a stitched result beside the metrics of a backtest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FigureDef {
    /// Name in conditions and files.
    pub key: &'static str,
    /// Decides how it is rounded for people.
    pub unit: Unit,
    /// What it is.
    pub description: &'static str,
}

const fn figure(key: &'static str, unit: Unit, description: &'static str) -> FigureDef {
    FigureDef { key, unit, description }
}

macro_rules! figures {
    ($($variant:ident => $def:expr),+ $(,)?) => {
        /// Name of a figure in code; its position is its index in [`FIGURES`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "described by the entry of the same position")]
        pub enum Figure { $($variant),+ }

        /// Number of figures.
        pub const FIGURE_COUNT: usize = [$(stringify!($variant)),+].len();

        /// All figures, in the order of their columns.
        pub const FIGURES: [FigureDef; FIGURE_COUNT] = [$($def),+];
    };
}

figures! {
    Windows => figure("windows", Unit::Count, "windows of the design"),
    Chosen => figure("windows_chosen", Unit::Count, "windows in which a setting passed the gates on train"),
    Days => figure("days", Unit::Days, "UTC days of the stitched curve with at least one bar"),
    SharpeDaily => figure("sharpe_daily", Unit::Ratio, "mean / sample deviation of daily profit on the initial balance, not annualised"),
    Skew => figure("skew", Unit::Ratio, "skewness of the daily returns"),
    Kurt => figure("kurt", Unit::Ratio, "kurtosis of the daily returns, 3 for a normal distribution"),
    Psr => figure("psr", Unit::Ratio, "probability that the true Sharpe ratio is above 0"),
    T => figure("t_statistic", Unit::Ratio, "sharpe_daily times the root of days"),
    Wfe => figure("wfe", Unit::Ratio, "profit per day out of sample over profit per day in sample"),
    Consistency => figure("wf_consistency", Unit::Ratio, "share of windows with a profit out of sample"),
    Concentration => figure("wf_concentration", Unit::Ratio, "largest profit of a window over the sum of the positive ones"),
    RankCorrelation => figure("rank_correlation", Unit::Ratio, "mean over windows of Spearman's correlation between train and test objective"),
    Drift => figure("parameter_drift", Unit::Ratio, "mean over axes of the distance between consecutive choices, as a share of the axis"),
    FirstChoiceNet => figure("first_choice_net", Unit::AccountCurrency, "profit_net of the first choice kept through all windows"),
    BuyAndHoldNet => figure("buy_and_hold_net", Unit::AccountCurrency, "profit of the initial balance invested once over the same bars, spread paid, no other costs"),
    BuyAndHoldDrawdown => figure("buy_and_hold_max_drawdown", Unit::Ratio, "largest fall of it from its running peak"),
}

/// Everything known of a stitched result; undefined is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Metrics of the stitched trades and equity.
    pub metrics: MetricValues,
    further: [Option<f64>; FIGURE_COUNT],
}

impl Figures {
    /// These metrics, nothing else known.
    pub fn new(metrics: MetricValues) -> Self {
        Self { metrics, further: [None; FIGURE_COUNT] }
    }

    /// A figure.
    pub fn get(&self, figure: Figure) -> Option<f64> {
        self.further[figure as usize]
    }

    /// Sets a figure; what is not finite is undefined.
    pub fn set(&mut self, figure: Figure, value: Option<f64>) {
        self.further[figure as usize] = value.filter(|x| x.is_finite());
    }

    /// The further figures with their definitions, in order.
    pub fn further(&self) -> impl Iterator<Item = (&'static FigureDef, Option<f64>)> + '_ {
        FIGURES.iter().zip(self.further)
    }

    fn by_key(&self, key: &str) -> Option<f64> {
        match Metric::from_key(key) {
            Some(metric) => self.metrics.get(metric),
            None => FIGURES.iter().position(|def| def.key == key).and_then(|at| self.further[at]),
        }
    }
}

/// Conditions over [`Figures`], in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Checks(Vec<Expression>);

/// Sample, stitched Sharpe ratio, consistency and concentration: statistical-validity §15.
const DEFAULTS: [&str; 6] = [
    "total_trades >= 30",
    "days >= 250",
    "sharpe_daily > 0",
    "psr >= 0.90",
    "wf_consistency >= 0.6",
    "wf_concentration <= 0.5",
];

impl Default for Checks {
    fn default() -> Self {
        let mut checks = Self::none();
        for text in DEFAULTS {
            if checks.push(text).is_err() {
                unreachable!("{text} is a condition");
            }
        }
        checks
    }
}

impl Checks {
    /// No condition.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds a condition over metric keys and the keys of [`FIGURES`].
    ///
    /// # Errors
    /// No valid expression, an unknown name, or no condition.
    pub fn push(&mut self, text: &str) -> Result<(), ExpressionError> {
        let keys = || FIGURES.iter().map(|def| def.key).chain(Metric::ALL.map(Metric::key));
        let check = Expression::parse(text, "figure", &|name| {
            if keys().any(|key| key == name) {
                return Ok(Type::Number);
            }
            Err(nearest(name, keys()).map(|name| format!("did you mean `{name}`?")))
        })?;
        if check.result_type() != Type::Bool {
            return Err(ExpressionError {
                offset: 0,
                len: check.text().len(),
                message: "a line of the verdict is a condition".to_owned(),
                hint: Some("for example `wf_consistency >= 0.6`".to_owned()),
            });
        }
        self.0.push(check);
        Ok(())
    }

    /// The conditions as text.
    pub fn texts(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(Expression::text)
    }

    /// Each condition judged, in order; an undefined figure passes none.
    pub fn judge(&self, figures: &Figures) -> Vec<Check> {
        let value = |name: &String| figures.by_key(name);
        self.0
            .iter()
            .map(|check| Check {
                text: check.text().to_owned(),
                passed: check
                    .holds(&|number| check.names().get(number).and_then(value).map_or(Datum::Undefined, Datum::number)),
                found: check.names().iter().map(|name| (name.clone(), value(name))).collect(),
            })
            .collect()
    }
}

/// One line of a verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The condition.
    pub text: String,
    /// Whether it holds.
    pub passed: bool,
    /// The figures it reads and their values.
    pub found: Vec<(String, Option<f64>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_conditions_are_those_of_the_specification() {
        let mut figures = Figures::new(MetricValues::UNDEFINED);
        figures.metrics.set(Metric::TotalTrades, Some(31.0));
        figures.set(Figure::Days, Some(249.0));
        figures.set(Figure::Psr, Some(0.9));
        figures.set(Figure::Consistency, Some(f64::NAN));
        let passed: Vec<(String, bool)> =
            Checks::default().judge(&figures).into_iter().map(|check| (check.text, check.passed)).collect();
        let expected = [true, false, false, true, false, false];
        assert_eq!(passed, DEFAULTS.map(str::to_owned).into_iter().zip(expected).collect::<Vec<_>>());
    }

    #[test]
    fn conditions_name_figures_and_metrics() {
        let mut checks = Checks::none();
        checks.push("profit_net > first_choice_net").unwrap();
        let error = checks.push("wf_consistncy > 0.5").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `wf_consistency`?"));
        assert!(checks.push("psr").is_err());
        assert_eq!(checks.texts().collect::<Vec<_>>(), ["profit_net > first_choice_net"]);
    }
}
