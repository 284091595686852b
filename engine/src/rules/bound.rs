//! Rules tied to the columns of one data set, ready to be asked bar by bar.
//!
//! Conditions are worked out 64 bars at a time, when the first bar of a block is asked for: most bars then cost the
//! look at one bit. A bit depends on its own bar only, so nothing is seen ahead of time.

use std::cell::Cell;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::indicators::{ColumnKey, ZONE};
use crate::rules::compare::{BoundCondition, Term, Values};
use crate::rules::query::bits_with_at_least;
use crate::rules::{Expr, GuardCache, GuardEvaluator, LateGuard, Rule, RuleSet};
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
    /// Bars on which the conditions of any rule hold.
    any: Block,
}

#[derive(Debug)]
struct BoundRule<'a> {
    rule: &'a Rule,
    /// All of `rule.when`.
    when: BoundExpr<'a>,
    when_block: Block,
    guards: Vec<GuardEvaluator>,
    stop: Option<Term<'a>>,
    target: Option<Term<'a>>,
    exit: Option<BoundExpr<'a>>,
    exit_block: Block,
}

/// Bars of a block, one bit each.
const BLOCK: usize = ZONE;

/// The block asked for last.
#[derive(Debug)]
struct Block {
    number: Cell<usize>,
    bits: Cell<u64>,
}

impl Block {
    fn new() -> Self {
        Self { number: Cell::new(usize::MAX), bits: Cell::new(0) }
    }

    /// The bit of bar `i`; `make` works out the bits of a block by its number.
    #[inline]
    fn get(&self, i: usize, make: impl FnOnce(usize) -> u64) -> bool {
        let number = i / BLOCK;
        if self.number.get() != number {
            self.bits.set(make(number));
            self.number.set(number);
        }
        self.bits.get() >> (i % BLOCK) & 1 == 1
    }
}

#[derive(Debug)]
enum BoundExpr<'a> {
    Is(BoundCondition<'a>),
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
        Ok(Self { rules: bound, level_decimals: rules.level_decimals, any: Block::new() })
    }

    /// The conditions of some rule hold at bar `i`: only then [`BoundRules::first`] can find one.
    #[inline]
    pub fn may_open(&self, i: usize) -> bool {
        let any_of = |block| self.rules.iter().fold(0, |bits, bound| bits | bound.when.bits(block));
        self.any.get(i, any_of)
    }

    /// The first rule whose conditions and late guards hold at bar `i` and whose levels are defined there.
    pub fn first(&self, i: usize) -> Option<Hit> {
        for (index, bound) in self.rules.iter().enumerate() {
            if !bound.when_block.get(i, |block| bound.when.bits(block)) {
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
    #[inline]
    pub fn exits(&self, rule: usize, i: usize) -> bool {
        let bound = &self.rules[rule];
        bound.exit.as_ref().is_some_and(|expr| bound.exit_block.get(i, |block| expr.bits(block)))
    }

    /// The statement behind an index.
    #[inline]
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
        when: BoundExpr::All(rule.when.iter().map(|expr| bind_expr(expr, columns)).collect::<Result<_>>()?),
        when_block: Block::new(),
        stop: rule.stop.as_ref().map(|operand| Term::bind(operand, &values(columns))).transpose()?,
        target: rule.target.as_ref().map(|operand| Term::bind(operand, &values(columns))).transpose()?,
        exit: rule.exit.condition.as_ref().map(|expr| bind_expr(expr, columns)).transpose()?,
        exit_block: Block::new(),
    })
}

fn values<'a>(columns: &'a dyn ColumnView) -> impl Fn(&ColumnKey) -> Result<Values<'a>> {
    |key| {
        columns.column(key).map(Values::from).ok_or_else(|| Error::IndicatorNotAvailable {
            column: key.to_string(),
            timeframe: key.timeframe,
            reason: "the strategy reads it but did not declare it".to_owned(),
        })
    }
}

fn bind_expr<'a>(expr: &Expr, columns: &'a dyn ColumnView) -> Result<BoundExpr<'a>> {
    let all = |parts: &[Expr]| parts.iter().map(|part| bind_expr(part, columns)).collect::<Result<Vec<_>>>();
    Ok(match expr {
        Expr::Is(condition) => {
            let column = values(columns);
            // Where the columns end, values are undefined; two constants hold on every bar.
            let lengths =
                condition.left.columns().chain(condition.right.columns()).map(|key| column(&key).map(|c| c.len()));
            let len = lengths.collect::<Result<Vec<_>>>()?.into_iter().min().unwrap_or(usize::MAX);
            BoundExpr::Is(BoundCondition::bind(condition, len, &column)?)
        }
        Expr::All(parts) => BoundExpr::All(all(parts)?),
        Expr::Any(parts) => BoundExpr::Any(all(parts)?),
        Expr::AtLeast { count, of } => BoundExpr::AtLeast { count: *count, of: all(of)? },
        Expr::Never(_) => BoundExpr::Never,
    })
}

impl BoundExpr<'_> {
    /// One bit per bar of a block.
    fn bits(&self, block: usize) -> u64 {
        match self {
            Self::Is(condition) => condition.bits(block),
            Self::All(parts) => parts.iter().fold(!0, |bits, part| if bits == 0 { 0 } else { bits & part.bits(block) }),
            Self::Any(parts) => parts.iter().fold(0, |bits, part| bits | part.bits(block)),
            Self::AtLeast { count, of } => bits_with_at_least(*count, of.iter().map(|part| part.bits(block))),
            Self::Never => 0,
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
        let block = Block::new();
        let count = bars.clone().filter(|i| block.get(*i, |number| bound.bits(number))).count();
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
    use crate::rules::{Comparison, Condition, ExitRule, Operand};
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

    /// Every comparison on a column that ends inside a block, with undefined and infinite values, against bar by bar.
    #[test]
    fn blocks_agree_with_single_bars() {
        let pattern = [1.0, -2.0, f64::NAN, 0.5, f64::NEG_INFINITY, f64::INFINITY, 0.0];
        let values: Vec<f64> = (0..150).map(|k| pattern[(k * k + k / 3) % pattern.len()]).collect();
        let table = Table(BTreeMap::from([(close(), values.clone())]));
        type Relation = fn(f64, f64) -> bool;
        let relations: [(Comparison, Relation); 4] = [
            (Comparison::Less, |a, b| a < b),
            (Comparison::LessOrEqual, |a, b| a <= b),
            (Comparison::Greater, |a, b| a > b),
            (Comparison::GreaterOrEqual, |a, b| a >= b),
        ];
        for (comparison, relation) in relations {
            let plain = Expr::Is(Condition::new(Operand::constant(0.5), comparison, Operand::Column(close())));
            let finite = Expr::Is(Condition::finite(Operand::offset(close(), 1.0), comparison, Operand::constant(0.5)));
            let two = Expr::AtLeast { count: 2, of: vec![plain.clone(), finite.clone(), Expr::Never("third")] };
            let either = Expr::Any(vec![plain, finite]);
            let rules =
                [(two, true), (either, false)].map(|(expr, both)| (rule(vec![expr], Operand::constant(1.0)), both));
            for (rules, both) in &rules {
                let bound = BoundRules::bind(rules, &table, None).unwrap();
                for (i, x) in values.iter().enumerate() {
                    let tests = [relation(0.5, *x), relation(x + 1.0, 0.5) && x.is_finite()];
                    let expected = if *both { tests[0] && tests[1] } else { tests[0] || tests[1] };
                    assert_eq!(bound.may_open(i), expected, "{comparison:?} at {i}");
                    assert_eq!(bound.first(i).is_some(), expected, "{comparison:?} at {i}");
                }
                assert!(!bound.may_open(values.len()));
            }
        }
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
