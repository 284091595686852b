//! What the small strategies share: a strategy that is nothing but its rules, the way its parameters are read, the stop
//! by ATR.

use serde_json::{Map, Value};

use super::DataSlice;
use super::params::{ParamValues, check_constraints, finish};
use super::{BuildContext, Family, ParamDefault, ParamKind, ParamSpec, SignalNotes, Strategy, Variant, Violations};
use crate::error::{Error, Violation};
use crate::indicators::{ColumnKey, Series};
use crate::rules::{Operand, Rule, RuleSet};
use crate::units::{Direction, Timeframe};

/// Parameter `direction_filter`.
pub(super) const DIRECTION_FILTER: ParamSpec = ParamSpec::new(
    "direction_filter",
    ParamKind::Choice(&["long", "short", "both"]),
    ParamDefault::Text("both"),
    "sides that are traded",
);

/// A strategy without anything beside its rules.
#[derive(Debug)]
pub(super) struct RuleStrategy {
    name: &'static str,
    version: &'static str,
    primary: Timeframe,
    rules: RuleSet,
}

impl RuleStrategy {
    pub(super) fn boxed(family: &dyn Family, context: &BuildContext, rules: Vec<Rule>) -> Box<dyn Strategy> {
        Box::new(Self {
            name: family.name(),
            version: family.version(),
            primary: context.primary,
            rules: RuleSet { rules, level_decimals: None },
        })
    }
}

impl Strategy for RuleStrategy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> &'static str {
        self.version
    }

    fn primary_timeframe(&self) -> Timeframe {
        self.primary
    }

    fn rules(&self) -> Option<&RuleSet> {
        Some(&self.rules)
    }

    fn signal_meta(&self, rule: usize, _slice: &DataSlice<'_>) -> SignalNotes {
        let rule = self.rules.rules.get(rule);
        let scenario = rule.map(|rule| ("scenario".to_owned(), Value::from(rule.label.clone())));
        SignalNotes {
            tags: rule.map(|rule| rule.tags.clone()).unwrap_or_default(),
            meta: scenario.into_iter().collect(),
        }
    }
}

/// Reads and checks the parameters of a strategy that exists in variant `v2` only.
///
/// # Errors
/// [`Error::Config`] with every violation.
pub(super) fn read_v2(
    family: &dyn Family,
    parameters: &Map<String, Value>,
    context: &BuildContext,
) -> Result<ParamValues, Error> {
    let mut violations = Violations::new();
    if context.variant != Variant::V2 {
        let reason = format!("`{}` exists in execution_variant v2 only, got v1_parity", family.name());
        // The empty path is the whole block `strategy_parameters`.
        violations.push(Violation::value("", reason));
    }
    let dynamic = |key: &str| family.dynamic_parameter(key);
    let values = ParamValues::read(family.parameters_in(context), parameters, &dynamic, &mut violations);
    if violations.is_empty() {
        violations.extend(check_constraints(family.constraints(), &|name| values.value(name), context));
    }
    finish(violations).map(|()| values)
}

/// Directions that `direction_filter` lets through, long first.
pub(super) fn directions(values: &ParamValues) -> Vec<Direction> {
    let filter = values.text("direction_filter");
    let admitted = |direction: &Direction| filter == "both" || filter == direction.as_str();
    [Direction::Long, Direction::Short].into_iter().filter(admitted).collect()
}

/// Stop `factor` ATRs (bid) beyond the bid low of the bar (long) or its bid high (short).
pub(super) fn atr_stop(direction: Direction, primary: Timeframe, factor: f64, atr_length: u32) -> Operand {
    let extreme = match direction {
        Direction::Long => Series::Low,
        Direction::Short => Series::High,
    };
    let atr = ColumnKey::bid(primary, Series::Atr(atr_length));
    Operand::linear(ColumnKey::bid(primary, extreme), -direction.sign() * factor, atr)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::text;
    use super::*;
    use crate::strategy::find;

    fn context() -> BuildContext {
        BuildContext {
            symbol: "EURUSD".to_owned(),
            primary: Timeframe::M5,
            additional: Vec::new(),
            variant: Variant::V2,
            sessions_given: false,
        }
    }

    fn build(name: &str, parameters: Value) -> Result<String, String> {
        let strategy = find(name)
            .unwrap()
            .build(parameters.as_object().unwrap(), &context())
            .map_err(|error| error.to_string())?;
        assert_eq!(strategy.primary_timeframe(), Timeframe::M5);
        Ok(text::rules(strategy.rules().unwrap()))
    }

    #[test]
    fn sma_cross_states_its_rules() {
        assert_eq!(
            build("sma_cross", json!({"fast_length": 10, "slow_length": 30, "lots": 0.5})).unwrap(),
            "\
long 0 long sma_cross_long [sma_cross]
  sma(10)@M5:bid > sma(30)@M5:bid
  lots 0.5
  exit if sma(10)@M5:bid <= sma(30)@M5:bid
short 0 short sma_cross_short [sma_cross]
  sma(10)@M5:bid < sma(30)@M5:bid
  lots 0.5
  exit if sma(10)@M5:bid >= sma(30)@M5:bid
"
        );
        assert_eq!(
            build("sma_cross", json!({"stop_atr": 3, "atr_length": 7, "direction_filter": "short"})).unwrap(),
            "\
short 0 short sma_cross_short [sma_cross]
  sma(20)@M5:bid < sma(50)@M5:bid
  stop high@M5:bid + 3 x atr(7)@M5:bid
  exit if sma(20)@M5:bid >= sma(50)@M5:bid
"
        );
    }

    #[test]
    fn donchian_breakout_states_its_rules() {
        assert_eq!(
            build("donchian_breakout", json!({"hold_bars": 12})).unwrap(),
            "\
long 0 long donchian_breakout_long [donchian_breakout]
  close@M5:bid > channel_high(20)@M5:bid
  stop lowest_low(10)@M5:bid
  exit after 12 bars
short 0 short donchian_breakout_short [donchian_breakout]
  close@M5:bid < channel_low(20)@M5:bid
  stop highest_high(10)@M5:bid
  exit after 12 bars
"
        );
    }

    #[test]
    fn rsi_reversion_states_its_rules() {
        assert_eq!(
            build("rsi_reversion", json!({"oversold": 25})).unwrap(),
            "\
long 0 long rsi_reversion_long [rsi_reversion]
  rsi(14)@M5:bid <= 25
  stop low@M5:bid + -2 x atr(14)@M5:bid
  exit if rsi(14)@M5:bid >= 50
short 0 short rsi_reversion_short [rsi_reversion]
  rsi(14)@M5:bid >= 70
  stop high@M5:bid + 2 x atr(14)@M5:bid
  exit if rsi(14)@M5:bid <= 50
"
        );
    }

    #[test]
    fn bad_parameters_are_refused_with_their_rule() {
        let refused = [
            (
                "sma_cross",
                json!({}),
                "stop_atr: `stop_atr or lots is given` must hold, got stop_atr = null, lots = null",
            ),
            (
                "sma_cross",
                json!({"fast_length": 50, "lots": 1}),
                "fast_length: `fast_length < slow_length` must hold, got fast_length = 50, slow_length = 50",
            ),
            ("sma_cross", json!({"lots": 0}), "lots: must be float > 0 or null, got 0"),
            ("donchian_breakout", json!({"hold_bars": 0}), "hold_bars: must be int >= 1 or null, got 0"),
            ("donchian_breakout", json!({"lots": 1}), "lots: unknown key"),
            (
                "rsi_reversion",
                json!({"oversold": 50}),
                "oversold: `oversold < exit_level < overbought` must hold, got oversold = 50, exit_level = 50.0, overbought = \
                 70.0",
            ),
            ("rsi_reversion", json!({"overbought": 101}), "overbought: must be float >= 0 and <= 100, got 101"),
        ];
        for (name, parameters, message) in refused {
            assert_eq!(build(name, parameters), Err(message.to_owned()));
        }
    }

    #[test]
    fn the_small_strategies_know_no_v1() {
        let parity = BuildContext { variant: Variant::V1Parity, ..context() };
        let error = find("rsi_reversion").unwrap().build(&Map::new(), &parity).unwrap_err();
        assert!(error.to_string().contains("v2 only"), "{error}");
    }
}
