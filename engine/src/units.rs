//! The small vocabulary every module shares: time, direction, price side, timeframe.

use std::fmt;
use std::str::FromStr;

use pulp::{Scalar, Simd, bytemuck};
use serde::{Deserialize, Serialize};

use crate::simd::{lane_bits, nearest};

/// Nanoseconds since 1970-01-01T00:00:00Z.
pub type EpochNs = i64;

/// Nanoseconds of one minute.
pub const MINUTE_NS: i64 = 60_000_000_000;
/// Nanoseconds of one UTC day.
pub const DAY_NS: i64 = 1440 * MINUTE_NS;

/// Side of a trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Buys first; gains when the price rises.
    Long,
    /// Sells first; gains when the price falls.
    Short,
}

impl Direction {
    /// `+1.0` for long, `-1.0` for short: the `d` of every formula.
    pub fn sign(self) -> f64 {
        match self {
            Self::Long => 1.0,
            Self::Short => -1.0,
        }
    }

    /// `long` or `short`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Long => "long",
            Self::Short => "short",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Quote side of a candle series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriceSide {
    /// Prices at which the market buys: long exits and short entries.
    Bid,
    /// Prices at which the market sells: long entries and short exits.
    Ask,
}

impl PriceSide {
    /// `bid` or `ask`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bid => "bid",
            Self::Ask => "ask",
        }
    }
}

impl fmt::Display for PriceSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Nominal bar length. Ordered from short to long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timeframe {
    /// One minute.
    M1,
    /// Five minutes.
    M5,
    /// Fifteen minutes.
    M15,
    /// Thirty minutes.
    M30,
    /// One hour.
    H1,
    /// Four hours.
    H4,
    /// One day.
    D1,
    /// One week; only as an additional timeframe of variant `v2`.
    W1,
}

impl Timeframe {
    /// All timeframes, short to long.
    pub const ALL: [Self; 8] = [Self::M1, Self::M5, Self::M15, Self::M30, Self::H1, Self::H4, Self::D1, Self::W1];

    /// Nominal length in minutes.
    pub fn minutes(self) -> i64 {
        match self {
            Self::M1 => 1,
            Self::M5 => 5,
            Self::M15 => 15,
            Self::M30 => 30,
            Self::H1 => 60,
            Self::H4 => 240,
            Self::D1 => 1440,
            Self::W1 => 10080,
        }
    }

    /// Nominal length in nanoseconds: the `Δ` of the specifications.
    pub fn duration_ns(self) -> i64 {
        self.minutes() * MINUTE_NS
    }

    /// Upper-case name as in file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::M1 => "M1",
            Self::M5 => "M5",
            Self::M15 => "M15",
            Self::M30 => "M30",
            Self::H1 => "H1",
            Self::H4 => "H4",
            Self::D1 => "D1",
            Self::W1 => "W1",
        }
    }
}

impl fmt::Display for Timeframe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no known timeframe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown timeframe `{0}`: one of M1 M5 M15 M30 H1 H4 D1 W1")]
pub struct UnknownTimeframe(pub String);

impl FromStr for Timeframe {
    type Err = UnknownTimeframe;

    /// Accepts any letter case and surrounding blanks.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.trim().to_ascii_uppercase();
        Self::ALL.into_iter().find(|tf| tf.as_str() == upper).ok_or_else(|| UnknownTimeframe(text.to_owned()))
    }
}

impl Serialize for Timeframe {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Timeframe {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An `f64` compared, ordered and hashed by its bit pattern: the form in which numbers take part in keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(u64);

impl Bits {
    /// Key form of `value`.
    pub fn new(value: f64) -> Self {
        Self(value.to_bits())
    }

    /// The number itself.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Bits {
    fn from(value: f64) -> Self {
        Self::new(value)
    }
}

/// `value` correctly rounded to `decimals` decimal digits: the exact binary value, exact ties to even, as Python's
/// `round` does. Values that are not finite come back unchanged. Allocates nothing.
#[inline(always)]
pub fn round_decimal(value: f64, decimals: u8) -> f64 {
    round_decimals(Scalar::new(), value, decimals)
}

/// [`round_decimal`] in every lane.
#[inline(always)]
pub(crate) fn round_decimals<S: Simd>(simd: S, values: S::f64s, decimals: u8) -> S::f64s {
    let (mut rounded, sure) = round_exactly_scaled(simd, values, decimals);
    let sure = lane_bits::<S>(sure);
    if sure != (1 << S::F64_LANES) - 1 {
        let values: &[f64] = bytemuck::cast_slice(std::slice::from_ref(&values));
        let rounded: &mut [f64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut rounded));
        for (lane, (rounded, value)) in rounded.iter_mut().zip(values).enumerate() {
            if sure >> lane & 1 == 0 {
                *rounded = round_near_tie(*value, decimals).unwrap_or_else(|| round_as_text(*value, decimals));
            }
        }
    }
    rounded
}

/// Powers of ten that are exact, up to more decimals than anything is rounded to.
const TENS: [f64; 11] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];
/// Below it a product has two binary digits behind the point at least.
const SAFE: f64 = (1_u64 << 50) as f64;

/// Rounded values, and where they are certain: where no tie is near. The product is off by at most half a unit in its last
/// place, that is by less than half of `scaled × ε`; farther than that from a tie its nearest integer is certain, and the
/// quotient of two exact numbers is the correctly rounded decimal.
#[inline(always)]
fn round_exactly_scaled<S: Simd>(simd: S, values: S::f64s, decimals: u8) -> (S::f64s, S::m64s) {
    // A power that is not in the table is undefined, and so is what comes of it: never certain.
    let ten = simd.splat_f64s(TENS.get(usize::from(decimals)).copied().unwrap_or(f64::NAN));
    let scaled = simd.mul_f64s(values, ten);
    let size = simd.abs_f64s(scaled);
    let whole = nearest(simd, scaled);
    let margin = simd.sub_f64s(simd.splat_f64s(0.5), simd.mul_f64s(size, simd.splat_f64s(f64::EPSILON)));
    let near = simd.less_than_f64s(simd.abs_f64s(simd.sub_f64s(scaled, whole)), margin);
    (simd.div_f64s(whole, ten), simd.and_m64s(near, simd.less_than_f64s(size, simd.splat_f64s(SAFE))))
}

/// [`round_decimal`] next to a tie, common with fees: what the product lost is known exactly, and tells on which side of
/// the tie the value lies.
#[cold]
#[inline(never)]
#[allow(clippy::disallowed_methods, reason = "rounding once gives exactly what the product lost, on every machine")]
fn round_near_tie(value: f64, decimals: u8) -> Option<f64> {
    let ten = *TENS.get(usize::from(decimals))?;
    let (size, scaled) = (value.abs(), value.abs() * ten);
    if !(f64::MIN_POSITIVE / f64::EPSILON..SAFE).contains(&scaled) {
        return None;
    }
    let lost = size.mul_add(ten, -scaled);
    let (below, half) = (scaled.floor(), scaled - scaled.floor() - 0.5);
    // Both are whole multiples of a unit in the last place of the product, but for what it lost, which is less.
    let up = if half != 0.0 { half > 0.0 } else { lost > 0.0 || lost == 0.0 && below % 2.0 == 1.0 };
    Some(((if up { below + 1.0 } else { below }) / ten).copysign(value))
}

#[cold]
#[inline(never)]
fn round_as_text(value: f64, decimals: u8) -> f64 {
    use std::io::Write as _;
    // The longest finite f64 has 309 integer digits.
    let mut text = [0_u8; 352];
    let decimals = usize::from(decimals.min(30));
    let mut rest = &mut text[..];
    if !value.is_finite() || write!(rest, "{value:.decimals$}").is_err() {
        return value;
    }
    let unused = rest.len();
    let used = text.len() - unused;
    std::str::from_utf8(&text[..used]).ok().and_then(|text| text.parse().ok()).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// execution §14.2: the fees that tie or nearly tie.
    #[test]
    fn decimals_round_the_exact_binary_value_half_to_even() {
        assert_eq!(round_decimal(2.5 * 1.43, 2), 3.57);
        assert_eq!(round_decimal(3.625, 2), 3.62);
        assert_eq!(round_decimal(0.125, 2), 0.12);
        assert_eq!(round_decimal(2.5 * 0.03, 2), 0.07);
        assert_eq!(round_decimal(f64::MAX, 2), f64::MAX);
        assert!(round_decimal(f64::NAN, 2).is_nan());
    }

    #[test]
    fn both_ways_of_rounding_agree_to_the_bit() {
        let mut state = 1_u64;
        for k in 0..200_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5;
            let value = unit * [1e-9, 1e-3, 1.0, 300.0, 1e5, 1e9][k as usize % 6];
            for decimals in [0, 2, 5, 8, 10] {
                let (fast, slow) = (round_decimal(value, decimals), round_as_text(value, decimals));
                assert_eq!(fast.to_bits(), slow.to_bits(), "{value:e} to {decimals}");
            }
        }
        assert_eq!(round_decimal(-0.0, 2).to_bits(), (-0.0_f64).to_bits());
    }

    #[test]
    fn both_ways_of_rounding_agree_next_to_ties() {
        for decimals in [2_u8, 5] {
            let ten = if decimals == 2 { 100.0 } else { 100_000.0 };
            for tie in (0..4000).map(|n| (f64::from(n) * 37.0 + 0.5) / ten) {
                for steps in -3_i64..=3 {
                    let value = f64::from_bits(tie.to_bits().wrapping_add_signed(steps));
                    let (fast, slow) = (round_decimal(value, decimals), round_as_text(value, decimals));
                    assert_eq!(fast.to_bits(), slow.to_bits(), "{value:e} to {decimals}");
                }
            }
        }
    }

    #[test]
    fn timeframes_parse_in_any_case_and_print_upper_case() {
        assert_eq!("m15".parse::<Timeframe>().unwrap(), Timeframe::M15);
        assert_eq!(Timeframe::D1.to_string(), "D1");
        assert!("H2".parse::<Timeframe>().is_err());
    }
}
