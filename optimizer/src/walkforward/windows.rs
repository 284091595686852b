//! Where windows lie: tests end to end from the first tradable day to the last bar, trains before them.
//!
//! Every part is half-open in time and a range of bars. The first train starts at 00:00 UTC of the day of the first
//! tradable bar; embargo and test follow. Tests are then laid a step apart, and embargo and train are measured back from
//! each, so that tests never overlap or leave gaps by the accident of mixed units (a day without bars, a month of 28
//! days). With all lengths in days this is the forward rule of optimizer-and-ratings specification §5.1.

use std::ops::Range;

use engine::units::{DAY_NS, EpochNs};
use jiff::{Span as CalendarSpan, Timestamp, ToSpan as _, tz::TimeZone};

use crate::grid::{Holdout, Length, WalkForward, WindowMode};

/// Most windows of a run, all designs together: each is four columns of every chunk.
pub const MAX_WINDOWS: usize = 2000;

/// A part of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// First instant.
    pub start_ns: EpochNs,
    /// First instant after it.
    pub end_ns: EpochNs,
    /// Its tradable bars; may be empty.
    pub bars: Range<usize>,
}

impl Span {
    /// Length in days of 24 hours.
    pub fn days(&self) -> f64 {
        (self.end_ns - self.start_ns) as f64 / DAY_NS as f64
    }
}

/// A choice and what it is judged on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// What the choice sees.
    pub train: Span,
    /// What it is judged on.
    pub test: Span,
    /// Bars of the test that no earlier test of the design holds; all of them unless tests overlap.
    pub owned: Range<usize>,
}

/// Windows of one pair of lengths, in order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Design {
    /// Length of train (of the first one, if anchored).
    pub train: Length,
    /// Length of test.
    pub test: Length,
    /// Distance between tests.
    pub step: Length,
    /// Its windows; none if not even one fits.
    pub windows: Vec<Window>,
    /// Tradable bars after the last test.
    pub left_over: usize,
}

/// The bars windows are laid over.
#[derive(Debug, Clone, Copy)]
pub struct Timeline<'a> {
    /// Open times of all loaded bars, ascending.
    times: &'a [EpochNs],
    /// First tradable bar.
    first: usize,
    /// Length of a bar.
    bar_ns: i64,
}

/// Windows cannot be laid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Two tests share bars.
    #[error("tests of {test} every {step} overlap: window {window} ends at {end}, the next test starts at {next}")]
    Overlap {
        /// Length of test.
        test: Length,
        /// Distance.
        step: Length,
        /// Number of the earlier window, from 0.
        window: usize,
        /// Its end.
        end: String,
        /// Start of the next test.
        next: String,
    },
    /// No design has a window.
    #[error("no window fits: the tradable bars reach from {start} to {end}")]
    NoneFits {
        /// First day.
        start: String,
        /// Close of the last bar.
        end: String,
    },
    /// More than [`MAX_WINDOWS`].
    #[error("at least {found} windows; a run has at most {MAX_WINDOWS}")]
    TooMany {
        /// How many were laid when counting stopped.
        found: usize,
    },
}

/// `2024-01-31T00:00:00Z`.
pub fn instant_text(ns: EpochNs) -> String {
    Timestamp::from_nanosecond(ns.into()).map_or_else(|_| ns.to_string(), |instant| instant.to_string())
}

impl<'a> Timeline<'a> {
    /// The bars from `first` on; none without one.
    pub fn new(times: &'a [EpochNs], first: usize, bar_ns: i64) -> Option<Self> {
        (first < times.len()).then_some(Self { times, first, bar_ns })
    }

    /// 00:00 UTC of the day of the first tradable bar.
    pub fn origin(&self) -> EpochNs {
        let first = self.times[self.first];
        first - first.rem_euclid(DAY_NS)
    }

    /// Close of the last bar.
    pub fn end(&self) -> EpochNs {
        self.times[self.times.len() - 1] + self.bar_ns
    }

    fn bar_at(&self, instant: EpochNs) -> usize {
        self.times.partition_point(|t| *t < instant).max(self.first)
    }

    fn span(&self, start_ns: EpochNs, end_ns: EpochNs) -> Span {
        let start = self.bar_at(start_ns);
        Span { start_ns, end_ns, bars: start..self.bar_at(end_ns).max(start) }
    }

    /// `times` lengths after an instant; none beyond the last bar's close. Months are counted from the instant in one
    /// go: a day that a month lacks becomes its last day and the day returns in longer months.
    fn after(&self, from: EpochNs, length: Length, times: u64) -> Option<EpochNs> {
        let instant = match length {
            Length::Days(days) => {
                from.checked_add(i64::from(days).checked_mul(i64::try_from(times).ok()?)?.checked_mul(DAY_NS)?)?
            }
            Length::Months(months) => {
                shifted(from, i32::try_from(u64::from(months).checked_mul(times)?).ok()?.months())?
            }
            Length::Bars(bars) => {
                let bar = self.bar_at(from).checked_add(usize::try_from(bars.checked_mul(times)?).ok()?)?;
                if bar == self.times.len() { self.end() } else { *self.times.get(bar)? }
            }
        };
        (instant <= self.end()).then_some(instant)
    }

    /// One length before an instant, not before the origin.
    fn before(&self, from: EpochNs, length: Length) -> EpochNs {
        let instant = match length {
            Length::Days(days) => Some(from.saturating_sub(i64::from(days).saturating_mul(DAY_NS))),
            Length::Months(months) => i32::try_from(months).ok().and_then(|months| shifted(from, (-months).months())),
            Length::Bars(bars) => {
                let bar = usize::try_from(bars).ok().and_then(|bars| self.bar_at(from).checked_sub(bars));
                bar.filter(|bar| *bar > self.first).map(|bar| self.times[bar])
            }
        };
        instant.unwrap_or(EpochNs::MIN).max(self.origin())
    }

    /// Start of the holdout: whole days back from the end of the last bar's day, or bars back from the last one.
    pub fn holdout_start(&self, holdout: Holdout) -> EpochNs {
        match holdout {
            Holdout::From(day) => {
                let start = day
                    .to_zoned(TimeZone::UTC)
                    .ok()
                    .and_then(|day| i64::try_from(day.timestamp().as_nanosecond()).ok());
                start.unwrap_or(EpochNs::MAX)
            }
            Holdout::Last(length @ Length::Bars(_)) => self.before(self.end(), length),
            Holdout::Last(length) => {
                let last = self.times[self.times.len() - 1];
                self.before(last - last.rem_euclid(DAY_NS) + DAY_NS, length)
            }
        }
    }

    fn windows(
        &self,
        plan: &WalkForward,
        design: &mut Design,
        embargo: Length,
        most: usize,
    ) -> Result<(), WindowError> {
        let anchored = plan.mode == WindowMode::Anchored;
        let first_train_end = self.after(self.origin(), design.train, 1);
        let first_test = first_train_end.and_then(|end| self.after(end, embargo, 1));
        let (Some(first_train_end), Some(first_test)) = (first_train_end, first_test) else { return Ok(()) };
        for number in 0_u64.. {
            let Some(test_start) = self.after(first_test, design.step, number) else { break };
            let test_end = match design.step == design.test {
                true => self.after(first_test, design.step, number + 1),
                false => self.after(test_start, design.test, 1),
            };
            let Some(test_end) = test_end else { break };
            let train_end = if number == 0 { first_train_end } else { self.before(test_start, embargo) };
            let train_start =
                if number == 0 || anchored { self.origin() } else { self.before(train_end, design.train) };
            let (train, test) = (self.span(train_start, train_end), self.span(test_start, test_end));
            let free = design.windows.last().map_or(test.bars.start, |last| last.owned.end.max(test.bars.start));
            if let Some(last) =
                design.windows.last().filter(|last| last.test.end_ns > test_start && !plan.allow_overlap)
            {
                return Err(WindowError::Overlap {
                    test: design.test,
                    step: design.step,
                    window: design.windows.len() - 1,
                    end: instant_text(last.test.end_ns),
                    next: instant_text(test_start),
                });
            }
            let owned = free.min(test.bars.end)..test.bars.end;
            design.windows.push(Window { train, test, owned });
            if design.windows.len() > most {
                return Err(WindowError::TooMany { found: design.windows.len() });
            }
        }
        Ok(())
    }

    /// Lays the windows of every design of `plan`: train lengths as the grid lists them, each with every test length.
    ///
    /// # Errors
    /// Tests that overlap without permission, no window in any design, too many of them.
    pub fn designs(&self, plan: &WalkForward, embargo: Length) -> Result<Vec<Design>, WindowError> {
        let mut designs = Vec::new();
        let mut total = 0;
        for (train, test) in plan.train.iter().flat_map(|train| plan.test.iter().map(move |test| (*train, *test))) {
            let step = plan.step.unwrap_or(test);
            let mut design = Design { train, test, step, windows: Vec::new(), left_over: 0 };
            self.windows(plan, &mut design, embargo, MAX_WINDOWS - total)?;
            let end = design.windows.last().map_or(self.first, |last| last.test.bars.end);
            design.left_over = self.times.len() - end;
            total += design.windows.len();
            designs.push(design);
        }
        if total == 0 {
            return Err(WindowError::NoneFits { start: instant_text(self.origin()), end: instant_text(self.end()) });
        }
        Ok(designs)
    }
}

fn shifted(from: EpochNs, by: CalendarSpan) -> Option<EpochNs> {
    let instant = Timestamp::from_nanosecond(from.into()).ok()?.to_zoned(TimeZone::UTC);
    i64::try_from(instant.checked_add(by).ok()?.timestamp().as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::walkforward::verdict::Checks;

    const HOUR_NS: i64 = DAY_NS / 24;

    fn at(text: &str) -> EpochNs {
        i64::try_from(text.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap()
    }

    /// Hourly bars of weekdays, Monday 00:00 to Friday 21:00.
    fn weekdays(start: &str, days: i64) -> Vec<EpochNs> {
        let start = at(start);
        let hours = (0..days * 24).map(|hour| start + hour * HOUR_NS);
        // 1970-01-01 was a Thursday.
        let open = |t: &EpochNs| {
            let (day, hour) = ((t.div_euclid(DAY_NS) + 3) % 7, t.rem_euclid(DAY_NS) / HOUR_NS);
            day < 5 && (day < 4 || hour < 22)
        };
        hours.filter(open).collect()
    }

    fn plan(mode: WindowMode, train: &str, test: &str) -> WalkForward {
        let length = |text: &str| vec![Length::parse(text).unwrap()];
        WalkForward {
            mode,
            train: length(train),
            test: length(test),
            step: None,
            embargo: None,
            allow_overlap: false,
            holdout: None,
            verdict: Checks::none(),
        }
    }

    fn texts(windows: &[Window]) -> Vec<String> {
        let day = |ns| instant_text(ns).replace("T00:00:00Z", "");
        let show = |w: &Window| {
            format!(
                "{} {} | {} {}",
                day(w.train.start_ns),
                day(w.train.end_ns),
                day(w.test.start_ns),
                day(w.test.end_ns)
            )
        };
        windows.iter().map(show).collect()
    }

    #[test]
    fn rolling_windows_in_days_follow_the_rule_of_the_reference() {
        let times = weekdays("2024-01-01T00:00:00Z", 100);
        let timeline = Timeline::new(&times, 5, HOUR_NS).unwrap();
        let designs = timeline.designs(&plan(WindowMode::Rolling, "30d", "20d"), Length::Days(3)).unwrap();
        // floor((D − train − buffer − test)/roll) + 1 for the 100 days, the last of which is a Tuesday.
        assert_eq!(
            texts(&designs[0].windows),
            [
                "2024-01-01 2024-01-31 | 2024-02-03 2024-02-23",
                "2024-01-21 2024-02-20 | 2024-02-23 2024-03-14",
                "2024-02-10 2024-03-11 | 2024-03-14 2024-04-03",
            ]
        );
        let first = &designs[0].windows[0];
        // Warm-up bars are no part of a window, wherever it starts.
        assert_eq!(first.train.bars.start, 5);
        // Saturday to Sunday has no bar; the test starts with the next.
        assert_eq!(times[first.test.bars.start], at("2024-02-05T00:00:00Z"));
        assert_eq!(times[first.test.bars.end - 1], at("2024-02-22T23:00:00Z"));
        assert_eq!(designs[0].left_over, times.iter().filter(|t| **t >= at("2024-04-03T00:00:00Z")).count());
    }

    #[test]
    fn anchored_trains_start_together() {
        let times = weekdays("2024-01-01T00:00:00Z", 100);
        let timeline = Timeline::new(&times, 0, HOUR_NS).unwrap();
        let designs = timeline.designs(&plan(WindowMode::Anchored, "30d", "30d"), Length::Days(0)).unwrap();
        assert_eq!(
            texts(&designs[0].windows),
            ["2024-01-01 2024-01-31 | 2024-01-31 2024-03-01", "2024-01-01 2024-03-01 | 2024-03-01 2024-03-31"]
        );
    }

    #[test]
    fn months_keep_their_day() {
        let times = weekdays("2024-01-31T00:00:00Z", 200);
        let timeline = Timeline::new(&times, 0, HOUR_NS).unwrap();
        let designs = timeline.designs(&plan(WindowMode::Rolling, "1mo", "1mo"), Length::Days(0)).unwrap();
        assert_eq!(
            texts(&designs[0].windows)[..3],
            [
                "2024-01-31 2024-02-29 | 2024-02-29 2024-03-29",
                "2024-02-29 2024-03-29 | 2024-03-29 2024-04-29",
                "2024-03-29 2024-04-29 | 2024-04-29 2024-05-29",
            ]
        );
    }

    #[test]
    fn windows_in_bars_hold_that_many() {
        let times = weekdays("2024-01-01T00:00:00Z", 60);
        let timeline = Timeline::new(&times, 10, HOUR_NS).unwrap();
        let designs = timeline.designs(&plan(WindowMode::Rolling, "200bars", "50bars"), Length::Days(1)).unwrap();
        let windows = &designs[0].windows;
        assert_eq!(windows[0].train.bars, 10..210);
        for pair in windows.windows(2) {
            assert_eq!(pair[0].test.bars.end, pair[1].test.bars.start, "tests stand end to end");
        }
        for window in windows {
            assert_eq!((window.train.bars.len(), window.test.bars.len()), (200, 50));
            assert!(window.test.start_ns - window.train.end_ns >= DAY_NS);
        }
        let until_the_end = plan(WindowMode::Rolling, "100bars", &format!("{}bars", times.len() - 110));
        let designs = timeline.designs(&until_the_end, Length::Bars(0)).unwrap();
        assert_eq!(designs[0].windows[0].test.bars, 110..times.len());
        assert_eq!(designs[0].left_over, 0);
    }

    #[test]
    fn overlaps_are_refused_or_owned_by_the_first() {
        let times = weekdays("2024-01-01T00:00:00Z", 100);
        let timeline = Timeline::new(&times, 0, HOUR_NS).unwrap();
        let mut plan = plan(WindowMode::Rolling, "20d", "20d");
        plan.step = Some(Length::Days(10));
        let error = timeline.designs(&plan, Length::Days(1)).unwrap_err();
        assert!(error.to_string().contains("window 0 ends at 2024-02-11T00:00:00Z"), "{error}");
        plan.allow_overlap = true;
        let windows = timeline.designs(&plan, Length::Days(1)).unwrap().remove(0).windows;
        assert_eq!(windows[0].owned, windows[0].test.bars);
        for pair in windows.windows(2) {
            assert_eq!(pair[1].owned, pair[0].test.bars.end..pair[1].test.bars.end);
        }
    }

    #[test]
    fn a_design_without_a_window_is_kept_and_none_at_all_is_refused() {
        let times = weekdays("2024-01-01T00:00:00Z", 50);
        let timeline = Timeline::new(&times, 0, HOUR_NS).unwrap();
        let mut plan = plan(WindowMode::Matrix, "20d", "10d");
        plan.train.push(Length::Days(90));
        let designs = timeline.designs(&plan, Length::Days(1)).unwrap();
        assert_eq!(designs.iter().map(|design| design.windows.len()).collect::<Vec<_>>(), [2, 0]);
        plan.train.remove(0);
        let error = timeline.designs(&plan, Length::Days(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no window fits: the tradable bars reach from 2024-01-01T00:00:00Z to 2024-02-20T00:00:00Z"
        );
    }

    #[test]
    fn a_holdout_is_whole_days_or_bars_at_the_end() {
        let times = weekdays("2024-01-01T00:00:00Z", 54);
        let timeline = Timeline::new(&times, 0, HOUR_NS).unwrap();
        assert_eq!(timeline.end(), at("2024-02-23T22:00:00Z"));
        let start = |holdout| instant_text(timeline.holdout_start(holdout));
        assert_eq!(start(Holdout::Last(Length::Days(5))), "2024-02-19T00:00:00Z");
        assert_eq!(start(Holdout::Last(Length::Months(1))), "2024-01-24T00:00:00Z");
        assert_eq!(start(Holdout::Last(Length::Bars(2))), "2024-02-23T20:00:00Z");
        assert_eq!(start(Holdout::From("2024-02-01".parse().unwrap())), "2024-02-01T00:00:00Z");
    }

    fn lengths(most: u32) -> impl Strategy<Value = Length> {
        prop_oneof![
            (1..most).prop_map(Length::Days),
            (1..=most.div_ceil(40)).prop_map(Length::Months),
            (1..u64::from(most) * 17).prop_map(Length::Bars),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        /// Whatever the units: nothing before the first tradable bar or after the last, train before test by the
        /// embargo, tests in order and, without a step of their own, end to end.
        #[test]
        fn prop_windows_never_look_ahead(
            train in lengths(120), test in lengths(60), embargo in lengths(9), first in 0_usize..200, anchored: bool,
        ) {
            let times = weekdays("2023-08-31T00:00:00Z", 400);
            let timeline = Timeline::new(&times, first, HOUR_NS).unwrap();
            let mode = if anchored { WindowMode::Anchored } else { WindowMode::Rolling };
            let plan = WalkForward { train: vec![train], test: vec![test], ..plan(mode, "1d", "1d") };
            let Ok(designs) = timeline.designs(&plan, embargo) else { return Ok(()) };
            let windows = &designs[0].windows;
            for window in windows {
                prop_assert!(window.train.start_ns < window.train.end_ns && window.test.start_ns < window.test.end_ns);
                prop_assert!(window.train.end_ns <= window.test.start_ns);
                prop_assert!(window.test.end_ns <= timeline.end());
                prop_assert!(window.train.bars.start >= first && window.train.bars.end <= window.test.bars.start);
                if let Length::Days(days) = embargo {
                    // A test counted in bars starts on a bar, the first after the embargo.
                    let gap = window.test.start_ns - window.train.end_ns;
                    let exact = !matches!(test, Length::Bars(_)) && !matches!(train, Length::Bars(_));
                    prop_assert!(gap >= i64::from(days) * DAY_NS);
                    prop_assert!(!exact || gap == i64::from(days) * DAY_NS);
                }
                for bar in window.test.bars.clone() {
                    prop_assert!((window.test.start_ns..window.test.end_ns).contains(&times[bar]));
                }
            }
            for pair in windows.windows(2) {
                prop_assert_eq!(pair[0].test.end_ns, pair[1].test.start_ns);
                prop_assert_eq!(&pair[1].owned, &pair[1].test.bars);
            }
            let end = windows.last().map_or(first, |last| last.test.bars.end);
            prop_assert_eq!(designs[0].left_over, times.len() - end);
        }
    }
}
