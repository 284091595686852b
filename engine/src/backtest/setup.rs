//! From a run configuration to a backtest ready to run: data, instrument, costs and gates resolved once and shared
//! by every trial on the same bars.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};

use crate::backtest::config::{ManagementConfig, RunConfig};
use crate::backtest::fingerprint::{Shared, relaxed_guard, rules_hash};
use crate::backtest::landmarks::Landmarks;
use crate::backtest::walk::{HoldingRule, Inputs, Observer, Plan, Walked, walk};
use crate::data::{
    Conversion, CostFile, CostSpec, DataRequest, FeeSchema, InputFile, LoadedData, Manifest, MarketData, NewsCalendar,
    Rates, Sources, SymbolSpec, SyntheticSource, load, session_mask,
};
use crate::error::{Error, Result};
use crate::execution::{DrawTable, FeeRate, Fees, Slippage, Terms, VolumeGrid};
use crate::indicators::{Budget, Column, ColumnCache, ColumnKey, MtfOptions, StaleLimit, check_warmup};
use crate::metrics::{Counters, Summary, first_not_finite, summarise};
use crate::portfolio::Trade;
use crate::rules::{BitMask, Condition, GuardCache, LateGuard, MaskCache, RuleSet};
use crate::strategy::{self, BuildContext, ColumnView, DataSlice, Strategy, Variant};
use crate::units::{Bits, EpochNs, MINUTE_NS, Timeframe};

/// What all backtests on one data set share. Filled lazily, safe to use from many threads; nothing in it depends on
/// the order of use.
pub struct Environment {
    data: LoadedData,
    spec: SymbolSpec,
    costs: CostFile,
    news: Option<NewsCalendar>,
    manifest: Manifest,
    options: MtfOptions,
    budget: Arc<dyn Budget>,
    warnings: Vec<String>,
    markets: Mutex<BTreeMap<Bits, Arc<Market>>>,
    gates: Mutex<BTreeMap<GateKey, Arc<BitMask>>>,
    draws: Mutex<Option<Arc<DrawTable>>>,
}

/// Bars of one spread multiplier with their columns and guards.
pub struct Market {
    /// Bars.
    pub data: Arc<MarketData>,
    /// Columns computed so far.
    pub columns: Arc<ColumnCache>,
    /// Late guards and what they remember.
    pub guards: GuardCache,
    /// Conditions as bits.
    pub masks: MaskCache,
    landmarks: OnceLock<Landmarks>,
}

impl Market {
    fn new(data: MarketData, options: MtfOptions, budget: &Arc<dyn Budget>) -> Self {
        let data = Arc::new(data);
        let columns = Arc::new(ColumnCache::new(Arc::clone(&data), options, Arc::clone(budget)));
        let guards = GuardCache::new(Arc::clone(&columns));
        let masks = MaskCache::new(data.bars.len(), Arc::clone(budget));
        Self { data, columns, guards, masks, landmarks: OnceLock::new() }
    }

    pub(super) fn landmarks(&self) -> &Landmarks {
        self.landmarks.get_or_init(|| Landmarks::new(&self.data.bars, self.columns.budget()))
    }
}

/// What the settings of one run config share; see [`Environment::base`].
pub struct Base {
    shared: Shared,
    context: BuildContext,
    strategy_name: String,
    warmup_bars: usize,
    management: ManagementConfig,
    window_start: Option<EpochNs>,
    market: Arc<Market>,
    gates: Option<Arc<BitMask>>,
    plan: Plan,
    account: Arc<AccountTerms>,
}

/// Text form of what decides the gates of a configuration.
type GateKey = String;

/// How money values were converted; part of `meta.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountTerms {
    /// Account money per price unit and lot.
    pub unit_value: f64,
    /// `rates`, `same_currency`, `tick_value` or `contract_size`.
    pub fx_source: &'static str,
    /// Pairs for which no rate was given and 1 was taken.
    pub fx_unresolved: Vec<String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("symbol", &self.data.market.symbol).finish_non_exhaustive()
    }
}

impl Environment {
    /// Loads everything `config` names. `timeframes`: those the strategies need beside the primary and the additional
    /// ones. Costs, specs and, if the news filter is on, the calendar are read and hashed too.
    ///
    /// # Errors
    /// Data and configuration errors, before any work.
    pub fn open(
        config: &RunConfig,
        timeframes: &[Timeframe],
        sources: &Sources,
        budget: Arc<dyn Budget>,
    ) -> Result<Self> {
        let (specs, specs_input) = sources.specs()?;
        let (costs, costs_input) = sources.costs()?;
        let parity = config.variant == Variant::V1Parity;
        let request = DataRequest {
            symbol: config.symbol.clone(),
            primary: config.primary,
            others: config.additional.iter().chain(timeframes).copied().collect(),
            start_ns: config.start_ns,
            end_ns: config.end_ns,
            warmup_bars: config.warmup_bars,
            parity,
            sessions: config.sessions.clone().unwrap_or_default(),
            synthetic: config.synthetic.map(|(seed, bars)| SyntheticSource { seed, bars }),
        };
        let mut data = load(&request, sources)?;
        let mut inputs = std::mem::take(&mut data.inputs);
        inputs.extend([specs_input, costs_input]);
        let news = match config.news {
            Some(_) => {
                let (calendar, input) = sources.news()?;
                inputs.push(input);
                Some(calendar)
            }
            None => None,
        };
        let (spec, found) = specs.for_symbol(&config.symbol);
        let (pip, pip_defaulted) = spec.resolve_pip_size(&config.symbol, config.costs.pip_size);
        data.governance.specs_found = found;
        data.governance.pip_size_defaulted = pip_defaulted;
        let mut warnings = std::mem::take(&mut data.warnings);
        warnings.extend(money_warnings(config, &spec, found, pip, pip_defaulted));
        Ok(Self {
            data,
            spec,
            costs,
            news,
            manifest: Manifest::new(inputs),
            options: mtf_options(config),
            budget,
            warnings,
            markets: Mutex::default(),
            gates: Mutex::default(),
            draws: Mutex::default(),
        })
    }

    /// The same without the bars that `cut` finds open or still to come: nothing that is evaluated can read them. Costs,
    /// specs, calendar and the identity of the files stay.
    #[must_use]
    pub fn closed_by(mut self, cut: EpochNs) -> Self {
        self.data.market = self.data.market.closed_by(cut);
        // Nothing made from the longer data may survive.
        self.markets = Mutex::default();
        self.gates = Mutex::default();
        self
    }

    /// Bars and how clean they were.
    pub fn data(&self) -> &LoadedData {
        &self.data
    }

    /// Identity of everything read.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Files read, by path and kind.
    pub fn inputs(&self) -> &[InputFile] {
        self.manifest.inputs()
    }

    /// What is worth telling before the run.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Bars under `multiplier`, with their columns; made once per multiplier.
    pub fn market(&self, multiplier: f64) -> Arc<Market> {
        let mut markets = self.markets.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let data = self.data.market.with_spread_multiplier(multiplier);
            Arc::new(Market::new(data, self.options.clone(), &self.budget))
        };
        Arc::clone(markets.entry(Bits::new(multiplier)).or_insert_with(make))
    }

    /// Drops columns and remembered guard answers that nobody uses until `bytes` are given back to the budget or
    /// nothing is left; returns what was given back.
    pub fn release_memory(&self, bytes: usize) -> usize {
        let markets = self.markets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut freed = 0;
        for market in markets.values() {
            if freed < bytes {
                freed += market.masks.evict(bytes - freed);
            }
            if freed < bytes {
                freed += market.columns.evict(bytes - freed);
            }
            if freed < bytes {
                freed += market.guards.clear();
            }
        }
        freed
    }

    /// What the settings of one run config share, worked out once; its strategy parameters are left out.
    pub fn base(&self, config: &RunConfig) -> Base {
        let (plan, account) = self.plan(config);
        Base {
            shared: Shared::new(&plan, config),
            context: config.build_context(),
            strategy_name: config.strategy_name.clone(),
            warmup_bars: config.warmup_bars,
            management: config.management.clone(),
            window_start: config.trade_window.map(|(start, _)| start),
            market: self.market(config.effective_spread_multiplier()),
            gates: self.gates(config),
            plan,
            account: Arc::new(account),
        }
    }

    /// Resolves one setting. `rng_seed` is the seed in force (the configuration's, or the one drawn for it).
    ///
    /// # Errors
    /// Strategy lookup and parameters (E4001, E4002), warm-up too short for the setting (E4003, `v2`), an empty trade
    /// window (E4102).
    pub fn prepare(&self, config: &RunConfig, rng_seed: u64) -> Result<Prepared> {
        let family = strategy::find(&config.strategy_name)?;
        let strategy = family.build(&config.strategy_parameters, &config.build_context())?;
        self.prepare_with(strategy, config, rng_seed)
    }

    /// [`Environment::prepare`] of the run config of `base` with these strategy parameters.
    ///
    /// # Errors
    /// Those of [`Environment::prepare`].
    pub fn prepare_on(&self, base: &Base, parameters: &Map<String, Value>, rng_seed: u64) -> Result<Prepared> {
        let strategy = strategy::find(&base.strategy_name)?.build(parameters, &base.context)?;
        self.assemble(base, strategy, parameters, rng_seed)
    }

    /// [`Environment::prepare`] with a strategy that need not be registered; name and parameters of `config` are not
    /// looked at beyond `rules_hash`.
    ///
    /// # Errors
    /// Those of [`Strategy::on_init`], warm-up too short (E4003, `v2`), an empty trade window (E4102).
    pub fn prepare_with(&self, strategy: Box<dyn Strategy>, config: &RunConfig, rng_seed: u64) -> Result<Prepared> {
        self.assemble(&self.base(config), strategy, &config.strategy_parameters, rng_seed)
    }

    fn assemble(
        &self,
        base: &Base,
        mut strategy: Box<dyn Strategy>,
        parameters: &Map<String, Value>,
        rng_seed: u64,
    ) -> Result<Prepared> {
        strategy.on_init(&self.data.market)?;
        let columns = strategy.columns();
        if base.context.variant == Variant::V2 {
            check_warmup(&columns, base.context.primary, base.warmup_bars)?;
        }
        if base.plan.bars.is_empty() {
            return Err(Error::DataCorrupt {
                kind: "DateRangeEmpty",
                path: base.context.symbol.clone().into(),
                row: 0,
                timestamp_ns: base.window_start,
                rule: "the trade window must hold at least one tradable bar".to_owned(),
                found: "none".to_owned(),
            });
        }
        let mut plan = base.plan.clone();
        plan.holding = holding_rule(&base.management, strategy.as_ref());
        let rules_hash = rules_hash(&base.shared, strategy.as_ref(), &plan, base.context.primary, parameters, rng_seed);
        Ok(Prepared {
            market: Arc::clone(&base.market),
            gates: base.gates.clone(),
            draws: self.draws(rng_seed),
            strategy,
            columns,
            plan,
            account: Arc::clone(&base.account),
            rules_hash,
        })
    }

    fn draws(&self, rng_seed: u64) -> Arc<DrawTable> {
        let mut latest = self.draws.lock().unwrap_or_else(PoisonError::into_inner);
        match latest.as_ref().filter(|table| table.rng_seed() == rng_seed) {
            Some(table) => Arc::clone(table),
            None => Arc::clone(latest.insert(Arc::new(DrawTable::new(rng_seed)))),
        }
    }

    /// Bars on which sessions and news let entries pass.
    fn gates(&self, config: &RunConfig) -> Option<Arc<BitMask>> {
        if config.sessions.is_none() && config.news.is_none() {
            return None;
        }
        let key = format!("{:?} {:?}", config.sessions, config.news);
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let bars = &self.data.market.bars;
            let mut mask = session_mask(bars, config.sessions.as_deref().unwrap_or_default());
            if let (Some(filter), Some(calendar)) = (&config.news, &self.news) {
                let currencies = self.spec.currencies(&config.symbol);
                mask.and(&calendar.open_mask(bars, filter, &currencies, config.variant == Variant::V1Parity));
            }
            Arc::new(mask)
        };
        Some(Arc::clone(gates.entry(key).or_insert_with(make)))
    }

    /// Without a holding rule.
    fn plan(&self, config: &RunConfig) -> (Plan, AccountTerms) {
        let (terms, account) = terms(config, &self.spec, &self.costs);
        let market = &self.data.market;
        let tradable = market.first_tradable..market.bars.len();
        let (bars, close_at_end) = match config.trade_window {
            None => (tradable, false),
            Some((start, end)) => {
                let before = |instant| market.bars.open_time.partition_point(|t| *t < instant);
                (before(start).max(tradable.start)..before(end).min(tradable.end), true)
            }
        };
        let plan = Plan {
            terms,
            initial_balance: config.account.initial_balance,
            max_positions: config.account.max_positions,
            cooldown_bars: config.cooldown_candles,
            cooldown_ns: config.cooldown_minutes * MINUTE_NS,
            cooldown_after_exit_ns: config.cooldown_minutes_trade * MINUTE_NS,
            holding: None,
            bars,
            close_at_end,
        };
        (plan, account)
    }
}

/// Worth telling because it changes money.
fn money_warnings(config: &RunConfig, spec: &SymbolSpec, found: bool, pip: f64, pip_defaulted: bool) -> Vec<String> {
    let symbol = &config.symbol;
    let mut warnings = Vec::new();
    if !found {
        warnings.push(format!("{symbol} is not in the symbol specs: every default is taken"));
    }
    if pip_defaulted {
        warnings.push(format!("the pip size of {symbol} is defaulted to {pip}; set pip_size in the symbol specs"));
    }
    if spec.contract_size.is_none() {
        warnings.push(format!("the contract size of {symbol} is not stated"));
    }
    let unresolved = terms(config, spec, &CostFile::default()).1;
    if !matches!(unresolved.fx_source, "rates" | "same_currency") {
        warnings.push(format!(
            "no rate leads from the quote currency of {symbol} to {}: money is reckoned by {}; set rates.static",
            config.account.currency, unresolved.fx_source
        ));
    }
    if !config.costs.enabled {
        warnings.push("costs are off: no fees and no slippage".to_owned());
    }
    warnings
}

fn mtf_options(config: &RunConfig) -> MtfOptions {
    match config.variant {
        Variant::V2 => MtfOptions::default(),
        Variant::V1Parity => MtfOptions {
            visibility: config.parity.visibility,
            close_stamped: config.parity.close_stamped.clone(),
            stale_limit: Some(StaleLimit::from_bars(config.parity.stale_bar_limit_bars)),
        },
    }
}

fn holding_rule(management: &ManagementConfig, strategy: &dyn Strategy) -> Option<HoldingRule> {
    if !management.enabled.unwrap_or_else(|| strategy.uses_position_manager()) || !management.holding_enabled {
        return None;
    }
    let minutes = management.max_holding_minutes.or_else(|| strategy.max_holding_minutes())?;
    (minutes > 0).then(|| HoldingRule {
        limit_ns: minutes.saturating_mul(MINUTE_NS),
        only_scenarios: management.only_scenarios.clone(),
    })
}

/// Terms of trade, execution specification §1, §8 to §10.
fn terms(config: &RunConfig, spec: &SymbolSpec, costs: &CostFile) -> (Terms, AccountTerms) {
    let symbol = &config.symbol;
    let account = config.account.currency.as_str();
    let cost = costs.for_symbol(symbol, account);
    let (pip, _) = spec.resolve_pip_size(symbol, config.costs.pip_size);
    // the cost file's factor is not read in parity runs.
    let file_factor = cost.pip_buffer_factor.filter(|_| config.variant == Variant::V2);
    let factor = config.costs.pip_buffer_factor.or(file_factor).unwrap_or(0.5);
    let quote = spec.quote_currency.clone().or_else(|| symbol.get(3..6).map(str::to_owned));
    let mut unresolved = Vec::new();
    let fees =
        if config.costs.enabled { fees(config, spec, &cost, quote.as_deref(), &mut unresolved) } else { Fees::NONE };
    let (pip_value, unit_value, fx_source) = money_per_lot(spec, &config.rates, account, pip);
    let terms = Terms {
        variant: config.variant,
        pip,
        buffer: pip * factor,
        min_stop_pips: spec.min_sl_distance_pips,
        slippage: Slippage {
            fixed_pips: cost.fixed_pips,
            random_pips: cost.random_pips,
            multiplier: if config.costs.enabled { config.costs.slippage_multiplier } else { 0.0 },
        },
        fees,
        volume: VolumeGrid { min: spec.volume_min, step: spec.volume_step, max: spec.volume_max },
        risk: config.account.risk_per_trade,
        pip_value,
        unit_value,
    };
    (terms, AccountTerms { unit_value, fx_source, fx_unresolved: unresolved })
}

const DEFAULT_CONTRACT_SIZE: f64 = 100_000.0;

fn fees(
    config: &RunConfig,
    spec: &SymbolSpec,
    cost: &CostSpec,
    quote: Option<&str>,
    unresolved: &mut Vec<String>,
) -> Fees {
    let mut conversion = |from: &str, to: &str| {
        config.rates.conversion(from, to).unwrap_or_else(|| {
            unresolved.push(format!("{from}{to}"));
            Conversion::default()
        })
    };
    let rate = match cost.schema {
        FeeSchema::PerLot => FeeRate::PerLot(cost.per_lot),
        FeeSchema::PerMillionNotional => FeeRate::PerMillion(cost.rate_per_million),
        FeeSchema::PercentOfNotional => FeeRate::Percent(cost.pct),
    };
    let needs_notional = !matches!(rate, FeeRate::PerLot(_));
    Fees {
        rate,
        min_fee: cost.min_fee,
        multiplier: config.costs.fee_multiplier,
        on_entry: cost.side.charges_entry(),
        on_exit: cost.side.charges_exit(),
        contract_size: spec.contract_size.unwrap_or(DEFAULT_CONTRACT_SIZE),
        quote_to_fee: match quote {
            Some(quote) if needs_notional => conversion(quote, &cost.fee_ccy),
            _ => Conversion::default(),
        },
        fee_to_account: conversion(&cost.fee_ccy, &config.account.currency),
    }
}

/// Money per pip and per price unit of one lot, and where the conversion came from (execution specification §10.1).
fn money_per_lot(spec: &SymbolSpec, rates: &Rates, account: &str, pip: f64) -> (f64, f64, &'static str) {
    if let (Some(contract), Some(quote)) = (spec.contract_size, spec.quote_currency.as_deref())
        && let Some(fx) = rates.conversion(quote, account)
    {
        let source = if quote == account { "same_currency" } else { "rates" };
        return (fx.apply(contract * pip), fx.apply(contract), source);
    }
    if let (Some(value), Some(size)) = (spec.tick_value, spec.tick_size) {
        let unit_value = value / size;
        return (unit_value * pip, unit_value, "tick_value");
    }
    let unit_value = spec.contract_size.unwrap_or(DEFAULT_CONTRACT_SIZE);
    (unit_value * pip, unit_value, "contract_size")
}

/// One setting, resolved and ready to run.
pub struct Prepared {
    market: Arc<Market>,
    gates: Option<Arc<BitMask>>,
    draws: Arc<DrawTable>,
    strategy: Box<dyn Strategy>,
    columns: Vec<ColumnKey>,
    plan: Plan,
    account: Arc<AccountTerms>,
    rules_hash: [u8; 8],
}

/// Columns of one run, held while it lasts.
struct Held<'a> {
    keys: &'a [ColumnKey],
    columns: Vec<Column>,
}

impl ColumnView for Held<'_> {
    fn column(&self, key: &ColumnKey) -> Option<&[f64]> {
        self.keys.binary_search(key).ok().map(|at| &*self.columns[at])
    }
}

/// What one backtest earned.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Trades, equity, counts, cash.
    pub walked: Walked,
    /// Metrics.
    pub summary: Summary,
}

impl Prepared {
    /// Digest of what the setting resolves to: settings that share it have equal results.
    pub fn rules_hash(&self) -> [u8; 8] {
        self.rules_hash
    }

    /// Columns the strategy reads, sorted.
    pub fn columns(&self) -> &[ColumnKey] {
        &self.columns
    }

    /// Conditions of its entries and exits, with repetitions; none for a strategy that is no rules.
    pub fn conditions(&self) -> Vec<Condition> {
        self.strategy.rules().map(RuleSet::conditions).unwrap_or_default()
    }

    /// Its late guards, a parameter that changes nothing on its bars set to 0.
    pub fn late_guards(&self) -> Vec<LateGuard> {
        let guards = self.strategy.rules().into_iter().flat_map(|rules| &rules.rules).flat_map(|rule| &rule.guards);
        guards.map(|guard| relaxed_guard(guard, self.plan.bars.start).into_owned()).collect()
    }

    /// Equal for settings whose positions leave by the same rules on the same bars: worked on together they share what
    /// is found out about exits. Only a hint; nothing rests on it.
    pub fn exit_hint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (Arc::as_ptr(&self.market) as usize).hash(&mut hasher);
        for rule in self.strategy.rules().iter().flat_map(|rules| &rules.rules) {
            (rule.direction, rule.stop, rule.target, rule.lots, &rule.exit).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The strategy.
    pub fn strategy(&self) -> &dyn Strategy {
        self.strategy.as_ref()
    }

    /// Numbers of the run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn gates(&self) -> Option<&BitMask> {
        self.gates.as_deref()
    }

    pub(super) fn draws(&self) -> &DrawTable {
        &self.draws
    }

    /// How money was converted.
    pub fn account(&self) -> &AccountTerms {
        &self.account
    }

    /// Bars it runs on.
    pub fn market(&self) -> &Arc<Market> {
        &self.market
    }

    /// Computes the columns, which [`Prepared::run`] would do by itself; for those who time it apart.
    ///
    /// # Errors
    /// Those of a column.
    pub fn warm(&self) -> Result<()> {
        self.market.columns.get_all(&self.columns).map(drop)
    }

    /// Runs it. `trades` is storage to reuse.
    ///
    /// # Errors
    /// Those of [`walk`], of a column, or [`Error::MetricNotFinite`].
    pub fn run(&self, trades: Vec<Trade>, observer: &mut impl Observer) -> Result<Outcome> {
        self.judge(self.walk(trades, observer)?)
    }

    /// The bar loop alone. `trades` is storage to reuse.
    ///
    /// # Errors
    /// Those of [`walk`] and of a column.
    pub fn walk(&self, trades: Vec<Trade>, observer: &mut impl Observer) -> Result<Walked> {
        self.walk_on(&self.plan, trades, observer)
    }

    /// The bar loop with other bars, or another end, than the setting's own plan: a walk-forward window.
    ///
    /// # Errors
    /// Those of [`walk`] and of a column.
    pub fn walk_on(&self, plan: &Plan, trades: Vec<Trade>, observer: &mut impl Observer) -> Result<Walked> {
        let held = Held { keys: &self.columns, columns: self.market.columns.get_all(&self.columns)? };
        let inputs = Inputs {
            market: &self.market.data,
            strategy: self.strategy.as_ref(),
            columns: &held,
            guards: Some(&self.market.guards),
            gates: self.gates.as_deref(),
            draws: &self.draws,
        };
        walk(inputs, plan, trades, observer)
    }

    /// The metrics of a walked run.
    ///
    /// # Errors
    /// [`Error::MetricNotFinite`].
    pub fn judge(&self, walked: Walked) -> Result<Outcome> {
        let summary = summarise(
            &walked.trades,
            walked.equity.clone(),
            &walked.counters,
            walked.ledger.fees_total(),
            self.plan.terms.risk,
        );
        match first_not_finite(&summary.values) {
            Some(metric) => Err(Error::MetricNotFinite { key: metric.key() }),
            None => Ok(Outcome { walked, summary }),
        }
    }

    /// Why a run without trades had none: `no_signal`, `all_rejected` or `never_closed`; with rules, the condition
    /// that held on the fewest bars is named.
    ///
    /// # Errors
    /// Those of a column.
    pub fn why_no_trade(&self, counters: &Counters) -> Result<String> {
        if counters.open_positions_at_end > 0 {
            return Ok("never_closed".to_owned());
        }
        if counters.signals > 0 {
            return Ok("all_rejected".to_owned());
        }
        let held = Held { keys: &self.columns, columns: self.market.columns.get_all(&self.columns)? };
        let narrowest = match self.strategy.rules() {
            Some(rules) => crate::rules::narrowest(rules, &held, self.plan.bars.clone())?,
            None => None,
        };
        Ok(narrowest.map_or_else(|| "no_signal".to_owned(), |text| format!("no_signal: {text}")))
    }

    /// The view of a strategy at bar `i`, with the run's columns and those that only notes read.
    ///
    /// # Errors
    /// Those of a column.
    pub fn at<T>(&self, i: usize, read: impl FnOnce(&DataSlice<'_>) -> T) -> Result<T> {
        let mut keys = [self.columns.clone(), self.strategy.note_columns()].concat();
        keys.sort_unstable();
        keys.dedup();
        let held = Held { keys: &keys, columns: self.market.columns.get_all(&keys)? };
        Ok(read(&DataSlice::new(&self.market.data, i, &held)))
    }
}
