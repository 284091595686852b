//! Trading sessions: times of day between which entries are allowed.

use std::str::FromStr;

use crate::data::Bars;
use crate::error::{Error, Result};
use crate::rules::BitMask;
use crate::units::{DAY_NS, EpochNs, MINUTE_NS};

/// A window of the UTC day. `end <= start` crosses midnight; equal ends are the whole day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Session {
    /// Minutes since 00:00 UTC, `0 .. 1440`.
    pub start_minute: u16,
    /// Minutes since 00:00 UTC, `0 .. 1440`.
    pub end_minute: u16,
}

impl Session {
    /// From two texts `HH:MM`. `path` is where they stand in the configuration (`sessions[0]`).
    pub fn parse(path: &str, start: &str, end: &str) -> Result<Self> {
        let minute = |key: &str, text: &str| {
            text.parse::<TimeOfDay>().map(|t| t.0).map_err(|()| {
                Error::config(
                    format!("{path}.{key}"),
                    format!("must be a time HH:MM from 00:00 to 23:59, got `{text}`"),
                )
            })
        };
        Ok(Self { start_minute: minute("start", start)?, end_minute: minute("end", end)? })
    }

    /// Both ends inclusive: the gate of entries, asked with the close instant (`execution.md` §11.1).
    pub fn contains(self, time_of_day_ns: i64) -> bool {
        let (start, end) = self.bounds_ns();
        if start < end {
            start <= time_of_day_ns && time_of_day_ns <= end
        } else {
            time_of_day_ns >= start || time_of_day_ns <= end
        }
    }

    /// Half-open `[start, end)`: the activity of gap statistics, asked with the open time (`data-contract.md` §8).
    pub(crate) fn contains_half_open(self, time_of_day_ns: i64) -> bool {
        let (start, end) = self.bounds_ns();
        if start < end {
            start <= time_of_day_ns && time_of_day_ns < end
        } else {
            time_of_day_ns >= start || time_of_day_ns < end
        }
    }

    fn bounds_ns(self) -> (i64, i64) {
        (i64::from(self.start_minute) * MINUTE_NS, i64::from(self.end_minute) * MINUTE_NS)
    }
}

/// Minutes since midnight, read from exactly two digits, a colon, two digits.
struct TimeOfDay(u16);

impl FromStr for TimeOfDay {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let &[h1, h0, b':', m1, m0] = text.as_bytes() else { return Err(()) };
        if ![h1, h0, m1, m0].iter().all(u8::is_ascii_digit) {
            return Err(());
        }
        let number = |tens: u8, ones: u8| u16::from(tens - b'0') * 10 + u16::from(ones - b'0');
        let (hours, minutes) = (number(h1, h0), number(m1, m0));
        if hours > 23 || minutes > 59 { Err(()) } else { Ok(Self(hours * 60 + minutes)) }
    }
}

/// True if any session contains the bar's close instant; no session at all means always open.
pub fn open_at(sessions: &[Session], close_instant_ns: EpochNs) -> bool {
    let time_of_day = close_instant_ns.rem_euclid(DAY_NS);
    sessions.is_empty() || sessions.iter().any(|session| session.contains(time_of_day))
}

/// One bit per bar: entries are allowed by the sessions.
pub fn session_mask(bars: &Bars, sessions: &[Session]) -> BitMask {
    BitMask::from_bools((0..bars.len()).map(|i| open_at(sessions, bars.close_instant(i))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(open: &str, tf_minutes: i64) -> i64 {
        i64::from(open.parse::<TimeOfDay>().map_or(0, |t| t.0)) * MINUTE_NS + tf_minutes * MINUTE_NS
    }

    /// The table of `execution.md` §14.4, whole.
    #[test]
    fn golden_sessions() {
        let day = [Session::parse("", "08:00", "17:00").unwrap()];
        let two = [Session::parse("", "23:00", "05:00").unwrap(), Session::parse("", "15:00", "19:00").unwrap()];
        for (open, allowed) in [("07:50", false), ("07:55", true), ("16:55", true), ("17:00", false)] {
            assert_eq!(open_at(&day, at(open, 5)), allowed, "M5 {open}");
        }
        let h1 = [
            ("21:00", false),
            ("22:00", true),
            ("23:00", true),
            ("04:00", true),
            ("05:00", false),
            ("13:00", false),
            ("14:00", true),
            ("18:00", true),
            ("19:00", false),
        ];
        for (open, allowed) in h1 {
            assert_eq!(open_at(&two, at(open, 60)), allowed, "H1 {open}");
        }
        assert!(!open_at(&day, at("00:00", 1440)));
    }

    #[test]
    fn equal_ends_are_the_whole_day_and_none_is_always_open() {
        let whole = [Session { start_minute: 600, end_minute: 600 }];
        assert!((0..1440).all(|m| open_at(&whole, m * MINUTE_NS) && open_at(&[], m * MINUTE_NS)));
        // Before 1970 the time of day still counts from midnight.
        assert!(open_at(&[Session::parse("", "23:00", "23:30").unwrap()], -45 * MINUTE_NS));
    }

    #[test]
    fn a_close_just_behind_the_end_is_outside() {
        let day = [Session::parse("", "08:00", "17:00").unwrap()];
        assert!(!open_at(&day, 17 * 60 * MINUTE_NS + 1));
    }

    #[test]
    fn texts_that_are_no_times_are_refused_with_their_path() {
        for text in ["24:00", "8:00", "08:60", "0800", "", "08:00:00", "ab:cd", "+8:00"] {
            let error = Session::parse("sessions[1]", text, "10:00").unwrap_err();
            assert!(error.to_string().starts_with("sessions[1].start: must be a time HH:MM"), "{error}");
        }
    }
}
