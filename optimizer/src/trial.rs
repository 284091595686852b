//! From a setting to a backtest: the run config with the setting's values put in, and its hash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::backtest::{RunConfig, canonical};
use engine::{Error, Violation};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::space::axis::Target;
use crate::space::{ParamColumn, Setting, Space, put};

/// Makes the config of every trial of a sweep. A function of the setting alone: nothing is carried from trial to
/// trial but what is the same for all.
pub struct TrialConfigs {
    space: Arc<Space>,
    /// Base config, normalised, with fixed values put in.
    base: Value,
    /// Columns that go into the run config itself rather than into `strategy_parameters`.
    config_columns: Vec<usize>,
    /// Configs by the value indices of the axes of `config_columns`, without the strategy's parameters.
    bases: Mutex<BTreeMap<Vec<u32>, Arc<Base>>>,
    /// Drawn once per sweep in `prod` without a seed.
    master: Option<u64>,
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
        Self { space, base, config_columns, bases: Mutex::default(), master }
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
        let base = self.shared(setting).map_err(Error::Config)?;
        let mut config = base.config.clone();
        for (at, column) in self.space.columns().iter().enumerate() {
            if let Target::Parameter(name) = &column.target {
                config.strategy_parameters.insert(name.clone(), self.space.value(setting, at));
            }
        }
        let config_hash = base.hasher.hash(&self.space, setting);
        let rng_seed = match (config.rng_seed, self.master) {
            (Some(seed), _) => seed,
            (None, master) => execution_seed(master.unwrap_or_default(), &config_hash),
        };
        Ok(Trial { config, config_hash, rng_seed })
    }

    /// Hash of a setting whose config contradicts itself: over the document as given, since there is no normalised one.
    pub fn hash_as_given(&self, setting: &Setting) -> [u8; 32] {
        let mut given = self.base.clone();
        self.space.apply(setting, &mut given);
        Sha256::digest(canonical::canonical_json(&given)).into()
    }

    fn shared(&self, setting: &Setting) -> Result<Arc<Base>, Vec<Violation>> {
        let key: Vec<u32> =
            self.config_columns.iter().map(|at| setting.value_index[self.space.columns()[*at].axis]).collect();
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = bases.get(&key) {
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
        bases.insert(key, Arc::clone(&base));
        Ok(base)
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

    fn hash(&self, space: &Space, setting: &Setting) -> [u8; 32] {
        let mut state = self.prefix.clone();
        for (at, text) in &self.slots {
            state.update(canonical::canonical_json(&space.value(setting, *at)));
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
