//! What an instrument is (contract, tick, pip, volume grid, currencies) and what trading it costs: the two YAML files.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::data::yaml::{Block, Yaml};
use crate::error::{Error, Result};

/// One instrument as described by `symbol_specs.yaml`; what the file does not say is `None` or the default.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SymbolSpec {
    /// Units of the base per lot, > 0.
    pub contract_size: Option<f64>,
    /// Smallest price step, > 0.
    pub tick_size: Option<f64>,
    /// Money per tick and lot, > 0: the fallback when no rate leads to the account currency.
    pub tick_value: Option<f64>,
    /// Size of a pip in price units, > 0.
    pub pip_size: Option<f64>,
    /// Smallest volume, lots.
    pub volume_min: f64,
    /// Volume step, lots.
    pub volume_step: f64,
    /// Largest volume, lots.
    pub volume_max: f64,
    /// Smallest distance of a stop, pips.
    pub min_sl_distance_pips: f64,
    /// Currency (or asset) bought.
    pub base_currency: Option<String>,
    /// Currency of the price.
    pub quote_currency: Option<String>,
    /// Informational.
    pub profit_currency: Option<String>,
}

impl Default for SymbolSpec {
    fn default() -> Self {
        Self {
            contract_size: None,
            tick_size: None,
            tick_value: None,
            pip_size: None,
            volume_min: 0.01,
            volume_step: 0.01,
            volume_max: 100.0,
            min_sl_distance_pips: 0.1,
            base_currency: None,
            quote_currency: None,
            profit_currency: None,
        }
    }
}

impl SymbolSpec {
    fn read(block: &Block<'_>) -> Result<Self> {
        let positive = |key| block.number(key, "> 0", |x| x > 0.0);
        let currency = |key| block.text(key).map(|text| text.map(str::to_ascii_uppercase));
        let default = Self::default();
        let spec = Self {
            contract_size: positive("contract_size")?,
            tick_size: positive("tick_size")?,
            tick_value: positive("tick_value")?,
            pip_size: positive("pip_size")?,
            volume_min: positive("volume_min")?.unwrap_or(default.volume_min),
            volume_step: positive("volume_step")?.unwrap_or(default.volume_step),
            volume_max: positive("volume_max")?.unwrap_or(default.volume_max),
            min_sl_distance_pips: block
                .number("min_sl_distance_pips", ">= 0", |x| x >= 0.0)?
                .unwrap_or(default.min_sl_distance_pips),
            base_currency: currency("base_currency")?,
            quote_currency: currency("quote_currency")?,
            profit_currency: currency("profit_currency")?,
        };
        if spec.volume_min > spec.volume_max {
            let reason =
                format!("volume_min <= volume_max must hold, got min {} and max {}", spec.volume_min, spec.volume_max);
            return Err(block.refuse("volume_min", reason));
        }
        Ok(spec)
    }

    /// Pip size and whether nobody stated it.
    ///
    /// `configured` (`costs.pip_size` of the run), else the spec's, else 0.01 if the symbol contains `JPY`, else
    /// 0.0001; the last two count as defaulted (`execution.md` §1).
    pub fn resolve_pip_size(&self, symbol: &str, configured: Option<f64>) -> (f64, bool) {
        match configured.or(self.pip_size) {
            Some(size) => (size, false),
            None if symbol.contains("JPY") => (0.01, true),
            None => (0.0001, true),
        }
    }

    /// Base and quote currency: those of the spec, else characters 1–3 and 4–6 of the symbol where it has them.
    pub fn currencies(&self, symbol: &str) -> Vec<String> {
        let from_symbol = |range| symbol.get(range).map(str::to_ascii_uppercase);
        let base = self.base_currency.clone().or_else(|| from_symbol(0..3));
        let quote = self.quote_currency.clone().or_else(|| from_symbol(3..6));
        base.into_iter().chain(quote).collect()
    }
}

/// `symbol_specs.yaml`: symbol, in upper case, to its spec.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SymbolSpecs(BTreeMap<String, SymbolSpec>);

impl SymbolSpecs {
    /// Reads and checks the whole file; errors carry its path and the key (`XAGUSD.pip_size`).
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read_config(path)?, &path.display().to_string())
    }

    /// The same from bytes; `label` names them in errors. Unknown keys are passed over.
    pub fn parse(bytes: &[u8], label: &str) -> Result<Self> {
        let tree = Yaml::parse(bytes, label)?;
        let root = Block::root(&tree, label)?;
        let specs =
            root.keys().map(|symbol| Ok((symbol.trim().to_ascii_uppercase(), SymbolSpec::read(&root.block(symbol)?)?)));
        specs.collect::<Result<_>>().map(Self)
    }

    /// The spec of `symbol` and whether the file has one; all defaults if not.
    pub fn for_symbol(&self, symbol: &str) -> (SymbolSpec, bool) {
        match self.0.get(symbol) {
            Some(spec) => (spec.clone(), true),
            None => (SymbolSpec::default(), false),
        }
    }

    /// Every symbol of the file, sorted.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// How a fee follows from an order (`execution.md` §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FeeSchema {
    /// `per_lot · lots`.
    PerLot,
    /// `rate_per_million · notional / 10⁶`.
    PerMillionNotional,
    /// `pct · notional`, `pct` a fraction (0.00015 = 1.5 bp).
    PercentOfNotional,
}

/// Which orders pay the fee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FeeSide {
    /// The opening order only.
    Entry,
    /// The closing order only.
    Exit,
    /// Each of the two, once.
    Both,
}

impl FeeSide {
    /// True if an opening order pays.
    pub fn charges_entry(self) -> bool {
        self != Self::Exit
    }

    /// True if a closing order pays.
    pub fn charges_exit(self) -> bool {
        self != Self::Entry
    }
}

/// What trading one symbol costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CostSpec {
    /// Slippage of every fill, pips.
    pub fixed_pips: f64,
    /// Width of the uniform part of the slippage, pips.
    pub random_pips: f64,
    /// Kind of fee.
    pub schema: FeeSchema,
    /// Orders that pay it.
    pub side: FeeSide,
    /// Currency of the fee, upper case.
    pub fee_ccy: String,
    /// Fee per lot, `fee_ccy`.
    pub per_lot: f64,
    /// Fee per million of notional, `fee_ccy`.
    pub rate_per_million: f64,
    /// Fee as a fraction of the notional.
    pub pct: f64,
    /// Smallest fee of an order, `fee_ccy`.
    pub min_fee: f64,
    /// `β` of the cost file, if it states one.
    pub pip_buffer_factor: Option<f64>,
}

/// The fee keys that a block of the cost file states.
#[derive(Debug, Clone, PartialEq, Default)]
struct FeeKeys {
    schema: Option<FeeSchema>,
    side: Option<FeeSide>,
    fee_ccy: Option<String>,
    per_lot: Option<f64>,
    rate_per_million: Option<f64>,
    pct: Option<f64>,
    min_fee: Option<f64>,
}

impl FeeKeys {
    fn read(block: &Block<'_>) -> Result<Self> {
        let rate = |key| block.number(key, ">= 0", |x| x >= 0.0);
        let schemas = [
            ("per_lot", FeeSchema::PerLot),
            ("per_million_notional", FeeSchema::PerMillionNotional),
            ("percent_of_notional", FeeSchema::PercentOfNotional),
        ];
        let sides = [("entry", FeeSide::Entry), ("exit", FeeSide::Exit), ("both", FeeSide::Both)];
        Ok(Self {
            schema: block.choice("schema", &schemas)?,
            side: block.choice("side", &sides)?,
            fee_ccy: block.text("fee_ccy")?.map(str::to_ascii_uppercase),
            per_lot: rate("per_lot")?,
            rate_per_million: rate("rate_per_million")?,
            pct: rate("pct")?,
            min_fee: rate("min_fee")?,
        })
    }
}

/// `execution_costs.yaml`: defaults and, key by key over them, what single symbols differ in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CostFile {
    fixed_pips: f64,
    random_pips: f64,
    pip_buffer_factor: Option<f64>,
    defaults: FeeKeys,
    per_symbol: BTreeMap<String, FeeKeys>,
}

impl CostFile {
    /// Reads and checks the whole file, every symbol of it; errors carry its path and the key.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read_config(path)?, &path.display().to_string())
    }

    /// The same from bytes; `label` names them in errors. Unknown and legacy keys are passed over.
    pub fn parse(bytes: &[u8], label: &str) -> Result<Self> {
        let tree = Yaml::parse(bytes, label)?;
        let root = Block::root(&tree, label)?;
        let (defaults, symbols) = (root.block("defaults")?, root.block("per_symbol")?);
        let slippage = defaults.block("slippage")?;
        let pips = |key| slippage.number(key, ">= 0", |x| x >= 0.0).map(Option::unwrap_or_default);
        let per_symbol = symbols
            .keys()
            .map(|symbol| Ok((symbol.trim().to_ascii_uppercase(), FeeKeys::read(&symbols.block(symbol)?)?)));
        Ok(Self {
            fixed_pips: pips("fixed_pips")?,
            random_pips: pips("random_pips")?,
            pip_buffer_factor: defaults.number("pip_buffer_factor", ">= 0", |x| x >= 0.0)?,
            defaults: FeeKeys::read(&defaults)?,
            per_symbol: per_symbol.collect::<Result<_>>()?,
        })
    }

    /// Costs of `symbol`: its own keys, else the defaults of the file, else `per_million_notional`, `both`, the
    /// account currency, and 0.
    pub fn for_symbol(&self, symbol: &str, account_currency: &str) -> CostSpec {
        let none = FeeKeys::default();
        let (own, base) = (self.per_symbol.get(symbol).unwrap_or(&none), &self.defaults);
        let rate = |own: Option<f64>, base: Option<f64>| own.or(base).unwrap_or(0.0);
        let fee_ccy = own.fee_ccy.as_ref().or(base.fee_ccy.as_ref());
        CostSpec {
            fixed_pips: self.fixed_pips,
            random_pips: self.random_pips,
            schema: own.schema.or(base.schema).unwrap_or(FeeSchema::PerMillionNotional),
            side: own.side.or(base.side).unwrap_or(FeeSide::Both),
            fee_ccy: fee_ccy.cloned().unwrap_or_else(|| account_currency.to_owned()),
            per_lot: rate(own.per_lot, base.per_lot),
            rate_per_million: rate(own.rate_per_million, base.rate_per_million),
            pct: rate(own.pct, base.pct),
            min_fee: rate(own.min_fee, base.min_fee),
            pip_buffer_factor: self.pip_buffer_factor,
        }
    }
}

fn read_config(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::config(path.display().to_string(), format!("cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(text: &str) -> Result<CostFile> {
        CostFile::parse(text.as_bytes(), "costs.yaml")
    }

    fn specs(text: &str) -> Result<SymbolSpecs> {
        SymbolSpecs::parse(text.as_bytes(), "specs.yaml")
    }

    #[test]
    fn fee_keys_overlay_one_by_one() {
        let file = costs(
            "defaults:\n  slippage: {fixed_pips: 0.2, random_pips: 0.3}\n  schema: per_lot\n  per_lot: 2.5\n  min_fee: 1\n  fees: {per_million: nonsense}\nper_symbol:\n  usdjpy: {schema: per_million_notional, rate_per_million: 6, fee_ccy: usd}\n",
        )
        .unwrap();
        let eurusd = file.for_symbol("EURUSD", "EUR");
        assert_eq!((eurusd.schema, eurusd.per_lot, eurusd.min_fee), (FeeSchema::PerLot, 2.5, 1.0));
        assert_eq!((eurusd.fee_ccy.as_str(), eurusd.fixed_pips, eurusd.random_pips), ("EUR", 0.2, 0.3));
        let usdjpy = file.for_symbol("USDJPY", "EUR");
        assert_eq!((usdjpy.schema, usdjpy.rate_per_million), (FeeSchema::PerMillionNotional, 6.0));
        assert_eq!((usdjpy.per_lot, usdjpy.min_fee, usdjpy.fee_ccy.as_str()), (2.5, 1.0, "USD"));
    }

    #[test]
    fn an_empty_cost_file_costs_nothing() {
        let spec = costs("").unwrap().for_symbol("EURUSD", "USD");
        assert_eq!((spec.schema, spec.side), (FeeSchema::PerMillionNotional, FeeSide::Both));
        assert_eq!((spec.fixed_pips, spec.random_pips, spec.rate_per_million, spec.min_fee), (0.0, 0.0, 0.0, 0.0));
        assert_eq!(spec.pip_buffer_factor, None);
    }

    #[test]
    fn wrong_costs_are_named_by_path() {
        let cases = [
            (
                "defaults: {schema: per_share}",
                "costs.yaml: defaults.schema: must be one of per_lot, per_million_notional, percent_of_notional, got `per_share`",
            ),
            ("defaults: {side: open}", "costs.yaml: defaults.side: must be one of entry, exit, both, got `open`"),
            (
                "per_symbol: {XAUUSD: {per_lot: -1}}",
                "costs.yaml: per_symbol.XAUUSD.per_lot: must be a number >= 0, got -1",
            ),
            (
                "defaults: {pip_buffer_factor: half}",
                "costs.yaml: defaults.pip_buffer_factor: must be a number >= 0, got `half`",
            ),
            ("defaults: [1]", "costs.yaml: defaults: must be a mapping, got a list of 1"),
        ];
        for (text, message) in cases {
            assert_eq!(costs(text).unwrap_err().to_string(), message);
        }
        assert!(costs("defaults: {slippage: {fixed_pips: .inf}}").is_err());
        assert!(costs("a: [").unwrap_err().to_string().starts_with("costs.yaml: is not YAML"));
        assert!(matches!(CostFile::load(Path::new("no/such.yaml")), Err(Error::Config(_))));
    }

    #[test]
    fn specs_have_defaults_and_absent_symbols_are_told() {
        let file = specs("XAGUSD: {contract_size: 5000, pip_size: 0.01, quote_currency: usd, colour: grey}").unwrap();
        let (spec, found) = file.for_symbol("XAGUSD");
        assert!(found);
        assert_eq!((spec.contract_size, spec.pip_size, spec.volume_max), (Some(5000.0), Some(0.01), 100.0));
        assert_eq!(spec.currencies("XAGUSD"), ["XAG", "USD"]);
        assert_eq!(file.for_symbol("EURUSD"), (SymbolSpec::default(), false));
    }

    #[test]
    fn wrong_specs_are_named_by_path() {
        let cases = [
            ("A: {pip_size: 0}", "specs.yaml: A.pip_size: must be a number > 0, got 0"),
            ("A: {contract_size: big}", "specs.yaml: A.contract_size: must be a number > 0, got `big`"),
            ("A: {min_sl_distance_pips: -0.1}", "specs.yaml: A.min_sl_distance_pips: must be a number >= 0, got -0.1"),
            (
                "A: {volume_min: 5, volume_max: 1}",
                "specs.yaml: A.volume_min: volume_min <= volume_max must hold, got min 5 and max 1",
            ),
            ("A: {quote_currency: 3}", "specs.yaml: A.quote_currency: must be a text, got 3"),
            ("A: 3", "specs.yaml: A: must be a mapping, got 3"),
        ];
        for (text, message) in cases {
            assert_eq!(specs(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn pip_size_comes_from_config_spec_symbol_in_that_order() {
        let stated = SymbolSpec { pip_size: Some(0.1), ..SymbolSpec::default() };
        assert_eq!(stated.resolve_pip_size("XAUUSD", Some(1.0)), (1.0, false));
        assert_eq!(stated.resolve_pip_size("XAUUSD", None), (0.1, false));
        assert_eq!(SymbolSpec::default().resolve_pip_size("USDJPY", None), (0.01, true));
        assert_eq!(SymbolSpec::default().resolve_pip_size("XAGUSD", None), (0.0001, true));
    }

    #[test]
    fn the_shipped_files_are_valid_and_complete() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let specs = SymbolSpecs::load(&configs.join("symbol_specs.yaml")).unwrap();
        for symbol in
            ["EURUSD", "GBPUSD", "USDJPY", "EURGBP", "XAUUSD", "XAGUSD", "BTCUSD", "US500", "DE40", "USDCAD", "GBPAUD"]
        {
            let (spec, found) = specs.for_symbol(symbol);
            assert!(found, "{symbol}");
            assert!(spec.contract_size.is_some() && spec.tick_size.is_some() && spec.pip_size.is_some(), "{symbol}");
            assert!(spec.base_currency.is_some() && spec.quote_currency.is_some(), "{symbol}");
        }
        let costs = CostFile::load(&configs.join("execution_costs.yaml")).unwrap();
        assert_eq!(costs.for_symbol("EURUSD", "USD").per_lot, 2.5);
        assert_eq!(costs.for_symbol("XAUUSD", "EUR").fee_ccy, "USD");
        assert_eq!(costs.for_symbol("USDJPY", "EUR").min_fee, 1.0);
        assert_eq!(costs.for_symbol("GBPAUD", "USD").pct, 0.00015);
    }
}
