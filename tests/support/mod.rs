//! What the tests of the engine share: where real data is, candle files in a temporary folder, runs of a document.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests: fail loudly, say what is skipped")]

pub(crate) mod candles;
pub(crate) mod market;
pub(crate) mod metrics;
pub(crate) mod settings;
pub(crate) mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::backtest::{Environment, Prepared, RunConfig};
use engine::data::Sources;
use engine::indicators::Unlimited;
use engine::strategy;
use engine::units::Timeframe;
use serde_json::Value;

/// The folder of real bars; none (and a line saying so) if neither the variable is set nor the default there.
pub(crate) fn data_root(test: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("OMEGA_TEST_DATA").map(|folder| workspace.join(folder));
    let data = given.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    if data.is_dir() {
        return Some(data);
    }
    assert!(given.is_none(), "OMEGA_TEST_DATA is set, but {} is missing", data.display());
    println!("{test}: skipped, no bars at {} and OMEGA_TEST_DATA is not set", data.display());
    None
}

/// The folder `name` of the specification's vectors, beside the data.
pub(crate) fn vectors(data: &Path, name: &str) -> PathBuf {
    let folder = data.join("../spec/vectors").join(name);
    assert!(folder.is_dir(), "{} is missing", folder.display());
    folder
}

/// Reads a run configuration; every violation in the message.
pub(crate) fn config(document: &Value) -> RunConfig {
    match RunConfig::parse(document, true) {
        Ok(parsed) => parsed.config,
        Err(violations) => {
            let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
            panic!("{}\nin {document:#}", all.join("\n"))
        }
    }
}

/// Timeframes the configured strategy asks for.
pub(crate) fn timeframes(config: &RunConfig) -> Vec<Timeframe> {
    let family = strategy::find(&config.strategy_name).unwrap();
    let built = family.build(&config.strategy_parameters, &config.build_context());
    built.unwrap_or_else(|error| panic!("{error}\nin {:?}", config.strategy_parameters)).timeframes()
}

/// Opens everything a configuration names.
pub(crate) fn open(config: &RunConfig, sources: &Sources) -> engine::Result<Environment> {
    Environment::open(config, &timeframes(config), sources, Arc::new(Unlimited))
}

/// Resolves a configuration with its own seed.
pub(crate) fn prepare(environment: &Environment, config: &RunConfig) -> Prepared {
    environment.prepare(config, config.rng_seed.unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

/// Inputs in one temporary folder.
pub(crate) fn sources(root: &Path) -> Sources {
    Sources {
        parquet_root: root.join("bars"),
        news_file: root.join("news.parquet"),
        costs_file: root.join("execution_costs.yaml"),
        specs_file: root.join("symbol_specs.yaml"),
        cache_dir: root.join("cache"),
        env_overrides: Vec::new(),
        memory: Vec::new(),
    }
}

/// Runs in a temporary folder that is gone afterwards.
pub(crate) fn in_folder<T>(run: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path())
}
