//! `sma_cross`: always on the side of the faster of two simple moving averages.

use serde_json::{Map, Value};

use super::params::ParamValues;
use super::rule_strategy::{DIRECTION_FILTER, RuleStrategy, atr_stop, directions, read_v2};
use super::{BuildContext, DeclaredConstraint, Family, ParamDefault, ParamKind, ParamSpec, Strategy};
use crate::error::Error;
use crate::indicators::{ColumnKey, Series};
use crate::rules::{Comparison, Condition, ExitRule, Expr, Operand, Rule};
use crate::units::{Bits, Direction};

/// Family of `sma_cross`: in the market while `SMA(fast) > SMA(slow)` (long) or `<` (short) on bid closes.
///
/// The state counts, not the crossing: it enters on the first tradable bar and again after a stop.
#[derive(Debug, Clone, Copy)]
pub struct SmaCross;

const NAME: &str = "sma_cross";

const PARAMETERS: [ParamSpec; 6] = [
    ParamSpec::new("fast_length", ParamKind::count(1), ParamDefault::Int(20), "bars of the fast average"),
    ParamSpec::new("slow_length", ParamKind::count(1), ParamDefault::Int(50), "bars of the slow average"),
    ParamSpec::new(
        "lots",
        ParamKind::above(0.0),
        ParamDefault::Null,
        "size in lots; null: sized by risk, needs stop_atr",
    )
    .or_null(),
    ParamSpec::new(
        "stop_atr",
        ParamKind::above(0.0),
        ParamDefault::Null,
        "stop beyond the bar's low or high, in ATR; null: no stop, needs lots",
    )
    .or_null(),
    ParamSpec::new("atr_length", ParamKind::count(1), ParamDefault::Int(14), "bars of the ATR of the stop"),
    DIRECTION_FILTER,
];

const CONSTRAINTS: [DeclaredConstraint; 2] = [
    DeclaredConstraint {
        text: "fast_length < slow_length",
        parameters: &["fast_length", "slow_length"],
        holds: |read, _| read("fast_length").as_i64() < read("slow_length").as_i64(),
    },
    DeclaredConstraint {
        text: "stop_atr or lots is given",
        parameters: &["stop_atr", "lots"],
        holds: |read, _| !(read("stop_atr").is_null() && read("lots").is_null()),
    },
];

impl Family for SmaCross {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> &'static str {
        "1"
    }

    fn summary(&self) -> &'static str {
        "always in the market on the side of the fast moving average"
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

    fn warnings(&self, parameters: &Map<String, Value>, _context: &BuildContext) -> Vec<String> {
        let no_stop = parameters.get("stop_atr").is_none_or(Value::is_null);
        if no_stop && parameters.contains_key("atr_length") {
            return vec!["`atr_length` has no effect: there is no stop without `stop_atr`".to_owned()];
        }
        Vec::new()
    }
}

fn rule(direction: Direction, values: &ParamValues, context: &BuildContext) -> Rule {
    let sma = |name| Operand::Column(ColumnKey::bid(context.primary, Series::Sma(values.count(name))));
    let (fast, slow) = (sma("fast_length"), sma("slow_length"));
    // "No longer holds" is stated as the opposite comparison: an average of valid bars, once defined, stays defined.
    let (holds, ends, reason) = match direction {
        Direction::Long => (Comparison::Greater, Comparison::LessOrEqual, "sma_cross_long"),
        Direction::Short => (Comparison::Less, Comparison::GreaterOrEqual, "sma_cross_short"),
    };
    Rule {
        direction,
        scenario_id: 0,
        label: direction.as_str().to_owned(),
        reason,
        tags: vec![NAME.to_owned()],
        when: vec![Expr::Is(Condition::new(fast, holds, slow))],
        guards: Vec::new(),
        stop: values
            .opt_float("stop_atr")
            .map(|factor| atr_stop(direction, context.primary, factor, values.count("atr_length"))),
        target: None,
        lots: values.opt_float("lots").map(Bits::new),
        exit: ExitRule { condition: Some(Expr::Is(Condition::new(fast, ends, slow))), hold_bars: None },
    }
}
