//! `rsi_reversion`: fades an extreme relative strength index until it is back in the middle.

use serde_json::{Map, Value};

use super::params::ParamValues;
use super::rule_strategy::{DIRECTION_FILTER, RuleStrategy, atr_stop, directions, read_v2};
use super::{BuildContext, DeclaredConstraint, Family, ParamDefault, ParamKind, ParamSpec, Strategy};
use crate::error::Error;
use crate::indicators::{ColumnKey, Series};
use crate::rules::{Comparison, Condition, ExitRule, Expr, Operand, Rule};
use crate::units::Direction;

/// Family of `rsi_reversion`: long at `RSI <= oversold`, short at `RSI >= overbought`, out at `exit_level`, stop by ATR.
#[derive(Debug, Clone, Copy)]
pub struct RsiReversion;

const NAME: &str = "rsi_reversion";

const PARAMETERS: [ParamSpec; 7] = [
    ParamSpec::new("rsi_length", ParamKind::count(1), ParamDefault::Int(14), "bars of the RSI of bid closes"),
    ParamSpec::new("atr_length", ParamKind::count(1), ParamDefault::Int(14), "bars of the ATR of the stop"),
    ParamSpec::new("oversold", ParamKind::between(0.0, 100.0), ParamDefault::Float(30.0), "RSI at or below: long"),
    ParamSpec::new(
        "exit_level",
        ParamKind::between(0.0, 100.0),
        ParamDefault::Float(50.0),
        "RSI at which a position is closed: from below for long, from above for short",
    ),
    ParamSpec::new("overbought", ParamKind::between(0.0, 100.0), ParamDefault::Float(70.0), "RSI at or above: short"),
    ParamSpec::new(
        "atr_mult",
        ParamKind::above(0.0),
        ParamDefault::Float(2.0),
        "stop beyond the bar's low or high, in ATR",
    ),
    DIRECTION_FILTER,
];

const CONSTRAINTS: [DeclaredConstraint; 1] = [DeclaredConstraint {
    text: "oversold < exit_level < overbought",
    parameters: &["oversold", "exit_level", "overbought"],
    holds: |read, _| {
        let level = |name| read(name).as_f64().unwrap_or(f64::NAN);
        level("oversold") < level("exit_level") && level("exit_level") < level("overbought")
    },
}];

impl Family for RsiReversion {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> &'static str {
        "1"
    }

    fn summary(&self) -> &'static str {
        "fades an extreme RSI until it is back in the middle"
    }

    fn parameters(&self) -> &'static [ParamSpec] {
        &PARAMETERS
    }

    fn constraints(&self) -> &'static [DeclaredConstraint] {
        &CONSTRAINTS
    }

    fn build(&self, parameters: &Map<String, Value>, context: &BuildContext) -> Result<Box<dyn Strategy>, Error> {
        let values = read_v2(self, parameters, context)?;
        let rules = directions(&values).into_iter().map(|direction| rule(direction, &values, context)).collect();
        Ok(RuleStrategy::boxed(self, context, rules))
    }
}

fn rule(direction: Direction, values: &ParamValues, context: &BuildContext) -> Rule {
    let rsi = Operand::Column(ColumnKey::bid(context.primary, Series::Rsi(values.count("rsi_length"))));
    let is = |comparison, level| Expr::Is(Condition::new(rsi, comparison, Operand::constant(values.float(level))));
    let (when, ends, reason) = match direction {
        Direction::Long => (
            is(Comparison::LessOrEqual, "oversold"),
            is(Comparison::GreaterOrEqual, "exit_level"),
            "rsi_reversion_long",
        ),
        Direction::Short => (
            is(Comparison::GreaterOrEqual, "overbought"),
            is(Comparison::LessOrEqual, "exit_level"),
            "rsi_reversion_short",
        ),
    };
    Rule {
        direction,
        scenario_id: 0,
        label: direction.as_str().to_owned(),
        reason,
        tags: vec![NAME.to_owned()],
        when: vec![when],
        guards: Vec::new(),
        stop: Some(atr_stop(direction, context.primary, values.float("atr_mult"), values.count("atr_length"))),
        target: None,
        lots: None,
        exit: ExitRule { condition: Some(ends), hold_bars: None },
    }
}
