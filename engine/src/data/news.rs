//! Economic calendar: which bars lie too close to an announcement for an entry.

use std::collections::HashSet;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampNanosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::data::Bars;
use crate::data::read::{TIME, Table, first_null, shielded};
use crate::error::{Error, Result};
use crate::rules::BitMask;
use crate::units::{EpochNs, MINUTE_NS};

/// Weight of an event, ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Impact {
    /// Rank 1.
    Low,
    /// Rank 2.
    Medium,
    /// Rank 3.
    High,
}

impl Impact {
    /// Reads `low`, `medium` or `high` in any letter case.
    pub fn parse(text: &str) -> Option<Self> {
        [("LOW", Self::Low), ("MEDIUM", Self::Medium), ("HIGH", Self::High)]
            .into_iter()
            .find_map(|(name, impact)| name.eq_ignore_ascii_case(text).then_some(impact))
    }
}

/// One announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewsEvent {
    /// When.
    pub time_ns: EpochNs,
    /// How heavy.
    pub impact: Impact,
    /// Three letters, upper case; `ALL` for global events.
    pub currency: String,
}

/// Every event of a file, in time order, repeated ids removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewsCalendar {
    events: Vec<NewsEvent>,
    rows: usize,
}

/// Which events block which bars (`config-and-errors.md` §2.7).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NewsFilter {
    /// Minutes before the event that are blocked, inclusive.
    pub minutes_before: u32,
    /// Minutes after the event that are blocked, inclusive.
    pub minutes_after: u32,
    /// Lighter events do not block.
    pub min_impact: Impact,
    /// Currencies that matter; `None`: those of the symbol, empty: every one.
    pub currencies: Option<Vec<String>>,
}

impl NewsCalendar {
    /// Reads the Parquet bytes of a calendar. Any rule of `data-contract.md` §11 that is broken fails; `label` names
    /// the file.
    pub fn parse(bytes: Bytes, label: &Path) -> Result<Self> {
        shielded(label, || Self::decode(bytes, label))
    }

    fn decode(bytes: Bytes, label: &Path) -> Result<Self> {
        let invalid =
            |row: usize, rule: String, found: String| Error::NewsInvalid { path: label.to_owned(), row, rule, found };
        let table = Table::open(bytes, label)?;
        let text = |found: &DataType| matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let columns = table
            .require_time(label)
            .and_then(|()| table.require("Id", "String or Int64", |found| text(found) || *found == DataType::Int64))
            .and_then(|()| {
                ["Name", "Impact", "Currency"].iter().try_for_each(|name| table.require(name, "String", text))
            });
        if let Err(wrong) = columns {
            let (rule, found) = wrong.into_rule();
            return Err(invalid(0, rule, found));
        }
        let mut calendar = Self::default();
        let mut seen = HashSet::new();
        let mut last = None;
        for batch in table.batches(&[TIME, "Id", "Name", "Impact", "Currency"], label)? {
            calendar.append(&batch, &mut seen, &mut last).map_err(|(row, rule, found)| invalid(row, rule, found))?;
        }
        if calendar.rows == 0 {
            return Err(invalid(0, "at least one event".to_owned(), "no row".to_owned()));
        }
        Ok(calendar)
    }

    /// Events in time order.
    pub fn events(&self) -> &[NewsEvent] {
        &self.events
    }

    /// Rows of the file, repeated ids included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn append(
        &mut self,
        batch: &RecordBatch,
        seen: &mut HashSet<String>,
        last: &mut Option<EpochNs>,
    ) -> Result<(), (usize, String, String)> {
        let first_row = self.rows;
        self.rows += batch.num_rows();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            if let Some(row) = first_null(column.as_ref()) {
                return Err((
                    first_row + row,
                    format!("column `{}` has a value in every row", field.name()),
                    "null".to_owned(),
                ));
            }
        }
        let column = |name: &str| batch.column_by_name(name).map(AsRef::as_ref);
        let Some(times) = column(TIME).and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>()) else {
            return Ok(());
        };
        let cell = |name: &str, row: usize| column(name).map(|c| text_at(c, row)).unwrap_or_default();
        for (i, &time_ns) in times.values().iter().enumerate() {
            let row = first_row + i;
            if let Some(before) = last.replace(time_ns).filter(|&before| time_ns < before) {
                return Err((
                    row,
                    "event times must not decrease".to_owned(),
                    format!("{time_ns} ns after {before} ns"),
                ));
            }
            let (impact, currency) = (cell("Impact", i), cell("Currency", i));
            let Some(impact) = Impact::parse(&impact) else {
                return Err((row, "Impact must be LOW, MEDIUM or HIGH".to_owned(), format!("`{impact}`")));
            };
            if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_alphabetic()) {
                return Err((row, "Currency must be three letters".to_owned(), format!("`{currency}`")));
            }
            if seen.insert(cell("Id", i)) {
                self.events.push(NewsEvent { time_ns, impact, currency: currency.to_ascii_uppercase() });
            }
        }
        Ok(())
    }

    /// One bit per bar: entries are allowed by the news.
    ///
    /// An event at `e` blocks the bars whose close instant lies in `[e − minutes_before, e + minutes_after]`, ends
    /// included, if it is heavy enough and its currency is listed. `symbol_currencies` stand in for
    /// `filter.currencies = None`. An event of currency `ALL` matches every list in `v2`; `parity` takes it for a
    /// currency like any other (`execution.md` §11.2).
    pub fn open_mask(&self, bars: &Bars, filter: &NewsFilter, symbol_currencies: &[String], parity: bool) -> BitMask {
        let mut open = BitMask::new(bars.len(), true);
        let listed = filter.currencies.as_deref().unwrap_or(symbol_currencies);
        // Only an explicit empty list means every currency; a symbol without currencies matches none.
        let every = filter.currencies.as_ref().is_some_and(Vec::is_empty);
        let length = bars.timeframe.duration_ns();
        let (before, after) =
            (i64::from(filter.minutes_before) * MINUTE_NS, i64::from(filter.minutes_after) * MINUTE_NS);
        for event in &self.events {
            let concerns = every
                || (!parity && event.currency == "ALL")
                || listed.iter().any(|currency| currency.eq_ignore_ascii_case(&event.currency));
            if event.impact < filter.min_impact || !concerns {
                continue;
            }
            let (from, to) = (event.time_ns.saturating_sub(before), event.time_ns.saturating_add(after));
            let first = bars.open_time.partition_point(|&t| t + length < from);
            let end = bars.open_time.partition_point(|&t| t + length <= to);
            open.set_range(first, end, false);
        }
        open
    }
}

/// A text or an integer cell as text; integers and texts of the same digits are the same id.
fn text_at(column: &dyn Array, row: usize) -> String {
    if let Some(text) = column.as_string_opt::<i32>() {
        text.value(row).to_owned()
    } else if let Some(text) = column.as_string_opt::<i64>() {
        text.value(row).to_owned()
    } else if let Some(text) = column.as_string_view_opt() {
        text.value(row).to_owned()
    } else {
        column.as_primitive_opt::<Int64Type>().map(|ids| ids.value(row).to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::store::in_memory;
    use crate::units::Timeframe;

    fn m5_day() -> Bars {
        let mut bars = in_memory(Default::default(), Default::default(), Timeframe::M5);
        bars.open_time = (0..288).map(|i| i * 5 * MINUTE_NS).collect::<Vec<_>>().into();
        bars
    }

    fn event(currency: &str, impact: Impact) -> NewsCalendar {
        let time_ns = (13 * 60 + 30) * MINUTE_NS;
        NewsCalendar { events: vec![NewsEvent { time_ns, impact, currency: currency.to_owned() }], rows: 1 }
    }

    fn filter(currencies: Option<&[&str]>) -> NewsFilter {
        let currencies = currencies.map(|list| list.iter().map(|&c| c.to_owned()).collect());
        NewsFilter { minutes_before: 60, minutes_after: 30, min_impact: Impact::Medium, currencies }
    }

    fn pair() -> [String; 2] {
        ["EUR".to_owned(), "USD".to_owned()]
    }

    /// The table of `execution.md` §14.5, whole.
    #[test]
    fn golden_news() {
        let open = event("USD", Impact::High).open_mask(&m5_day(), &filter(None), &pair(), false);
        let bar = |hour: usize, minute: usize| hour * 12 + minute / 5;
        assert!(open.get(bar(12, 20)) && !open.get(bar(12, 25)));
        assert!(!open.get(bar(13, 55)) && open.get(bar(14, 0)));
        assert_eq!(288 - open.count(), 19);
    }

    #[test]
    fn impact_and_currency_decide_what_blocks() {
        let blocked = |calendar: NewsCalendar, list: Option<&[&str]>, parity: bool| {
            calendar.open_mask(&m5_day(), &filter(list), &pair(), parity).count() < 288
        };
        assert!(!blocked(event("USD", Impact::Low), None, false));
        assert!(!blocked(event("JPY", Impact::High), None, false));
        assert!(blocked(event("JPY", Impact::High), Some(&[]), false));
        assert!(blocked(event("JPY", Impact::Medium), Some(&["jpy"]), false));
        assert!(blocked(event("ALL", Impact::High), Some(&["CHF"]), false));
        assert!(!blocked(event("ALL", Impact::High), Some(&["CHF"]), true));
    }
}
