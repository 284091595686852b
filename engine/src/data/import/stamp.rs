//! Stamps of text files: what a cell says, before a zone makes it an instant.

use jiff::civil::Date;

use crate::data::import::zone::{WallNs, offset_ns};
use crate::units::{DAY_NS, EpochNs, MINUTE_NS};

const SECOND_NS: i64 = 1_000_000_000;

/// Order of the parts of a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateOrder {
    /// Year, month, day.
    Ymd,
    /// Day, month, year.
    Dmy,
    /// Month, day, year.
    Mdy,
}

impl DateOrder {
    /// `ymd`, `dmy` or `mdy`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "ymd" => Some(Self::Ymd),
            "dmy" => Some(Self::Dmy),
            "mdy" => Some(Self::Mdy),
            _ => None,
        }
    }
}

/// A stamp as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// An instant: the cell carries its offset.
    Instant(EpochNs),
    /// A reading of a clock whose zone the cell does not tell.
    Wall(WallNs),
    /// A number of seconds or parts of them; whether since 1970 UTC, the format knows.
    Epoch(i64),
}

/// Reads a stamp: an epoch number of 9 to 19 digits, or a date in `order`, a time of day or none, an offset or none.
pub(crate) fn parse(text: &str, order: DateOrder) -> Result<Stamp, &'static str> {
    let text = text.trim();
    if !text.is_ascii() {
        return Err("a stamp of plain characters");
    }
    if let Some(epoch) = epoch(text) {
        return epoch;
    }
    let cut = text.find([' ', 'T']).unwrap_or(text.len());
    let date = date(&text[..cut], order)?;
    let rest = text.get(cut + 1..).unwrap_or_default().trim();
    let (time, offset) = split_offset(rest)?;
    let wall = i64::from(days(date)) * DAY_NS + time_of_day(time)?;
    match offset {
        Some(ahead) => wall.checked_sub(ahead).map(Stamp::Instant).ok_or("a year between 1678 and 2262"),
        None => Ok(Stamp::Wall(wall)),
    }
}

/// The unit is told by the number of digits: seconds, milliseconds, microseconds, nanoseconds of the years 1973 to
/// 2262. Eight digits are a date.
fn epoch(text: &str) -> Option<Result<Stamp, &'static str>> {
    if text.len() < 9 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let unit = match text.len() {
        9 | 10 => SECOND_NS,
        12 | 13 => 1_000_000,
        15 | 16 => 1_000,
        18 | 19 => 1,
        _ => return Some(Err("an epoch number of 10 (s), 13 (ms), 16 (µs) or 19 (ns) digits")),
    };
    let ns = text.parse::<i64>().ok().and_then(|n| n.checked_mul(unit));
    Some(ns.map(Stamp::Epoch).ok_or("an epoch number before the year 2262"))
}

/// The three numbers of a date, as far as they are separated.
pub(crate) fn date_parts(text: &str) -> Option<[&str; 3]> {
    let separator = text.chars().find(|c| matches!(c, '-' | '.' | '/'))?;
    let mut parts = text.split(separator);
    let three = [parts.next()?, parts.next()?, parts.next()?];
    let digits = |part: &&str| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    (parts.next().is_none() && three.iter().all(digits)).then_some(three)
}

fn date(text: &str, order: DateOrder) -> Result<Date, &'static str> {
    let parts = match date_parts(text) {
        Some(parts) => parts,
        None if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) => {
            return calendar(&text[..4], &text[4..6], &text[6..]);
        }
        None => return Err("a date"),
    };
    let [a, b, c] = parts;
    // A year of four digits in front decides for itself.
    if a.len() == 4 {
        return calendar(a, b, c);
    }
    match order {
        DateOrder::Ymd => Err("a date that begins with a year of four digits"),
        DateOrder::Dmy if c.len() == 4 => calendar(c, b, a),
        DateOrder::Mdy if c.len() == 4 => calendar(c, a, b),
        _ => Err("a year of four digits"),
    }
}

fn calendar(year: &str, month: &str, day: &str) -> Result<Date, &'static str> {
    let number = |text: &str| text.parse::<i16>().map_err(|_| "a date");
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    let part = |n: i16| i8::try_from(n).map_err(|_| "a day of the calendar");
    if !(1678..=2261).contains(&year) {
        return Err("a year between 1678 and 2262");
    }
    Date::new(year, part(month)?, part(day)?).map_err(|_| "a day of the calendar")
}

fn days(date: Date) -> i32 {
    date.duration_since(Date::constant(1970, 1, 1)).as_hours().try_into().map_or(0, |hours: i32| hours / 24)
}

/// Takes `Z`, `+00:00`, `-0500` or ` GMT+0200` off the end.
fn split_offset(text: &str) -> Result<(&str, Option<i64>), &'static str> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Ok((time, Some(0)));
    }
    match text.rfind(['+', '-']) {
        None => Ok((text, None)),
        Some(at) => {
            let offset = offset_ns(&text[at..]).ok_or("an offset like +02:00")?;
            let time = text[..at].trim_end();
            Ok((time.strip_suffix("GMT").or_else(|| time.strip_suffix("UTC")).unwrap_or(time).trim_end(), Some(offset)))
        }
    }
}

/// Nothing, `HHMMSS`, `HH:MM`, `HH:MM:SS` or with a fraction of up to nine digits.
fn time_of_day(text: &str) -> Result<i64, &'static str> {
    const RULE: &str = "a time of day";
    if text.is_empty() {
        return Ok(0);
    }
    let number = |text: &str, below: i64| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<i64>().ok()).flatten().filter(|n| *n < below).ok_or(RULE)
    };
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let (hour, minute, second) = if clock.len() == 6 && !clock.contains(':') {
        (&clock[..2], &clock[2..4], &clock[4..])
    } else {
        let mut parts = clock.split(':');
        let three = (parts.next().ok_or(RULE)?, parts.next().ok_or(RULE)?, parts.next().unwrap_or("0"));
        if parts.next().is_some() {
            return Err(RULE);
        }
        three
    };
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(RULE);
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().map_err(|_| RULE)?;
    Ok((number(hour, 24)? * 60 + number(minute, 60)?) * MINUTE_NS + number(second, 60)? * SECOND_NS + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(text: &str) -> i64 {
        i64::try_from(text.parse::<jiff::Timestamp>().unwrap().as_nanosecond()).unwrap()
    }

    #[test]
    fn stamps_of_every_vendor() {
        use DateOrder::{Dmy, Mdy, Ymd};
        let cases = [
            ("01.04.2025 00:01:00.000", Dmy, Stamp::Wall(ns("2025-04-01T00:01:00Z"))),
            ("01.04.2025 00:01:00.000 GMT+0200", Dmy, Stamp::Instant(ns("2025-03-31T22:01:00Z"))),
            ("2020.01.02 04:00:00", Ymd, Stamp::Wall(ns("2020-01-02T04:00:00Z"))),
            ("2024.09.18", Ymd, Stamp::Wall(ns("2024-09-18T00:00:00Z"))),
            ("20170301 000100", Ymd, Stamp::Wall(ns("2017-03-01T00:01:00Z"))),
            ("20070101 21:00", Ymd, Stamp::Wall(ns("2007-01-01T21:00:00Z"))),
            ("2012-02-01 00:01:00+00:00", Ymd, Stamp::Instant(ns("2012-02-01T00:01:00Z"))),
            ("2012-02-01T00:01:00.5Z", Ymd, Stamp::Instant(ns("2012-02-01T00:01:00.5Z"))),
            ("1585774800", Ymd, Stamp::Epoch(ns("2020-04-01T21:00:00Z"))),
            ("1637971200000", Ymd, Stamp::Epoch(ns("2021-11-27T00:00:00Z"))),
            ("1637971200000000", Ymd, Stamp::Epoch(ns("2021-11-27T00:00:00Z"))),
            ("3/4/2021 9:05", Mdy, Stamp::Wall(ns("2021-03-04T09:05:00Z"))),
            ("3/4/2021", Dmy, Stamp::Wall(ns("2021-04-03T00:00:00Z"))),
            ("1969-12-31", Ymd, Stamp::Wall(-DAY_NS)),
        ];
        for (text, order, expected) in cases {
            assert_eq!(parse(text, order), Ok(expected), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_and_never_panics() {
        let cases = [
            "",
            "x",
            "2021-02-29",
            "2021-13-01",
            "01/02/2021",
            "2021-01-01 24:00",
            "2021-01-01 10:60",
            "2021-01-01 1",
            "12345678901",
            "99999999999999999999",
            "2021-01-01 10:00+xx",
            "1234-01-01",
            "2021-1-1-1",
            "20210101 10000",
            "2021-01-01 10:00:00.",
            "é021-01-01",
            "2021-01-01T",
            "9999999999999999999",
            "01.04.25",
        ];
        for text in cases {
            let parsed = parse(text, DateOrder::Ymd);
            assert!(parsed.is_err() || text == "2021-01-01T", "{text}: {parsed:?}");
        }
    }
}
