//! One setting walked again with everything recorded: the four artefacts of a single run.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::Error;
use engine::backtest::artefact::{ArtefactError, RunDocuments, RunMeta, TradeRecord, write_folder};
use engine::backtest::walk::{EquityPoint, Observer, Origin, Walked};
use engine::backtest::{Environment, Outcome, Prepared, RunConfig, canonical};
use engine::portfolio::Trade;
use engine::strategy::{DataSlice, Position, SignalNotes};
use serde_json::{Map, Value, json};

/// A replay could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The backtest failed.
    #[error(transparent)]
    Engine(#[from] Error),
    /// The files could not be written.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
}

/// A setting walked with its equity curve and the notes of its signals.
pub struct Replay {
    /// Trades, metrics, counts.
    pub outcome: Outcome,
    equity: Vec<EquityPoint>,
    entries: Vec<Entry>,
}

struct Entry {
    position_id: u64,
    bar: usize,
    label: String,
    reason: String,
    source: EntrySource,
}

enum EntrySource {
    /// Notes are made after the walk, with the columns that only notes read.
    Rule(usize),
    Signal(SignalNotes),
}

struct Recorder<'a> {
    prepared: &'a Prepared,
    equity: Vec<EquityPoint>,
    entries: Vec<Entry>,
}

impl Observer for Recorder<'_> {
    fn entered(&mut self, position: &Position, origin: &Origin<'_>, slice: &DataSlice<'_>) {
        let (label, reason, source) = match origin {
            Origin::Rule(rule) => {
                let stated = self.prepared.strategy().rules().and_then(|rules| rules.rules.get(*rule));
                let label = stated.map(|rule| rule.label.clone()).unwrap_or_default();
                let reason = stated.map(|rule| rule.reason.to_owned()).unwrap_or_default();
                (label, reason, EntrySource::Rule(*rule))
            }
            Origin::Signal(signal) => {
                (signal.label.clone(), signal.reason.clone(), EntrySource::Signal(signal.notes.clone()))
            }
        };
        self.entries.push(Entry { position_id: position.id, bar: slice.index(), label, reason, source });
    }

    fn equity(&mut self, point: EquityPoint) {
        self.equity.push(point);
    }
}

/// Walks a prepared setting and records it.
///
/// # Errors
/// Those of the backtest.
pub fn replay(prepared: &Prepared) -> Result<Replay, Error> {
    let walked = record(prepared)?;
    walked.judge(prepared)
}

/// A walk recorded, its metrics still to be reckoned.
pub struct Recorded {
    walked: Walked,
    equity: Vec<EquityPoint>,
    entries: Vec<Entry>,
}

/// The bar loop of [`replay`].
///
/// # Errors
/// Those of the backtest.
pub fn record(prepared: &Prepared) -> Result<Recorded, Error> {
    let equity = Vec::with_capacity(prepared.plan().bars.len());
    let mut recorder = Recorder { prepared, equity, entries: Vec::new() };
    let walked = prepared.walk(Vec::new(), &mut recorder)?;
    Ok(Recorded { walked, equity: recorder.equity, entries: recorder.entries })
}

impl Recorded {
    /// The metrics of [`replay`].
    ///
    /// # Errors
    /// A metric that is not finite.
    pub fn judge(self, prepared: &Prepared) -> Result<Replay, Error> {
        Ok(Replay { outcome: prepared.judge(self.walked)?, equity: self.equity, entries: self.entries })
    }
}

/// What the artefacts need beside the replay itself.
#[derive(Clone, Copy)]
pub struct Provenance<'a> {
    /// The setting's full config.
    pub config: &'a RunConfig,
    /// File name of the config, without folders, if it came from one.
    pub source: Option<&'a str>,
    /// Seed in force.
    pub rng_seed: u64,
    /// Bars and their identity.
    pub environment: &'a Environment,
}

impl Provenance<'_> {
    /// Name of the run: from config, data and, if it was drawn, the seed. Known before anything is walked.
    pub fn run_id(&self) -> String {
        let config_hash = canonical::canonical_hash(&self.config.hashed_document());
        let drawn = self.config.rng_seed.is_none().then_some(self.rng_seed);
        canonical::run_id(&config_hash, &self.environment.manifest().sha256(), drawn)
    }
}

impl Replay {
    /// Writes `meta.json`, `trades.json`, `equity.csv` and `metrics.json` as `folder`.
    ///
    /// # Errors
    /// Whatever keeps the files from being written.
    pub fn write(&self, folder: &Path, prepared: &Prepared, provenance: Provenance<'_>) -> Result<(), ArtefactError> {
        self.with_documents(prepared, provenance, |documents| write_folder(folder, documents))
    }

    /// Hands everything the artefacts hold to `read`.
    pub fn with_documents<T>(
        &self,
        prepared: &Prepared,
        provenance: Provenance<'_>,
        read: impl FnOnce(&RunDocuments<'_>) -> T,
    ) -> T {
        let meta = self.meta(prepared, provenance);
        let trades = self.outcome.walked.trades.iter();
        let trades: Vec<TradeRecord> = trades.map(|trade| self.trade_record(prepared, trade)).collect();
        let metrics = self.outcome.summary.artefact();
        read(&RunDocuments { meta: &meta, trades: &trades, equity: &self.equity, metrics: &metrics })
    }

    fn meta(&self, prepared: &Prepared, provenance: Provenance<'_>) -> RunMeta {
        let Provenance { config, source, rng_seed, environment } = provenance;
        let config_hash = canonical::canonical_hash(&config.hashed_document());
        let manifest_sha256 = environment.manifest().sha256();
        let bars = &prepared.market().data.bars;
        let range = &prepared.plan().bars;
        RunMeta {
            run_id: provenance.run_id(),
            generated_at_ns: now_ns(),
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            git: None,
            config_hash,
            config_source: source.map(str::to_owned),
            config_snapshot: config.document.clone(),
            symbol: config.symbol.clone(),
            timeframe: config.primary,
            start_time_ns: bars.open_time[range.start],
            end_time_ns: bars.open_time[range.end - 1],
            manifest_sha256,
            manifest_ref: environment.manifest().reference(),
            governance: serde_json::to_value(&environment.data().governance).unwrap_or(Value::Null),
            account_currency: config.account.currency.clone(),
            initial_balance: config.account.initial_balance,
            unit_value: prepared.account().unit_value,
            fx_source: prepared.account().fx_source.to_owned(),
            fx_unresolved: prepared.account().fx_unresolved.clone(),
            variant: config.variant,
            counters: self.outcome.walked.counters,
            rng_seed,
        }
    }

    fn trade_record(&self, prepared: &Prepared, trade: &Trade) -> TradeRecord {
        let moved = trade.stop_loss != trade.initial_stop_loss;
        let mut meta = Map::new();
        if let Ok(at) = self.entries.binary_search_by_key(&trade.position_id, |entry| entry.position_id) {
            let entry = &self.entries[at];
            let notes = match &entry.source {
                // The columns were there during the walk; without them the trade keeps its numbers and loses its notes.
                EntrySource::Rule(rule) => {
                    prepared.at(entry.bar, |slice| prepared.strategy().signal_meta(*rule, slice)).unwrap_or_default()
                }
                EntrySource::Signal(notes) => notes.clone(),
            };
            meta = notes.meta;
            meta.insert("scenario".to_owned(), Value::from(entry.label.as_str()));
            meta.insert("signal_reason".to_owned(), Value::from(entry.reason.as_str()));
            meta.insert("tags".to_owned(), json!(notes.tags));
        }
        meta.insert("stop_loss_kind".to_owned(), Value::from(if moved { "manual" } else { "initial" }));
        meta.insert("in_entry_candle".to_owned(), Value::from(trade.exit_bar == trade.entry_bar));
        TradeRecord { trade: *trade, meta }
    }
}

/// Wall clock; 0 before 1970.
pub fn now_ns() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
