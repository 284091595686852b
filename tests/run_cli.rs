//! Single runs and single rows as the user sees them: `run`, `show`, `replay`, `verify`, `export`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

#[path = "support/cli.rs"]
mod cli;
#[path = "support/schema.rs"]
mod schema;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cli::{Desk, real_data, tree};
use engine::metrics::Metric;
use optimizer::chunk::write_chunk;
use optimizer::row::{Outcome, ParamValue, Row};
use optimizer::stored::StoredRun;
use schema::{RunSchemas, Schema};
use serde_json::{Value, json};

/// Runs and gives back the one folder below `results`.
fn run(desk: &Desk, line: &str) -> PathBuf {
    let shown = desk.run(line);
    assert_eq!(shown.code, Some(0), "{line}: {}", shown.stderr);
    desk.run_folder("results")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The four artefacts without what may differ between equal runs.
fn artefacts(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = cli::lasting(folder);
    files.retain(|name, _| !name.ends_with('/'));
    assert_eq!(files.len(), 4, "{:?}", files.keys());
    files
}

/// The small sweep and its folder, relative to the desk.
fn swept(desk: &Desk) -> String {
    let shown = desk.run("sweep small.yaml");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    desk.run_folder("results").strip_prefix(desk.path()).unwrap().display().to_string()
}

#[test]
fn a_run_leaves_four_artefacts_and_two_logs() {
    let desk = Desk::new();
    let folder = run(&desk, "run config.json");
    let found = RunSchemas::load().read(&folder);
    let names: Vec<String> = tree(&folder).into_keys().collect();
    let expected =
        ["equity.csv", "logs/", "logs/run.jsonl", "logs/run.log", "meta.json", "metrics.json", "trades.json"];
    assert_eq!(names, expected);
    assert_eq!(found.meta["run_id"], folder.file_name().unwrap().to_str().unwrap());
    assert_eq!(found.meta["config"]["source"], "config.json");
    assert!(found.metrics["metrics"]["total_trades"].as_u64() > Some(10));
    let before = artefacts(&folder);
    assert!(before == artefacts(&run(&desk, "run config.json --quiet")), "a second run writes the same bytes");
}

/// metrics-and-outputs §9.
#[test]
fn every_log_line_names_its_run() {
    let desk = Desk::new();
    desk.config("\"warmup_bars\": 100", "\"warmup_bars\": 100, \"rng_seed\": 918273645, \"warmup_bar\": 1");
    let folder = run(&desk, "run config.json");
    let run_id = folder.file_name().unwrap().to_str().unwrap();
    let lines = fs::read_to_string(folder.join("logs/run.jsonl")).unwrap();
    let (mut phases, mut warned) = (Vec::new(), false);
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let context = ["run_id", "strategy_name", "symbol", "timeframe"].map(|key| event[key].as_str().unwrap());
        assert_eq!(context, [run_id, "sma_cross", "EURUSD", "H1"], "{line}");
        phases.extend(event["fields"]["phase"].as_str().map(str::to_owned));
        warned |= event["level"] == "WARN" && line.contains("warmup_bar: unknown key");
    }
    for phase in ["data_load", "indicators", "backtest", "metrics", "write"] {
        assert!(phases.iter().any(|found| found == phase), "{phase} in {phases:?}");
    }
    assert!(warned, "{lines}");
    let human = fs::read_to_string(folder.join("logs/run.log")).unwrap();
    assert!(!human.is_empty() && human.lines().all(|line| line.contains(run_id)), "{human}");
    assert!(!lines.contains("918273645") && !human.contains("918273645"), "a seed is never logged");
}

/// In `prod` only warnings are logged, and they name their run as well.
#[test]
fn a_run_in_prod_logs_warnings_only() {
    let desk = Desk::new();
    desk.config("\"warmup_bars\": 100", "\"warmup_bars\": 100, \"run_mode\": \"prod\", \"warmup_bar\": 1");
    let folder = run(&desk, "run config.json");
    let lines = fs::read_to_string(folder.join("logs/run.jsonl")).unwrap();
    assert!(!lines.is_empty());
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!((event["level"].as_str(), event["run_id"].is_string()), (Some("WARN"), true), "{line}");
    }
    let meta = read(&folder.join("meta.json"));
    assert!(meta["rng"]["seed"].is_u64() && meta["config"]["snapshot"]["rng_seed"].is_null());
}

#[test]
fn set_changes_keys_and_parameters() {
    let desk = Desk::new();
    let folder = run(
        &desk,
        "run config.json --set fast_length=7 --set costs.enabled=false --set account.risk_per_trade=50 \
         --set trade_window.start=2020-02-01 --set trade_window.end=2020-04-01",
    );
    let found = RunSchemas::load().read(&folder);
    let config = &found.meta["config"]["snapshot"];
    assert_eq!(config["strategy_parameters"], json!({"lots": 0.1, "fast_length": 7}));
    assert_eq!((&config["costs"]["enabled"], &config["account"]["risk_per_trade"]), (&json!(false), &json!(50.0)));
    assert_eq!(found.metrics["metrics"]["fees_total"], 0.0);
    let dataset = &found.meta["dataset"];
    assert!(
        dataset["start_time"].as_str().unwrap() >= "2020-02-01" && dataset["end_time"].as_str().unwrap() < "2020-04-01"
    );
    assert_eq!(found.meta["execution"]["counters"]["open_positions_at_end"], 0);
    for trade in found.trades.as_array().unwrap() {
        assert!(
            trade["entry_time"].as_str().unwrap() >= "2020-02-01"
                && trade["exit_time"].as_str().unwrap() < "2020-04-01"
        );
    }
    insta::assert_snapshot!(desk.refused("run config.json --set fast_lenght=7"), @r"
    exit 2
      × strategy_parameters.fast_lenght: unknown key
       ╭─[--set fast_lenght:1:1]
     1 │ fast_lenght
       · ───────────
       ╰────
      help: did you mean `fast_length`?
    ");
    insta::assert_snapshot!(desk.refused("run config.json --set costs.enabled"), @r"
    exit 2
      × --set: must be key=value, got `costs.enabled`
      help: for example --set costs.enabled=false
    ");
}

#[test]
fn unknown_keys_warn_or_with_strict_refuse() {
    let desk = Desk::new();
    let plain = run(&desk, "run config.json");
    desk.config("\"risk_per_trade\": 100.0", "\"risk_per_trade\": 100.0, \"max_position\": 3");
    let shown = desk.run("run config.json");
    assert_eq!(shown.code, Some(0));
    insta::assert_snapshot!(desk.redact(&shown.stderr), @r"
    warning: account.max_position: unknown key (did you mean `max_positions`?); it is ignored
    ");
    assert_eq!(desk.run_folder("results"), plain, "an ignored key is not hashed");
    insta::assert_snapshot!(desk.refused("run config.json --strict"), @r#"
    exit 2
      × account.max_position: unknown key
        ╭─[config.json:9:96]
      8 │   "warmup_bars": 100,
      9 │   "account": {"initial_balance": 100000.0, "account_currency": "USD", "risk_per_trade": 100.0, "max_position": 3},
        ·                                                                                                ──────────────
     10 │   "strategy_parameters": {"lots": 0.1}
        ╰────
      help: did you mean `max_positions`?
    "#);
}

#[test]
fn every_violation_is_listed_at_once() {
    let desk = Desk::new();
    desk.write(
        "bad.json",
        "{\n  \"strategy_name\": \"sma_cross\",\n  \"symbol\": \"EURUSD\",\n  \"start_date\": \"2020-06-01\",\n  \"end_date\": \"2020-01-01\",\n  \"timeframes\": {\"primary\": \"M7\"},\n  \"account\": {\"risk_per_trade\": -5},\n  \"costs\": {\"fee_multiplier\": \"one\"}\n}\n",
    );
    insta::assert_snapshot!(desk.refused("run bad.json"), @r#"
    exit 2
      × end_date: must not lie before start_date
       ╭─[bad.json:5:15]
     4 │   "start_date": "2020-06-01",
     5 │   "end_date": "2020-01-01",
       ·               ────────────
     6 │   "timeframes": {"primary": "M7"},
       ╰────

      × timeframes.primary: must be one of M1 M5 M15 M30 H1 H4 D1, got "M7"
       ╭─[bad.json:6:29]
     5 │   "end_date": "2020-01-01",
     6 │   "timeframes": {"primary": "M7"},
       ·                             ────
     7 │   "account": {"risk_per_trade": -5},
       ╰────

      × account.risk_per_trade: must be > 0, got -5
       ╭─[bad.json:7:33]
     6 │   "timeframes": {"primary": "M7"},
     7 │   "account": {"risk_per_trade": -5},
       ·                                 ──
     8 │   "costs": {"fee_multiplier": "one"}
       ╰────

      × costs.fee_multiplier: must be a number, got "one"
       ╭─[bad.json:8:31]
     7 │   "account": {"risk_per_trade": -5},
     8 │   "costs": {"fee_multiplier": "one"}
       ·                               ─────
     9 │ }
       ╰────
    "#);
    desk.write("twice.json", "{\"symbol\": \"EURUSD\", \"symbol\": \"GBPUSD\"}\n");
    insta::assert_snapshot!(desk.refused("run twice.json"), @r#"
    exit 2
      × not valid JSON: duplicate mapping key `symbol` is not allowed here
       ╭─[twice.json:1:22]
     1 │ {"symbol": "EURUSD", "symbol": "GBPUSD"}
       ·                      ─
       ╰────
    "#);
    desk.config("sma_cross", "sma_crss");
    insta::assert_snapshot!(desk.refused("run config.json"), @r#"
    exit 2
      × strategy_name: strategy `sma_crss` is not registered; known: mean_reversion_z_score,
      │ sma_cross, donchian_breakout, rsi_reversion
       ╭─[config.json:2:20]
     1 │ {
     2 │   "strategy_name": "sma_crss",
       ·                    ──────────
     3 │   "symbol": "EURUSD",
       ╰────
      help: did you mean `sma_cross`?
    "#);
    insta::assert_snapshot!(desk.refused("run absent.json"), @r"
    exit 2
      × absent.json: cannot be read: no such file
    ");
}

/// metrics-and-outputs §8, by option and by either key.
#[test]
fn profiling_on_demand() {
    let schema = Schema::load("profiling");
    for (asked, from, to) in [
        (" --profile", "\"warmup_bars\"", "\"warmup_bars\""),
        ("", "\"warmup_bars\"", "\"profiling\": {\"enabled\": true}, \"warmup_bars\""),
        ("", "\"warmup_bars\"", "\"observability\": {\"profiling_mode\": true}, \"warmup_bars\""),
    ] {
        let desk = Desk::new();
        desk.config(from, to);
        let folder = run(&desk, &format!("run config.json{asked}"));
        let profile = read(&folder.join("profiling/profiling.json"));
        schema.check(&profile);
        let metric = |key: &str| profile["metrics"][key].as_u64().unwrap();
        for key in ["wall_time_total", "time_data_load", "time_write"] {
            assert_eq!(metric(&format!("{key}_ms")), metric(&format!("{key}_ns")) / 1_000_000);
        }
        assert!(metric("bars_total") >= metric("bars_processed") + 100);
        let metrics = read(&folder.join("metrics.json"));
        assert_eq!(profile["metrics"]["trades_emitted"], metrics["metrics"]["total_trades"]);
    }
}

/// The shape of the reference's own config, on real bars.
#[test]
fn the_reference_config_runs() {
    let Some(data) = real_data("the reference config runs") else { return };
    let desk = Desk::new().env("OMEGA_DATA_PARQUET_ROOT", data.join("long"));
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/mean_reversion_z_score_v2.json");
    desk.write("v2.json", &fs::read_to_string(config).unwrap());
    let folder = run(&desk, "run v2.json --strict --set start_date=2012-01-01 --set end_date=2013-12-31");
    let found = RunSchemas::load().read(&folder);
    assert!(found.metrics["metrics"]["total_trades"].as_u64() > Some(5), "{}", found.metrics["metrics"]);
    assert_eq!(found.meta["dataset"]["governance"]["env_overrides"], json!(["OMEGA_DATA_PARQUET_ROOT"]));
}

/// The cases of the V1 reference as they are. Their trades want bars filtered to V1's market hours, which
/// `tests/parity.rs` does; here they run on the bars there are.
#[test]
fn v1_cases_run_as_they_are() {
    let Some(data) = real_data("v1 cases run as they are") else { return };
    let schemas = RunSchemas::load();
    for (name, root) in [("news_h1", "long"), ("s2_filters_h1", "long"), ("xag_pm30_m5", "")] {
        let case = data.join("../spec/vectors/v1_trades").join(name);
        let mut desk = Desk::new()
            .env("OMEGA_DATA_PARQUET_ROOT", data.join(root))
            .env("OMEGA_EXECUTION_COSTS_FILE", case.join("execution_costs.yaml"))
            .env("OMEGA_SYMBOL_SPECS_FILE", case.join("symbol_specs.yaml"));
        if case.join("news.parquet").exists() {
            desk = desk.env("OMEGA_NEWS_CALENDAR_FILE", case.join("news.parquet"));
        }
        let folder = run(&desk, &format!("run {} --strict", case.join("case.json").display()));
        let found = schemas.read(&folder);
        assert_eq!(found.meta["execution"]["variant"], "v1_parity");
        assert!(found.trades.as_array().unwrap().len() > 50, "{name}");
    }
}

#[test]
fn a_row_exported_and_run_is_the_row_replayed() {
    let desk = Desk::new();
    let sweep = swept(&desk);
    for id in ["1", "t5"] {
        let shown = desk.run(&format!("replay {sweep} {id} --out replayed"));
        assert_eq!((shown.code, &*shown.stderr), (Some(0), ""), "{id}");
        let replayed = desk.path().join(shown.stdout.trim());
        assert_eq!(desk.run(&format!("export {sweep} {id} --out row.json")).code, Some(0));
        Schema::load("run-config").check(&read(&desk.path().join("row.json")));
        let shown = desk.run("run row.json --strict --out again --json");
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        let said: Value = serde_json::from_str(&shown.stdout).unwrap();
        let again = desk.path().join(said["folder"].as_str().unwrap());
        assert_eq!(again.file_name(), replayed.file_name(), "the same run id");
        let mut ran = artefacts(&again);
        // A replayed row came from no file: the one field that tells them apart.
        let meta = String::from_utf8(ran.remove("meta.json").unwrap()).unwrap();
        let mut expected = artefacts(&replayed);
        let expected_meta = String::from_utf8(expected.remove("meta.json").unwrap()).unwrap();
        assert!(ran == expected, "{:?}", cli::changed(&ran, &expected));
        let lines = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|line| !line.contains("\"source\": \"row.json\""))
                .map(|line| line.trim_end_matches(',').to_owned())
                .collect()
        };
        assert_eq!(lines(&meta), lines(&expected_meta));
        // Metrics of the row, unrounded, against those of the run.
        let row: Value = serde_json::from_str(&desk.run(&format!("show {sweep} {id} --json")).stdout).unwrap();
        let meta = read(&again.join("meta.json"));
        assert_eq!(row["config_hash"], meta["config"]["hash"]);
        assert_eq!(row["rng_seed"], meta["rng"]["seed"]);
        assert_eq!(row["metrics"]["total_trades"], said["metrics"]["total_trades"]);
    }
}

/// A row is found by rank, trial and hash, and is the same row.
#[test]
fn show_finds_a_row_by_every_kind_of_id() {
    let desk = Desk::new();
    let sweep = swept(&desk);
    let show = |id: &str| -> Value {
        let shown = desk.run(&format!("show {sweep} {id} --json"));
        assert_eq!((shown.code, &*shown.stderr), (Some(0), ""), "{id}");
        serde_json::from_str(&shown.stdout).unwrap()
    };
    let best = show("1");
    assert_eq!((&best["rank"], &best["status"]), (&json!(1), &json!("ok")));
    assert_eq!(show(&format!("t{}", best["trial"])), best);
    assert_eq!(show(&format!("h{}", &best["config_hash"].as_str().unwrap()[..10])), best);
    let shown = desk.run(&format!("show {sweep} 1"));
    for key in ["config_hash", "fast_length", "max_consecutive_losses"] {
        assert!(shown.stdout.contains(key), "{}", shown.stdout);
    }
}

#[test]
fn ids_and_folders_that_name_nothing() {
    let desk = Desk::new();
    let sweep = swept(&desk);
    for command in ["show", "replay", "export"] {
        for id in ["25", "0", "t24", "tx", "hffffffffffffffff", "h", "best"] {
            let said = desk.refused(&format!("{command} {sweep} {id}"));
            assert!(said.starts_with("exit 2\n") && said.contains(id), "{command} {id}: {said}");
        }
        assert!(desk.refused(&format!("{command} nowhere 1")).starts_with("exit 2\n"));
    }
    assert!(desk.refused("verify configs").starts_with("exit 2\n"));
    assert!(desk.refused(&format!("verify {sweep} --sample none")).starts_with("exit 2\n"));
    insta::assert_snapshot!(desk.refused(&format!("show {sweep} h")), @r"
    exit 2
      × h: 24 config hashes begin with it
      help: an ID is a rank (3), a trial (t417) or a hash prefix (h3fa9c1)
    ");
    insta::assert_snapshot!(desk.refused(&format!("replay {sweep} 99")), @r"
    exit 2
      × 99: the leaderboard has no such rank
      help: an ID is a rank (3), a trial (t417) or a hash prefix (h3fa9c1)
    ");
    insta::assert_snapshot!(desk.refused("verify configs"), @r"
    exit 2
      × configs: is no run folder: grid.lock.yaml is not there
      help: a run folder is <output root>/<name>-<hash8>, as a sweep names it at its end
    ");
}

#[test]
fn a_sound_run_verifies() {
    let desk = Desk::new();
    let sweep = swept(&desk);
    for (line, said) in [("", "24 of 24 rows"), (" --sample 25%", "6 of 24 rows"), (" --sample 3", "3 of 24 rows")] {
        let shown = desk.run(&format!("verify {sweep}{line}"));
        assert_eq!((shown.code, &*shown.stderr), (Some(0), ""), "{line}");
        assert!(shown.stdout.starts_with(said) && shown.stdout.contains(" 0 differ"), "{}", shown.stdout);
    }
}

/// Rewrites one chunk with the library, so that its digest is right and only its contents lie.
fn falsify(folder: &Path, trial: u64, lie: impl Fn(&mut Row)) {
    let run = StoredRun::open(folder).unwrap();
    let index = run.plan().chunk_of(trial);
    let chunk = run.chunk(index).unwrap();
    let mut rows: Vec<Row> = (0..chunk.batch.num_rows()).map(|i| chunk.row(run.schema(), i).unwrap()).collect();
    lie(rows.iter_mut().find(|row| row.trial == trial).unwrap());
    let trials = &run.experiment().trials;
    let mut params = |trial: u64, values: &mut Vec<ParamValue>| {
        let setting = trials.setting(trial).unwrap();
        let columns = trials.space().columns().iter().enumerate();
        values.extend(
            columns
                .map(|(at, column)| ParamValue::from_json(&trials.space().value(&setting, at), column.kind).unwrap()),
        );
    };
    let path = folder.join("chunks").join(optimizer::chunk::file_name(index));
    write_chunk(
        &path,
        run.schema(),
        &chunk.header.fingerprint,
        &rows.iter().map(Row::done).collect::<Vec<_>>(),
        &mut params,
    )
    .unwrap();
}

#[test]
fn a_falsified_value_is_found_and_named() {
    let desk = Desk::new();
    let sweep = swept(&desk);
    let folder = desk.path().join(&sweep);
    falsify(&folder, 9, |row| {
        let Outcome::Done { values, .. } = &mut row.outcome else { panic!("a row that was done") };
        let profit = values.get(Metric::ProfitNet).unwrap();
        // One bit is enough.
        values.set(Metric::ProfitNet, Some(f64::from_bits(profit.to_bits() ^ 1)));
    });
    let shown = desk.run(&format!("verify {sweep}"));
    assert_eq!(shown.code, Some(6), "{}", shown.stderr);
    assert!(shown.stdout.starts_with("24 of 24 rows recomputed, 1 differ"), "{}", shown.stdout);
    assert!(shown.stderr.starts_with("trial 9: profit_net: "), "{}", shown.stderr);
    assert_eq!(shown.stderr.lines().count(), 1, "{}", shown.stderr);
    let shown = desk.run(&format!("replay {sweep} t9"));
    assert_eq!(shown.code, Some(6), "{}", shown.stderr);
    assert!(shown.stderr.contains("trial 9: profit_net: "), "{}", shown.stderr);
}

#[test]
fn a_damaged_or_missing_chunk() {
    let desk = Desk::new();
    let sweep = swept(&desk);
    let path = desk.path().join(&sweep).join("chunks/chunk-000002.parquet");
    let sound = fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    let middle = bytes.len() / 3;
    bytes[middle..middle + 8].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let shown = desk.run(&format!("show {sweep} t9"));
    assert_eq!(shown.code, Some(3), "{}", shown.stderr);
    assert!(
        shown.stderr.contains("chunk-000002.parquet: damaged") && shown.stderr.contains("help: "),
        "{}",
        shown.stderr
    );
    assert_eq!(desk.run(&format!("show {sweep} t3")).code, Some(0), "the other chunks can be read");
    let shown = desk.run(&format!("verify {sweep}"));
    assert_eq!(shown.code, Some(6), "{}", shown.stderr);
    assert!(shown.stderr.contains("chunk-000002.parquet: damaged"), "{}", shown.stderr);
    assert!(shown.stdout.starts_with("24 of 24 rows recomputed, 4 differ"), "{}", shown.stdout);
    fs::remove_file(&path).unwrap();
    let shown = desk.run(&format!("show {sweep} t9"));
    assert_eq!(shown.code, Some(2), "{}", shown.stderr);
    assert!(shown.stderr.contains("the run is not finished"), "{}", shown.stderr);
    assert_eq!(desk.run("sweep small.yaml").code, Some(0));
    assert_eq!(fs::read(&path).unwrap(), sound, "started again, the sweep makes it anew");
}
