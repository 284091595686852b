//! What settings state: the rules of each scenario as text, what is refused, what overrides do, what is told.

use serde_json::{Value, json};

use super::super::{BuildContext, Family, Strategy, Variant, text};
use super::MeanReversionZScore;
use crate::units::Timeframe;

pub(super) fn context(variant: Variant) -> BuildContext {
    BuildContext {
        symbol: "EURUSD".to_owned(),
        primary: Timeframe::M5,
        additional: Vec::new(),
        variant,
        sessions_given: false,
    }
}

pub(super) fn build_in(parameters: &Value, context: &BuildContext) -> Result<Box<dyn Strategy>, String> {
    MeanReversionZScore.build(parameters.as_object().unwrap(), context).map_err(|error| error.to_string())
}

fn build(parameters: &Value) -> Box<dyn Strategy> {
    build_in(parameters, &context(Variant::V2)).unwrap()
}

fn rules(parameters: &Value) -> String {
    text::rules(build(parameters).rules().unwrap())
}

fn parity_rules(parameters: &Value, additional: &[Timeframe]) -> String {
    let context = BuildContext { additional: additional.to_vec(), ..context(Variant::V1Parity) };
    text::rules(build_in(parameters, &context).unwrap().rules().unwrap())
}

fn refused(parameters: &Value) -> String {
    build_in(parameters, &context(Variant::V2)).unwrap_err()
}

fn warnings(parameters: &Value) -> Vec<String> {
    MeanReversionZScore.warnings(parameters.as_object().unwrap(), &context(Variant::V2))
}

#[test]
fn scenario_1() {
    assert_eq!(
        rules(&json!({"enabled_scenarios": [1], "htf_filter": "above"})),
        "\
short 1 short_1 zscore_ema_short [zscore ema scenario1]
  finite z_ema(window 100, ema 30)@M5:bid >= 2.5
  stop high@M5:bid + 2 x atr(14)@M5:ask
  target ema(30)@M5:bid
long 1 long_1 zscore_ema_long [zscore ema scenario1]
  finite z_ema(window 100, ema 30)@M5:bid <= -2.5
  stop low@M5:bid + -2 x atr(14)@M5:bid
  target ema(30)@M5:bid
"
    );
}

#[test]
fn scenario_2_with_both_filters() {
    let parameters = json!({"enabled_scenarios": [2], "htf_filter": "above", "extra_htf_filter": "below"});
    assert_eq!(
        rules(&parameters),
        "\
short 2 short_2 kalman_z_boll_short [kalman bollinger scenario2]
  close@D1:bid > ema(100)@D1:bid
  close@H1:bid < ema(50)@H1:bid
  close@M5:bid >= rolling_mean(20)@M5:bid + 2 x rolling_sd(20)@M5:bid
  finite kalman_z(window 100, r 0.01, q 1)@M5:bid >= 2.5
  stop high@M5:bid + 2 x atr(14)@M5:bid
  target rolling_mean(20)@M5:bid
long 2 long_2 kalman_z_boll_long [kalman bollinger scenario2]
  close@D1:bid > ema(100)@D1:bid
  close@H1:bid < ema(50)@H1:bid
  close@M5:bid <= rolling_mean(20)@M5:bid + -2 x rolling_sd(20)@M5:bid
  finite kalman_z(window 100, r 0.01, q 1)@M5:bid <= -2.5
  stop low@M5:bid + -2 x atr(14)@M5:bid
  target rolling_mean(20)@M5:bid
"
    );
    assert_eq!(build(&parameters).timeframes(), [Timeframe::H1, Timeframe::D1]);
    assert_eq!(
        parity_rules(&parameters, &[Timeframe::H1, Timeframe::D1]).lines().nth(3),
        Some("  close@H1:bid:stepwise < ema(50)@H1:bid:stepwise")
    );
}

#[test]
fn scenario_3() {
    assert_eq!(
        rules(&json!({"enabled_scenarios": [3], "tp_min_distance": 0.25})),
        "\
short 3 short_3 kalman_z_boll_short [kalman bollinger scenario3]
  close@M5:bid >= rolling_mean(20)@M5:bid + 2 x rolling_sd(20)@M5:bid
  finite kalman_z(window 100, r 0.01, q 1)@M5:bid >= 2.5
  ema(30)@M5:bid < close@M5:bid + -0.25
  stop high@M5:bid + 2 x atr(14)@M5:bid
  target ema(30)@M5:bid
long 3 long_3 kalman_z_boll_long [kalman bollinger scenario3]
  close@M5:bid <= rolling_mean(20)@M5:bid + -2 x rolling_sd(20)@M5:bid
  finite kalman_z(window 100, r 0.01, q 1)@M5:bid <= -2.5
  ema(30)@M5:bid > close@M5:ask + 0.25
  stop low@M5:bid + -2 x atr(14)@M5:bid
  target ema(30)@M5:bid
"
    );
}

#[test]
fn scenario_4_global_and_local() {
    assert_eq!(
        rules(&json!({"enabled_scenarios": [4], "direction_filter": "long"})),
        "\
long 4 long_4 kalman_garch_z_boll_long [kalman garch bollinger scenario4]
  close@M5:bid <= rolling_mean(20)@M5:bid + -2 x rolling_sd(20)@M5:bid
  finite kalman_garch_z(r 0.01, q 1, alpha 0.05, beta 0.9, min_periods 50)@M5:bid <= -2.5
  stop low@M5:bid + -2 x atr(14)@M5:bid
  target rolling_mean(20)@M5:bid
"
    );
    assert_eq!(
        rules(&json!({"enabled_scenarios": [4], "direction_filter": "short", "local_z_lookback": 52})),
        "\
short 4 short_4 kalman_garch_z_boll_short [kalman garch bollinger scenario4]
  close@M5:bid >= rolling_mean(20)@M5:bid + 2 x rolling_sd(20)@M5:bid
  guard local_kalman_garch_z(r 0.01, q 1, min_periods 50, lookback 52) >= 2.5
  stop high@M5:bid + 2 x atr(14)@M5:bid
  target rolling_mean(20)@M5:bid
"
    );
}

#[test]
fn scenario_5_tries_long_first() {
    assert_eq!(
        rules(&json!({"enabled_scenarios": [5], "intraday_vol_allowed": [" Mid", "low", "extreme"], "cluster_hysteresis_bars": 1})),
        "\
long 5 long_5 kalman_z_boll_long_vol_cluster [kalman bollinger vol_cluster scenario5]
  close@M5:bid <= rolling_mean(20)@M5:bid + -2 x rolling_sd(20)@M5:bid
  finite kalman_z(window 100, r 0.01, q 1)@M5:bid <= -2.5
  guard vol_cluster(local_garch(lookback 500, min_periods 50), window 300, k 3, min_points 60, log true, hysteresis 0) in [low mid]
  stop low@M5:bid + -2 x atr(14)@M5:bid
  target rolling_mean(20)@M5:bid
short 5 short_5 kalman_z_boll_short_vol_cluster [kalman bollinger vol_cluster scenario5]
  close@M5:bid >= rolling_mean(20)@M5:bid + 2 x rolling_sd(20)@M5:bid
  finite kalman_z(window 100, r 0.01, q 1)@M5:bid >= 2.5
  guard vol_cluster(local_garch(lookback 500, min_periods 50), window 300, k 3, min_points 60, log true, hysteresis 0) in [low mid]
  stop high@M5:bid + 2 x atr(14)@M5:bid
  target rolling_mean(20)@M5:bid
"
    );
}

#[test]
fn scenario_6_joins_its_chain() {
    let any = json!({
        "enabled_scenarios": [6], "direction_filter": "long", "scenario6_mode": "any",
        "scenario6_timeframes": ["h4", " ", "PRIMARY", "H4"],
        "scenario6_params": {"H4": {"long": {"b_b_length": 4, "z_score": -0.5}}},
        "scenario6_primary_LONG_window_length": 7,
    });
    assert_eq!(
        rules(&any),
        "\
long 6 long_6 kalman_z_boll_long_multi_tf [kalman bollinger scenario6 multi_tf]
  close@M5:bid <= rolling_mean(20)@M5:bid + -2 x rolling_sd(20)@M5:bid
  finite kalman_z(window 100, r 0.01, q 1)@M5:bid <= -2.5
  any(all(finite kalman_z(window 100, r 0.01, q 1)@H4:bid <= -0.5; close@H4:bid <= rolling_mean(4)@H4:bid + -2 x rolling_sd(4)@H4:bid); all(finite kalman_z(window 7, r 0.01, q 1)@M5:bid <= -2.5; close@M5:bid <= rolling_mean(20)@M5:bid + -2 x rolling_sd(20)@M5:bid))
  stop low@M5:bid + -2 x atr(14)@M5:bid
  target rolling_mean(20)@M5:bid
"
    );
    assert_eq!(build(&any).timeframes(), [Timeframe::H4]);
}

/// §1.1: short before long in 1 to 4, long before short in 5 and 6; what scenario 2 shadows is not stated.
#[test]
fn rules_stand_in_the_order_of_evaluation() {
    let labels = |parameters: Value| -> Vec<String> {
        build(&parameters).rules().unwrap().rules.iter().map(|rule| rule.label.clone()).collect()
    };
    assert_eq!(
        labels(json!({"enabled_scenarios": [6, 5, 4, 3, 1], "tp_min_distance": 0})),
        ["short_1", "long_1", "short_3", "long_3", "short_4", "long_4", "long_5", "short_5", "long_6", "short_6"]
    );
    assert_eq!(labels(json!({"tp_min_distance": 0})), ["short_1", "long_1", "short_2", "long_2", "short_4", "long_4"]);
    assert_eq!(labels(json!({"enabled_scenarios": [1], "direction_filter": "long"})), ["long_1"]);
    assert_eq!(labels(json!({"enabled_scenarios": [1], "direction_filter": "short"})), ["short_1"]);
}

#[test]
fn what_can_never_fire_says_why() {
    let never = |parameters: Value| rules(&parameters).lines().nth(1).unwrap().trim().to_owned();
    let one = |number: u8, more: Value| {
        let mut parameters = json!({"enabled_scenarios": [number], "direction_filter": "long"});
        parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        never(parameters)
    };
    assert_eq!(one(6, json!({})), "never: scenario6_timeframes is empty");
    assert_eq!(
        one(5, json!({"intraday_vol_allowed": []})),
        "never: intraday_vol_allowed names no cluster that can occur"
    );
    assert_eq!(
        one(5, json!({"cluster_hysteresis_bars": 301})),
        "never: cluster_hysteresis_bars is above intraday_vol_cluster_window"
    );
    assert_eq!(
        one(5, json!({"intraday_vol_cluster_window": 2})),
        "never: intraday_vol_cluster_window is below intraday_vol_cluster_k"
    );
    let v1 = |parameters: &Value, additional: &[Timeframe]| {
        parity_rules(parameters, additional).lines().nth(2).unwrap().trim().to_owned()
    };
    assert_eq!(
        v1(&json!({"enabled_scenarios": [4], "local_z_lookback": 51}), &[]),
        "never: local_z_lookback is below garch_min_periods + 2"
    );
    assert_eq!(
        v1(&json!({"enabled_scenarios": [2], "htf_filter": "below"}), &[Timeframe::H1]),
        "never: the timeframe of an active trend filter is not in timeframes.additional"
    );
    let chain = json!({"enabled_scenarios": [6], "scenario6_timeframes": ["H1", "H4"]});
    assert_eq!(
        v1(&chain, &[Timeframe::H1]),
        "never: a timeframe of scenario6_timeframes is not in timeframes.additional"
    );
}

/// S-04: filter B on NONE.
#[test]
fn an_active_filter_without_a_timeframe_blocks_in_v1_and_is_not_counted_in_v2() {
    let parameters = json!({"enabled_scenarios": [2], "extra_htf_tf": "none", "extra_htf_filter": "above"});
    let plain = json!({"enabled_scenarios": [2]});
    assert_eq!(rules(&parameters), rules(&plain));
    assert_eq!(warnings(&parameters), ["`extra_htf_filter` is not counted: its timeframe is NONE"]);
    assert!(parity_rules(&parameters, &[Timeframe::D1]).contains("never: an active trend filter has no timeframe"));
    assert!(!parity_rules(&plain, &[]).contains("never"), "`both` on a timeframe that is not loaded passes");
}

#[test]
fn fewer_filters_may_be_required_and_the_number_is_capped() {
    let with = |required: Value| {
        let parameters = json!({
            "enabled_scenarios": [2], "direction_filter": "long", "htf_filter": "above", "extra_htf_filter": "above",
            "trend_min_filters_required": required,
        });
        rules(&parameters).lines().skip(1).take_while(|line| !line.contains("rolling_mean")).count()
    };
    assert_eq!([with(Value::Null), with(json!(0)), with(json!(1)), with(json!(2)), with(json!(9))], [2, 0, 1, 2, 2]);
    let one = json!({
        "enabled_scenarios": [2], "direction_filter": "long", "htf_filter": "above", "extra_htf_filter": "above",
        "trend_min_filters_required": 1,
    });
    assert!(rules(&one).contains("any(close@D1:bid > ema(100)@D1:bid; close@H1:bid > ema(50)@H1:bid)"));
}

/// Settings that differ in what no enabled scenario reads state equal rules.
#[test]
fn parameters_without_effect_are_in_no_rule() {
    let base = json!({"enabled_scenarios": [2]});
    for (key, value) in [
        ("ema_length", json!(99)),
        ("garch_alpha", json!(0.01)),
        ("htf_ema", json!(7)),
        ("htf_tf", json!("H4")),
        ("extra_htf_filter", json!("none")),
        ("intraday_vol_cluster_k", json!(5)),
        ("scenario6_timeframes", json!(["H1"])),
        ("local_z_lookback", json!(400)),
    ] {
        let mut other = base.clone();
        other[key] = value;
        assert_eq!(build(&base).rules(), build(&other).rules(), "{key}");
        assert!(build(&other).timeframes().is_empty(), "{key}");
        assert_eq!(warnings(&other).len(), usize::from(key != "extra_htf_filter"), "{key}: {:?}", warnings(&other));
    }
}

#[test]
fn each_kind_of_bad_value_is_refused() {
    for (parameters, message) in [
        (json!({"enabled_scenarios": [7]}), "enabled_scenarios: must be list of int 1 to 6, got [7]"),
        (json!({"b_b_length": 1}), "b_b_length: must be int >= 2, got 1"),
        (json!({"atr_mult": true}), "atr_mult: must be float > 0, got true"),
        (json!({"z_score_long": 0}), "z_score_long: must be float < 0, got 0"),
        (json!({"z_score_short": -1}), "z_score_short: must be float > 0, got -1"),
        (
            json!({"htf_filter": "abov"}),
            "htf_filter: must be one of above, below, both, none, got \"abov\" (did you mean `above`?)",
        ),
        (json!({"htf_tf": "AUTO"}), "htf_tf: must be timeframe or NONE, got \"AUTO\""),
        (
            json!({"intraday_vol_feature": "atr_points"}),
            "intraday_vol_feature: must be one of garch_forecast, got \"atr_points\"",
        ),
        (json!({"kalman_rr": 1}), "kalman_rr: unknown key (did you mean `kalman_r`?)"),
        (json!({"symbol": "EURUSD"}), "symbol: unknown key"),
        (
            json!({"scenario6_timeframes": ["H1", "H3"]}),
            "scenario6_timeframes[1]: must be a timeframe or PRIMARY, got \"H3\"",
        ),
        (
            json!({"scenario6_params": {"H1": {"long": {"window": 5}}}}),
            "scenario6_params.H1.long.window: unknown key (did you mean `window_length`?)",
        ),
        (json!({"scenario6_params": {"H1": {"long": 5}}}), "scenario6_params.H1.long: must be object, got 5"),
        (json!({"scenario6_params": {"H1": {}, "h1": {}}}), "scenario6_params.h1: H1 is given twice"),
        (json!({"scenario6_H1_long_kalman_r": 0}), "scenario6_H1_long_kalman_r: must be float > 0, got 0"),
        (
            json!({"overrides": {"EURUSD": {}}}),
            "overrides.EURUSD: must be named `<SYMBOL or *>/<timeframe or *>`, got \"EURUSD\"",
        ),
        (
            json!({"overrides": {"*/*": {"long": {"atr_lenght": 5}}}}),
            "overrides.*/*.long.atr_lenght: unknown key (did you mean `atr_length`?)",
        ),
        (
            json!({"overrides": {"*/*": {"enabled_scenarios": [1]}}}),
            "overrides.*/*.enabled_scenarios: cannot be overridden: it belongs to the strategy as a whole",
        ),
    ] {
        let found = refused(&parameters);
        // A nearest name may be offered on top.
        assert!(found.starts_with(message), "{found}");
    }
    let several = refused(&json!({"ema_length": 0, "atr_length": "x", "scenario6_params": {"H9": {}}}));
    assert_eq!(several.matches("; ").count(), 2, "{several}");
}

#[test]
fn relations_hold_or_the_setting_is_refused() {
    for (parameters, part) in [
        (json!({}), "`tp_min_distance is given when scenario 3 is enabled` must hold, got tp_min_distance = null"),
        (json!({"enabled_scenarios": [1], "garch_alpha": 0.1}), "`garch_alpha + garch_beta < 1` must hold"),
        (json!({"enabled_scenarios": [4], "local_z_lookback": 51}), "local_z_lookback is 0 or >="),
        (json!({"enabled_scenarios": [5], "intraday_vol_garch_lookback": 110}), "intraday_vol_garch_lookback >="),
    ] {
        assert!(refused(&parameters).contains(part), "{}", refused(&parameters));
    }
    for parameters in [
        json!({"enabled_scenarios": [1], "local_z_lookback": 51}),
        json!({"enabled_scenarios": [4], "local_z_lookback": 52}),
        json!({"enabled_scenarios": [5], "intraday_vol_garch_lookback": 111}),
    ] {
        build(&parameters);
    }
    // An override that breaks a relation for one direction is found as well.
    let overridden = json!({"enabled_scenarios": [1], "overrides": {"*/*": {"short": {"garch_beta": 0.95}}}});
    assert!(refused(&overridden).contains("garch_beta = 0.95"));
}

#[test]
fn v1_has_its_own_ranges_and_defaults() {
    let parity = context(Variant::V1Parity);
    let build = |parameters: Value| build_in(&parameters, &parity);
    let default = build(json!({})).unwrap();
    assert_eq!(default.max_holding_minutes(), Some(30));
    assert!(!default.uses_position_manager());
    assert!(
        build_in(&json!({}), &BuildContext { sessions_given: true, ..parity.clone() }).unwrap().uses_position_manager()
    );
    assert_eq!(build(json!({"max_holding_minutes": 0})).unwrap().max_holding_minutes(), None);
    assert_eq!(build(json!({"max_holding_minutes": null})).unwrap().max_holding_minutes(), None);
    assert_eq!(default.rules().unwrap().level_decimals, Some(5));
    build(json!({"z_score_long": 1.0, "z_score_short": -1.0, "intraday_vol_feature": "whatever"})).unwrap();
    assert_eq!(
        build(json!({"trend_min_filters_required": 1, "overrides": {}})).unwrap_err(),
        "overrides: exists in execution_variant v2 only; trend_min_filters_required: exists in execution_variant v2 only"
    );
    let default = super::super::find("mean_reversion_z_score").unwrap();
    assert!(
        !default
            .build(json!({"tp_min_distance": 1}).as_object().unwrap(), &context(Variant::V2))
            .unwrap()
            .uses_position_manager()
    );
}

/// §9: `*/*`, `s/*`, `*/f`, `s/f`, in each the plain part before the direction's.
#[test]
fn overrides_apply_from_general_to_special() {
    let ema = |overrides: Value| -> Vec<String> {
        let parameters = json!({"enabled_scenarios": [1], "ema_length": 1, "overrides": overrides});
        let built = build(&parameters);
        built.rules().unwrap().rules.iter().map(|rule| text_of_target(rule.target.as_ref())).collect()
    };
    let all = json!({
        "*/*": {"ema_length": 2}, "eurusd/*": {"ema_length": 3}, "*/m5": {"ema_length": 4, "long": {"ema_length": 5}},
        "EURUSD/M5": {"ema_length": 6, "long": {"ema_length": 7}}, "EURUSD/H1": {"ema_length": 8}, "GBPUSD/*": {"ema_length": 9},
    });
    assert_eq!(ema(all.clone()), ["ema(6)", "ema(7)"]);
    let without = |keys: &[&str]| {
        let mut rest = all.clone();
        for key in keys {
            rest.as_object_mut().unwrap().remove(*key);
        }
        ema(rest)
    };
    assert_eq!(without(&["EURUSD/M5"]), ["ema(4)", "ema(5)"]);
    assert_eq!(without(&["EURUSD/M5", "*/m5"]), ["ema(3)", "ema(3)"]);
    assert_eq!(without(&["EURUSD/M5", "*/m5", "eurusd/*"]), ["ema(2)", "ema(2)"]);
    assert_eq!(without(&["EURUSD/M5", "*/m5", "eurusd/*", "*/*"]), ["ema(1)", "ema(1)"]);
}

fn text_of_target(target: Option<&crate::rules::Operand>) -> String {
    target.map(|operand| operand.columns().map(|key| key.series.to_string()).collect()).unwrap_or_default()
}

#[test]
fn an_axis_may_name_an_override_key() {
    let parameters = json!({
        "enabled_scenarios": [1], "ema_length": 10,
        "overrides": {"*/M5": {"ema_length": 20}},
        "overrides.*/M5.short.ema_length": 40,
    });
    let built = build(&parameters);
    let targets: Vec<String> =
        built.rules().unwrap().rules.iter().map(|rule| text_of_target(rule.target.as_ref())).collect();
    assert_eq!(targets, ["ema(40)", "ema(20)"]);
    assert_eq!(
        warnings(&parameters),
        [
            "`ema_length` has no effect for long: it is overridden in `overrides`",
            "`ema_length` has no effect for short: it is overridden in `overrides`",
        ]
    );
    assert!(MeanReversionZScore.dynamic_parameter("overrides.US500.C/*.long.scenario6_H1_short_z_score").is_some());
    assert!(MeanReversionZScore.dynamic_parameter("overrides.*/*.enabled_scenarios").is_none());
    assert!(MeanReversionZScore.dynamic_parameter("scenario6_mode").is_none());
}

#[test]
fn axis_values_are_checked_one_by_one() {
    let context = context(Variant::V2);
    let check = |key: &str, value: Value| {
        MeanReversionZScore.check_parameter(key, &value, &context).map_err(|violation| violation.to_string())
    };
    assert_eq!(check("ema_length", json!(12)), Ok(()));
    assert_eq!(check("scenario6_h1_LONG_z_score", json!(-1.5)), Ok(()));
    assert_eq!(check("scenario6_timeframes", json!(["H1", "PRIMARY"])), Ok(()));
    assert!(check("scenario6_timeframes", json!(["H7"])).is_err());
    assert_eq!(check("ema_length", json!(1.5)), Err("ema_length: must be int >= 1, got 1.5".to_owned()));
    assert_eq!(check("emalength", json!(1)), Err("emalength: unknown key (did you mean `ema_length`?)".to_owned()));
    assert!(check("overrides.*/H1.short.atr_mult", json!(0)).is_err());
}

#[test]
fn what_is_worth_knowing_is_told_before_the_start() {
    assert_eq!(
        warnings(&json!({"tp_min_distance": 0.1, "enabled_scenarios": [2, 3, 5]})),
        [
            "scenarios 3, 5 never open a position while scenario 2 is enabled: they ask for everything it asks for and come \
             after it",
            "`tp_min_distance` has no effect: no scenario that can open a position reads it",
        ]
    );
    assert_eq!(
        warnings(&json!({
            "enabled_scenarios": [6], "direction_filter": "long", "scenario6_timeframes": ["H1"],
            "scenario6_params": {"H1": {"std_factor": 1}}, "scenario6_H1_long_window_length": 9, "z_score_short": 2,
        })),
        [
            "`scenario6_params.H1`: its plain keys are ignored for long, which has keys of its own",
            "`z_score_short` has no effect: its direction is filtered out",
        ]
    );
    assert_eq!(
        warnings(&json!({"enabled_scenarios": [5], "intraday_vol_allowed": ["high", "very_high"]})),
        ["`intraday_vol_allowed`: no cluster is called `very_high` when there are 3"]
    );
    assert!(warnings(&json!({"enabled_scenarios": [1], "ema_length": 5})).is_empty());
}
