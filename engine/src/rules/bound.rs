//! Rules tied to the columns of one data set, ready to be asked bar by bar.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::indicators::ColumnKey;
use crate::rules::{Comparison, Condition, Expr, GuardCache, GuardEvaluator, LateGuard, Operand, Rule, RuleSet};
use crate::strategy::ColumnView;
use crate::units::round_decimal;

/// What the first rule that holds at a bar asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Index of the rule.
    pub rule: usize,
    /// Level of the stop.
    pub stop: Option<f64>,
    /// Level of the target.
    pub target: Option<f64>,
}

/// A rule set over columns. Borrowing keeps a trial free of copies; asking allocates nothing.
#[derive(Debug)]
pub struct BoundRules<'a> {
    rules: Vec<BoundRule<'a>>,
    level_decimals: Option<u8>,
}

#[derive(Debug)]
struct BoundRule<'a> {
    rule: &'a Rule,
    when: Vec<BoundExpr<'a>>,
    guards: Vec<GuardEvaluator>,
    stop: Option<BoundOperand<'a>>,
    target: Option<BoundOperand<'a>>,
    exit: Option<BoundExpr<'a>>,
}

#[derive(Debug, Clone, Copy)]
enum BoundOperand<'a> {
    Const(f64),
    Column(&'a [f64]),
    Linear { base: &'a [f64], factor: f64, term: &'a [f64] },
    Offset { base: &'a [f64], offset: f64 },
}

#[derive(Debug)]
enum BoundExpr<'a> {
    Is { left: BoundOperand<'a>, comparison: Comparison, right: BoundOperand<'a>, finite: bool },
    All(Vec<BoundExpr<'a>>),
    Any(Vec<BoundExpr<'a>>),
    AtLeast { count: usize, of: Vec<BoundExpr<'a>> },
    Never,
}

impl<'a> BoundRules<'a> {
    /// Ties `rules` to `columns`; late guards come from `guards`.
    ///
    /// # Errors
    /// [`Error::IndicatorNotAvailable`] for a column that `columns` does not hold, or a late guard without `guards`.
    pub fn bind(rules: &'a RuleSet, columns: &'a dyn ColumnView, guards: Option<&GuardCache>) -> Result<Self> {
        let bound = rules.rules.iter().map(|rule| bind_rule(rule, columns, guards)).collect::<Result<_>>()?;
        Ok(Self { rules: bound, level_decimals: rules.level_decimals })
    }

    /// The first rule whose conditions and late guards hold at bar `i` and whose levels are defined there.
    pub fn first(&self, i: usize) -> Option<Hit> {
        for (index, bound) in self.rules.iter().enumerate() {
            if !bound.when.iter().all(|expr| expr.holds(i)) {
                continue;
            }
            let stop = bound.stop.as_ref().map(|operand| operand.value(i));
            let target = bound.target.as_ref().map(|operand| operand.value(i));
            if stop.is_some_and(f64::is_nan) || target.is_some_and(f64::is_nan) {
                continue;
            }
            if bound.guards.iter().all(|guard| guard.holds(i)) {
                return Some(Hit { rule: index, stop: self.level(stop), target: self.level(target) });
            }
        }
        None
    }

    /// The exit condition of `rule` holds at bar `i`.
    pub fn exits(&self, rule: usize, i: usize) -> bool {
        self.rules[rule].exit.as_ref().is_some_and(|expr| expr.holds(i))
    }

    /// The statement behind an index.
    pub fn rule(&self, index: usize) -> &'a Rule {
        self.rules[index].rule
    }

    fn level(&self, level: Option<f64>) -> Option<f64> {
        match self.level_decimals {
            Some(decimals) => level.map(|value| round_decimal(value, decimals)),
            None => level,
        }
    }
}

fn bind_rule<'a>(rule: &'a Rule, columns: &'a dyn ColumnView, guards: Option<&GuardCache>) -> Result<BoundRule<'a>> {
    let evaluator = |guard: &LateGuard| match guards {
        Some(cache) => cache.evaluator(guard),
        None => {
            Err(Error::StrategyFailure { bar: 0, reason: "a late guard has nothing to be evaluated with".to_owned() })
        }
    };
    Ok(BoundRule {
        guards: rule.guards.iter().map(evaluator).collect::<Result<_>>()?,
        rule,
        when: rule.when.iter().map(|expr| bind_expr(expr, columns)).collect::<Result<_>>()?,
        stop: rule.stop.as_ref().map(|operand| bind_operand(operand, columns)).transpose()?,
        target: rule.target.as_ref().map(|operand| bind_operand(operand, columns)).transpose()?,
        exit: rule.exit.condition.as_ref().map(|expr| bind_expr(expr, columns)).transpose()?,
    })
}

fn bind_expr<'a>(expr: &Expr, columns: &'a dyn ColumnView) -> Result<BoundExpr<'a>> {
    let all = |parts: &[Expr]| parts.iter().map(|part| bind_expr(part, columns)).collect::<Result<Vec<_>>>();
    Ok(match expr {
        Expr::Is(Condition { left, comparison, right, finite }) => BoundExpr::Is {
            left: bind_operand(left, columns)?,
            comparison: *comparison,
            right: bind_operand(right, columns)?,
            finite: *finite,
        },
        Expr::All(parts) => BoundExpr::All(all(parts)?),
        Expr::Any(parts) => BoundExpr::Any(all(parts)?),
        Expr::AtLeast { count, of } => BoundExpr::AtLeast { count: *count, of: all(of)? },
        Expr::Never(_) => BoundExpr::Never,
    })
}

fn bind_operand<'a>(operand: &Operand, columns: &'a dyn ColumnView) -> Result<BoundOperand<'a>> {
    let column = |key: &ColumnKey| {
        columns.column(key).ok_or_else(|| Error::IndicatorNotAvailable {
            column: key.to_string(),
            timeframe: key.timeframe,
            reason: "the strategy reads it but did not declare it".to_owned(),
        })
    };
    Ok(match operand {
        Operand::Const(value) => BoundOperand::Const(value.get()),
        Operand::Column(key) => BoundOperand::Column(column(key)?),
        Operand::Linear { base, factor, term } => {
            BoundOperand::Linear { base: column(base)?, factor: factor.get(), term: column(term)? }
        }
        Operand::Offset { base, offset } => BoundOperand::Offset { base: column(base)?, offset: offset.get() },
    })
}

impl BoundOperand<'_> {
    fn value(&self, i: usize) -> f64 {
        match *self {
            Self::Const(value) => value,
            Self::Column(values) => values[i],
            Self::Linear { base, factor, term } => base[i] + factor * term[i],
            Self::Offset { base, offset } => base[i] + offset,
        }
    }
}

impl BoundExpr<'_> {
    fn holds(&self, i: usize) -> bool {
        match self {
            Self::Is { left, comparison, right, finite } => {
                let (left, right) = (left.value(i), right.value(i));
                // A comparison with NaN is false by IEEE rules: an undefined operand needs no test of its own.
                let related = match comparison {
                    Comparison::Less => left < right,
                    Comparison::LessOrEqual => left <= right,
                    Comparison::Greater => left > right,
                    Comparison::GreaterOrEqual => left >= right,
                };
                related && (!finite || left.is_finite())
            }
            Self::All(parts) => parts.iter().all(|part| part.holds(i)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(i)),
            Self::AtLeast { count, of } => of.iter().filter(|part| part.holds(i)).count() >= *count,
            Self::Never => false,
        }
    }
}

/// The condition of `rules` that holds on the fewest of `bars`, with that number; none without a condition. Ties go to
/// the first.
///
/// # Errors
/// As [`BoundRules::bind`].
pub fn narrowest(rules: &RuleSet, columns: &dyn ColumnView, bars: Range<usize>) -> Result<Option<String>> {
    let mut best: Option<(usize, &Expr)> = None;
    for expr in rules.rules.iter().flat_map(|rule| &rule.when) {
        let bound = bind_expr(expr, columns)?;
        let count = bars.clone().filter(|i| bound.holds(*i)).count();
        if best.is_none_or(|(fewest, _)| count < fewest) {
            best = Some((count, expr));
        }
    }
    Ok(best.map(|(count, expr)| format!("{expr} holds on {count} of {} bars", bars.len())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::indicators::Series;
    use crate::rules::ExitRule;
    use crate::units::{Direction, Timeframe};

    struct Table(BTreeMap<ColumnKey, Vec<f64>>);

    impl ColumnView for Table {
        fn column(&self, key: &ColumnKey) -> Option<&[f64]> {
            self.0.get(key).map(Vec::as_slice)
        }
    }

    fn close() -> ColumnKey {
        ColumnKey::bid(Timeframe::M5, Series::Close)
    }

    fn rule(when: Vec<Expr>, stop: Operand) -> RuleSet {
        RuleSet {
            rules: vec![Rule {
                direction: Direction::Long,
                scenario_id: 0,
                label: "long".to_owned(),
                reason: "test",
                tags: Vec::new(),
                when,
                guards: Vec::new(),
                stop: Some(stop),
                target: None,
                lots: None,
                exit: ExitRule::default(),
            }],
            level_decimals: Some(1),
        }
    }

    #[test]
    fn an_undefined_operand_makes_the_condition_false_and_levels_are_rounded() {
        let table = Table(BTreeMap::from([(close(), vec![f64::NAN, 1.0, 2.25])]));
        let rules = rule(
            vec![Expr::Is(Condition::new(
                Operand::Column(close()),
                Comparison::GreaterOrEqual,
                Operand::constant(1.0),
            ))],
            Operand::offset(close(), -0.5),
        );
        let bound = BoundRules::bind(&rules, &table, None).unwrap();
        assert_eq!(bound.first(0), None);
        assert_eq!(bound.first(1).unwrap().stop, Some(0.5));
        assert_eq!(bound.first(2).unwrap().stop, Some(1.8), "1.75 ties to even");
    }

    #[test]
    fn an_infinite_z_never_counts() {
        let table = Table(BTreeMap::from([(close(), vec![f64::NEG_INFINITY])]));
        let z = Condition::finite(Operand::Column(close()), Comparison::LessOrEqual, Operand::constant(-1.0));
        let rules = rule(vec![Expr::Is(z)], Operand::constant(1.0));
        assert_eq!(BoundRules::bind(&rules, &table, None).unwrap().first(0), None);
    }

    #[test]
    fn an_undeclared_column_is_named() {
        let rules = rule(vec![], Operand::Column(close()));
        let error = BoundRules::bind(&rules, &Table(BTreeMap::new()), None).unwrap_err();
        assert!(error.to_string().contains("close@M5:bid"), "{error}");
    }
}
