//! Clocks of vendors: the name of a zone to offsets, and a reading of its wall clock to an instant.
//!
//! Zone rules come from the database bundled at build time, never from the machine, so that an import gives the same
//! bytes everywhere.

use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use crate::units::{EpochNs, MINUTE_NS};

const SECOND_NS: i64 = 1_000_000_000;

/// A reading of a clock on the wall, as nanoseconds since 1970-01-01 00:00 of the same wall.
pub(crate) type WallNs = i64;

/// A zone stated by a file or by the user.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    /// As it was written.
    pub(crate) name: String,
    rules: TimeZone,
    /// What the clock is ahead of `rules`, as in `America/New_York+7`.
    ahead_ns: i64,
}

/// What a wall reading means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Local {
    /// One instant.
    Once(EpochNs),
    /// The clock was put forward over it.
    Never,
    /// The clock was put back over it: two instants.
    Twice(EpochNs, EpochNs),
}

impl Zone {
    /// True if both clocks always agree, whatever they are called.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        self.rules == other.rules && self.ahead_ns == other.ahead_ns
    }

    /// True for UTC itself.
    pub(crate) fn is_utc(&self) -> bool {
        self.rules == TimeZone::UTC && self.ahead_ns == 0
    }

    /// Reads `UTC`, `+02:00`, `UTC+2`, `GMT-0500`, an IANA name, or an IANA name and hours ahead of it
    /// (`America/New_York+7`: the server clock of many brokers, whose midnight is the close of New York).
    ///
    /// `EST`, `MST` and `HST` are the fixed offsets −5, −7 and −10 without daylight saving. Other abbreviations
    /// (`CST`, `IST`, `BST`, `ET`) mean several zones and are refused. A sign means ahead of UTC: `UTC+2` is two hours
    /// east, as people write it; the POSIX names `Etc/GMT-2` keep their inverted sign.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let name = text.trim();
        let zone = |rules, ahead_ns| Ok(Self { name: name.to_owned(), rules, ahead_ns });
        let upper = name.to_ascii_uppercase();
        match upper.as_str() {
            "UTC" | "GMT" | "Z" | "ETC/UTC" => return zone(TimeZone::UTC, 0),
            "EST" => return zone(TimeZone::UTC, -5 * 60 * MINUTE_NS),
            "MST" => return zone(TimeZone::UTC, -7 * 60 * MINUTE_NS),
            "HST" => return zone(TimeZone::UTC, -10 * 60 * MINUTE_NS),
            _ => {}
        }
        let bare = upper.strip_prefix("UTC").or_else(|| upper.strip_prefix("GMT")).unwrap_or(&upper);
        if let Some(offset) = offset_ns(bare) {
            return zone(TimeZone::UTC, offset);
        }
        let database = TimeZoneDatabase::bundled();
        // Only names with a folder are unmistakable; the few others that are worth having are listed.
        let known = |name: &str| {
            let plain = ["CET", "EET", "MET", "WET", "EST5EDT", "CST6CDT", "MST7MDT", "PST8PDT"];
            let clear = name.contains('/') || plain.iter().any(|plain| plain.eq_ignore_ascii_case(name));
            clear.then(|| database.get(name).ok()).flatten()
        };
        if let Some(rules) = known(name) {
            return zone(rules, 0);
        }
        if let Some(at) = name.rfind(['+', '-'])
            && let (Some(rules), Some(ahead)) = (known(&name[..at]), offset_ns(&name[at..]))
        {
            return zone(rules, ahead);
        }
        let names: Vec<String> = database.available().map(|name| name.as_str().to_owned()).collect();
        let near = crate::error::nearest(name, names.iter().map(String::as_str).filter(|name| name.contains('/')));
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Err(format!("must be UTC, EST, an offset like +02:00, or a name like America/New_York, got `{name}`{near}"))
    }

    /// The instants at which the wall clock of this zone shows `wall`. `None` beyond the years of 64-bit nanoseconds.
    pub(crate) fn local(&self, wall: WallNs) -> Option<Local> {
        let wall = wall.checked_sub(self.ahead_ns)?;
        if self.rules == TimeZone::UTC {
            return Some(Local::Once(wall));
        }
        let civil = TimeZone::UTC.to_datetime(Timestamp::from_nanosecond(i128::from(wall)).ok()?);
        let at = |offset: jiff::tz::Offset| wall.checked_sub(i64::from(offset.seconds()) * SECOND_NS);
        Some(match self.rules.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => Local::Once(at(offset)?),
            AmbiguousOffset::Gap { .. } => Local::Never,
            AmbiguousOffset::Fold { before, after } => Local::Twice(at(before)?, at(after)?),
        })
    }
}

/// `+2`, `+02`, `-0530`, `+02:00` as nanoseconds ahead; at most 18 hours, as no zone is further away.
pub(crate) fn offset_ns(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = &text[1..];
    let (hours, minutes) = match (digits.split_once(':'), digits.len()) {
        (Some((hours, minutes)), _) if minutes.len() == 2 => (hours, minutes),
        (None, 1 | 2) => (digits, "0"),
        (None, 4) => (digits.get(..2)?, digits.get(2..)?),
        _ => return None,
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i64>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 18 && minutes < 60).then(|| sign * (hours * 60 + minutes) * MINUTE_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(text: &str) -> i64 {
        i64::try_from(text.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap()
    }

    #[test]
    fn names_and_offsets() {
        let wall = ns("2017-07-03T12:00:00Z");
        let cases = [
            ("UTC", "2017-07-03T12:00:00Z"),
            ("+02:00", "2017-07-03T10:00:00Z"),
            ("UTC+2", "2017-07-03T10:00:00Z"),
            ("gmt-0530", "2017-07-03T17:30:00Z"),
            ("EST", "2017-07-03T17:00:00Z"),
            ("America/New_York", "2017-07-03T16:00:00Z"),
            ("america/new_york", "2017-07-03T16:00:00Z"),
            ("America/New_York+7", "2017-07-03T09:00:00Z"),
            ("EET", "2017-07-03T09:00:00Z"),
            ("Etc/GMT-2", "2017-07-03T10:00:00Z"),
        ];
        for (name, expected) in cases {
            assert_eq!(Zone::parse(name).unwrap().local(wall), Some(Local::Once(ns(expected))), "{name}");
        }
        for name in ["CST", "ET", "IST", "+25:00", "+2:5", "Mars/Olympus", "", "+", "America/New_York+", "+é0"] {
            assert!(Zone::parse(name).is_err(), "{name}");
        }
        assert!(Zone::parse("America/NewYork").unwrap_err().contains("did you mean America/New_York?"));
    }

    #[test]
    fn the_clock_is_put_forward_and_back() {
        let zone = Zone::parse("America/New_York").unwrap();
        assert_eq!(zone.local(ns("2017-03-12T02:30:00Z")), Some(Local::Never));
        let twice = Local::Twice(ns("2017-11-05T05:30:00Z"), ns("2017-11-05T06:30:00Z"));
        assert_eq!(zone.local(ns("2017-11-05T01:30:00Z")), Some(twice));
        // The broker's clock changes with New York, seven hours later on the wall.
        let broker = Zone::parse("America/New_York+7").unwrap();
        assert_eq!(broker.local(ns("2017-03-12T09:30:00Z")), Some(Local::Never));
        assert_eq!(broker.local(ns("2017-03-13T00:00:00Z")), Some(Local::Once(ns("2017-03-12T21:00:00Z"))));
    }
}
