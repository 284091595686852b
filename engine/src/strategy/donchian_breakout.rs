//! `donchian_breakout`: follows a close beyond the channel of the bars before.

use serde_json::{Map, Value};

use super::params::ParamValues;
use super::rule_strategy::{DIRECTION_FILTER, RuleStrategy, directions, read_v2};
use super::{BuildContext, Family, ParamDefault, ParamKind, ParamSpec, Strategy};
use crate::error::Error;
use crate::indicators::{ColumnKey, Series};
use crate::rules::{Comparison, Condition, ExitRule, Expr, Operand, Rule};
use crate::units::Direction;

/// Family of `donchian_breakout`: long when the bid close is above the highest bid high of the `entry_length` bars before,
/// short below the lowest low; the stop is the extreme of the last `exit_length` bars, the bar included.
#[derive(Debug, Clone, Copy)]
pub struct DonchianBreakout;

const NAME: &str = "donchian_breakout";

const PARAMETERS: [ParamSpec; 4] = [
    ParamSpec::new(
        "entry_length",
        ParamKind::count(1),
        ParamDefault::Int(20),
        "bars of the channel that is broken, without the bar itself",
    ),
    ParamSpec::new(
        "exit_length",
        ParamKind::count(1),
        ParamDefault::Int(10),
        "bars whose lowest low (highest high) is the stop, the bar itself included",
    ),
    ParamSpec::new(
        "hold_bars",
        ParamKind::count(1),
        ParamDefault::Null,
        "bars after which the position is closed; null: no limit",
    )
    .or_null(),
    DIRECTION_FILTER,
];

impl Family for DonchianBreakout {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> &'static str {
        "1"
    }

    fn summary(&self) -> &'static str {
        "follows a close beyond the highest high or lowest low of the bars before"
    }

    fn parameters(&self) -> &'static [ParamSpec] {
        &PARAMETERS
    }

    fn build(&self, parameters: &Map<String, Value>, context: &BuildContext) -> Result<Box<dyn Strategy>, Error> {
        let values = read_v2(self, parameters, context)?;
        let rules = directions(&values).into_iter().map(|direction| rule(direction, &values, context)).collect();
        Ok(RuleStrategy::boxed(self, context, rules))
    }
}

fn rule(direction: Direction, values: &ParamValues, context: &BuildContext) -> Rule {
    let column = |series| Operand::Column(ColumnKey::bid(context.primary, series));
    let (entry, exit) = (values.count("entry_length"), values.count("exit_length"));
    let (channel, beyond, stop, reason) = match direction {
        Direction::Long => {
            (Series::ChannelHigh(entry), Comparison::Greater, Series::LowestLow(exit), "donchian_breakout_long")
        }
        Direction::Short => {
            (Series::ChannelLow(entry), Comparison::Less, Series::HighestHigh(exit), "donchian_breakout_short")
        }
    };
    Rule {
        direction,
        scenario_id: 0,
        label: direction.as_str().to_owned(),
        reason,
        tags: vec![NAME.to_owned()],
        when: vec![Expr::Is(Condition::new(column(Series::Close), beyond, column(channel)))],
        guards: Vec::new(),
        stop: Some(column(stop)),
        target: None,
        lots: None,
        exit: ExitRule { condition: None, hold_bars: values.opt_int("hold_bars").map(|_| values.count("hold_bars")) },
    }
}
