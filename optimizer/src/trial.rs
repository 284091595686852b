//! From a setting to a backtest: the run config with the setting's values put in, its hash, and what it resolves to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::backtest::{self, Environment, Prepared, RunConfig, canonical};
use engine::{Error, Violation};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::guarded;
use crate::row::ParamValue;
use crate::space::axis::Target;
use crate::space::{ParamColumn, Setting, Space, put};

/// Values of all axes together, beyond which they are not kept but worked out anew for each trial.
const MOST_KEPT_VALUES: u64 = 1 << 16;

/// Makes the config of every trial of a sweep. A function of the setting alone: nothing is carried from trial to
/// trial but what is the same for all.
pub struct TrialConfigs {
    space: Arc<Space>,
    /// Base config, normalised, with fixed values put in.
    base: Value,
    /// Columns that go into the run config itself rather than into `strategy_parameters`.
    config_columns: Vec<usize>,
    /// Every value of every column; empty where there are too many.
    values: Vec<Vec<AxisValue>>,
    /// Configs by the value indices of the axes of `config_columns`, without the strategy's parameters.
    bases: Mutex<BTreeMap<Vec<u32>, Arc<Base>>>,
    /// Drawn once per sweep in `prod` without a seed.
    master: Option<u64>,
}

/// A value of an axis in the forms it is asked for.
struct AxisValue {
    value: Value,
    /// Canonical JSON, as it enters the config hash.
    text: String,
    /// As a column of results holds it.
    cell: ParamValue,
}

impl AxisValue {
    fn new(value: Value, column: &ParamColumn) -> Self {
        let text = canonical::canonical_json(&value);
        let cell = ParamValue::from_json(&value, column.kind).unwrap_or(ParamValue::Null);
        Self { value, text, cell }
    }
}

/// A run config with the config axes put in, and the canonical text of the rest.
struct Base {
    config: RunConfig,
    hasher: ConfigHasher,
}

/// A trial ready to be prepared.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Its config; `document` is left out.
    pub config: RunConfig,
    /// SHA-256 of its canonical normalised config.
    pub config_hash: [u8; 32],
    /// Seed of its slippage stream.
    pub rng_seed: u64,
}

impl TrialConfigs {
    /// For the settings of `space` over the normalised run config `base`.
    pub fn new(space: Arc<Space>, base: Value, master: Option<u64>) -> Self {
        let is_config = |column: &ParamColumn| matches!(column.target, Target::Config(_));
        let config_columns =
            space.columns().iter().enumerate().filter(|(_, column)| is_config(column)).map(|(at, _)| at).collect();
        let values = kept_values(&space);
        Self { space, base, config_columns, values, bases: Mutex::default(), master }
    }

    /// The full config of a setting, normalised the slow way: what an export writes and a single run reads.
    ///
    /// # Errors
    /// Every violation of the resolved config.
    pub fn full(&self, setting: &Setting) -> Result<RunConfig, Vec<Violation>> {
        let mut given = self.base.clone();
        self.space.apply(setting, &mut given);
        RunConfig::parse(&given, true).map(|parsed| parsed.config)
    }

    /// The trial of a setting.
    ///
    /// # Errors
    /// [`Error::Config`] if the setting's values contradict each other.
    pub fn trial(&self, setting: &Setting) -> Result<Trial, Error> {
        let base = self.shared(&self.base_key(setting), setting).map_err(Error::Config)?;
        let mut config = base.config.clone();
        self.put_parameters(setting, &mut config.strategy_parameters);
        let config_hash = base.hasher.hash(self, setting);
        let rng_seed = self.rng_seed(&config, &config_hash);
        Ok(Trial { config, config_hash, rng_seed })
    }

    /// SHA-256 of the config of a setting alone; `None` if its values contradict each other.
    pub fn config_hash(&self, setting: &Setting) -> Option<[u8; 32]> {
        let base = self.shared(&self.base_key(setting), setting).ok()?;
        Some(base.hasher.hash(self, setting))
    }

    /// Hash of a setting whose config contradicts itself: over the document as given, since there is no normalised one.
    pub fn hash_as_given(&self, setting: &Setting) -> [u8; 32] {
        let mut given = self.base.clone();
        self.space.apply(setting, &mut given);
        Sha256::digest(canonical::canonical_json(&given)).into()
    }

    /// Pushes the values of a setting as columns of results hold them.
    pub fn cells(&self, setting: &Setting, cells: &mut Vec<ParamValue>) {
        for (at, column) in self.space.columns().iter().enumerate() {
            cells.push(match self.kept(setting, at) {
                Some(kept) => kept.cell.clone(),
                None => AxisValue::new(self.space.value(setting, at), column).cell,
            });
        }
    }

    fn kept(&self, setting: &Setting, column: usize) -> Option<&AxisValue> {
        let axis = self.space.columns().get(column)?.axis;
        self.values.get(column)?.get(*setting.value_index.get(axis)? as usize)
    }

    /// Puts the values of the axes that are parameters of the strategy over `parameters`.
    fn put_parameters(&self, setting: &Setting, parameters: &mut Map<String, Value>) {
        for (at, column) in self.space.columns().iter().enumerate() {
            if let Target::Parameter(name) = &column.target {
                let value = self.kept(setting, at).map(|kept| kept.value.clone());
                let value = value.unwrap_or_else(|| self.space.value(setting, at));
                match parameters.get_mut(name) {
                    Some(place) => *place = value,
                    None => drop(parameters.insert(name.clone(), value)),
                }
            }
        }
    }

    fn rng_seed(&self, config: &RunConfig, config_hash: &[u8; 32]) -> u64 {
        config.rng_seed.unwrap_or_else(|| execution_seed(self.master.unwrap_or_default(), config_hash))
    }

    /// Value indices of the axes that decide the run config.
    fn base_key(&self, setting: &Setting) -> Vec<u32> {
        self.config_columns.iter().map(|at| setting.value_index[self.space.columns()[*at].axis]).collect()
    }

    fn shared(&self, key: &[u32], setting: &Setting) -> Result<Arc<Base>, Vec<Violation>> {
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = bases.get(key) {
            return Ok(Arc::clone(base));
        }
        let mut config = self.full(setting)?;
        let hasher = ConfigHasher::new(&config.hashed_document(), &self.space);
        config.document = Value::Null;
        let base = Arc::new(Base { config, hasher });
        // A space over many config axes would keep a base per combination: beyond this many they are made again.
        if bases.len() >= 4096 {
            bases.clear();
        }
        bases.insert(key.to_vec(), Arc::clone(&base));
        Ok(base)
    }
}

fn kept_values(space: &Space) -> Vec<Vec<AxisValue>> {
    let columns = space.columns();
    let all: u64 = columns.iter().map(|column| u64::from(space.axes()[column.axis].len())).sum();
    if all > MOST_KEPT_VALUES {
        return Vec::new();
    }
    let values = columns.iter().map(|column| {
        let axis = &space.axes()[column.axis];
        (0..axis.len()).map(|k| AxisValue::new(axis.members[column.member].values.get(k), column)).collect()
    });
    values.collect()
}

/// A trial resolved: who it is, and the backtest it comes to.
pub struct Resolved {
    /// Trial number.
    pub trial: u64,
    /// SHA-256 of its canonical normalised config.
    pub config_hash: [u8; 32],
    /// Seed of its slippage stream; 0 if the config contradicts itself.
    pub rng_seed: u64,
    /// Ready to run, or why it cannot be; a panic is caught.
    pub prepared: Result<Prepared, Error>,
}

/// Resolves the settings of one search on one environment. Belongs to one thread; keeps what the last setting shares
/// with the next.
pub struct Resolver<'a> {
    configs: &'a TrialConfigs,
    environment: &'a Environment,
    last: Option<Last>,
}

struct Last {
    key: Vec<u32>,
    base: Arc<Base>,
    on: backtest::Base,
    /// Of the last setting; every axis value is put over it.
    parameters: Map<String, Value>,
}

impl<'a> Resolver<'a> {
    /// For settings of `configs` on `environment`.
    pub fn new(configs: &'a TrialConfigs, environment: &'a Environment) -> Self {
        Self { configs, environment, last: None }
    }

    /// Resolves a setting; the same as [`TrialConfigs::trial`] and [`Environment::prepare`].
    pub fn resolve(&mut self, setting: &Setting) -> Resolved {
        let (configs, environment) = (self.configs, self.environment);
        let trial = setting.trial;
        let last = match self.share(setting) {
            Ok(last) => last,
            // Values were checked against their ranges before the sweep; what is left is a contradiction between them.
            Err(violations) => {
                let config_hash = configs.hash_as_given(setting);
                return Resolved { trial, config_hash, rng_seed: 0, prepared: Err(Error::Config(violations)) };
            }
        };
        configs.put_parameters(setting, &mut last.parameters);
        let config_hash = last.base.hasher.hash(configs, setting);
        let rng_seed = configs.rng_seed(&last.base.config, &config_hash);
        let prepared = guarded(|| environment.prepare_on(&last.on, &last.parameters, rng_seed));
        Resolved { trial, config_hash, rng_seed, prepared }
    }

    fn share(&mut self, setting: &Setting) -> Result<&mut Last, Vec<Violation>> {
        let configs = self.configs;
        let key = configs.base_key(setting);
        if self.last.as_ref().is_none_or(|last| last.key != key) {
            let base = configs.shared(&key, setting)?;
            let on = self.environment.base(&base.config);
            let parameters = base.config.strategy_parameters.clone();
            self.last = Some(Last { key, base, on, parameters });
        }
        self.last.as_mut().ok_or_else(Vec::new)
    }
}

/// Seed of one trial in `prod`: first 8 bytes, big-endian, of SHA-256 of `"<M>|execution|<config hash>"`.
/// Source: execution specification §8.3.
pub fn execution_seed(master: u64, config_hash: &[u8; 32]) -> u64 {
    let text = format!("{master}|execution|{}", crate::fingerprint::hex(config_hash));
    let digest = Sha256::digest(text.as_bytes());
    u64::from_be_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
}

/// The canonical text of a config cut at the strategy parameters that are axes: the hash state up to the first of
/// them and the texts between are prepared once, the values of a trial go in between.
struct ConfigHasher {
    prefix: Sha256,
    /// Column and the text that follows its value.
    slots: Vec<(usize, String)>,
}

impl ConfigHasher {
    /// `document` holds some value for every axis; it is replaced.
    fn new(document: &Value, space: &Space) -> Self {
        let mut marked = document.clone();
        let mark = |at: usize| format!("\u{1}axis {at}\u{1}");
        for (at, column) in space.columns().iter().enumerate() {
            if matches!(column.target, Target::Parameter(_)) {
                put(&mut marked, &column.target, Value::from(mark(at)));
            }
        }
        let text = canonical::canonical_json(&marked);
        let quoted = |at: usize| canonical::canonical_json(&Value::from(mark(at)));
        let mut found: Vec<(usize, usize, usize)> = (0..space.columns().len())
            .filter_map(|at| text.find(&quoted(at)).map(|from| (from, from + quoted(at).len(), at)))
            .collect();
        found.sort_unstable();
        let mut prefix = Sha256::new();
        prefix.update(&text[..found.first().map_or(text.len(), |first| first.0)]);
        let ends = found.iter().skip(1).map(|next| next.0).chain([text.len()]);
        let slots = found.iter().zip(ends).map(|((_, after, at), end)| (*at, text[*after..end].to_owned())).collect();
        Self { prefix, slots }
    }

    fn hash(&self, configs: &TrialConfigs, setting: &Setting) -> [u8; 32] {
        let mut state = self.prefix.clone();
        for (at, text) in &self.slots {
            match configs.kept(setting, *at) {
                Some(kept) => state.update(&kept.text),
                None => state.update(canonical::canonical_json(&configs.space.value(setting, *at))),
            }
            state.update(text);
        }
        state.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// execution §8.3, checks.
    #[test]
    fn execution_seeds_of_the_specification() {
        assert_eq!(execution_seed(0, &[0; 32]), 3711015501133653840);
        assert_eq!(execution_seed(42, &[0; 32]), 18440577967831077963);
        assert_eq!(execution_seed(42, &[0x11; 32]), 6387706730056156815);
    }
}
