//! What the rows of one candle file must satisfy (`data-contract.md` §4, rows 4 to 9): the first bad row is named.

use std::path::Path;

use crate::data::read::{Columns, Rows};
use crate::error::{Error, Result};
use crate::units::Timeframe;

/// Stamps closer than this to the ends of 64-bit nanoseconds (years 1677 and 2262) are refused, so that adding bar
/// lengths cannot overflow. The contract does not speak of them; no market data comes near.
const MARGIN_NS: i64 = 60 * 24 * 60 * 60_000_000_000;

/// Row 9 of the table in words.
pub(crate) const RANGE_RULE: &str = "Low <= Open, Close <= High";

/// Checks every row and removes exact duplicates, the first kept. Returns how many were removed.
pub(crate) fn validate(side: &mut impl Rows, label: &Path) -> Result<usize> {
    let candles = side.columns();
    if candles.len() == 0 {
        return Err(Error::DataCorrupt {
            kind: "EmptyData",
            path: label.to_owned(),
            row: 0,
            timestamp_ns: None,
            rule: "at least one row".to_owned(),
            found: "no row".to_owned(),
        });
    }
    let mut kept: Vec<usize> = Vec::with_capacity(candles.len());
    for row in 0..candles.len() {
        let values = candles.row(row);
        if let Some(&previous) = kept.last() {
            check_order(&candles, previous, row, label)?;
            if candles.time[row] == candles.time[previous] {
                check_duplicate(&candles, previous, row, label)?;
                continue;
            }
        }
        check_values(candles.time[row], values).map_err(|(rule, found)| corrupt(&candles, row, label, rule, found))?;
        kept.push(row);
    }
    let dropped = candles.len() - kept.len();
    if dropped > 0 {
        side.keep(&kept);
    }
    Ok(dropped)
}

fn check_order(candles: &Columns<'_>, previous: usize, row: usize, label: &Path) -> Result<()> {
    let (before, now) = (candles.time[previous], candles.time[row]);
    if now < before {
        let found = format!("{now} ns after {before} ns");
        return Err(corrupt(candles, row, label, "stamps must not decrease in file order", found));
    }
    Ok(())
}

fn check_duplicate(candles: &Columns<'_>, previous: usize, row: usize, label: &Path) -> Result<()> {
    let (first, second) = (candles.row(previous), candles.row(row));
    if first.map(f64::to_bits) != second.map(f64::to_bits) {
        let found = format!("{second:?} after {first:?} (open, high, low, close, volume)");
        return Err(corrupt(candles, row, label, "rows of one stamp must be equal", found));
    }
    Ok(())
}

fn check_values(time: i64, [open, high, low, close, volume]: [f64; 5]) -> Result<(), (&'static str, String)> {
    if !(i64::MIN + MARGIN_NS..=i64::MAX - MARGIN_NS).contains(&time) {
        return Err(("stamps must lie between the years 1678 and 2262", format!("{time} ns")));
    }
    let named = [("Open", open), ("High", high), ("Low", low), ("Close", close), ("Volume", volume)];
    if let Some((name, value)) = named.iter().find(|(_, value)| !value.is_finite()) {
        return Err(("values must be finite", format!("{name} {value}")));
    }
    if volume < 0.0 {
        return Err(("Volume >= 0", format!("Volume {volume}")));
    }
    if high < open.max(close) || low > open.min(close) || high < low {
        let found = format!("Open {open}, High {high}, Low {low}, Close {close}");
        return Err((RANGE_RULE, found));
    }
    Ok(())
}

fn corrupt(candles: &Columns<'_>, row: usize, label: &Path, rule: &str, found: String) -> Error {
    Error::DataCorrupt {
        kind: "CorruptData",
        path: label.to_owned(),
        row,
        timestamp_ns: Some(candles.time[row]),
        rule: rule.to_owned(),
        found,
    }
}

/// Bars that look made up: flat on both sides, without volume, in long unbroken rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Filler {
    /// Bars in such rows.
    pub bars: usize,
    /// Open time of the first of them.
    pub first_ns: Option<i64>,
}

/// Counts filler: at least two hours (and 12 bars) in which neither side moves and no volume is reported.
///
/// Vendors pad closed markets this way. A quiet market also gives single flat minutes, hence the length; a feed
/// without volumes never stands still for two hours while it is open.
pub(crate) fn filler(time: &[i64], bid: &impl Rows, ask: &impl Rows, timeframe: Timeframe) -> Filler {
    let (bid, ask) = (bid.columns(), ask.columns());
    let flat = |i: usize| {
        let still =
            |c: &Columns<'_>| c.volume[i] == 0.0 && c.high[i] == c.low[i] && (i == 0 || c.close[i] == c.close[i - 1]);
        still(&bid) && still(&ask)
    };
    let shortest = usize::try_from(120 / timeframe.minutes()).unwrap_or(0).max(12);
    let mut found = Filler::default();
    let mut run = 0;
    for i in 0..=time.len() {
        if i < time.len() && flat(i) {
            run += 1;
            continue;
        }
        if run >= shortest {
            found.bars += run;
            found.first_ns = found.first_ns.or(Some(time[i - run]));
        }
        run = 0;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::read::Candles;

    fn bars(rows: &[(i64, [f64; 5])]) -> Candles {
        let mut all = Candles::default();
        for (time, [o, h, l, c, v]) in rows {
            all.time.push(*time);
            all.open.push(*o);
            all.high.push(*h);
            all.low.push(*l);
            all.close.push(*c);
            all.volume.push(*v);
        }
        all
    }

    const GOOD: [f64; 5] = [2.0, 3.0, 1.0, 2.5, 7.0];

    #[test]
    fn every_rule_names_the_row() {
        let cases = [
            ([f64::NAN, 3.0, 1.0, 2.0, 1.0], "values must be finite"),
            ([2.0, f64::INFINITY, 1.0, 2.0, 1.0], "values must be finite"),
            ([2.0, 3.0, 1.0, 2.0, -1.0], "Volume >= 0"),
            ([2.0, 1.9, 1.0, 1.5, 1.0], "Low <= Open, Close <= High"),
            ([2.0, 3.0, 2.1, 2.5, 1.0], "Low <= Open, Close <= High"),
            ([2.0, 1.0, 3.0, 2.0, 1.0], "Low <= Open, Close <= High"),
        ];
        for (values, expected) in cases {
            let mut candles = bars(&[(0, GOOD), (60, values)]);
            match validate(&mut candles, Path::new("F")).unwrap_err() {
                Error::DataCorrupt { kind: "CorruptData", row: 1, timestamp_ns: Some(60), rule, .. } => {
                    assert_eq!(rule, expected);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            validate(&mut bars(&[(60, GOOD), (0, GOOD)]), Path::new("F")),
            Err(Error::DataCorrupt { row: 1, .. })
        ));
        assert!(matches!(validate(&mut bars(&[]), Path::new("F")), Err(Error::DataCorrupt { kind: "EmptyData", .. })));
        assert!(validate(&mut bars(&[(i64::MAX - 5, GOOD)]), Path::new("F")).is_err());
    }

    #[test]
    fn exact_duplicates_go_and_divergent_ones_fail() {
        let mut candles = bars(&[(0, GOOD), (0, GOOD), (60, GOOD), (60, GOOD), (60, GOOD), (120, GOOD)]);
        assert_eq!(validate(&mut candles, Path::new("F")).unwrap(), 3);
        assert_eq!(candles.time, [0, 60, 120]);
        // -0.0 and 0.0 are equal numbers of different bits.
        let (a, b) = ([0.0, 0.0, -0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 1.0]);
        assert!(validate(&mut bars(&[(0, a), (0, b)]), Path::new("F")).is_err());
    }

    #[test]
    fn prices_of_zero_and_below_pass() {
        assert_eq!(validate(&mut bars(&[(0, [-1.0, 0.0, -2.0, -1.5, 0.0])]), Path::new("F")).unwrap(), 0);
    }
}
