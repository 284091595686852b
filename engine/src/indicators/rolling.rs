//! Statistics over the last `w` values: mean, sample deviation, sum, maximum and minimum.
//!
//! The mean and the deviation are updated value by value with compensated one-pass steps: the digits are those of the
//! reference, and a long history does not erode them as prefix sums of squares would.

use std::collections::VecDeque;

/// Compensated running sum with separate corrections for entering and leaving values.
#[derive(Default)]
struct RunningSum {
    sum: f64,
    add_correction: f64,
    remove_correction: f64,
}

impl RunningSum {
    fn add(&mut self, value: f64) {
        let y = value - self.add_correction;
        let sum = self.sum + y;
        self.add_correction = sum - self.sum - y;
        self.sum = sum;
    }

    fn remove(&mut self, value: f64) {
        let y = -value - self.remove_correction;
        let sum = self.sum + y;
        self.remove_correction = sum - self.sum - y;
        self.sum = sum;
    }
}

/// Welford moments with a compensated mean; values enter and leave.
#[derive(Default)]
struct RunningMoments {
    count: u32,
    mean: f64,
    squares: f64,
    add_correction: f64,
    remove_correction: f64,
}

impl RunningMoments {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let corrected = self.mean - self.add_correction;
        let y = value - self.add_correction;
        let delta = y - self.mean;
        self.add_correction = delta + self.mean - y;
        self.mean += delta / f64::from(self.count);
        self.squares += (value - corrected) * (value - self.mean);
    }

    fn remove(&mut self, value: f64) {
        self.count -= 1;
        if self.count == 0 {
            self.mean = 0.0;
            self.squares = 0.0;
            return;
        }
        let corrected = self.mean - self.remove_correction;
        let y = value - self.remove_correction;
        let delta = y - self.mean;
        self.remove_correction = delta + self.mean - y;
        self.mean -= delta / f64::from(self.count);
        self.squares -= (value - corrected) * (value - self.mean);
    }
}

/// Length of the trailing run of equal values among the defined ones: the equal-window rule without a second pass.
struct EqualRun {
    last: f64,
    length: u32,
}

impl EqualRun {
    fn new() -> Self {
        Self { last: f64::NAN, length: 0 }
    }

    fn push(&mut self, value: f64) {
        self.length = if value == self.last { self.length.saturating_add(1) } else { 1 };
        self.last = value;
    }
}

/// Rolling mean: `m_t = (Σ x) / w` over the last `w = window` values, all of which must be defined.
///
/// `x`: `[n]`, any unit; result `[n]` in the same unit, NaN while `t < w - 1`, where a member is NaN, and everywhere
/// for `w = 0`. A window of identical values has exactly that value as its mean. Compensated running sum.
pub fn rolling_mean(x: &[f64], window: u32) -> Vec<f64> {
    rolling_sums(x, window, |sum, run| if run.length >= window { run.last } else { sum / f64::from(window) })
}

/// Rolling sum over the last `w = window` values, all of which must be defined; see [`rolling_mean`].
pub(crate) fn rolling_sum(x: &[f64], window: u32) -> Vec<f64> {
    rolling_sums(x, window, |sum, run| if run.length >= window { run.last * f64::from(window) } else { sum })
}

fn rolling_sums(x: &[f64], window: u32, value: impl Fn(f64, &EqualRun) -> f64) -> Vec<f64> {
    let w = window as usize;
    let mut out = vec![f64::NAN; x.len()];
    if w == 0 {
        return out;
    }
    let mut sum = RunningSum::default();
    let mut run = EqualRun::new();
    let mut defined = 0;
    for t in 0..x.len() {
        if t >= w && !x[t - w].is_nan() {
            sum.remove(x[t - w]);
            defined -= 1;
        }
        if !x[t].is_nan() {
            sum.add(x[t]);
            run.push(x[t]);
            defined += 1;
        }
        if defined == w {
            out[t] = value(sum.sum, &run);
        }
    }
    out
}

/// Rolling sample deviation: `s_t = sqrt(Σ (x − m_t)² / (w − 1))` over the last `w = window` values, all of which must
/// be defined.
///
/// `x`: `[n]`, any unit; result `[n]` in the same unit, NaN while `t < w - 1`, where a member is NaN, and everywhere
/// for `w < 2`. A window of identical values has deviation exactly 0. Welford moments with a compensated mean, one step
/// per leaving and entering value; a variance below 0 by rounding counts as 0.
pub fn rolling_sd(x: &[f64], window: u32) -> Vec<f64> {
    let w = window as usize;
    let mut out = vec![f64::NAN; x.len()];
    if w < 2 {
        return out;
    }
    let mut moments = RunningMoments::default();
    let mut run = EqualRun::new();
    let degrees = f64::from(window - 1);
    for t in 0..x.len() {
        if t >= w && !x[t - w].is_nan() {
            moments.remove(x[t - w]);
        }
        if !x[t].is_nan() {
            moments.add(x[t]);
            run.push(x[t]);
        }
        if moments.count == window {
            out[t] = if run.length >= window { 0.0 } else { (moments.squares / degrees).max(0.0).sqrt() };
        }
    }
    out
}

/// Largest of the last `length` values, all of which must be defined.
///
/// `x`: `[n]`; result `[n]`, NaN while `t < length - 1`, where a member is NaN, and everywhere for `length = 0`.
pub fn rolling_max(x: &[f64], length: u32) -> Vec<f64> {
    rolling_extreme(x, length, |new, old| new >= old)
}

/// Smallest of the last `length` values, all of which must be defined; see [`rolling_max`].
pub fn rolling_min(x: &[f64], length: u32) -> Vec<f64> {
    rolling_extreme(x, length, |new, old| new <= old)
}

/// Monotonic queue: holds the positions that can still become the extreme, the best one in front.
fn rolling_extreme(x: &[f64], length: u32, replaces: impl Fn(f64, f64) -> bool) -> Vec<f64> {
    let w = length as usize;
    let mut out = vec![f64::NAN; x.len()];
    if w == 0 {
        return out;
    }
    let mut candidates: VecDeque<usize> = VecDeque::new();
    let mut run_of_defined = 0;
    for t in 0..x.len() {
        if x[t].is_nan() {
            run_of_defined = 0;
            candidates.clear();
            continue;
        }
        run_of_defined += 1;
        while candidates.back().is_some_and(|&last| replaces(x[t], x[last])) {
            candidates.pop_back();
        }
        candidates.push_back(t);
        while candidates.front().is_some_and(|&first| first + w <= t) {
            candidates.pop_front();
        }
        if run_of_defined >= w
            && let Some(&first) = candidates.front()
        {
            out[t] = x[first];
        }
    }
    out
}

/// `x` delayed by one bar: value `t` is `x_{t−1}`, the first NaN. Turns a channel that includes its bar into one of
/// the bars before it.
pub(crate) fn delayed(mut x: Vec<f64>) -> Vec<f64> {
    if !x.is_empty() {
        x.rotate_right(1);
        x[0] = f64::NAN;
    }
    x
}
