//! Grids of the registered strategies: what they mean, and every refusal as the user sees it.

use engine::strategy::find;
use proptest::prelude::*;

use super::*;

const CONFIG: &str = "\
config:
  strategy_name: mean_reversion_z_score
  symbol: XAGUSD
  start_date: 2014-01-01
  end_date: 2015-12-31
  timeframes: {primary: M5, additional: [D1]}
  strategy_parameters: {enabled_scenarios: [1], atr_length: 14}
";

fn grid(body: &str) -> Result<Grid, Box<Diagnostics>> {
    let text = format!("{body}{CONFIG}");
    Grid::parse(Document::parse("grids/test.yaml", text)?, Path::new("grids"), "test")
}

/// All that `sweep` does before it looks at bars.
fn plan(grid: &Grid) -> Result<Trials, Box<Diagnostics>> {
    let parsed = engine::backtest::RunConfig::parse(&grid.config_json(), true)
        .map_err(|violations| Box::new(Diagnostics::from_violations(&grid.config, &violations)))?;
    let config = parsed.config;
    let family = find(&config.strategy_name).unwrap();
    let space = grid.space(family, &config.build_context(), &config.document)?;
    grid.trials(Arc::new(space))
}

fn refusal(body: &str) -> String {
    match grid(body).and_then(|grid| plan(&grid)) {
        Ok(trials) => format!("accepted with {} trials", trials.len()),
        Err(faults) => faults.render(false, 100),
    }
}

fn texts(trials: &Trials) -> String {
    let settings = trials.settings(0..trials.len()).map(|setting| {
        let values = trials.space().values(&setting);
        values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    });
    settings.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_of_the_design() {
    let grid = grid(
        r#"
name: xagusd-zscore
seed: 7
parameters:
  window_length: 40..250:10
  z_score_long: {min: -3.0, max: -1.0, step: 0.25}
  htf_filter: {values: [above, below, none]}
  costs.fee_multiplier: [0, 1, 1.5]
  garch_alpha: {min: 0.01, max: 0.08, scale: log, points: 4}
  direction_filter: long
linked:
  - {names: [ema_length, b_b_length], values: [[20, 20], [50, 48]]}
constraints: ["ema_length < window_length", "costs.fee_multiplier > 0 or window_length == 40"]
search: {method: random, trials: 5000}
objective: {minimize: max_drawdown / (1 + profit_factor)}
gates: ["total_trades >= 100", "max_drawdown <= 0.20"]
walk_forward: {mode: rolling, train: 365d, test: 90d, embargo: 3d}
limits: {memory: 8GB, time: 6h, chunk: 512}
output: {dir: results, top: 5, csv: all}
"#,
    )
    .unwrap();
    let trials = plan(&grid).unwrap();
    let space = trials.space();
    assert_eq!(trials.len(), 5000);
    assert_eq!(space.size(), 22 * 9 * 3 * 3 * 4 * 2);
    let columns: Vec<String> =
        space.columns().iter().map(|column| format!("{} {:?}", column.name, column.kind)).collect();
    insta::assert_snapshot!(columns.join("\n"), @r##"
    window_length Int
    z_score_long Float
    htf_filter Text
    costs.fee_multiplier Float
    garch_alpha Float
    ema_length Int
    b_b_length Int
    "##);
    assert_eq!((grid.seed, grid.limits.memory), (7, Some(8_000_000_000)));
    assert_eq!(grid.limits.time, Some(std::time::Duration::from_secs(21_600)));
    assert_eq!((grid.output.top, grid.output.csv), (5, CsvRows::All));
    assert_eq!(grid.walk_forward.as_ref().unwrap().train, [Length::Days(365)]);
    assert_eq!(grid.config.root.get("strategy_parameters").unwrap().to_json()["direction_filter"], "long");
    let broken: Vec<String> = space
        .constraints()
        .iter()
        .zip(trials.broken())
        .map(|(constraint, count)| format!("{constraint:?}: {count:?}"))
        .collect();
    insta::assert_snapshot!(broken.join("\n"), @r##"
    ema_length < window_length (grid): Some(648)
    costs.fee_multiplier > 0 or window_length == 40 (grid): Some(4536)
    garch_alpha + garch_beta < 1 (strategy): Some(0)
    z_score_long < 0 < z_score_short (strategy): Some(0)
    tp_min_distance is given when scenario 3 is enabled (strategy): Some(0)
    local_z_lookback is 0 or >= garch_min_periods + 2 when scenario 4 is enabled (strategy): Some(0)
    intraday_vol_garch_lookback >= intraday_vol_min_points + garch_min_periods + 1 when scenario 5 is enabled (strategy): Some(0)
    "##);

    // A lock file is a grid that gives the same trials.
    let config = engine::backtest::RunConfig::parse(&grid.config_json(), true).unwrap().config;
    let lock = grid.lock_yaml(space, &config.document, 512);
    insta::assert_snapshot!(lock, @r##"
    name: "xagusd-zscore"
    seed: 7
    config:
      "account": {"account_currency":"EUR","initial_balance":10000.0,"max_positions":1,"risk_per_trade":100.0}
      "cooldown_candles": 0
      "cooldown_minutes": 0
      "cooldown_minutes_trade": 0
      "costs": {"enabled":true,"fee_multiplier":1.0,"pip_buffer_factor":null,"pip_size":null,"slippage_multiplier":1.0,"spread_multiplier":1.0}
      "data": null
      "data_mode": "candle"
      "end_date": "2015-12-31"
      "execution_variant": "v2"
      "logging": {"enable_entry_logging":false,"logging_mode":"trades_only"}
      "metrics": {"data_jitter":{"atr_period":14,"fraq":0.0,"min_price":1e-9,"penalty_cap":0.5,"repeats":5,"sigma_atr":0.1},"robustness":{"cost_shock_factors":[1.25,1.5,2.0],"dropout_frac":0.1,"dropout_runs":1,"enabled":false,"jitter_frac":0.05,"jitter_repeats":5,"mode":"full"},"timing_jitter":{"divisors":[10.0,5.0,20.0],"min_months":1},"ulcer":{"ulcer_cap":10.0}}
      "news_filter": null
      "observability": {"profiling_mode":false}
      "parity": {"entry_timestamp_mode":"open","higher_tf_timestamps_mode":{},"stale_bar_limit_bars":0}
      "profiling": {"enabled":false}
      "rates": {"mode":"static","static":{}}
      "rng_seed": 42
      "run_mode": "dev"
      "schema_version": "2"
      "sessions": null
      "start_date": "2014-01-01"
      "strategy_name": "mean_reversion_z_score"
      "strategy_parameters": {"atr_length":14,"direction_filter":"long","enabled_scenarios":[1]}
      "symbol": "XAGUSD"
      "timeframes": {"additional":["D1"],"additional_source":"separate_parquet","primary":"M5"}
      "trade_management": null
      "trade_window": null
      "warmup_bars": 500
    parameters:
      "window_length": {"min": 40, "max": 250, "step": 10}
      "z_score_long": {"min": -3, "max": -1, "step": 0.25}
      "htf_filter": {"values": ["above","below","none"]}
      "costs.fee_multiplier": {"values": [0.0,1.0,1.5]}
      "garch_alpha": {"values": [0.01,0.02,0.04,0.08]}
    linked:
      - {"names": ["ema_length","b_b_length"], "values": [[20,20],[50,48]]}
    constraints: ["ema_length < window_length","costs.fee_multiplier > 0 or window_length == 40"]
    search: {"method":"random","trials":5000}
    objective: {"minimize":"max_drawdown / (1 + profit_factor)"}
    gates: ["total_trades >= 100","max_drawdown <= 0.20"]
    walk_forward: {"embargo":"3d","mode":"rolling","test":"90d","train":"365d","verdict":["total_trades >= 30","days >= 250","sharpe_daily > 0","psr >= 0.90","wf_consistency >= 0.6","wf_concentration <= 0.5"]}
    limits: {"chunk":512}
    output: {"csv":"all","top":5}
    "##);
    let again = Grid::parse(Document::parse("grid.lock.yaml", lock.clone()).unwrap(), Path::new(""), "x").unwrap();
    let again_trials = plan(&again).unwrap();
    assert_eq!(texts(&again_trials), texts(&trials));
    assert_eq!(again.lock_yaml(again_trials.space(), &config.document, 512), lock);
    assert_eq!(
        again.identity(again_trials.space(), &config.document)["search"],
        grid.identity(space, &config.document)["search"]
    );
}

#[test]
fn small_grids_list_their_settings() {
    let trials = plan(
        &grid(
            "parameters:\n  window_length: [30, 20]\n  z_score_long: -1.5..-1.3:0.1\n  garch_omega: {values: [null, 0.1]}\n  enabled_scenarios: [[1], [1, 2]]\nconstraints: ['garch_omega == null or window_length > 20', 'enabled_scenarios == \"[1]\"']\n",
        )
        .unwrap(),
    )
    .unwrap();
    insta::assert_snapshot!(texts(&trials), @r##"
    30 -1.5 null [1]
    30 -1.5 0.1 [1]
    30 -1.4 null [1]
    30 -1.4 0.1 [1]
    30 -1.3 null [1]
    30 -1.3 0.1 [1]
    20 -1.5 null [1]
    20 -1.4 null [1]
    20 -1.3 null [1]
    "##);
}

#[test]
fn a_grid_without_axes_has_one_setting() {
    assert_eq!(refusal("name: x\n"), "accepted with 1 trials");
    assert_eq!(refusal("parameters: {window_length: 30}\n"), "accepted with 1 trials");
}

#[test]
fn set_replaces_axes_parameters_and_keys() {
    let mut grid = grid(
        "parameters: {window_length: 40..250:10, atr_length: 20}\nlinked: [{names: [ema_length], values: [[3]]}]\n",
    )
    .unwrap();
    for assignment in [
        "window_length=40..60:10",
        "z_score_long = [-2, -1.5]",
        "costs.fee_multiplier=0..1:0.5",
        "account.risk_per_trade=50",
        "symbol=EURUSD",
        "strategy_parameters.atr_length=9",
        "search.trials=4",
        "sessions=[{start: '08:00', end: '16:00'}]",
    ] {
        grid.set(assignment).unwrap_or_else(|faults| panic!("{faults}"));
    }
    let trials = plan(&grid).unwrap();
    assert_eq!((trials.space().size(), trials.len()), (18, 4));
    let config = grid.config_json();
    assert_eq!((&config["symbol"], &config["account"]["risk_per_trade"]), (&Value::from("EURUSD"), &Value::from(50)));
    assert_eq!(config["strategy_parameters"]["atr_length"], 9);
    assert_eq!(config["sessions"][0]["end"], "16:00");

    let refused: Vec<String> = ["window_length", "ema_length=5", "window_length=60..40:5", "a=[1", "window_lenth=3..5"]
        .into_iter()
        .map(|assignment| {
            let mut changed = grid.clone();
            match changed.set(assignment).and_then(|()| plan(&changed)) {
                Ok(_) => "accepted".to_owned(),
                Err(faults) => faults.to_string(),
            }
        })
        .collect();
    insta::assert_snapshot!(refused.join("\n"), @r##"
    --set: must be key=value, got `window_length` (for example `--set z_score_long=-3..-1:0.5`)
    --set ema_length:1:1: ema_length: `ema_length` is one of several linked axes; --set replaces single axes
    --set window_length:1:1: parameters.window_length: `low <= high` must hold, got low=60, high=40
    --set a:1:1: not valid YAML: unclosed bracket '['
    --set window_lenth:1:1: parameters.window_lenth: unknown parameter of `mean_reversion_z_score` (did you mean `window_length`?)
    "##);
}

#[test]
fn a_faulty_run_config_is_shown_in_its_own_text() {
    let mut grid = grid("").unwrap();
    grid.set("account.risk_per_trade=-5").unwrap();
    insta::assert_snapshot!(plan(&grid).unwrap_err().render(false, 100), @r##"
     × account.risk_per_trade: must be > 0, got -5
      ╭─[--set account.risk_per_trade:1:1]
    1 │ -5
      · ──
      ╰────
    "##);
}

#[test]
fn a_config_file_is_found_beside_the_grid() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("grids")).unwrap();
    std::fs::write(folder.path().join("c.json"), "{\"strategy_name\": \"sma_cross\", \"lots\": 1}").unwrap();
    let path = folder.path().join("grids/my grid.yaml");
    std::fs::write(&path, "config: ../c.json\n").unwrap();
    let grid = Grid::load(&path).unwrap();
    assert_eq!((grid.name.as_str(), grid.config_path.is_some()), ("my-grid", true));
    assert_eq!(grid.config_json()["lots"], 1);
    std::fs::write(&path, "config: ../d.json\n").unwrap();
    let text = Grid::load(&path).unwrap_err().to_string().replace(&folder.path().display().to_string(), "");
    insta::assert_snapshot!(text, @"/grids/my grid.yaml:1:9: config: /grids/../d.json: cannot be read: no such file");
    let missing = Grid::load(Path::new("no/such.yaml")).unwrap_err().to_string();
    insta::assert_snapshot!(missing, @"no/such.yaml: cannot be read: no such file");
}

#[test]
fn unknown_key() {
    insta::assert_snapshot!(refusal("name: x\nobjectve: {maximize: profit_net}\n"), @r##"
     × objectve: unknown key
      ╭─[grids/test.yaml:2:1]
    1 │ name: x
    2 │ objectve: {maximize: profit_net}
      · ────────
    3 │ config:
      ╰────
     help: did you mean `objective`?
    "##);
}

#[test]
fn unknown_parameter() {
    insta::assert_snapshot!(refusal("parameters:\n  window_lenght: 40..250:10\n"), @r##"
     × parameters.window_lenght: unknown parameter of `mean_reversion_z_score`
      ╭─[grids/test.yaml:2:3]
    1 │ parameters:
    2 │   window_lenght: 40..250:10
      ·   ─────────────
    3 │ config:
      ╰────
     help: did you mean `window_length`?
    "##);
}

#[test]
fn wrong_type() {
    insta::assert_snapshot!(refusal("seed: soon\nparameters:\n  window_length: [40, fifty]\n"), @r##"
     × seed: must be a whole number >= 0, got text "soon"
      ╭─[grids/test.yaml:1:7]
    1 │ seed: soon
      ·       ────
    2 │ parameters:
      ╰────
    "##);
    insta::assert_snapshot!(refusal("parameters:\n  window_length: [40, fifty, 50.5]\n  enabled_scenarios: [1, 2]\n  htf_filter: 1..3:1\n"), @r##"
     × parameters.window_length[1]: must be int >= 2, got "fifty"
      ╭─[grids/test.yaml:2:23]
    1 │ parameters:
    2 │   window_length: [40, fifty, 50.5]
      ·                       ─────
    3 │   enabled_scenarios: [1, 2]
      ╰────

     × parameters.window_length[2]: must be int >= 2, got 50.5
      ╭─[grids/test.yaml:2:30]
    1 │ parameters:
    2 │   window_length: [40, fifty, 50.5]
      ·                              ────
    3 │   enabled_scenarios: [1, 2]
      ╰────

     × parameters.enabled_scenarios[0]: must be list of int 1 to 6, got 1
      ╭─[grids/test.yaml:3:23]
    2 │   window_length: [40, fifty, 50.5]
    3 │   enabled_scenarios: [1, 2]
      ·                       ─
    4 │   htf_filter: 1..3:1
      ╰────
     help: each value of this parameter is itself a list: `[[1], [1, 2]]`

     × parameters.enabled_scenarios[1]: must be list of int 1 to 6, got 2
      ╭─[grids/test.yaml:3:26]
    2 │   window_length: [40, fifty, 50.5]
    3 │   enabled_scenarios: [1, 2]
      ·                          ─
    4 │   htf_filter: 1..3:1
      ╰────
     help: each value of this parameter is itself a list: `[[1], [1, 2]]`

     × parameters.htf_filter: a range needs a number; `htf_filter` is one of above, below, both, none
      ╭─[grids/test.yaml:4:15]
    3 │   enabled_scenarios: [1, 2]
    4 │   htf_filter: 1..3:1
      ·               ──────
    5 │ config:
      ╰────
     help: list the values: `{values: [...]}`
    "##);
}

#[test]
fn empty_range() {
    insta::assert_snapshot!(refusal("parameters:\n  ema_length: 30..10:5\n"), @r##"
     × parameters.ema_length: `low <= high` must hold, got low=30, high=10
      ╭─[grids/test.yaml:2:15]
    1 │ parameters:
    2 │   ema_length: 30..10:5
      ·               ────────
    3 │ config:
      ╰────
    "##);
}

#[test]
fn step_zero() {
    insta::assert_snapshot!(refusal("parameters:\n  ema_length: {min: 10, max: 30, step: 0}\n"), @r##"
     × parameters.ema_length: the step must be > 0, got 0
      ╭─[grids/test.yaml:2:3]
    1 │ parameters:
    2 │   ema_length: {min: 10, max: 30, step: 0}
      ·   ──────────
    3 │ config:
      ╰────
    "##);
}

#[test]
fn constraint_with_an_unknown_axis() {
    insta::assert_snapshot!(
        refusal("parameters:\n  ema_length: 10..30:10\nconstraints:\n  - ema_lenth < window_length\n  - \"ema_length <\"\n  - htf_filter == above\n"),
        @r##"
     × constraints[0]: unknown axis or parameter `ema_lenth`
      ╭─[grids/test.yaml:4:5]
    3 │ constraints:
    4 │   - ema_lenth < window_length
      ·     ─────────
    5 │   - "ema_length <"
      ╰────
     help: did you mean `ema_length`?

     × constraints[1]: the expression ends where a value is expected
      ╭─[grids/test.yaml:5:18]
    4 │   - ema_lenth < window_length
    5 │   - "ema_length <"
      ·                  ─
    6 │   - htf_filter == above
      ╰────

     × constraints[2]: unknown axis or parameter `above`
      ╭─[grids/test.yaml:6:19]
    5 │   - "ema_length <"
    6 │   - htf_filter == above
      ·                   ─────
    7 │ config:
      ╰────
     help: a constraint reads axes and parameters; text is quoted: "above"
    "##
    );
}

#[test]
fn contradictory_constraints() {
    insta::assert_snapshot!(
        refusal("parameters:\n  ema_length: 10..30:10\n  window_length: 40..60:10\nconstraints: [\"ema_length < 30\", \"ema_length > window_length\"]\n"),
        @r##"
     × constraints: no setting is left: `ema_length > window_length` leaves none of 9
      ╭─[grids/test.yaml:4:34]
    3 │   window_length: 40..60:10
    4 │ constraints: ["ema_length < 30", "ema_length > window_length"]
      ·                                  ────────────────────────────
    5 │ config:
      ╰────
     help: loosen a constraint or widen an axis it reads
    "##
    );
}

#[test]
fn unknown_metric() {
    insta::assert_snapshot!(
        refusal("objective: {maximize: sharp_equity_daily}\ngates: [\"total_trades >= 100\", \"max_drawdwn <= 0.2\"]\n"),
        @r##"
     × objective.maximize: unknown metric `sharp_equity_daily`
      ╭─[grids/test.yaml:1:23]
    1 │ objective: {maximize: sharp_equity_daily}
      ·                       ──────────────────
    2 │ gates: ["total_trades >= 100", "max_drawdwn <= 0.2"]
      ╰────
     help: did you mean `sharpe_equity_daily`?

     × gates[1]: unknown metric `max_drawdwn`
      ╭─[grids/test.yaml:2:33]
    1 │ objective: {maximize: sharp_equity_daily}
    2 │ gates: ["total_trades >= 100", "max_drawdwn <= 0.2"]
      ·                                 ───────────
    3 │ config:
      ╰────
     help: did you mean `max_drawdown`?
    "##
    );
}

#[test]
fn a_grid_of_1e12_points() {
    insta::assert_snapshot!(
        refusal("parameters:\n  window_length: 2..1001\n  ema_length: 2..1001\n  atr_length: 2..1001\n  z_score_long: -10..-0.01:0.01\n"),
        @r##"
     × search: the grid has 1,000,000,000,000 settings; `search: grid` takes at most 1,000,000,000
      ╭─[grids/test.yaml:1:1]
    1 │ parameters:
      · ──────────
    2 │   window_length: 2..1001
      ╰────
     help: sample it: `search: {method: random, trials: 5000}`; or take larger steps or fewer axes
    "##
    );
    assert_eq!(
        refusal(
            "parameters:\n  window_length: 2..1001\n  ema_length: 2..1001\n  atr_length: 2..1001\n  z_score_long: -10..-0.01:0.01\nsearch: {method: random, trials: 300}\n"
        ),
        "accepted with 300 trials"
    );
}

#[test]
fn axes_on_keys_that_change_the_bars() {
    insta::assert_snapshot!(
        refusal("parameters:\n  symbol: [EURUSD, XAGUSD]\n  warmup_bars: 100..500:100\n  costs.fee_multplier: [1, 2]\n"),
        @r##"
     × parameters.symbol: cannot be an axis: it changes the bars, and all settings of a sweep are
     │ judged on identical bars
      ╭─[grids/test.yaml:2:3]
    1 │ parameters:
    2 │   symbol: [EURUSD, XAGUSD]
      ·   ──────
    3 │   warmup_bars: 100..500:100
      ╰────
     help: vary it in a batch (`symbols`, `timeframes`, `variants`), or use `--set` for one run

     × parameters.warmup_bars: cannot be an axis: it changes the bars, and all settings of a sweep
     │ are judged on identical bars
      ╭─[grids/test.yaml:3:3]
    2 │   symbol: [EURUSD, XAGUSD]
    3 │   warmup_bars: 100..500:100
      ·   ───────────
    4 │   costs.fee_multplier: [1, 2]
      ╰────
     help: vary it in a batch (`symbols`, `timeframes`, `variants`), or use `--set` for one run

     × parameters.costs.fee_multplier: unknown key of the run config
      ╭─[grids/test.yaml:4:3]
    3 │   warmup_bars: 100..500:100
    4 │   costs.fee_multplier: [1, 2]
      ·   ───────────────────
    5 │ config:
      ╰────
     help: did you mean `costs.fee_multiplier`?
    "##
    );
}

#[test]
fn values_out_of_range() {
    insta::assert_snapshot!(
        refusal("parameters:\n  window_length: 0..100:10\n  htf_filter: [above, blow]\n  costs.fee_multiplier: [1, -1]\n  sessions: [null, [{start: '25:00', end: '10:00'}]]\n"),
        @r##"
     × parameters.window_length: every value must be int >= 2, got 0
      ╭─[grids/test.yaml:2:18]
    1 │ parameters:
    2 │   window_length: 0..100:10
      ·                  ─────────
    3 │   htf_filter: [above, blow]
      ╰────

     × parameters.htf_filter[1]: must be one of above, below, both, none, got "blow" (did you mean
     │ `below`?)
      ╭─[grids/test.yaml:3:23]
    2 │   window_length: 0..100:10
    3 │   htf_filter: [above, blow]
      ·                       ────
    4 │   costs.fee_multiplier: [1, -1]
      ╰────

     × parameters.costs.fee_multiplier[1]: must be float >= 0, got -1.0
      ╭─[grids/test.yaml:4:29]
    3 │   htf_filter: [above, blow]
    4 │   costs.fee_multiplier: [1, -1]
      ·                             ──
    5 │   sessions: [null, [{start: '25:00', end: '10:00'}]]
      ╰────

     × parameters.sessions[1]: [0].start: must be a time HH:MM from 00:00 to 23:59, got `25:00`
      ╭─[grids/test.yaml:5:20]
    4 │   costs.fee_multiplier: [1, -1]
    5 │   sessions: [null, [{start: '25:00', end: '10:00'}]]
      ·                    ─
    6 │ config:
      ╰────
    "##
    );
}

#[test]
fn the_strategys_own_constraints() {
    let text = "config: {strategy_name: sma_cross, symbol: EURUSD, start_date: 2014-01-01, end_date: 2015-12-31, timeframes: {primary: H1}, strategy_parameters: {lots: 1}}\n\
                parameters: {fast_length: 10..30:10, slow_length: 20..40:10}\n";
    let grid = Grid::parse(Document::parse("g.yaml", text).unwrap(), Path::new(""), "g").unwrap();
    let trials = plan(&grid).unwrap();
    assert_eq!(trials.len(), 6);
    assert_eq!(trials.broken(), [Some(3), Some(0)]);
    let mut grid = grid;
    grid.set("fast_length=40..60:10").unwrap();
    insta::assert_snapshot!(plan(&grid).unwrap_err().render(false, 100), @r##"
     × constraints: no setting is left: `fast_length < slow_length` (of the strategy) leaves none of
     │ 9
      ╭─[g.yaml:2:1]
    1 │ config: {strategy_name: sma_cross, symbol: EURUSD, start_date: 2014-01-01, end_date: 2015-12-31, timeframes: {primary: H1}, strategy_parameters: {lots: 1}}
    2 │ parameters: {fast_length: 10..30:10, slow_length: 20..40:10}
      · ──────────
      ╰────
     help: loosen a constraint or widen an axis it reads
    "##);
}

#[test]
fn faults_of_axes_and_sections() {
    insta::assert_snapshot!(
        refusal(
            "name: a/b\nparameters:\n  ema_length: {min: 1, points: 3}\n  atr_length: {min: 1, max: 9, scale: log, step: 2}\n  window_length: {values: 3}\n  z_score_long: -3..-1\n  b_b_length: 1..x:2\n  strategy_parameters.b_b_length: 5\nlinked:\n  - {names: [ema_length, htf_tf], values: [[1]]}\n  - {names: [std_factor, garch_beta], values: [[1, 0.5], [2]]}\nsearch: {method: random}\nobjective: {maximize: wins, minimize: losses}\ngates: [max_drawdown]\nwalk_forward: {mode: sliding, train: 12, embargo: 0d}\nlimits: {memory: lots, chunk: 0}\noutput: {csv: some}\n"
        ),
        @r##"
     × name: must be 1 to 64 letters, digits, `-`, `_` or `.`, not starting with `.`, got text "a/b"
      ╭─[grids/test.yaml:1:7]
    1 │ name: a/b
      ·       ───
    2 │ parameters:
      ╰────

     × parameters.ema_length.points: `points` needs `scale: log`; a linear axis has `step`
      ╭─[grids/test.yaml:3:24]
    2 │ parameters:
    3 │   ema_length: {min: 1, points: 3}
      ·                        ──────
    4 │   atr_length: {min: 1, max: 9, scale: log, step: 2}
      ╰────

     × parameters.atr_length.step: a logarithmic axis has `points`, not `step`
      ╭─[grids/test.yaml:4:44]
    3 │   ema_length: {min: 1, points: 3}
    4 │   atr_length: {min: 1, max: 9, scale: log, step: 2}
      ·                                            ────
    5 │   window_length: {values: 3}
      ╰────

     × parameters.window_length.values: must be a list, got 3
      ╭─[grids/test.yaml:5:27]
    4 │   atr_length: {min: 1, max: 9, scale: log, step: 2}
    5 │   window_length: {values: 3}
      ·                           ─
    6 │   z_score_long: -3..-1
      ╰────

     × parameters.b_b_length: must be a range `low..high:step` of numbers, got text "1..x:2"
      ╭─[grids/test.yaml:7:15]
    6 │   z_score_long: -3..-1
    7 │   b_b_length: 1..x:2
      ·               ──────
    8 │   strategy_parameters.b_b_length: 5
      ╰────

     × linked[0].values[0]: must hold one value per name, 2, got 1
       ╭─[grids/test.yaml:10:44]
     9 │ linked:
    10 │   - {names: [ema_length, htf_tf], values: [[1]]}
       ·                                            ─
    11 │   - {names: [std_factor, garch_beta], values: [[1, 0.5], [2]]}
       ╰────

     × linked[1].values[1]: must hold one value per name, 2, got 1
       ╭─[grids/test.yaml:11:58]
    10 │   - {names: [ema_length, htf_tf], values: [[1]]}
    11 │   - {names: [std_factor, garch_beta], values: [[1, 0.5], [2]]}
       ·                                                          ─
    12 │ search: {method: random}
       ╰────

     × search: random search needs `trials`
       ╭─[grids/test.yaml:12:9]
    11 │   - {names: [std_factor, garch_beta], values: [[1, 0.5], [2]]}
    12 │ search: {method: random}
       ·         ─
    13 │ objective: {maximize: wins, minimize: losses}
       ╰────
     help: for example `search: {method: random, trials: 5000}`

     × objective.minimize: an objective is either maximised or minimised, not both
       ╭─[grids/test.yaml:13:39]
    12 │ search: {method: random}
    13 │ objective: {maximize: wins, minimize: losses}
       ·                                       ──────
    14 │ gates: [max_drawdown]
       ╰────

     × gates[0]: a gate is a condition
       ╭─[grids/test.yaml:14:9]
    13 │ objective: {maximize: wins, minimize: losses}
    14 │ gates: [max_drawdown]
       ·         ────────────
    15 │ walk_forward: {mode: sliding, train: 12, embargo: 0d}
       ╰────
     help: for example `total_trades >= 100`

     × walk_forward.mode: must be one of rolling, anchored, matrix, got text "sliding"
       ╭─[grids/test.yaml:15:22]
    14 │ gates: [max_drawdown]
    15 │ walk_forward: {mode: sliding, train: 12, embargo: 0d}
       ·                      ───────
    16 │ limits: {memory: lots, chunk: 0}
       ╰────

     × walk_forward.train: must be a length above 0 in d, mo or bars (`365d`, `12mo`, `5000bars`),
     │ got 12
       ╭─[grids/test.yaml:15:38]
    14 │ gates: [max_drawdown]
    15 │ walk_forward: {mode: sliding, train: 12, embargo: 0d}
       ·                                      ──
    16 │ limits: {memory: lots, chunk: 0}
       ╰────

     × walk_forward.test: is required
       ╭─[grids/test.yaml:15:15]
    14 │ gates: [max_drawdown]
    15 │ walk_forward: {mode: sliding, train: 12, embargo: 0d}
       ·               ─
    16 │ limits: {memory: lots, chunk: 0}
       ╰────
     help: for example `test: 365d`

     × limits.memory: must be an amount of memory (`8GB`, `512MiB`), got text "lots"
       ╭─[grids/test.yaml:16:18]
    15 │ walk_forward: {mode: sliding, train: 12, embargo: 0d}
    16 │ limits: {memory: lots, chunk: 0}
       ·                  ────
    17 │ output: {csv: some}
       ╰────

     × limits.chunk: must be a whole number from 1 to 65536, got 0
       ╭─[grids/test.yaml:16:31]
    15 │ walk_forward: {mode: sliding, train: 12, embargo: 0d}
    16 │ limits: {memory: lots, chunk: 0}
       ·                               ─
    17 │ output: {csv: some}
       ╰────

     × output.csv: must be a whole number of rows or `all`, got text "some"
       ╭─[grids/test.yaml:17:15]
    16 │ limits: {memory: lots, chunk: 0}
    17 │ output: {csv: some}
       ·               ────
    18 │ config:
       ╰────
    "##
    );
}

#[test]
fn a_name_is_given_once() {
    insta::assert_snapshot!(
        refusal("parameters:\n  b_b_length: 20\n  strategy_parameters.b_b_length: [1, 2]\nlinked:\n  - {names: [b_b_length], values: [[1]]}\n"),
        @r##"
     × parameters.strategy_parameters.b_b_length: is given twice
      ╭─[grids/test.yaml:3:3]
    2 │   b_b_length: 20
    3 │   strategy_parameters.b_b_length: [1, 2]
      ·   ──────────────────────────────
    4 │ linked:
      ╰────

     × linked[0].names[0]: `b_b_length` is given twice
      ╭─[grids/test.yaml:5:14]
    4 │ linked:
    5 │   - {names: [b_b_length], values: [[1]]}
      ·              ──────────
    6 │ config:
      ╰────
    "##
    );
    insta::assert_snapshot!(
        refusal("linked:\n  - {names: [ema_length, b_b_length], values: [[20, 20], [20, 21], [20.0, 20]]}\n"),
        @r##"
     × linked[0]: the row [20, 20] is listed twice
      ╭─[grids/test.yaml:2:5]
    1 │ linked:
    2 │   - {names: [ema_length, b_b_length], values: [[20, 20], [20, 21], [20.0, 20]]}
      ·     ─
    3 │ config:
      ╰────
    "##
    );
}

#[test]
fn broken_yaml() {
    insta::assert_snapshot!(refusal("parameters:\n  ema_length: {min: 1, max: 3\nseed: 1\n"), @r##"
     × not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'
      ╭─[grids/test.yaml:3:5]
    2 │   ema_length: {min: 1, max: 3
    3 │ seed: 1
      ·     ─
    4 │ config:
      ╰────
    "##);
    insta::assert_snapshot!(refusal("seed: 1\nseed: 2\n"), @r##"
     × not valid YAML: duplicate mapping key `seed` is not allowed here
      ╭─[grids/test.yaml:2:1]
    1 │ seed: 1
    2 │ seed: 2
      · ─
    3 │ config:
      ╰────
    "##);
    insta::assert_snapshot!(
        Grid::parse(Document::parse("g.yaml", "- 1\n").unwrap(), Path::new(""), "g").unwrap_err().render(false, 100),
        @r##"
     × must be a map, got a list of 1
      ╭─[g.yaml:1:1]
    1 │ - 1
      · ▲
      ╰────
    "##
    );
}

proptest! {
    /// No text makes the reader panic, and what is accepted has trials.
    #[test]
    fn prop_any_text_is_read_or_refused(
        text in "(parameters:\n( (window_length|z_score_long|costs.fee_multiplier|x): [-0-9.:{}\\[\\], a-z]{0,18}\n){0,3})?(search: [a-z{}: 0-9]{0,14}\n)?(constraints: [-a-z_<>=+\"\\[\\] 0-9.]{0,24}\n)?",
    ) {
        if let Ok(grid) = grid(&text) && let Ok(trials) = plan(&grid) {
            prop_assert!(!trials.is_empty());
            prop_assert!(trials.setting(trials.len() - 1).is_some());
        }
    }
}
