//! Missing bars: statistics only, nothing is inserted or removed (`data-contract.md` §8).

use serde::Serialize;

use crate::data::Session;
use crate::units::{DAY_NS, EpochNs, Timeframe};

/// Gap statistics of one series; field names are those of the governance block.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Gaps {
    /// Active bars present plus active bars missing.
    pub expected_bars: usize,
    /// Active bars missing.
    pub missing_bars: usize,
    /// `missing / expected`, a fraction; 0 if nothing is expected.
    pub gap_loss: f64,
}

/// Counts the stamps `t_k + m·Δ` that lie more than half a bar before `t_{k+1}`, as far as they are active.
///
/// Active: the open time of day lies in a session, half-open; without sessions Monday to Friday UTC. Counting starts
/// anew at every bar, so a daily bar shifted by daylight saving is not missing.
pub fn gaps(open_time: &[EpochNs], timeframe: Timeframe, sessions: &[Session]) -> Gaps {
    let step = timeframe.duration_ns();
    let present = open_time.iter().filter(|&&t| is_active(t, sessions)).count();
    let mut missing = 0;
    for pair in open_time.windows(2) {
        let end = pair[1] - step / 2;
        let mut at = pair[0] + step;
        while at < end {
            missing += usize::from(is_active(at, sessions));
            at += step;
        }
    }
    let expected = present + missing;
    let gap_loss = if expected == 0 { 0.0 } else { missing as f64 / expected as f64 };
    Gaps { expected_bars: expected, missing_bars: missing, gap_loss }
}

fn is_active(t: EpochNs, sessions: &[Session]) -> bool {
    if sessions.is_empty() {
        // Day 0 of the epoch was a Thursday: 0 = Sunday.
        let weekday = (t.div_euclid(DAY_NS) + 4).rem_euclid(7);
        return (1..=5).contains(&weekday);
    }
    let time_of_day = t.rem_euclid(DAY_NS);
    sessions.iter().any(|session| session.contains_half_open(time_of_day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MINUTE_NS;

    /// Monday, 2024-01-08 00:00 UTC.
    const MONDAY: i64 = 1_704_672_000_000_000_000;

    #[test]
    fn six_hundred_complete_minutes_miss_nothing() {
        let t: Vec<i64> = (0..600).map(|i| MONDAY + i * MINUTE_NS).collect();
        assert_eq!(gaps(&t, Timeframe::M1, &[]), Gaps { expected_bars: 600, missing_bars: 0, gap_loss: 0.0 });
    }

    #[test]
    fn weekends_are_not_missing_but_friday_evening_is() {
        let friday_21 = MONDAY + 4 * DAY_NS + 21 * 60 * MINUTE_NS;
        let sunday_22 = MONDAY + 6 * DAY_NS + 22 * 60 * MINUTE_NS;
        let found = gaps(&[friday_21 - 60 * MINUTE_NS, friday_21, sunday_22], Timeframe::H1, &[]);
        // Present and active: Friday 20:00 and 21:00; missing: Friday 22:00 and 23:00.
        assert_eq!((found.expected_bars, found.missing_bars), (4, 2));
        assert_eq!(found.gap_loss, 0.5);
    }

    #[test]
    fn sessions_replace_the_weekday_rule_and_their_end_is_outside() {
        let session = [Session::parse("", "08:00", "09:00").unwrap()];
        let t = [MONDAY + 7 * 60 * MINUTE_NS, MONDAY + 10 * 60 * MINUTE_NS];
        let found = gaps(&t, Timeframe::M30, &session);
        assert_eq!((found.expected_bars, found.missing_bars), (2, 2));
    }

    #[test]
    fn a_daily_bar_shifted_by_an_hour_is_not_missing() {
        let t = [MONDAY, MONDAY + DAY_NS + 60 * MINUTE_NS, MONDAY + 2 * DAY_NS];
        assert_eq!(gaps(&t, Timeframe::D1, &[]).missing_bars, 0);
        assert_eq!(gaps(&[], Timeframe::D1, &[]).gap_loss, 0.0);
    }
}
