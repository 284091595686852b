//! Longer bars from shorter ones: first, highest, lowest, last, volumes summed. A bin without a bar gives none, and
//! every bar is stamped with the start of its bin, which is its open time.

use jiff::civil::{self, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};

use crate::data::read::Candles;
use crate::error::{Error, Result};
use crate::units::{DAY_NS, EpochNs, MINUTE_NS, Timeframe};

/// Where a day begins, and with it every bin longer than an hour.
#[derive(Debug, Clone)]
pub(crate) enum Day {
    /// 00:00 UTC; weeks begin on Monday.
    Utc,
    /// 17:00 in New York, the close of the foreign-exchange day: 21:00 or 22:00 UTC. H4 bins begin at 17, 21, 1, 5, 9
    /// and 13 o'clock there, weeks on Sunday at 17:00.
    ///
    /// The clock on the wall decides, so on the two days of a year when it is changed the bin of 1 o'clock (and the
    /// day) lasts an hour less or more.
    NewYork17(TimeZone),
}

impl Day {
    /// The 17:00 New York day, from the bundled zone data: the same on every machine.
    pub(crate) fn new_york_17() -> Result<Self> {
        let zone = TimeZoneDatabase::bundled().get("America/New_York");
        zone.map(Self::NewYork17).map_err(|error| Error::Internal(error.to_string()))
    }

    /// The bin of `timeframe` that holds `t`: start inclusive, end exclusive.
    pub(crate) fn bin(&self, t: EpochNs, timeframe: Timeframe) -> (EpochNs, EpochNs) {
        match self {
            // New York is whole hours away from UTC: bins up to an hour are the same.
            Self::NewYork17(zone) if timeframe > Timeframe::H1 => {
                new_york_bin(zone, t, timeframe).unwrap_or_else(|| utc_bin(t, timeframe))
            }
            _ => utc_bin(t, timeframe),
        }
    }
}

/// Multiples of the timeframe since 00:00 UTC, weeks since Monday.
fn utc_bin(t: EpochNs, timeframe: Timeframe) -> (EpochNs, EpochNs) {
    // Day 4 of the epoch was a Monday.
    let anchor = if timeframe == Timeframe::W1 { 4 * DAY_NS } else { 0 };
    let start = t - (t - anchor).rem_euclid(timeframe.duration_ns());
    (start, start + timeframe.duration_ns())
}

/// `None` only where the calendar ends.
fn new_york_bin(zone: &TimeZone, t: EpochNs, timeframe: Timeframe) -> Option<(EpochNs, EpochNs)> {
    let local = zone.to_datetime(Timestamp::from_nanosecond(i128::from(t)).ok()?);
    // Seven hours on, the New York day begins at midnight.
    let shifted = local.checked_add(7.hours()).ok()?;
    let midnight = shifted.date().to_datetime(civil::Time::midnight());
    let (start, end) = match timeframe {
        Timeframe::H4 => {
            let start = midnight.checked_add((i64::from(shifted.hour()) / 4 * 4).hours()).ok()?;
            (start, start.checked_add(4.hours()).ok()?)
        }
        Timeframe::W1 => {
            let back = i64::from(shifted.date().weekday().since(Weekday::Monday));
            let start = midnight.checked_sub(back.days()).ok()?;
            (start, start.checked_add(7.days()).ok()?)
        }
        _ => (midnight, midnight.checked_add(1.days()).ok()?),
    };
    // Boundaries in New York are 17, 21, 1, 5, 9, 13 o'clock. Only 1 o'clock can come twice: the first one counts.
    let instant = |shifted: civil::DateTime| -> Option<EpochNs> {
        let zoned = zone.to_ambiguous_timestamp(shifted.checked_sub(7.hours()).ok()?).earlier().ok()?;
        i64::try_from(zoned.as_nanosecond()).ok()
    };
    Some((instant(start)?, instant(end)?))
}

/// Bars of `timeframe` made from shorter `base` bars in ascending order.
///
/// Open = first, High = maximum, Low = minimum, Close = last, Volume = sum in file order. The first and the last bar
/// may stand for a part of their bin only.
pub(crate) fn aggregate(base: &Candles, timeframe: Timeframe, day: &Day) -> Candles {
    let mut out = Candles::default();
    let mut bin = (EpochNs::MAX, EpochNs::MIN);
    for i in 0..base.len() {
        let [open, high, low, close, volume] = base.row(i);
        if !(bin.0..bin.1).contains(&base.time[i]) {
            bin = day.bin(base.time[i], timeframe);
            out.time.push(bin.0);
            out.open.push(open);
            out.high.push(high);
            out.low.push(low);
            out.close.push(close);
            out.volume.push(volume);
            continue;
        }
        let last = out.len() - 1;
        out.high[last] = out.high[last].max(high);
        out.low[last] = out.low[last].min(low);
        out.close[last] = close;
        out.volume[last] += volume;
    }
    out
}

/// The first base bar of `minutes` that reaches beyond its bin, if any: such a bar belongs to two bins and to none.
pub(crate) fn straddling(time: &[EpochNs], minutes: i64, timeframe: Timeframe, day: &Day) -> Option<usize> {
    let mut bin = (EpochNs::MAX, EpochNs::MIN);
    time.iter().position(|&t| {
        if !(bin.0..bin.1).contains(&t) {
            bin = day.bin(t, timeframe);
        }
        t + minutes * MINUTE_NS > bin.1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(text: &str) -> EpochNs {
        i64::try_from(text.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap()
    }

    fn bin(t: &str, timeframe: Timeframe) -> [String; 2] {
        let (start, end) = Day::new_york_17().unwrap().bin(ns(t), timeframe);
        [start, end].map(|t| Timestamp::from_nanosecond(i128::from(t)).unwrap().to_string())
    }

    #[test]
    fn utc_bins_count_from_midnight_and_monday() {
        let monday = ns("2020-01-06T00:00:00Z");
        assert_eq!(Day::Utc.bin(monday + 3 * DAY_NS + 5, Timeframe::W1).0, monday);
        assert_eq!(Day::Utc.bin(monday + 9 * 60 * MINUTE_NS, Timeframe::H4).0, monday + 8 * 60 * MINUTE_NS);
        assert_eq!(Day::Utc.bin(ns("1969-12-31T23:59:59Z"), Timeframe::M5).0, ns("1969-12-31T23:55:00Z"));
    }

    /// Daylight saving began on Sunday 2017-03-12 and ended on Sunday 2017-11-05.
    #[test]
    fn the_new_york_day_follows_daylight_saving() {
        // Friday before, Monday after: 22:00 then 21:00 UTC.
        assert_eq!(bin("2017-03-10T12:00:00Z", Timeframe::D1), ["2017-03-09T22:00:00Z", "2017-03-10T22:00:00Z"]);
        assert_eq!(bin("2017-03-13T12:00:00Z", Timeframe::D1), ["2017-03-12T21:00:00Z", "2017-03-13T21:00:00Z"]);
        assert_eq!(bin("2017-03-10T21:59:59Z", Timeframe::D1)[0], "2017-03-09T22:00:00Z");
        assert_eq!(bin("2017-03-10T22:00:00Z", Timeframe::D1)[0], "2017-03-10T22:00:00Z");
        // The day of the change lasts 23 hours in spring and 25 in autumn.
        assert_eq!(bin("2017-03-12T12:00:00Z", Timeframe::D1), ["2017-03-11T22:00:00Z", "2017-03-12T21:00:00Z"]);
        assert_eq!(bin("2017-11-05T12:00:00Z", Timeframe::D1), ["2017-11-04T21:00:00Z", "2017-11-05T22:00:00Z"]);
        // So does the bin of 1 o'clock: 01:00 EST to 05:00 EDT, and 01:00 EDT to 05:00 EST.
        assert_eq!(bin("2017-03-12T08:30:00Z", Timeframe::H4), ["2017-03-12T06:00:00Z", "2017-03-12T09:00:00Z"]);
        assert_eq!(bin("2017-11-05T06:30:00Z", Timeframe::H4), ["2017-11-05T05:00:00Z", "2017-11-05T10:00:00Z"]);
        // Weeks run from Sunday to Sunday, 17:00.
        assert_eq!(bin("2017-03-15T00:00:00Z", Timeframe::W1), ["2017-03-12T21:00:00Z", "2017-03-19T21:00:00Z"]);
        assert_eq!(bin("2017-03-12T20:59:00Z", Timeframe::W1)[0], "2017-03-05T22:00:00Z");
        // Up to an hour nothing changes.
        assert_eq!(bin("2017-03-12T08:30:00Z", Timeframe::H1)[0], "2017-03-12T08:00:00Z");
    }

    /// Bins follow each other without hole or overlap for a year.
    #[test]
    fn bins_tile_the_year() {
        let day = Day::new_york_17().unwrap();
        for timeframe in [Timeframe::H4, Timeframe::D1, Timeframe::W1] {
            let mut t = ns("2019-12-30T00:00:00Z");
            for _ in 0..Timeframe::W1.minutes() / timeframe.minutes() * 53 {
                let (start, end) = day.bin(t, timeframe);
                assert!(start <= t && t < end && (end - start - timeframe.duration_ns()).abs() <= 60 * MINUTE_NS);
                assert_eq!(day.bin(end - 1, timeframe), (start, end));
                assert_eq!(day.bin(end, timeframe).0, end);
                t = end;
            }
        }
    }

    #[test]
    fn a_bar_across_a_boundary_is_found() {
        let day = Day::new_york_17().unwrap();
        // H4 bars of a UTC day: 20:00 to 24:00 holds 22:00, the New York close in winter.
        let time = [ns("2017-01-10T12:00:00Z"), ns("2017-01-10T16:00:00Z"), ns("2017-01-10T20:00:00Z")];
        assert_eq!(straddling(&time, 240, Timeframe::D1, &day), Some(2));
        assert_eq!(straddling(&time, 240, Timeframe::D1, &Day::Utc), None);
        assert_eq!(straddling(&time, 60, Timeframe::D1, &day), None);
    }
}
