//! Errors that guard the loop against itself: no input reaches them, so the loop is told to go wrong.

use super::*;
use crate::data::Quotes;
use crate::error::Category;
use crate::execution::{Fees, Slippage, VolumeGrid};
use crate::indicators::ColumnKey;
use crate::rules::RuleSet;
use crate::units::{MINUTE_NS, Timeframe};

/// Reads nothing and wants nothing.
#[derive(Debug)]
struct Idle;

impl Strategy for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn version(&self) -> &'static str {
        "1"
    }

    fn primary_timeframe(&self) -> Timeframe {
        Timeframe::M1
    }

    fn rules(&self) -> Option<&RuleSet> {
        None
    }
}

struct NoColumns;

impl ColumnView for NoColumns {
    fn column(&self, _key: &ColumnKey) -> Option<&[f64]> {
        None
    }
}

/// Two bars on which nothing moves.
fn market() -> MarketData {
    let side = |price: f64| {
        let column = || vec![price; 2].into();
        Quotes { open: column(), high: column(), low: column(), close: column(), volume: column() }
    };
    let bars =
        Bars { timeframe: Timeframe::M1, open_time: vec![0, MINUTE_NS].into(), bid: side(1.1), ask: side(1.1002) };
    MarketData { symbol: "EURUSD".to_owned(), bars, first_tradable: 0, others: Vec::new() }
}

fn plan(initial_balance: f64) -> Plan {
    let terms = Terms {
        variant: Variant::V2,
        pip: 0.0001,
        buffer: 0.0,
        min_stop_pips: 0.0,
        slippage: Slippage { fixed_pips: 0.0, random_pips: 0.0, multiplier: 0.0 },
        fees: Fees::NONE,
        volume: VolumeGrid { min: 0.01, step: 0.01, max: 100.0 },
        risk: 100.0,
        pip_value: 10.0,
        unit_value: 1e5,
    };
    Plan {
        terms,
        initial_balance,
        max_positions: 1,
        cooldown_bars: 0,
        cooldown_ns: 0,
        cooldown_after_exit_ns: 0,
        holding: None,
        bars: 0..2,
        close_at_end: false,
    }
}

fn with_inputs<T>(test: impl FnOnce(Inputs<'_>) -> T) -> T {
    let (market, draws) = (market(), DrawTable::new(42));
    let strategy = Idle;
    test(Inputs { market: &market, strategy: &strategy, columns: &NoColumns, guards: None, gates: None, draws: &draws })
}

/// A full book drops orders before they fill; past that gate, a position too many is a breach.
#[test]
fn a_position_beyond_the_limit_is_e4005() {
    with_inputs(|inputs| {
        let plan = plan(10_000.0);
        let mut book = Book::new(inputs, &plan, Vec::new());
        let intent = Intent {
            direction: Direction::Long,
            requested: 1.1002,
            stop: Some(1.1),
            target: None,
            lots: None,
            scenario_id: 0,
            rule: 0,
            origin: Origin::Rule(0),
        };
        book.take(0, &intent, &mut Nobody).unwrap();
        assert!(!book.gates_open(1), "the gate that keeps this from happening");
        let error = book.take(1, &intent, &mut Nobody).unwrap_err();
        assert_eq!(error, Error::PositionLimitExceeded { limit: 1, open: 2 });
        assert_eq!((error.code(), error.category()), ("E4005", Category::Execution));
    });
}

#[test]
fn a_balance_that_is_no_number_is_e4301() {
    with_inputs(|inputs| {
        assert!(walk(inputs, &plan(10_000.0), Vec::new(), &mut Nobody).is_ok());
        let error = walk(inputs, &plan(f64::INFINITY), Vec::new(), &mut Nobody).unwrap_err();
        assert_eq!((error.code(), error.category()), ("E4301", Category::Runtime));
    });
}
