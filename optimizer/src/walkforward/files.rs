//! What a walk-forward leaves in its run folder: windows, curve, trades, the matrix, the summary, run configs.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use engine::backtest::artefact::iso_time;
use engine::metrics::{CATALOGUE, MetricValues, Unit};
use engine::portfolio::Trade;
use engine::units::{Direction, EpochNs};
use serde_json::{Map, Value, json};

use crate::atomic::{FileError, write_atomic};
use crate::fingerprint::{Fingerprint, hex};
use crate::grid::WindowMode;
use crate::objective::Verdict;
use crate::row::ParamValue;
use crate::space::{ColumnKind, Space};
use crate::walkforward::choice::WindowTally;
use crate::walkforward::result::{CurvePoint, DesignResult, Piece, WindowResult};
use crate::walkforward::table::{Column, TableFile, int, of_unit, text};
use crate::walkforward::verdict::FIGURES;
use crate::walkforward::windows::{Design, Window};

/// `365d-90d`: the name of a design in files and folders.
pub fn design_name(design: &Design) -> String {
    format!("{}-{}", design.train, design.test)
}

/// The tables of all designs, being written.
pub struct Tables<'a> {
    space: &'a Space,
    windows: TableFile,
    equity: TableFile,
    trades: TableFile,
}

fn times(name: &str) -> [Column; 2] {
    [Column::text(name), Column::int(format!("{name}_ns"))]
}

fn time(ns: EpochNs) -> [ParamValue; 2] {
    [ParamValue::Text(iso_time(ns)), ParamValue::Int(ns)]
}

/// Columns of `windows` before the axes.
fn window_columns() -> Vec<Column> {
    let mut columns = vec![Column::text("design"), Column::int("window"), Column::text("status")];
    columns.extend([Column::text("reason"), Column::text("notes")]);
    for part in ["train", "test"] {
        columns.extend(times(&format!("{part}_start")));
        columns.extend(times(&format!("{part}_end")));
        columns.push(Column::int(format!("{part}_bars")));
    }
    columns.push(Column::int("settings"));
    columns.extend(Verdict::ALL.map(|verdict| Column::int(format!("train_{}", verdict.as_str()))));
    columns.extend([Column::int("trial"), Column::text("config_hash"), Column::text("rules_hash")]);
    columns.extend(["train_objective", "test_objective"].map(|name| Column::of_unit(name, Unit::Ratio)));
    columns.extend([Column::new("test_passed", ColumnKind::Bool), Column::int("test_rank")]);
    columns.push(Column::int("test_ranked"));
    columns.extend(["rank_correlation", "wfe"].map(|name| Column::of_unit(name, Unit::Ratio)));
    let money = |name: &str| Column::of_unit(name, Unit::AccountCurrency);
    columns.extend(["first_choice_net", "buy_and_hold_net"].map(money));
    columns
}

fn trade_columns() -> Vec<Column> {
    let mut columns = vec![Column::text("design"), Column::int("window"), Column::int("position")];
    columns.extend(times("entry_time"));
    columns.extend(times("exit_time"));
    columns.extend(["direction", "symbol", "order_type"].map(Column::text));
    let number = |name: &str| Column::new(name, ColumnKind::Float);
    columns.extend(["entry_price", "exit_price", "initial_stop_loss", "stop_loss", "take_profit", "size"].map(number));
    columns.extend(["result", "entry_fee", "exit_fee", "r_multiple"].map(number));
    columns.extend([Column::text("reason"), Column::int("scenario_id")]);
    columns
}

fn equity_columns() -> Vec<Column> {
    let mut columns = vec![Column::text("design"), Column::int("window")];
    columns.extend(times("timestamp"));
    let money = |name: &str| Column::of_unit(name, Unit::AccountCurrency);
    columns.extend(["equity", "balance"].map(money));
    columns.extend([Column::of_unit("drawdown", Unit::Ratio), money("high_water")]);
    columns.extend(["first_choice", "buy_and_hold"].map(money));
    columns
}

impl<'a> Tables<'a> {
    /// Starts `windows`, `equity` and `trades` in the run folder.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn create(folder: &Path, space: &'a Space, fingerprint: &Fingerprint) -> Result<Self, FileError> {
        let mut columns = window_columns();
        columns.extend(space.columns().iter().map(|column| Column::new(format!("param.{}", column.name), column.kind)));
        columns.extend(space.axes().iter().map(|axis| Column::of_unit(format!("drift.{}", axis.name()), Unit::Ratio)));
        columns.extend(["is.", "oos."].iter().flat_map(|part| CATALOGUE.iter().map(|def| Column::metric(part, def))));
        Ok(Self {
            space,
            windows: TableFile::create(folder, "windows", columns, fingerprint)?,
            equity: TableFile::create(folder, "equity", equity_columns(), fingerprint)?,
            trades: TableFile::create(folder, "trades", trade_columns(), fingerprint)?,
        })
    }

    /// Adds a window's part of the curve and its trades.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn piece(&mut self, design: &str, symbol: &str, number: usize, piece: Piece) -> Result<(), FileError> {
        let head = || vec![ParamValue::Text(design.to_owned()), int(number)];
        let point = |at: CurvePoint| {
            let mut row = head();
            row.extend(time(at.point.time_ns));
            row.extend(
                [at.point.equity, at.point.balance, at.point.drawdown, at.point.high_water].map(ParamValue::Float),
            );
            row.push(at.first_choice.map_or(ParamValue::Null, ParamValue::Float));
            row.push(ParamValue::Float(at.buy_and_hold));
            row
        };
        self.equity.append(piece.curve.into_iter().map(point).collect())?;
        let trade = |trade: Trade| {
            let mut row = head();
            row.extend(trade_values(&trade, symbol));
            row
        };
        self.trades.append(piece.trades.into_iter().map(trade).collect())
    }

    /// Adds the windows of a design.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn design(&mut self, design: &Design, tallies: &[WindowTally], result: &DesignResult) -> Result<(), FileError> {
        let name = design_name(design);
        let rows = design.windows.iter().zip(tallies).zip(&result.windows).enumerate();
        let rows = rows.map(|(number, ((window, tally), result))| self.window(&name, number, window, tally, result));
        let rows = rows.collect();
        self.windows.append(rows)
    }

    fn window(
        &self,
        design: &str,
        number: usize,
        window: &Window,
        tally: &WindowTally,
        result: &WindowResult,
    ) -> Vec<ParamValue> {
        let ratio = |value: Option<f64>| of_unit(value, Unit::Ratio);
        let notes = (!result.notes.is_empty()).then(|| result.notes.join("; "));
        let mut row = vec![ParamValue::Text(design.to_owned()), int(number), text(Some(result.status.as_str()))];
        row.extend([text(result.reason.as_deref()), text(notes)]);
        for span in [&window.train, &window.test] {
            row.extend(time(span.start_ns));
            row.extend(time(span.end_ns));
            row.push(int(span.bars.len()));
        }
        row.push(int(tally.train.iter().sum::<u64>()));
        row.extend(tally.train.map(int));
        // A window that cannot be judged has no choice, even if some setting was best on the part it has.
        let chosen = tally.choice().filter(|_| result.setting.is_some());
        row.push(chosen.map_or(ParamValue::Null, |chosen| int(chosen.identity.trial)));
        row.push(text(chosen.map(|chosen| hex(&chosen.identity.config_hash))));
        row.push(text(chosen.map(|chosen| hex(&chosen.identity.rules_hash))));
        row.push(ratio(chosen.and_then(|chosen| chosen.score)));
        row.push(ratio(chosen.and_then(|chosen| chosen.test.score)));
        row.push(chosen.map_or(ParamValue::Null, |chosen| ParamValue::Bool(chosen.test.verdict == Verdict::Ok)));
        row.push(chosen.and(tally.test_rank).map_or(ParamValue::Null, int));
        row.push(int(tally.ranked_on_test()));
        row.extend([ratio(tally.rank_correlation), ratio(result.efficiency)]);
        row.extend([result.first_choice_net, result.buy_and_hold_net].map(|x| of_unit(x, Unit::AccountCurrency)));
        let columns = self.space.columns().iter().enumerate();
        row.extend(columns.map(|(at, column)| {
            let value = result.setting.as_ref().map(|setting| self.space.value(setting, at));
            value.and_then(|value| ParamValue::from_json(&value, column.kind)).unwrap_or(ParamValue::Null)
        }));
        row.extend((0..self.space.axes().len()).map(|axis| ratio(result.drift.get(axis).copied().flatten())));
        row.extend(metrics(chosen.map(|chosen| &chosen.values)));
        row.extend(metrics(result.test.as_ref()));
        row
    }

    /// Puts all files in their places.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn commit(self) -> Result<(), FileError> {
        self.windows.commit()?;
        self.equity.commit()?;
        self.trades.commit()
    }
}

fn metrics(values: Option<&MetricValues>) -> Vec<ParamValue> {
    let values = values.copied().unwrap_or(MetricValues::UNDEFINED);
    values.iter().map(|(metric, value)| of_unit(value, metric.def().unit)).collect()
}

fn trade_values(trade: &Trade, symbol: &str) -> Vec<ParamValue> {
    let direction = match trade.direction {
        Direction::Long => "long",
        Direction::Short => "short",
    };
    let level = |level: Option<f64>| level.map_or(ParamValue::Null, ParamValue::Float);
    let mut row = vec![int(trade.position_id)];
    row.extend(time(trade.entry_time_ns));
    row.extend(time(trade.exit_time_ns));
    row.extend([direction, symbol, trade.order_type.as_str()].map(|word| ParamValue::Text(word.to_owned())));
    row.extend([trade.entry_price, trade.exit_price].map(ParamValue::Float));
    row.extend([trade.initial_stop_loss, trade.stop_loss, trade.take_profit].map(level));
    row.extend([trade.lots, trade.result, trade.entry_fee, trade.exit_fee].map(ParamValue::Float));
    row.extend([level(trade.r_multiple), text(Some(trade.reason.as_str())), int(trade.scenario_id)]);
    row
}

/// Writes `matrix.parquet` and `matrix.csv`: one row per pair of lengths.
///
/// # Errors
/// Files that cannot be written.
pub fn write_matrix(
    folder: &Path,
    designs: &[Design],
    results: &[DesignResult],
    fingerprint: &Fingerprint,
) -> Result<(), FileError> {
    let mut columns: Vec<Column> = ["design", "train", "test", "step", "reason"].map(Column::text).into();
    columns.extend([Column::int("bars_left_over"), Column::int("verdict_passed"), Column::int("verdict_failed")]);
    columns.extend(FIGURES.iter().map(|def| Column::of_unit(def.key, def.unit)));
    columns.extend(CATALOGUE.iter().map(|def| Column::metric("", def)));
    let mut table = TableFile::create(folder, "matrix", columns, fingerprint)?;
    let rows = designs.iter().zip(results).map(|(design, result)| {
        let none = design.windows.is_empty().then_some("no window fits");
        let passed = result.checks.iter().filter(|check| check.passed).count();
        let mut row = vec![ParamValue::Text(design_name(design))];
        row.extend([design.train, design.test, design.step].map(|length| ParamValue::Text(length.to_string())));
        row.extend([text(none), int(design.left_over), int(passed), int(result.checks.len() - passed)]);
        row.extend(result.figures.further().map(|(def, value)| of_unit(value, def.unit)));
        row.extend(metrics(Some(&result.figures.metrics)));
        row
    });
    table.append(rows.collect())?;
    table.commit()
}

/// The result of a design as `summary.json` tells it; undefined is null.
pub fn design_json(mode: WindowMode, design: &Design, result: &DesignResult, space: &Space) -> Value {
    let number = |value: Option<f64>, unit: Unit| match value {
        Some(value) if unit.is_integer() => Value::from(value as i64),
        value => json!(value),
    };
    let mut figures = Map::new();
    for (def, value) in result.figures.further() {
        figures.insert(def.key.to_owned(), number(value, def.unit));
    }
    let metrics: Map<String, Value> = result
        .figures
        .metrics
        .iter()
        .map(|(metric, value)| (metric.key().to_owned(), number(value, metric.def().unit)))
        .collect();
    let drift: Map<String, Value> =
        space.axes().iter().zip(&result.drift).map(|(axis, drift)| (axis.name(), json!(drift))).collect();
    let verdict = result.checks.iter().map(|check| {
        let found: Map<String, Value> = check.found.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({ "check": check.text, "passed": check.passed, "found": found })
    });
    json!({
        "design": design_name(design),
        "mode": mode.as_str(),
        "train": design.train.to_string(),
        "test": design.test.to_string(),
        "step": design.step.to_string(),
        "bars_left_over": design.left_over,
        "figures": figures,
        "metrics": metrics,
        "drift": drift,
        "verdict": verdict.collect::<Vec<_>>(),
    })
}

/// Writes a JSON document, indented.
///
/// # Errors
/// The file cannot be written.
pub fn write_json(path: PathBuf, document: &Value) -> Result<(), FileError> {
    write_atomic(path, |w| w.write_all(format!("{document:#}\n").as_bytes()))
}

/// Writes `windows/<window>/train.json` and `test.json`, below the design's name where there are several: what
/// `omega-opt run` needs to make the cells of the choice again. Folders of an earlier result give way.
///
/// # Errors
/// Files that cannot be written.
pub fn write_configs(root: &Path, designs: &[Design], results: &[DesignResult]) -> Result<(), FileError> {
    if root.exists() {
        std::fs::remove_dir_all(root).map_err(|e| FileError::io(root, "clear it", e))?;
    }
    for (design, result) in designs.iter().zip(results) {
        let parent = if designs.len() > 1 { root.join(design_name(design)) } else { root.to_owned() };
        for (number, window) in result.windows.iter().enumerate() {
            let Some(configs) = &window.configs else { continue };
            let folder = parent.join(format!("{number:03}"));
            std::fs::create_dir_all(&folder).map_err(|e| FileError::io(&folder, "create it", e))?;
            for (config, name) in configs.iter().zip(["train.json", "test.json"]) {
                write_json(folder.join(name), config)?;
            }
        }
    }
    Ok(())
}
