//! Small made-up markets: a few candles in a temporary folder, and a strategy that does as it is told.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use engine::backtest::walk::{EquityPoint, Observer, Origin};
use engine::backtest::{Environment, Outcome, RunConfig};
use engine::indicators::Unlimited;
use engine::portfolio::Trade;
use engine::rules::RuleSet;
use engine::strategy::{DataSlice, OrderType, Position, PositionAction, SignalNotes, Strategy, TradeSignal};
use engine::units::{Direction, EpochNs, Timeframe};
use engine::{Error, Result};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::candles::Candles;

/// Costs that are zero.
pub(crate) const NO_COSTS: &str =
    "defaults: {schema: per_lot, per_lot: 0, slippage: {fixed_pips: 0, random_pips: 0}}\n";

/// The instrument of execution specification §14.
pub(crate) const EURUSD: &str = "EURUSD: {contract_size: 100000, tick_size: 0.00001, pip_size: 0.0001, volume_min: 0.01, \
    volume_step: 0.01, volume_max: 200, base_currency: EUR, quote_currency: USD}\n";

/// One bid candle: open, high, low, close.
pub(crate) type Ohlc = [f64; 4];

/// A candle without movement.
pub(crate) fn flat(price: f64) -> Ohlc {
    [price; 4]
}

fn candles(times: &[EpochNs], bars: &[Ohlc]) -> Candles {
    let column = |k: usize| bars.iter().map(|bar| bar[k]).collect::<Vec<f64>>();
    Candles {
        time: times.to_vec(),
        open: column(0),
        high: column(1),
        low: column(2),
        close: column(3),
        volume: vec![1.0; bars.len()],
    }
}

/// Bid candles and their asks, `spread` above on the grid of five decimals.
pub(crate) fn quotes(times: &[EpochNs], bid: &[Ohlc], spread: f64) -> [Candles; 2] {
    let shift = |price: f64| -> f64 { format!("{:.6}", price + spread).parse().unwrap() };
    let ask: Vec<Ohlc> = bid.iter().map(|bar| bar.map(shift)).collect();
    [candles(times, bid), candles(times, &ask)]
}

/// Open times one after another.
pub(crate) fn times(first: &str, timeframe: Timeframe, count: usize) -> Vec<EpochNs> {
    (0..count as i64).map(|k| instant(first) + k * timeframe.duration_ns()).collect()
}

/// A UTC instant like `2024-03-04T10:05`.
pub(crate) fn instant(text: &str) -> EpochNs {
    let parse = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (parse(0..4), parse(5..7), parse(8..10));
    // Hinnant, chrono-compatible low-level date algorithms, `days_from_civil`.
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let doe = y.rem_euclid(400) * 365 + y.rem_euclid(400) / 4 - y.rem_euclid(400) / 100 + doy;
    ((era * 146_097 + doe - 719_468) * 1440 + parse(11..13) * 60 + parse(14..16)) * engine::units::MINUTE_NS
}

/// A calendar of events: instant, impact, currency.
pub(crate) fn write_news(path: &Path, events: &[(&str, &str, &str)]) {
    let text = |values: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let time: Vec<i64> = events.iter().map(|(at, _, _)| instant(at)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(time).with_timezone("UTC")),
        text((0..events.len()).map(|id| id.to_string()).collect()),
        text(vec!["event".to_owned(); events.len()]),
        text(events.iter().map(|(_, impact, _)| (*impact).to_owned()).collect()),
        text(events.iter().map(|(_, _, currency)| (*currency).to_owned()).collect()),
    ];
    let mut fields = vec![Field::new("UTC time", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false)];
    fields.extend(["Id", "Name", "Impact", "Currency"].map(|name| Field::new(name, DataType::Utf8, false)));
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The run of execution specification §14: EURUSD, USD account, risk 100. `changes` replaces keys of the top level.
pub(crate) fn document(changes: &Value) -> Value {
    let mut document = json!({
        "strategy_name": "sma_cross",
        "symbol": "EURUSD",
        "start_date": "2024-03-01",
        "end_date": "2024-12-31",
        "warmup_bars": 0,
        "timeframes": { "primary": "M5" },
        "account": { "initial_balance": 10_000.0, "account_currency": "USD", "risk_per_trade": 100.0 },
    });
    for (key, value) in changes.as_object().unwrap() {
        document[key] = value.clone();
    }
    document
}

/// Made-up inputs, opened.
pub(crate) struct Lab {
    _folder: TempDir,
    pub(crate) environment: Environment,
    pub(crate) config: RunConfig,
}

/// What a run did.
pub(crate) struct Run {
    pub(crate) outcome: Outcome,
    pub(crate) entered: Vec<Position>,
    pub(crate) equity: Vec<EquityPoint>,
}

impl Run {
    pub(crate) fn trades(&self) -> &[Trade] {
        &self.outcome.walked.trades
    }
}

/// Writes down everything it is shown.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) entered: Vec<Position>,
    pub(crate) equity: Vec<EquityPoint>,
}

impl Observer for Recorder {
    fn entered(&mut self, position: &Position, _origin: &Origin<'_>, _slice: &DataSlice<'_>) {
        self.entered.push(position.clone());
    }

    fn equity(&mut self, point: EquityPoint) {
        self.equity.push(point);
    }
}

impl Lab {
    /// Primary candles of `document` and its two YAML files; `more` may add files to the folder.
    pub(crate) fn open(document: &Value, [bid, ask]: &[Candles; 2], costs: &str, more: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sources = super::sources(folder.path());
        let config = super::config(document);
        let file = |side: &str| {
            let name = format!("{}_{}_{side}.parquet", config.symbol, config.primary);
            sources.parquet_root.join(&config.symbol).join(name)
        };
        bid.write(&file("BID"));
        ask.write(&file("ASK"));
        std::fs::write(&sources.costs_file, costs).unwrap();
        std::fs::write(&sources.specs_file, EURUSD).unwrap();
        more(folder.path());
        let environment = Environment::open(&config, &[], &sources, Arc::new(Unlimited));
        let environment = environment.unwrap_or_else(|error| panic!("{error}"));
        Self { _folder: folder, environment, config }
    }

    pub(crate) fn try_run(&self, script: Script) -> Result<Run> {
        let prepared = self.environment.prepare_with(Box::new(script), &self.config, self.config.rng_seed.unwrap())?;
        let mut recorder = Recorder::default();
        let outcome = prepared.run(Vec::new(), &mut recorder)?;
        Ok(Run { outcome, entered: recorder.entered, equity: recorder.equity })
    }

    pub(crate) fn run(&self, script: Script) -> Run {
        self.try_run(script).unwrap_or_else(|error| panic!("{error}"))
    }
}

type Decide = Box<dyn Fn(&DataSlice<'_>) -> Option<TradeSignal> + Send + Sync>;
type Manage = Box<dyn Fn(&Position, &DataSlice<'_>) -> PositionAction + Send + Sync>;

/// A strategy that is not rules.
pub(crate) struct Script {
    decide: Decide,
    manage: Option<Manage>,
}

impl Script {
    pub(crate) fn new(decide: impl Fn(&DataSlice<'_>) -> Option<TradeSignal> + Send + Sync + 'static) -> Self {
        Self { decide: Box::new(decide), manage: None }
    }

    /// One signal, at bar `bar`.
    pub(crate) fn once(bar: usize, signal: TradeSignal) -> Self {
        Self::new(move |slice| (slice.index() == bar).then(|| signal.clone()))
    }

    pub(crate) fn managing(
        self,
        manage: impl Fn(&Position, &DataSlice<'_>) -> PositionAction + Send + Sync + 'static,
    ) -> Self {
        Self { manage: Some(Box::new(manage)), ..self }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl Strategy for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn version(&self) -> &'static str {
        "1"
    }

    fn primary_timeframe(&self) -> Timeframe {
        Timeframe::M5
    }

    fn rules(&self) -> Option<&RuleSet> {
        None
    }

    fn evaluate(&self, slice: &DataSlice<'_>) -> Result<Option<TradeSignal>, Error> {
        Ok((self.decide)(slice))
    }

    fn manages_positions(&self) -> bool {
        self.manage.is_some()
    }

    fn manage_position(&self, position: &Position, slice: &DataSlice<'_>) -> Result<PositionAction, Error> {
        Ok(self.manage.as_ref().map_or(PositionAction::Hold, |manage| manage(position, slice)))
    }
}

/// A market order.
pub(crate) fn market(direction: Direction, entry: f64, stop: f64, target: Option<f64>) -> TradeSignal {
    TradeSignal {
        direction,
        order_type: OrderType::Market,
        entry_price: entry,
        stop_loss: Some(stop),
        take_profit: target,
        lots: None,
        scenario_id: 1,
        label: format!("{direction}_1"),
        reason: "told".to_owned(),
        notes: SignalNotes::default(),
    }
}
