//! Both sides of the market: files joined per side, and the side that nobody quoted made from the one that is there.

use std::path::{Path, PathBuf};

use crate::data::import::format::Side;
use crate::data::import::table::scale;
use crate::data::import::{iso, refuse};
use crate::data::read::{Candles, Rows as _};
use crate::data::validate::{RANGE_RULE, validate};
use crate::error::{Error, Result};
use crate::units::round_decimal;

/// Where the spread of one-price bars comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spread {
    /// The same for every bar, price units.
    Price(f64),
    /// The same for every bar, pips.
    Pips(f64),
    /// The same for every bar, points.
    Points(f64),
    /// The spread column of the file, points.
    Column,
}

impl Spread {
    /// `0.8pips`, `12points` or `0.00008` (price units); finite and not negative.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (number, make): (&str, fn(f64) -> Self) = if let Some(number) = text.strip_suffix("pips") {
            (number, Self::Pips)
        } else if let Some(number) = text.strip_suffix("points") {
            (number, Self::Points)
        } else {
            (text, Self::Price)
        };
        number.trim().parse::<f64>().ok().filter(|x| x.is_finite() && *x >= 0.0).map(make)
    }
}

/// Rows of one side, of one file or of several joined.
#[derive(Debug, Clone, Default)]
pub(crate) struct OneSide {
    pub(crate) candles: Candles,
    pub(crate) spread_points: Option<Vec<f64>>,
    /// File (by number) and line of each row.
    pub(crate) origin: Vec<(usize, u64)>,
}

/// What joining changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Changes {
    pub(crate) duplicates_dropped: usize,
    pub(crate) ranges_widened: usize,
}

/// Joins the files of a side in time, removes exact duplicates and checks every row. With `widen`, a high below or a
/// low above open or close is moved to hold them first.
pub(crate) fn join(parts: Vec<OneSide>, files: &[PathBuf], widen: bool) -> Result<(OneSide, Changes)> {
    let mut all = OneSide::default();
    let with_spread = parts.iter().all(|part| part.spread_points.is_some());
    let mut spread = Vec::new();
    for part in parts {
        all.candles.time.extend(part.candles.time);
        all.candles.open.extend(part.candles.open);
        all.candles.high.extend(part.candles.high);
        all.candles.low.extend(part.candles.low);
        all.candles.close.extend(part.candles.close);
        all.candles.volume.extend(part.candles.volume);
        all.origin.extend(part.origin);
        spread.extend(part.spread_points.unwrap_or_default());
    }
    // Stable: rows of one stamp stay in the order of files and lines.
    let mut order: Vec<usize> = (0..all.candles.len()).collect();
    order.sort_by_key(|&i| all.candles.time[i]);
    let bits = |i: usize| all.candles.row(i).map(f64::to_bits);
    let rows = order.len();
    order.dedup_by(|now, before| all.candles.time[*now] == all.candles.time[*before] && bits(*now) == bits(*before));
    let mut changes = Changes { duplicates_dropped: rows - order.len(), ranges_widened: 0 };
    let gather = |column: &[f64]| order.iter().map(|&i| column[i]).collect::<Vec<f64>>();
    let old = &all.candles;
    let candles = Candles {
        time: order.iter().map(|&i| old.time[i]).collect(),
        open: gather(&old.open),
        high: gather(&old.high),
        low: gather(&old.low),
        close: gather(&old.close),
        volume: gather(&old.volume),
    };
    let origin: Vec<(usize, u64)> = order.iter().map(|&i| all.origin[i]).collect();
    let mut joined = OneSide { candles, spread_points: with_spread.then(|| gather(&spread)), origin };
    if widen {
        changes.ranges_widened = widen_ranges(&mut joined.candles);
    }
    check(&mut joined, files)?;
    Ok((joined, changes))
}

/// `High = max(High, Open, Close)`, `Low = min(Low, Open, Close)`; returns how many bars changed.
fn widen_ranges(candles: &mut Candles) -> usize {
    let mut widened = 0;
    for i in 0..candles.len() {
        let [open, high, low, close, _] = candles.row(i);
        let (top, bottom) = (open.max(close), open.min(close));
        if high < top || low > bottom {
            candles.high[i] = high.max(top);
            candles.low[i] = low.min(bottom);
            widened += 1;
        }
    }
    widened
}

/// The row checks of `data check`, told with file and line.
fn check(side: &mut OneSide, files: &[PathBuf]) -> Result<()> {
    let OneSide { candles, origin, .. } = side;
    let remedy = |rule: &str| {
        let range = rule == RANGE_RULE;
        range
            .then(|| "--widen-range moves High and Low so that they hold Open and Close, and says how often".to_owned())
    };
    validate(candles, Path::new("")).map(|_| ()).map_err(|error| match error {
        Error::DataCorrupt { row, rule, found, .. } => match origin.get(row) {
            Some(&(file, line)) => refuse(&files[file], Some(line), rule.clone(), found, remedy(&rule)),
            None => refuse(files.first().map_or(Path::new(""), |f| f), None, rule, found, None),
        },
        other => other,
    })
}

/// How a side came about that no file holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Made {
    /// `ask`, `bid`, or `bid and ask`.
    pub(crate) side: &'static str,
    /// The formula in words.
    pub(crate) how: String,
}

/// Makes bid and ask of one price.
///
/// With spread `s`: from a bid, `ask = bid + s`; from an ask, `bid = ask − s`; from a middle or last price `p`,
/// `bid = p − s/2` and `ask = p + s/2`; for each of open, high, low and close. What is made is rounded to ten decimals, so
/// that `1.05522 + 0.00008` is the double next to 1.0553, and never crosses the price it is made from. The volume is that of
/// the source. The given price keeps every bit.
///
/// `spread`: price units, one per bar.
pub(crate) fn make_pair(side: Side, given: &Candles, spread: &[f64]) -> (Candles, Candles) {
    let moved = |sign: f64, share: f64| {
        let column = |prices: &[f64]| -> Vec<f64> {
            let one = |(p, s): (&f64, &f64)| {
                let distance = s * share;
                if distance == 0.0 {
                    // No spread: the price itself, every bit of it.
                    return *p;
                }
                let moved = round_decimal(p + sign * distance, 10);
                if sign > 0.0 { moved.max(*p) } else { moved.min(*p) }
            };
            prices.iter().zip(spread).map(one).collect()
        };
        Candles {
            time: given.time.clone(),
            open: column(&given.open),
            high: column(&given.high),
            low: column(&given.low),
            close: column(&given.close),
            volume: given.volume.clone(),
        }
    };
    match side {
        Side::Bid => (given.clone(), moved(1.0, 1.0)),
        Side::Ask => (moved(-1.0, 1.0), given.clone()),
        Side::Mid | Side::Last => (moved(-1.0, 0.5), moved(1.0, 0.5)),
    }
}

/// The spread of every bar in price units, and in words.
pub(crate) fn spreads(
    rule: Spread,
    given: &OneSide,
    pip: Option<f64>,
    point: Option<f64>,
) -> Result<(Vec<f64>, String), Error> {
    let rows = given.candles.len();
    let need = |size: Option<f64>, option: &str, what: &str| {
        size.ok_or_else(|| Error::config(option, format!("must state the size of a {what} for this spread")))
    };
    // Twelve decimals: 0.8 pips of 0.0001 are 0.00008, without dust.
    Ok(match rule {
        Spread::Price(s) => (vec![s; rows], s.to_string()),
        Spread::Pips(pips) => {
            let pip = need(pip, "--pip", "pip")?;
            let s = round_decimal(pips * pip, 12);
            (vec![s; rows], format!("{s} ({pips} pips of {pip})"))
        }
        Spread::Points(points) => {
            let point = need(point, "--point", "point")?;
            let s = scale(points, point);
            (vec![s; rows], format!("{s} ({points} points of {point})"))
        }
        Spread::Column => {
            let Some(column) = &given.spread_points else {
                return Err(Error::config("--spread-column", "needs a spread column in every file, and one has none"));
            };
            let point = need(point, "--point", "point")?;
            (
                column.iter().map(|points| scale(*points, point)).collect(),
                format!("the spread column (points of {point})"),
            )
        }
    })
}

/// Bid and ask, with what was left out.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) bid: Candles,
    pub(crate) ask: Candles,
    pub(crate) crossed_dropped: usize,
}

/// Two quoted sides. A bar whose ask lies below its bid at open or close is refused with both lines, or left out on
/// both sides where the user wants that.
pub(crate) fn quoted_pair(mut bid: OneSide, mut ask: OneSide, drop_crossed: bool, files: &[PathBuf]) -> Result<Pair> {
    let (mut keep_bid, mut keep_ask) = (Vec::new(), Vec::new());
    let (mut b, mut a) = (0, 0);
    let mut crossed_dropped = 0;
    while b < bid.candles.len() || a < ask.candles.len() {
        let (tb, ta) = (bid.candles.time.get(b), ask.candles.time.get(a));
        let both = tb == ta;
        if both && (ask.candles.open[a] < bid.candles.open[b] || ask.candles.close[a] < bid.candles.close[b]) {
            if !drop_crossed {
                return Err(crossed(&bid, b, &ask, a, files));
            }
            crossed_dropped += 1;
            (b, a) = (b + 1, a + 1);
            continue;
        }
        // A bar of one side only stays: `data check` judges how many there may be.
        if ta.is_none_or(|ta| tb.is_some_and(|tb| tb <= ta)) {
            keep_bid.push(b);
            b += 1;
        }
        if both || tb.is_none_or(|tb| ta.is_some_and(|ta| ta < tb)) {
            keep_ask.push(a);
            a += 1;
        }
    }
    if crossed_dropped > 0 {
        bid.candles.keep(&keep_bid);
        ask.candles.keep(&keep_ask);
    }
    Ok(Pair { bid: bid.candles, ask: ask.candles, crossed_dropped })
}

fn crossed(bid: &OneSide, b: usize, ask: &OneSide, a: usize, files: &[PathBuf]) -> Error {
    let ((bid_file, bid_line), (ask_file, ask_line)) = (bid.origin[b], ask.origin[a]);
    let (bids, asks) = (&bid.candles, &ask.candles);
    let found = format!(
        "bid open {} close {}, ask open {} close {} ({}:{ask_line}) at {}",
        bids.open[b],
        bids.close[b],
        asks.open[a],
        asks.close[a],
        files[ask_file].display(),
        iso(bids.time[b])
    );
    let rule = "the ask must not lie below the bid at open or close".to_owned();
    let remedy = "--drop-crossed leaves such bars out and says how many".to_owned();
    refuse(&files[bid_file], Some(bid_line), rule, found, Some(remedy))
}
