//! One text file to candles: cells to numbers, stamps to instants, the length of its bars.

use std::path::Path;

use crate::data::import::format::{Layout, Ohlc, PriceColumns, StatedZone};
use crate::data::import::refuse;
use crate::data::import::stamp::{self, DateOrder, Stamp, date_parts};
use crate::data::import::text::{Head, reader, shorten};
use crate::data::import::zone::{Local, WallNs, Zone};
use crate::data::read::Candles;
use crate::error::{Error, Result};
use crate::units::{EpochNs, MINUTE_NS, round_decimal};

/// What to do with a wall reading that the clock showed twice, when the file shows one pass only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// The first of the two instants: daylight saving still on.
    Earlier,
    /// The second one.
    Later,
}

impl Fold {
    /// `earlier` or `later`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "earlier" => Some(Self::Earlier),
            "later" => Some(Self::Later),
            _ => None,
        }
    }
}

/// What the user states about the rows of all files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stated {
    pub(crate) zone: Option<Zone>,
    pub(crate) order: Option<DateOrder>,
    pub(crate) fold: Option<Fold>,
    /// Size of a point, price units.
    pub(crate) point: Option<f64>,
    /// Length of a bar, minutes.
    pub(crate) minutes: Option<i64>,
}

/// The rows of a file. The prices of two sides are two candle series of the same stamps.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    /// One price; or bid and ask.
    pub(crate) sides: Vec<Candles>,
    /// Spread of each row in points, where the file has it.
    pub(crate) spread_points: Option<Vec<f64>>,
    /// Line of each row, from 1.
    pub(crate) lines: Vec<u64>,
    /// The first line on which an exchange reports volume.
    pub(crate) exchange_volume: Option<u64>,
    /// The zone, in words.
    pub(crate) zone: String,
    /// Length of a bar, minutes.
    pub(crate) minutes: i64,
}

/// Reads every row of `text`.
pub(crate) fn rows(path: &Path, text: &str, head: &Head, layout: &Layout, stated: &Stated) -> Result<Rows> {
    let zone = Clock::of(path, layout, stated)?;
    let raw = Raw::read(path, text, head, layout, stated)?;
    let minutes = bar_minutes(path, &raw, stated.minutes)?;
    let mut sides = raw.sides;
    let times = zone.instants(path, &raw.stamps, &raw.lines, &raw.repeats, stated.fold)?;
    refuse_disorder(path, &times, &raw.lines)?;
    for side in &mut sides {
        side.time.clone_from(&times);
    }
    Ok(Rows {
        sides,
        spread_points: raw.spread_points,
        lines: raw.lines,
        exchange_volume: raw.exchange_volume,
        zone: zone.describe(),
        minutes,
    })
}

/// Rows before their stamps are instants, in ascending order of the file's own clock.
struct Raw {
    stamps: Vec<Stamp>,
    sides: Vec<Candles>,
    spread_points: Option<Vec<f64>>,
    lines: Vec<u64>,
    /// The row is, cell by cell, the row before.
    repeats: Vec<bool>,
    exchange_volume: Option<u64>,
}

impl Raw {
    fn read(path: &Path, text: &str, head: &Head, layout: &Layout, stated: &Stated) -> Result<Self> {
        let order = date_order(path, text, head, layout, stated)?;
        let price_columns: Vec<Ohlc> = match layout.prices {
            PriceColumns::One(ohlc) => vec![ohlc],
            PriceColumns::Both { bid, ask } => vec![bid, ask],
        };
        let points = match (layout.in_points, stated.point) {
            (false, _) => None,
            (true, Some(point)) => Some(point),
            (true, None) => {
                let rule = "prices are whole points; the size of a point must be stated".to_owned();
                let found = head.rows.first().map_or_else(String::new, |row| shorten(&row.join(",")));
                let remedy = "--point 0.00001 (or what a point of the symbol is), or --format generic if the prices are meant as they stand";
                return Err(refuse(path, Some(2), rule, found, Some(remedy.to_owned())));
            }
        };
        let exchange = match layout.side {
            super::format::StatedSide::Unless { exchange_volume, .. } => exchange_volume,
            _ => None,
        };
        let mut raw = Self {
            stamps: Vec::new(),
            sides: vec![Candles::default(); price_columns.len()],
            spread_points: layout.spread.map(|_| Vec::new()),
            lines: Vec::new(),
            repeats: Vec::new(),
            exchange_volume: None,
        };
        let mut table = reader(text, head.delimiter);
        let (mut record, mut previous) = (csv::StringRecord::new(), csv::StringRecord::new());
        let mut skip_header = head.names.is_some();
        loop {
            let more = table.read_record(&mut record);
            let line = record.position().map(csv::Position::line);
            let more = more
                .map_err(|error| refuse(path, line, "must be a table of text".to_owned(), error.to_string(), None))?;
            if !more {
                break;
            }
            if std::mem::take(&mut skip_header) {
                continue;
            }
            let row = Row { path, line: line.unwrap_or_default(), record: &record };
            row.require_width(layout.width)?;
            raw.stamps.push(row.stamp(layout, order)?);
            for (side, columns) in price_columns.iter().enumerate() {
                let [open, high, low, close] = row.prices(*columns, points)?;
                let volume = layout.volume.map_or(Ok(0.0), |columns| row.number(columns[side.min(1)], "a volume"))?;
                let candles = &mut raw.sides[side];
                candles.open.push(open);
                candles.high.push(high);
                candles.low.push(low);
                candles.close.push(close);
                candles.volume.push(volume);
            }
            if let (Some(into), Some(column)) = (&mut raw.spread_points, layout.spread) {
                let spread = row.number(column, "a spread in points")?;
                if spread < 0.0 {
                    return Err(row.refuse("a spread must be >= 0", column));
                }
                into.push(spread);
            }
            if let Some(column) = exchange
                && raw.exchange_volume.is_none()
                && row.number(column, "a volume")? > 0.0
            {
                raw.exchange_volume = Some(row.line);
            }
            raw.lines.push(row.line);
            raw.repeats.push(record == previous);
            std::mem::swap(&mut record, &mut previous);
        }
        if raw.lines.is_empty() {
            return Err(refuse(path, None, "at least one row of prices".to_owned(), "none".to_owned(), None));
        }
        raw.turn_ascending();
        Ok(raw)
    }

    /// Some vendors write the newest bar first. A file that only falls is turned round; any other disorder is refused
    /// later.
    fn turn_ascending(&mut self) {
        let clock = self.clock();
        if clock.len() < 2 || !clock.windows(2).all(|pair| pair[1] < pair[0]) {
            return;
        }
        self.stamps.reverse();
        self.lines.reverse();
        for side in &mut self.sides {
            for column in [&mut side.open, &mut side.high, &mut side.low, &mut side.close, &mut side.volume] {
                column.reverse();
            }
        }
        if let Some(spread) = &mut self.spread_points {
            spread.reverse();
        }
    }

    /// The stamps on the file's own clock, for what needs no zone.
    fn clock(&self) -> Vec<i64> {
        let number = |stamp: &Stamp| match *stamp {
            Stamp::Instant(t) | Stamp::Wall(t) | Stamp::Epoch(t) => t,
        };
        self.stamps.iter().map(number).collect()
    }
}

/// One line.
struct Row<'a> {
    path: &'a Path,
    line: u64,
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    fn cell(&self, column: usize) -> &str {
        self.record.get(column).unwrap_or_default().trim()
    }

    fn refuse(&self, rule: &str, column: usize) -> Error {
        let found = format!("{} in column {}", shorten(self.cell(column)), column + 1);
        refuse(self.path, Some(self.line), rule.to_owned(), found, None)
    }

    fn require_width(&self, width: usize) -> Result<()> {
        if self.record.len() == width {
            return Ok(());
        }
        let rule = format!("every row must have {width} columns, like the first");
        Err(refuse(self.path, Some(self.line), rule, format!("{} columns", self.record.len()), None))
    }

    fn stamp(&self, layout: &Layout, order: DateOrder) -> Result<Stamp> {
        let date = self.cell(layout.date);
        let parsed = match layout.time {
            Some(time) => stamp::parse(&format!("{date} {}", self.cell(time)), order),
            None => stamp::parse(date, order),
        };
        match parsed {
            Ok(Stamp::Epoch(t)) if layout.server_epoch => Ok(Stamp::Wall(t)),
            Ok(Stamp::Epoch(t)) => Ok(Stamp::Instant(t)),
            Ok(stamp) => Ok(stamp),
            Err(rule) => Err(self.refuse(&format!("a stamp must be {rule}"), layout.date)),
        }
    }

    /// A finite number, exactly as Rust reads it: the nearest double.
    fn number(&self, column: usize, what: &str) -> Result<f64> {
        match self.cell(column).parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(self.refuse(&format!("{what} must be a finite number"), column)),
        }
    }

    fn prices(&self, columns: Ohlc, points: Option<f64>) -> Result<[f64; 4]> {
        let mut prices = [0.0; 4];
        for (price, column) in prices.iter_mut().zip(columns) {
            *price = self.number(column, "a price")?;
            if let Some(point) = points {
                // Dust below a point goes, then the price is the decimal that the vendor quotes.
                *price = scale(libm::round(*price), point);
            }
        }
        Ok(prices)
    }
}

/// `points · point`; where a point is one divided by a whole number (0.00001), the nearest double of the decimal.
pub(crate) fn scale(points: f64, point: f64) -> f64 {
    let per_unit = libm::round(1.0 / point);
    if per_unit >= 1.0 && 1.0 / per_unit == point { points / per_unit } else { round_decimal(points * point, 12) }
}

/// Day or month first: what the vendor documents, the user states, or the days above 12 prove.
fn date_order(path: &Path, text: &str, head: &Head, layout: &Layout, stated: &Stated) -> Result<DateOrder> {
    if layout.day_first {
        return Ok(DateOrder::Dmy);
    }
    let sample = head.rows.first().and_then(|row| row.get(layout.date)).map(String::as_str).unwrap_or_default();
    let parts = |cell: &str| -> Option<[u16; 3]> {
        let date = cell.trim().split([' ', 'T']).next()?;
        let [a, b, c] = date_parts(date)?;
        let clear = a.len() == 4;
        (!clear).then(|| Some([a.parse().ok()?, b.parse().ok()?, c.parse().ok()?])).flatten()
    };
    if parts(sample).is_none() {
        return Ok(DateOrder::Ymd);
    }
    if let Some(order) = stated.order {
        return Ok(order);
    }
    let (mut day_first, mut month_first) = (None, None);
    for record in reader(text, head.delimiter).records().skip(usize::from(head.names.is_some())).map_while(Result::ok) {
        let line = record.position().map(csv::Position::line);
        if let Some([a, b, _]) = record.get(layout.date).and_then(parts) {
            if a > 12 {
                day_first = day_first.or(line);
            }
            if b > 12 {
                month_first = month_first.or(line);
            }
        }
    }
    match (day_first, month_first) {
        (Some(_), None) => Ok(DateOrder::Dmy),
        (None, Some(_)) => Ok(DateOrder::Mdy),
        (Some(day), Some(month)) => {
            let found = format!("a first part above 12 in line {day}, a second part above 12 in line {month}");
            Err(refuse(path, Some(day), "one order of day and month must hold for all rows".to_owned(), found, None))
        }
        (None, None) => Err(refuse(
            path,
            Some(1 + u64::from(head.names.is_some())),
            "the order of day and month must be clear; no part of any date is above 12".to_owned(),
            shorten(sample),
            Some("--date-order dmy or --date-order mdy".to_owned()),
        )),
    }
}

/// The clock of a file.
enum Clock {
    InStamps,
    /// A zone, and whether the file itself states it.
    Zone(Zone, bool),
}

impl Clock {
    fn of(path: &Path, layout: &Layout, stated: &Stated) -> Result<Self> {
        let contradiction = |found: String| {
            let zone = stated.zone.as_ref().map(|zone| zone.name.clone()).unwrap_or_default();
            let rule = format!("--tz {zone} must not contradict the zone that the file states");
            Err(refuse(path, Some(1), rule, found, Some("leave --tz out".to_owned())))
        };
        match (&layout.zone, &stated.zone) {
            (StatedZone::None(_), Some(zone)) => Ok(Self::Zone(zone.clone(), false)),
            (StatedZone::None(why), None) => Err(refuse(
                path,
                None,
                "the time zone of the stamps must be stated".to_owned(),
                format!("none: {why}"),
                Some("--tz UTC, --tz +02:00, --tz EST, --tz America/New_York, or --tz America/New_York+7 for a server clock whose midnight is the New York close".to_owned()),
            )),
            (StatedZone::Named(name), given) => match Zone::parse(name) {
                Err(_) => Err(refuse(path, Some(1), "the header must name a known zone".to_owned(), shorten(name), None)),
                Ok(zone) => match given {
                    Some(given) if !given.agrees_with(&zone) => contradiction(zone.name),
                    _ => Ok(Self::Zone(zone, true)),
                },
            },
            (StatedZone::InStamps, None) => Ok(Self::InStamps),
            (StatedZone::InStamps, Some(zone)) if zone.is_utc() => Ok(Self::InStamps),
            (StatedZone::InStamps, Some(_)) => contradiction("an offset in every stamp".to_owned()),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::InStamps => "offsets in the stamps".to_owned(),
            Self::Zone(zone, true) => format!("{}, stated by the format", zone.name),
            Self::Zone(zone, false) => format!("{}, stated by the user", zone.name),
        }
    }

    /// Instants of stamps in file order.
    ///
    /// A reading that the clock showed twice belongs to the first pass until the readings step back, and to the second
    /// from there on; a row equal to the one before in every cell is a duplicate and no step. If they do not step back
    /// within the doubled time, only one pass is there and nothing tells which: refused unless `fold` decides.
    /// A reading that the clock never showed is refused.
    fn instants(
        &self,
        path: &Path,
        stamps: &[Stamp],
        lines: &[u64],
        repeats: &[bool],
        fold: Option<Fold>,
    ) -> Result<Vec<EpochNs>> {
        let mut times = Vec::with_capacity(stamps.len());
        let mut doubled: Vec<(usize, WallNs, [EpochNs; 2])> = Vec::new();
        for (i, stamp) in stamps.iter().enumerate() {
            let at = |rule: &str, found: String, remedy: Option<String>| {
                refuse(path, Some(lines[i]), rule.to_owned(), found, remedy)
            };
            let time = match (self, *stamp) {
                (_, Stamp::Instant(t) | Stamp::Epoch(t)) => t,
                (Self::InStamps, Stamp::Wall(wall)) => {
                    return Err(at("every stamp must carry its offset", wall_text(wall), None));
                }
                (Self::Zone(zone, _), Stamp::Wall(wall)) => match zone.local(wall) {
                    Some(Local::Once(t)) => t,
                    Some(Local::Never) => {
                        let rule =
                            format!("the clock of {} must have shown this time; it was put forward over it", zone.name);
                        return Err(at(&rule, wall_text(wall), Some("--tz must be another zone".to_owned())));
                    }
                    Some(Local::Twice(first, second)) => {
                        doubled.push((i, wall, [first, second]));
                        times.push(first);
                        continue;
                    }
                    None => return Err(at("a stamp must lie between the years 1678 and 2262", wall_text(wall), None)),
                },
            };
            times.push(time);
        }
        // Neighbours in `doubled` that are neighbours in the file are one change of the clock.
        for run in doubled.chunk_by(|a, b| a.0 + 1 == b.0) {
            let step = run.windows(2).position(|pair| pair[1].1 <= pair[0].1 && !repeats[pair[1].0]);
            let second_from = match (step, fold) {
                (Some(step), _) => step + 1,
                (None, Some(Fold::Earlier)) => run.len(),
                (None, Some(Fold::Later)) => 0,
                (None, None) => {
                    let (i, wall, _) = run[0];
                    let rule =
                        "the clock showed this time twice and the file has one pass of it: which one must be stated";
                    let remedy = Some("--fold earlier or --fold later".to_owned());
                    return Err(refuse(path, Some(lines[i]), rule.to_owned(), wall_text(wall), remedy));
                }
            };
            for (i, _, [_, second]) in &run[second_from..] {
                times[*i] = *second;
            }
        }
        Ok(times)
    }
}

fn wall_text(wall: WallNs) -> String {
    let civil = jiff::Timestamp::from_nanosecond(i128::from(wall)).map(|t| jiff::tz::TimeZone::UTC.to_datetime(t));
    civil.map_or_else(|_| format!("{wall} ns"), |civil| civil.to_string().replace('T', " "))
}

fn refuse_disorder(path: &Path, times: &[EpochNs], lines: &[u64]) -> Result<()> {
    match times.windows(2).position(|pair| pair[1] < pair[0]) {
        None => Ok(()),
        Some(i) => {
            let iso = crate::data::import::iso;
            let found = format!("{} after {}", iso(times[i + 1]), iso(times[i]));
            Err(refuse(path, Some(lines[i + 1]), "stamps must not decrease in file order".to_owned(), found, None))
        }
    }
}

/// Length of a bar: the commonest step between stamps, if more than half of the steps have it.
fn bar_minutes(path: &Path, raw: &Raw, given: Option<i64>) -> Result<i64> {
    let clock = raw.clock();
    let mut steps: Vec<i64> = clock.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).filter(|s| *s > 0).collect();
    steps.sort_unstable();
    let commonest = steps.chunk_by(|a, b| a == b).max_by_key(|run| run.len());
    let clear = commonest.filter(|run| steps.len() >= 3 && 2 * run.len() > steps.len()).map(|run| run[0]);
    match (clear, given) {
        (Some(step), Some(given)) if step != given * MINUTE_NS => Err(refuse(
            path,
            None,
            format!("--timeframe {} must be the step between the bars", minutes_name(given)),
            step_name(step),
            Some("leave --timeframe out".to_owned()),
        )),
        (_, Some(given)) => Ok(given),
        (Some(step), None) if step % MINUTE_NS == 0 => Ok(step / MINUTE_NS),
        (step, None) => {
            let found = match step {
                Some(step) => step_name(step),
                None => format!("{} rows without a step that most of them have", raw.lines.len()),
            };
            let rule = "the length of a bar must be told by the steps between the stamps".to_owned();
            Err(refuse(path, None, rule, found, Some("--timeframe M1, H1, D1, …".to_owned())))
        }
    }
}

fn step_name(step: i64) -> String {
    if step % MINUTE_NS == 0 {
        format!("a step of {}", minutes_name(step / MINUTE_NS))
    } else {
        format!("a step of {} s", step as f64 / 1e9)
    }
}

/// `M10`, `H4`, `D1`, `W1`.
pub(crate) fn minutes_name(minutes: i64) -> String {
    match minutes {
        m if m % 10_080 == 0 => format!("W{}", m / 10_080),
        m if m % 1_440 == 0 => format!("D{}", m / 1_440),
        m if m % 60 == 0 => format!("H{}", m / 60),
        m => format!("M{m}"),
    }
}

/// The minutes of `M10`, `H4`, `D1` or `W1`.
pub(crate) fn parse_minutes(text: &str) -> Option<i64> {
    let text = text.trim();
    let unit = match text.chars().next()?.to_ascii_uppercase() {
        'M' => 1,
        'H' => 60,
        'D' => 1_440,
        'W' => 10_080,
        _ => return None,
    };
    text.get(1..)?.parse::<i64>().ok().filter(|n| (1..=1_440).contains(n)).map(|n| n * unit)
}
