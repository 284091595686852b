//! Made-up bid and ask bars, so that everything can be tried without market data. The same seed gives the same bits
//! on every platform.
//!
//! One path of eight steps per bar, starting Monday 2020-01-06 00:00 UTC, on bars that open between Sunday 22:00 and
//! Friday 22:00 UTC (for every symbol, also those that trade at weekends in life):
//!
//! * the logarithm of volatility is a fast (two hours) plus a slow (five days) mean-reverting process, times a profile
//!   of the day (Asia quiet, London and New York busy, an hour of near silence at 21:00 UTC): clusters;
//! * the price is a random walk that for a while (two days on average) is pulled to its own moving average, then for
//!   a while not, then for a while pushed away from it: pockets in which mean reversion pays before costs, and others
//!   in which it loses;
//! * the spread follows a profile of the day (several times as wide around 21:00 and on Sunday evening), volatility
//!   and noise, and is never below one price step;
//! * prices are whole steps of a tenth of a pip, so decimals are those of a broker.
//!
//! Timeframes above the primary one are aggregated from it in bins since 00:00 UTC (W1: since Monday), as the bars of
//! a real feed would be: first, highest, lowest, last, volumes summed; a bin without a bar gives none.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::data::SyntheticSource;
use crate::data::aggregate::{self, Day};
use crate::data::manifest::sha256_hex;
use crate::data::read::Candles;
use crate::data::write::{parquet_bytes, write_flushed};
use crate::error::{Error, Result};
use crate::units::{DAY_NS, EpochNs, MINUTE_NS, Timeframe};

/// Part of the folder name: a changed process makes other files.
const VERSION: &str = "omega-synthetic-1";
/// First open time: Monday 2020-01-06 00:00 UTC.
const START_NS: EpochNs = 1_578_268_800_000_000_000;
/// Steps of the path per bar.
const STEPS: usize = 8;
/// Bars a request may ask for: fifty years of minutes would be 19 million.
const MAX_BARS: usize = 20_000_000;
const SUMS: &str = "SHA256SUMS";

/// Bid and ask bars of one timeframe.
#[derive(Debug, Clone, PartialEq)]
struct Sides {
    bid: Candles,
    ask: Candles,
}

/// Open times of the first and of the last bar that `bars` primary bars reach; both equal the start for 0 bars.
pub fn period(primary: Timeframe, bars: usize) -> (EpochNs, EpochNs) {
    (START_NS, open_times(primary).take(bars).last().unwrap_or(START_NS))
}

/// Writes the bars of `symbol` and every longer timeframe as `{root}/{SYMBOL}/{SYMBOL}_{TF}_{SIDE}.parquet`.
pub fn write(root: &Path, symbol: &str, primary: Timeframe, source: SyntheticSource) -> Result<()> {
    refuse_impossible(symbol, primary, source)?;
    write_files(root, symbol, primary, source).map_err(|error| unwritable(root, &error))
}

/// The root folder below `cache_dir` with the bars of `symbol`, generated now if they are not there or damaged.
///
/// The folder appears whole, by renaming; two processes may both generate, the bytes are the same.
pub(crate) fn ensure(cache_dir: &Path, symbol: &str, primary: Timeframe, source: SyntheticSource) -> Result<PathBuf> {
    refuse_impossible(symbol, primary, source)?;
    let content = format!("{VERSION}\n{symbol}\n{primary}\n{}\n{}\n", source.seed, source.bars);
    let key = sha256_hex(content.as_bytes())[..16].to_owned();
    let parent = cache_dir.join("synthetic");
    let root = parent.join(format!("{symbol}_{primary}_{key}"));
    if is_whole(&root) {
        return Ok(root);
    }
    let generate = || -> io::Result<()> {
        std::fs::create_dir_all(&parent)?;
        let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&parent)?;
        write_files(fresh.path(), symbol, primary, source)?;
        if root.exists() && !is_whole(&root) {
            // Damaged: moved aside first, because a folder cannot be renamed over a full one.
            let old = tempfile::Builder::new().prefix(".old-").tempdir_in(&parent)?;
            std::fs::rename(&root, old.path().join("damaged"))?;
        }
        match std::fs::rename(fresh.path(), &root) {
            // The handle must not delete what now stands elsewhere; the old name is gone.
            Ok(()) => drop(fresh.keep()),
            Err(_) if is_whole(&root) => {}
            Err(error) => return Err(error),
        }
        let _ = File::open(&parent).and_then(|folder| folder.sync_all());
        Ok(())
    };
    generate().map_err(|error| unwritable(&root, &error))?;
    Ok(root)
}

fn refuse_impossible(symbol: &str, primary: Timeframe, source: SyntheticSource) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    if symbol.is_empty() || symbol.starts_with('.') || !symbol.chars().all(plain) {
        return Err(Error::config("symbol", format!("must be letters, digits, `.` or `_`, got `{symbol}`")));
    }
    if primary == Timeframe::W1 {
        return Err(Error::config("timeframes.primary", "must be one of M1 M5 M15 M30 H1 H4 D1, got W1"));
    }
    if source.bars == 0 || source.bars > MAX_BARS {
        return Err(Error::config("data.bars", format!("must lie between 1 and {MAX_BARS}, got {}", source.bars)));
    }
    Ok(())
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    Error::DataFile {
        kind: if full { "StorageFull" } else { "Unwritable" },
        path: PathBuf::from(path.file_name().unwrap_or_default()),
        reason: format!("generated bars cannot be written: {error}"),
    }
}

/// True if every file listed in the folder's `SHA256SUMS` is there with that content.
fn is_whole(root: &Path) -> bool {
    let Ok(sums) = std::fs::read_to_string(root.join(SUMS)) else { return false };
    let matches = |line: &str| {
        let (sum, file) = line.split_once("  ")?;
        Some(std::fs::read(root.join(file)).is_ok_and(|bytes| sha256_hex(&bytes) == sum))
    };
    !sums.is_empty() && sums.lines().all(|line| matches(line).unwrap_or(false))
}

fn write_files(root: &Path, symbol: &str, primary: Timeframe, source: SyntheticSource) -> io::Result<()> {
    let folder = root.join(symbol);
    std::fs::create_dir_all(&folder)?;
    let base = generate(&Market::of(symbol), primary, source);
    let mut sums = String::new();
    for timeframe in Timeframe::ALL.into_iter().filter(|&timeframe| timeframe >= primary) {
        let sides = if timeframe == primary { base.clone() } else { aggregate(&base, timeframe) };
        for (name, candles) in [("ASK", &sides.ask), ("BID", &sides.bid)] {
            let file = format!("{symbol}_{timeframe}_{name}.parquet");
            let bytes = parquet_bytes(candles).map_err(io::Error::other)?;
            write_flushed(&folder.join(&file), &bytes)?;
            sums.push_str(&format!("{}  {symbol}/{file}\n", sha256_hex(&bytes)));
        }
    }
    write_flushed(&root.join(SUMS), sums.as_bytes())
}

/// Open times of the bars, without end.
fn open_times(timeframe: Timeframe) -> impl Iterator<Item = EpochNs> {
    let step = timeframe.duration_ns();
    (0..).map(move |i| START_NS + i * step).filter(|&t| is_open(t))
}

/// Sunday 22:00 to Friday 22:00 UTC.
fn is_open(t: EpochNs) -> bool {
    // Day 0 of the epoch was a Thursday: 0 = Sunday.
    let weekday = (t.div_euclid(DAY_NS) + 4).rem_euclid(7);
    let evening = t.rem_euclid(DAY_NS) >= 22 * 60 * MINUTE_NS;
    match weekday {
        0 => evening,
        5 => !evening,
        6 => false,
        _ => true,
    }
}

/// What distinguishes the symbols. Unknown ones look like a currency pair near 1 (near 110 with JPY).
#[derive(Debug, Clone, Copy)]
struct Market {
    start_price: f64,
    /// Standard deviation of a year's log return.
    yearly_volatility: f64,
    pip: f64,
    /// Spread of a busy hour, pips.
    spread_pips: f64,
}

impl Market {
    fn of(symbol: &str) -> Self {
        let market = |start_price, yearly_volatility, pip, spread_pips| Self {
            start_price,
            yearly_volatility,
            pip,
            spread_pips,
        };
        match symbol {
            "EURUSD" => market(1.1160, 0.075, 0.0001, 0.5),
            "GBPUSD" => market(1.3080, 0.095, 0.0001, 0.9),
            "EURGBP" => market(0.8530, 0.075, 0.0001, 0.8),
            "USDJPY" => market(108.10, 0.085, 0.01, 0.7),
            "XAUUSD" => market(1570.0, 0.16, 0.01, 25.0),
            "XAGUSD" => market(18.10, 0.30, 0.01, 2.5),
            "BTCUSD" => market(7500.0, 0.65, 0.01, 400.0),
            "US500" => market(3235.0, 0.19, 1.0, 0.5),
            "DE40" => market(13_200.0, 0.20, 1.0, 1.5),
            _ if symbol.contains("JPY") => market(110.0, 0.09, 0.01, 1.2),
            _ => market(1.0, 0.09, 0.0001, 1.2),
        }
    }

    /// Price steps per unit: tenths of a pip, a whole number because every pip is a power of ten.
    fn steps_per_unit(self) -> f64 {
        libm::round(10.0 / self.pip)
    }
}

/// Volatility by hour of the UTC day, relative.
const ACTIVITY: [f64; 24] = [
    0.70, 0.72, 0.70, 0.62, 0.58, 0.62, 0.85, 1.20, 1.35, 1.25, 1.10, 1.05, 1.25, 1.55, 1.60, 1.45, 1.20, 0.95, 0.80,
    0.70, 0.55, 0.35, 0.45, 0.60,
];
/// Spread by hour of the UTC day, in units of the busy one.
const WIDTH: [f64; 24] = [
    1.7, 1.5, 1.5, 1.5, 1.5, 1.4, 1.2, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.1, 1.2, 1.4, 1.6, 2.5, 7.0, 4.0,
    2.2,
];
/// Minutes a market is open in a year.
const OPEN_MINUTES: f64 = 260.0 * 1440.0;

/// Source of randomness: ChaCha8; its 32-byte key is the seed in 8 little-endian bytes and 24 zeros.
struct Noise {
    rng: ChaCha8Rng,
    spare: Option<f64>,
}

impl Noise {
    fn new(seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self { rng: ChaCha8Rng::from_seed(key), spare: None }
    }

    /// Uniform in (0, 1): `(top 53 bits of the next u64 + ½) / 2⁵³`.
    fn uniform(&mut self) -> f64 {
        ((self.rng.next_u64() >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0
    }

    /// Standard normal, Marsaglia's polar method: pairs `v·sqrt(−2·ln(s)/s)`, the second one kept for the next call.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (u, v) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let scale = (-2.0 * libm::log(s) / s).sqrt();
                self.spare = Some(v * scale);
                return u * scale;
            }
        }
    }
}

/// A process pulled to 0 with unit variance in the long run, advanced by `minutes`.
struct Drift {
    value: f64,
    keep: f64,
    add: f64,
}

impl Drift {
    fn new(memory_minutes: f64, minutes: f64) -> Self {
        let keep = libm::exp(-minutes / memory_minutes);
        Self { value: 0.0, keep, add: (1.0 - keep * keep).sqrt() }
    }

    fn advance(&mut self, noise: &mut Noise) -> f64 {
        self.value = self.keep * self.value + self.add * noise.normal();
        self.value
    }
}

/// How the price moves relative to its own average, until the pocket ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pocket {
    Reverting,
    Free,
    Trending,
}

impl Pocket {
    fn draw(noise: &mut Noise) -> Self {
        let u = noise.uniform();
        if u < 0.35 {
            Self::Reverting
        } else if u < 0.85 {
            Self::Free
        } else {
            Self::Trending
        }
    }

    /// Rate of return to the average, per minute.
    fn pull(self) -> f64 {
        match self {
            Self::Reverting => 1.0 / 180.0,
            Self::Free => 0.0,
            Self::Trending => -1.0 / 1200.0,
        }
    }
}

fn generate(market: &Market, timeframe: Timeframe, source: SyntheticSource) -> Sides {
    let mut noise = Noise::new(source.seed);
    let minutes = timeframe.minutes() as f64;
    let step_minutes = minutes / STEPS as f64;
    let step_volatility = market.yearly_volatility * (step_minutes / OPEN_MINUTES).sqrt();
    let (mut fast, mut slow) = (Drift::new(120.0, minutes), Drift::new(7200.0, minutes));
    let mut spread_noise = Drift::new(60.0, minutes);
    let average_weight = 1.0 - libm::exp(-step_minutes / 480.0);
    let change_of_pocket = 1.0 - libm::exp(-minutes / 2880.0);
    // A weak pull to the starting price (two years) keeps decades of bars in a believable range.
    let home_pull = step_minutes / (2.0 * OPEN_MINUTES);

    let (home, scale) = (libm::log(market.start_price), market.steps_per_unit());
    let (mut price, mut average, mut pocket) = (home, home, Pocket::Free);
    let mut sides = Sides { bid: Candles::default(), ask: Candles::default() };
    let mut previous: Option<EpochNs> = None;
    for open_time in open_times(timeframe).take(source.bars) {
        if noise.uniform() < change_of_pocket {
            pocket = Pocket::draw(&mut noise);
        }
        let after_break = previous.is_some_and(|t| open_time - t > timeframe.duration_ns());
        if after_break {
            // What happened over the weekend: the movement of about two hours.
            price += market.yearly_volatility * (120.0 / OPEN_MINUTES).sqrt() * noise.normal();
            average = price;
        }
        previous = Some(open_time);

        let cluster = libm::exp(0.35 * fast.advance(&mut noise) + 0.40 * slow.advance(&mut noise) - 0.15);
        let (activity, width) = profile(open_time, timeframe);
        let volatility = step_volatility * cluster * activity;
        let wide = libm::exp(0.25 * spread_noise.advance(&mut noise)) * width * cluster.sqrt().max(0.8);
        let pull = libm::expm1(-pocket.pull() * step_minutes);
        let mut path = [(0.0, 0.0); STEPS];
        for point in &mut path {
            // A fat tail: one step in two hundred is three times as long.
            let size = if noise.uniform() < 0.005 { 3.0 } else { 1.0 };
            price += pull * (price - average) - home_pull * (price - home) + size * volatility * noise.normal();
            average += average_weight * (price - average);
            let jitter = 0.9 + 0.2 * noise.uniform();
            *point = quote(market, price, wide * jitter, scale);
        }
        let ticks = libm::round(40.0 * minutes.sqrt() * activity * cluster * (0.5 + noise.uniform())).max(1.0);
        push(&mut sides.bid, open_time, path.map(|(bid, _)| bid / scale), ticks);
        push(&mut sides.ask, open_time, path.map(|(_, ask)| ask / scale), ticks);
    }
    sides
}

/// Bid and ask in whole price steps around the middle `exp(log_price)`; at least one step apart, at least one step
/// above zero.
fn quote(market: &Market, log_price: f64, width: f64, scale: f64) -> (f64, f64) {
    let middle = libm::exp(log_price) * scale;
    let spread = libm::round(market.spread_pips * width * market.pip * scale).max(1.0);
    let bid = libm::round(middle - spread / 2.0).max(1.0);
    (bid, bid + spread)
}

/// Volatility and spread factors of a bar: of its hour, or the mean over the hours it covers.
fn profile(open_time: EpochNs, timeframe: Timeframe) -> (f64, f64) {
    let hours = timeframe.minutes().div_euclid(60).clamp(1, 24) as usize;
    let first = usize::try_from(open_time.rem_euclid(DAY_NS) / (60 * MINUTE_NS)).unwrap_or(0);
    let mean = |table: &[f64; 24]| (0..hours).map(|h| table[(first + h) % 24]).sum::<f64>() / hours as f64;
    (mean(&ACTIVITY), mean(&WIDTH))
}

fn push(candles: &mut Candles, time: EpochNs, path: [f64; STEPS], volume: f64) {
    candles.time.push(time);
    candles.open.push(path[0]);
    candles.high.push(path.iter().copied().fold(f64::MIN, f64::max));
    candles.low.push(path.iter().copied().fold(f64::MAX, f64::min));
    candles.close.push(path[STEPS - 1]);
    candles.volume.push(volume);
}

fn aggregate(base: &Sides, timeframe: Timeframe) -> Sides {
    let bins = |base: &Candles| aggregate::aggregate(base, timeframe, &Day::Utc);
    Sides { bid: bins(&base.bid), ask: bins(&base.ask) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::load::Series;

    const SOURCE: SyntheticSource = SyntheticSource { seed: 7, bars: 20_000 };

    #[test]
    fn the_first_numbers_of_the_generator_are_pinned() {
        let mut noise = Noise::new(7);
        let uniforms = [noise.uniform(), noise.uniform()];
        let normals = [noise.normal(), noise.normal()];
        // Bit for bit: these numbers decide every generated bar.
        assert_eq!(uniforms, [0.7641090420477381, 0.46593761511996096]);
        assert_eq!(normals, [-1.097543818807086, -1.5742732553143846]);
    }

    #[test]
    fn files_are_whole_equal_for_equal_seeds_and_pass_the_contract() {
        let cache = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let root = ensure(cache.path(), "EURUSD", Timeframe::M5, SOURCE).unwrap();
        let again = ensure(other.path(), "EURUSD", Timeframe::M5, SOURCE).unwrap();
        let sums = |root: &Path| std::fs::read_to_string(root.join(SUMS)).unwrap();
        assert_eq!(sums(&root), sums(&again));
        assert_eq!(sums(&root).lines().count(), 14);
        for timeframe in Timeframe::ALL.into_iter().filter(|&timeframe| timeframe >= Timeframe::M5) {
            let series = Series::read(&root, "EURUSD", timeframe, None).unwrap();
            let facts = series.stored.facts;
            assert_eq!(facts.alignment.discarded_count + facts.bid.duplicates_dropped + facts.filler.bars, 0);
            let (_, last) = period(Timeframe::M5, SOURCE.bars);
            let end = series.inputs[0].end_time_ns.unwrap();
            assert!(end <= last && last < end + timeframe.duration_ns(), "{timeframe}");
        }
        let seed_8 = ensure(cache.path(), "EURUSD", Timeframe::M5, SyntheticSource { seed: 8, ..SOURCE }).unwrap();
        assert_ne!(sums(&root), sums(&seed_8));
        assert!(
            !std::fs::read_dir(cache.path().join("synthetic"))
                .unwrap()
                .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with('.') })
        );
    }

    #[test]
    fn damaged_folders_are_generated_anew() {
        let cache = tempfile::tempdir().unwrap();
        let source = SyntheticSource { seed: 1, bars: 300 };
        let root = ensure(cache.path(), "USDJPY", Timeframe::H1, source).unwrap();
        let file = root.join("USDJPY/USDJPY_H1_BID.parquet");
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(ensure(cache.path(), "USDJPY", Timeframe::H1, source).unwrap(), root);
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }

    #[test]
    fn every_symbol_has_its_decimals_and_a_spread() {
        for symbol in ["EURUSD", "USDJPY", "XAGUSD", "XAUUSD", "BTCUSD", "US500", "DE40", "NZDCHF"] {
            let market = Market::of(symbol);
            let scale = market.steps_per_unit();
            let sides = generate(&market, Timeframe::H1, SyntheticSource { seed: 3, bars: 3000 });
            for (bid, ask) in sides.bid.close.iter().zip(&sides.ask.close) {
                assert!(ask > bid && *bid > 0.0);
                assert_eq!(libm::round(bid * scale) / scale, *bid);
            }
            let (low, high) = (market.start_price / 3.0, market.start_price * 3.0);
            assert!(sides.bid.close.iter().all(|price| (low..high).contains(price)), "{symbol}");
        }
    }

    #[test]
    fn volatility_clusters_and_spreads_widen_off_hours() {
        let sides = generate(&Market::of("EURUSD"), Timeframe::M5, SOURCE);
        let mean = |hour: i64, value: &dyn Fn(usize) -> f64| {
            let rows: Vec<usize> = (0..sides.bid.len())
                .filter(|&i| sides.bid.time[i].rem_euclid(DAY_NS) / (60 * MINUTE_NS) == hour)
                .collect();
            rows.iter().map(|&i| value(i)).sum::<f64>() / rows.len() as f64
        };
        let spread = |i: usize| sides.ask.close[i] - sides.bid.close[i];
        let range = |i: usize| sides.bid.high[i] - sides.bid.low[i];
        assert!(mean(21, &spread) > 3.0 * mean(14, &spread));
        assert!(mean(14, &range) > 2.0 * mean(21, &range));
        // Squared returns of neighbouring days are correlated, returns themselves hardly.
        let daily = |power: i32, lag: usize| {
            let returns: Vec<f64> = sides.bid.close.windows(13).step_by(12).map(|w| w[12] / w[0] - 1.0).collect();
            let x: Vec<f64> = returns.iter().map(|r| if power == 1 { *r } else { r.abs() }).collect();
            let m = x.iter().sum::<f64>() / x.len() as f64;
            let cov = |k: usize| x.iter().zip(&x[k..]).map(|(a, b)| (a - m) * (b - m)).sum::<f64>();
            cov(lag) / cov(0)
        };
        assert!(daily(2, 1) > 0.1, "{}", daily(2, 1));
        assert!(daily(1, 1).abs() < 0.15, "{}", daily(1, 1));
    }

    /// Fading a deviation of two standard deviations (100 bars of M5) for three hours earns about what a round trip
    /// of the shipped cost file takes: half a pip of spread, 0.7 of slippage, half a pip of fees.
    #[test]
    fn mean_reversion_earns_before_costs_and_hardly_after() {
        let gross_pips = |seed: u64| {
            let close =
                generate(&Market::of("EURUSD"), Timeframe::M5, SyntheticSource { seed, bars: 75_000 }).bid.close;
            let (window, hold) = (100, 36);
            let (mut sum, mut entries, mut i) = (0.0, 0, window);
            while i + hold < close.len() {
                let past = &close[i - window..i];
                let mean = past.iter().sum::<f64>() / window as f64;
                let sd = (past.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / window as f64).sqrt();
                let z = (close[i] - mean) / sd;
                if z.abs() > 2.0 {
                    sum -= z.signum() * (close[i + hold] - close[i]) / 0.0001;
                    entries += 1;
                    i += hold;
                } else {
                    i += 1;
                }
            }
            sum / f64::from(entries)
        };
        let mean = (1..9).map(gross_pips).sum::<f64>() / 8.0;
        assert!((1.0..3.0).contains(&mean), "{mean} pips");
    }

    #[test]
    fn weekends_are_absent_and_the_start_is_midnight() {
        let (start, _) = period(Timeframe::H4, 10);
        assert_eq!(start.rem_euclid(DAY_NS), 0);
        assert!(open_times(Timeframe::H1).take(500).all(is_open));
        // 120 bars of an hour later it is Friday 22:00 already: the 118th hour is the last one.
        assert_eq!(open_times(Timeframe::H1).nth(118), Some(START_NS + (6 * 24 + 22) * 60 * MINUTE_NS));
    }

    #[test]
    fn impossible_requests_are_refused() {
        let cache = tempfile::tempdir().unwrap();
        for (symbol, timeframe, bars) in [
            ("A/B", Timeframe::M5, 5),
            ("..", Timeframe::M5, 5),
            ("EURUSD", Timeframe::W1, 5),
            ("EURUSD", Timeframe::M5, 0),
        ] {
            assert!(ensure(cache.path(), symbol, timeframe, SyntheticSource { seed: 1, bars }).is_err());
        }
    }
}
