//! What a sweep looks for: the objective, the gates a row must pass, and the total order of rows.

use std::cmp::Ordering;

use engine::error::nearest;
use engine::metrics::{Metric, MetricValues, Unit, round_half_away};

use crate::expression::{Datum, Expression, ExpressionError, Type};

/// Metric that ranks rows when a grid names no objective.
pub const DEFAULT_OBJECTIVE: Metric = Metric::SharpeEquityDaily;

/// Decimals on which scores are compared (metrics-and-outputs §10).
const SCORE_DECIMALS: u32 = 6;

/// Which end of the objective is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The largest value ranks first.
    Maximize,
    /// The smallest value ranks first.
    Minimize,
}

impl Goal {
    /// `maximize` or `minimize`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Maximize => "maximize",
            Self::Minimize => "minimize",
        }
    }

    /// The score with the good end up.
    fn oriented(self, score: f64) -> f64 {
        match self {
            Self::Maximize => score,
            Self::Minimize => -score,
        }
    }
}

/// An expression over metric keys.
#[derive(Debug, Clone, PartialEq)]
struct MetricExpression {
    expression: Expression,
    metrics: Vec<Metric>,
}

impl MetricExpression {
    fn parse(text: &str) -> Result<Self, ExpressionError> {
        let expression = Expression::parse(text, "metric", &|name| match Metric::from_key(name) {
            Some(_) => Ok(Type::Number),
            None => Err(nearest(name, Metric::ALL.map(Metric::key)).map(|name| format!("did you mean `{name}`?"))),
        })?;
        let metrics = expression.names().iter().filter_map(|name| Metric::from_key(name)).collect();
        Ok(Self { expression, metrics })
    }

    fn evaluate(&self, values: &MetricValues) -> Datum<'_> {
        self.expression.evaluate(&|number| {
            self.metrics.get(number).and_then(|metric| values.get(*metric)).map_or(Datum::Undefined, Datum::number)
        })
    }

    fn expect(self, wanted: Type, what: &str) -> Result<Self, ExpressionError> {
        let found = self.expression.result_type();
        if found == wanted {
            return Ok(self);
        }
        Err(ExpressionError {
            offset: 0,
            len: self.expression.text().len(),
            message: what.to_owned(),
            hint: (wanted == Type::Bool).then(|| "for example `total_trades >= 100`".to_owned()),
        })
    }
}

/// What is maximised or minimised.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// Good end.
    pub goal: Goal,
    expression: MetricExpression,
}

impl Default for Objective {
    /// Maximises [`DEFAULT_OBJECTIVE`].
    fn default() -> Self {
        let text = DEFAULT_OBJECTIVE.key();
        let expression = MetricExpression::parse(text);
        match expression {
            Ok(expression) => Self { goal: Goal::Maximize, expression },
            Err(_) => unreachable!("{text} is a metric"),
        }
    }
}

impl Objective {
    /// Parses a metric key or an expression over metric keys.
    ///
    /// # Errors
    /// No valid expression, an unknown metric, or no number.
    pub fn parse(goal: Goal, text: &str) -> Result<Self, ExpressionError> {
        let expression =
            MetricExpression::parse(text)?.expect(Type::Number, "an objective is a number, not a condition")?;
        Ok(Self { goal, expression })
    }

    /// The expression as text.
    pub fn text(&self) -> &str {
        self.expression.expression.text()
    }

    /// Metrics it reads, [`Metric::TotalTrades`] included.
    pub fn metrics(&self) -> impl Iterator<Item = Metric> + '_ {
        self.expression.metrics.iter().copied().chain([Metric::TotalTrades])
    }

    /// The raw value of the objective; none if it is undefined or not finite, or if the setting never traded
    /// (metrics-and-outputs §10).
    pub fn score(&self, values: &MetricValues) -> Option<f64> {
        let traded = values.get(Metric::TotalTrades).is_some_and(|trades| trades > 0.0);
        if traded { self.expression.evaluate(values).as_number() } else { None }
    }
}

/// Conditions a row must meet to be believed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gates(Vec<MetricExpression>);

impl Gates {
    /// Adds a condition: `metric op value`, or any condition over metric keys.
    ///
    /// # Errors
    /// No valid expression, an unknown metric, or no condition.
    pub fn push(&mut self, text: &str) -> Result<(), ExpressionError> {
        let gate = MetricExpression::parse(text)?.expect(Type::Bool, "a gate is a condition")?;
        self.0.push(gate);
        Ok(())
    }

    /// The conditions as text.
    pub fn texts(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|gate| gate.expression.text())
    }

    /// Metrics they read, with repetitions.
    pub fn metrics(&self) -> impl Iterator<Item = Metric> + '_ {
        self.0.iter().flat_map(|gate| gate.metrics.iter().copied())
    }

    /// Whether each gate passes, in order; an undefined metric passes none.
    pub fn passes<'a>(&'a self, values: &'a MetricValues) -> impl Iterator<Item = bool> + 'a {
        self.0.iter().map(|gate| gate.evaluate(values) == Datum::Bool(true))
    }

    /// The text of the first gate that does not pass.
    pub fn first_failed(&self, values: &MetricValues) -> Option<&str> {
        self.0.iter().find(|gate| gate.evaluate(values) != Datum::Bool(true)).map(|gate| gate.expression.text())
    }
}

/// How a row ended, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It has a score and passes all gates.
    Ok,
    /// It has a score and fails a gate.
    Gated,
    /// The objective is undefined, or it never traded.
    NoScore,
    /// It ended in an error.
    Failed,
}

impl Verdict {
    /// All verdicts, best first.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Gated, Self::NoScore, Self::Failed];

    /// The `status` of a row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Gated => "gated",
            Self::NoScore => "no_score",
            Self::Failed => "failed",
        }
    }
}

/// The judgement of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement<'a> {
    /// How it ended.
    pub verdict: Verdict,
    /// Raw objective.
    pub score: Option<f64>,
    /// First gate it fails, of a gated row.
    pub failed_gate: Option<&'a str>,
}

/// Judges a row; `None` for the metrics is a failed trial.
pub fn judge<'a>(objective: &Objective, gates: &'a Gates, values: Option<&MetricValues>) -> Judgement<'a> {
    let Some(values) = values else {
        return Judgement { verdict: Verdict::Failed, score: None, failed_gate: None };
    };
    let Some(score) = objective.score(values) else {
        return Judgement { verdict: Verdict::NoScore, score: None, failed_gate: None };
    };
    let failed_gate = gates.first_failed(values);
    let verdict = if failed_gate.is_some() { Verdict::Gated } else { Verdict::Ok };
    Judgement { verdict, score: Some(score), failed_gate }
}

/// Position of a row in the strict total order of design §6 and metrics-and-outputs §10; the smallest is the best.
///
/// Verdict; then, of `ok` and `gated` rows, objective (good end first), `profit_net` descending, `max_drawdown`
/// ascending, compared on contract-rounded values (score 6 decimals, money 2, drawdown 6; a missing number after all
/// others); then the config hash, ascending. Rows with equal hashes are the same trial and compare equal.
#[derive(Debug, Clone, Copy)]
pub struct RankKey {
    verdict: Verdict,
    /// Oriented so that larger is better, rounded; minus infinity where none takes part.
    score: f64,
    profit_net: f64,
    /// Negated drawdown: larger is better.
    shallowness: f64,
    config_hash: [u8; 32],
}

impl RankKey {
    /// Key of a row with the raw (unrounded) numbers of its judgement and metrics.
    pub fn new(
        goal: Goal,
        verdict: Verdict,
        score: Option<f64>,
        profit_net: Option<f64>,
        max_drawdown: Option<f64>,
        config_hash: [u8; 32],
    ) -> Self {
        let ranked = matches!(verdict, Verdict::Ok | Verdict::Gated);
        let comparable = |value: Option<f64>, decimals: u32, orient: &dyn Fn(f64) -> f64| match value {
            // Adding zero turns the negative zero of an orientation into zero: equal scores must tie.
            Some(value) if ranked && !value.is_nan() => orient(round_half_away(value, decimals)) + 0.0,
            _ => f64::NEG_INFINITY,
        };
        Self {
            verdict,
            score: comparable(score, SCORE_DECIMALS, &|score| goal.oriented(score)),
            profit_net: comparable(profit_net, Unit::AccountCurrency.decimals(), &|money| money),
            shallowness: comparable(max_drawdown, Unit::Ratio.decimals(), &|drawdown| -drawdown),
            config_hash,
        }
    }

    /// Key of a row, from its judgement and metrics.
    pub fn of(goal: Goal, judgement: &Judgement<'_>, values: Option<&MetricValues>, config_hash: [u8; 32]) -> Self {
        let metric = |metric| values.and_then(|values| values.get(metric));
        Self::new(
            goal,
            judgement.verdict,
            judgement.score,
            metric(Metric::ProfitNet),
            metric(Metric::MaxDrawdown),
            config_hash,
        )
    }

    /// How the row ended.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The order by verdict and objective alone: what is known of a cell that keeps no other metric.
    pub fn cmp_score(&self, other: &Self) -> Ordering {
        self.verdict.cmp(&other.verdict).then_with(|| other.score.total_cmp(&self.score))
    }

    /// Hash of its resolved config.
    pub fn config_hash(&self) -> &[u8; 32] {
        &self.config_hash
    }
}

impl Ord for RankKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_score(other)
            .then_with(|| other.profit_net.total_cmp(&self.profit_net))
            .then_with(|| other.shallowness.total_cmp(&self.shallowness))
            .then_with(|| self.config_hash.cmp(&other.config_hash))
    }
}

impl PartialOrd for RankKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RankKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for RankKey {}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(Metric, f64)]) -> MetricValues {
        let mut values = MetricValues::UNDEFINED;
        for (metric, value) in pairs {
            values.set(*metric, Some(*value));
        }
        values
    }

    #[test]
    fn scores_by_metric_or_expression() {
        let row = values(&[(Metric::TotalTrades, 120.0), (Metric::SharpeEquityDaily, 1.5), (Metric::MaxDrawdown, 0.2)]);
        assert_eq!(Objective::default().score(&row), Some(1.5));
        let weighted = Objective::parse(Goal::Maximize, "sharpe_equity_daily - 2 * max_drawdown").unwrap();
        assert_eq!(weighted.score(&row), Some(1.1));
        let undefined = Objective::parse(Goal::Maximize, "calmar_ratio").unwrap();
        assert_eq!(undefined.score(&row), None);
        let infinite = Objective::parse(Goal::Maximize, "total_trades / 0").unwrap();
        assert_eq!(infinite.score(&row), None);
    }

    #[test]
    fn a_setting_that_never_traded_has_no_score() {
        let smallest = Objective::parse(Goal::Minimize, "max_drawdown").unwrap();
        let idle = values(&[(Metric::TotalTrades, 0.0), (Metric::MaxDrawdown, 0.0)]);
        assert_eq!(smallest.score(&idle), None);
        assert_eq!(judge(&smallest, &Gates::default(), Some(&idle)).verdict, Verdict::NoScore);
        assert_eq!(judge(&smallest, &Gates::default(), None).verdict, Verdict::Failed);
    }

    #[test]
    fn gates_name_the_first_that_fails() {
        let mut gates = Gates::default();
        gates.push("total_trades >= 100").unwrap();
        gates.push("max_drawdown <= 0.20").unwrap();
        gates.push("not (profit_factor < 1)").unwrap();
        let row = |trades, drawdown, factor: Option<f64>| {
            let mut row = values(&[(Metric::TotalTrades, trades), (Metric::MaxDrawdown, drawdown)]);
            row.set(Metric::ProfitFactor, factor);
            row
        };
        assert_eq!(gates.first_failed(&row(99.0, 0.3, Some(2.0))), Some("total_trades >= 100"));
        assert_eq!(gates.first_failed(&row(100.0, 0.3, Some(2.0))), Some("max_drawdown <= 0.20"));
        assert_eq!(gates.first_failed(&row(100.0, 0.2, None)), Some("not (profit_factor < 1)"));
        assert_eq!(gates.first_failed(&row(100.0, 0.2, Some(1.0))), None);
        assert_eq!(gates.passes(&row(100.0, 0.3, None)).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn unknown_metrics_and_wrong_kinds_are_refused() {
        let refusal = |error: ExpressionError| {
            format!("{}+{} {} ({})", error.offset, error.len, error.message, error.hint.unwrap_or_default())
        };
        let mut gates = Gates::default();
        let all = [
            refusal(Objective::parse(Goal::Maximize, "sharp_equity_daily").unwrap_err()),
            refusal(Objective::parse(Goal::Maximize, "wins > 3").unwrap_err()),
            refusal(gates.push("max_drawdwn <= 0.2").unwrap_err()),
            refusal(gates.push("max_drawdown").unwrap_err()),
        ];
        insta::assert_snapshot!(all.join("\n"), @r##"
        0+18 unknown metric `sharp_equity_daily` (did you mean `sharpe_equity_daily`?)
        0+8 an objective is a number, not a condition ()
        0+11 unknown metric `max_drawdwn` (did you mean `max_drawdown`?)
        0+12 a gate is a condition (for example `total_trades >= 100`)
        "##);
    }

    #[test]
    fn ranks_on_rounded_values() {
        let key = |score, profit, drawdown, hash| {
            RankKey::new(Goal::Maximize, Verdict::Ok, Some(score), Some(profit), Some(drawdown), [hash; 32])
        };
        assert!(key(1.0, 0.0, 0.0, 0) > key(1.000_001, 0.0, 0.0, 1));
        // The seventh decimal of a score does not count; then money by cents, then drawdown, then the hash.
        assert!(key(1.000_000_4, 1.0, 0.0, 0) > key(1.0, 2.0, 0.0, 1));
        assert!(key(1.0, 1.004, 0.2, 0) > key(1.0, 1.0, 0.1, 1));
        assert!(key(1.0, 1.0, 0.1, 0) < key(1.0, 1.0, 0.1, 1));
        assert_eq!(key(-1e-9, 0.0, 0.0, 1), key(0.0, -0.0, -0.0, 1));
        let least = |score, hash| RankKey::new(Goal::Minimize, Verdict::Ok, Some(score), None, None, [hash; 32]);
        assert!(least(0.1, 9) < least(0.2, 0));
        assert_eq!(least(0.0, 1), least(-0.0, 1));
        let idle = |verdict, profit, hash| RankKey::new(Goal::Maximize, verdict, None, Some(profit), None, [hash; 32]);
        assert!(idle(Verdict::NoScore, 5.0, 2) > idle(Verdict::NoScore, 1.0, 1));
        assert!(idle(Verdict::Failed, 9.0, 0) > idle(Verdict::NoScore, 0.0, 1));
    }
}

#[cfg(test)]
mod property_tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![
            1 => Just(None),
            4 => (-30_i32..30).prop_map(|x| Some(f64::from(x) * 4e-7)),
            1 => prop_oneof![Just(0.0), Just(-0.0), Just(1e300), Just(-1e300), Just(f64::MIN_POSITIVE)].prop_map(Some),
        ]
    }

    fn key() -> impl Strategy<Value = RankKey> {
        (0_usize..4, number(), number(), number(), 0_u8..4, any::<bool>()).prop_map(
            |(verdict, score, profit, dd, hash, up)| {
                let goal = if up { Goal::Maximize } else { Goal::Minimize };
                RankKey::new(goal, Verdict::ALL[verdict], score, profit, dd, [hash; 32])
            },
        )
    }

    proptest! {
        /// Antisymmetric, transitive, total; equal only with equal hashes.
        #[test]
        fn prop_order_is_strict_and_total(a in key(), b in key(), c in key()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
            if a == b {
                prop_assert_eq!(a.config_hash(), b.config_hash());
            }
        }

        /// At least as good in every number and verdict, and better in one: never below, whatever the hashes.
        #[test]
        fn prop_a_dominating_row_never_ranks_below(
            (score, profit, drawdown) in (-1e3..1e3_f64, -1e5..1e5_f64, 0.0..1.0_f64),
            (more, gain, less) in (0.0..1.0_f64, 0.0..10.0_f64, 0.0..0.5_f64),
            hashes in any::<(u8, u8)>(),
        ) {
            let worse = RankKey::new(Goal::Maximize, Verdict::Ok, Some(score), Some(profit), Some(drawdown), [hashes.0; 32]);
            let better = RankKey::new(
                Goal::Maximize, Verdict::Ok, Some(score + more + 1e-6), Some(profit + gain), Some(drawdown - less), [hashes.1; 32],
            );
            prop_assert!(better < worse);
            let gated = RankKey::new(
                Goal::Maximize, Verdict::Gated, Some(score + more + 1e-6), Some(profit), Some(drawdown), [hashes.1; 32],
            );
            prop_assert!(worse < gated);
        }
    }
}
