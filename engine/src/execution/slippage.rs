//! Slippage: the amount per fill and the random stream behind it.

use std::sync::OnceLock;

use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// The uniform number `u ∈ [0, 1)` of one fill: first output of ChaCha8 keyed by the expanded `seed_k`.
///
/// `x = w0 + w1·2³²` of the first two output words, `u = (x ≫ 11)·2⁻⁵³`. Source: execution specification §8.2.
pub fn uniform(seed_k: u64) -> f64 {
    const TWO_POW_MINUS_53: f64 = 1.0 / 9_007_199_254_740_992.0;
    let mut stream = ChaCha8Rng::from_seed(expand(seed_k));
    let low = u64::from(stream.next_u32());
    let high = u64::from(stream.next_u32());
    ((low | high << 32) >> 11) as f64 * TWO_POW_MINUS_53
}

/// 32 key bytes from a 64-bit seed, the default expansion of `rand_core` 0.6 written out: later versions of the
/// library expand differently, and these bits are part of the contract.
fn expand(seed: u64) -> [u8; 32] {
    const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
    const INCREMENT: u64 = 11_634_580_027_462_260_723;
    let mut state = seed;
    let mut key = [0_u8; 32];
    for bytes in key.chunks_exact_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        let xorshifted = (((state >> 18) ^ state) >> 27) as u32;
        let rotation = (state >> 59) as u32;
        bytes.copy_from_slice(&xorshifted.rotate_right(rotation).to_le_bytes());
    }
    key
}

const FIRST_SEGMENT: usize = 1024;
const SEGMENTS: usize = 40;

/// The draws `u_0, u_1, …` of one run seed, made when first needed and shared by every trial of that seed.
///
/// Segment `s` holds `1024·2^s` draws, so a growing table never moves and reading takes no lock.
#[derive(Debug)]
pub struct DrawTable {
    rng_seed: u64,
    segments: [OnceLock<Box<[f64]>>; SEGMENTS],
}

impl DrawTable {
    /// The table of `rng_seed`; draws nothing yet.
    pub fn new(rng_seed: u64) -> Self {
        Self { rng_seed, segments: [const { OnceLock::new() }; SEGMENTS] }
    }

    /// Seed of the run.
    pub fn rng_seed(&self) -> u64 {
        self.rng_seed
    }

    /// `u_k` of fill `k`.
    #[inline(never)]
    pub fn get(&self, k: u64) -> f64 {
        let position = k / FIRST_SEGMENT as u64 + 1;
        let segment = position.ilog2() as usize;
        let first = FIRST_SEGMENT as u64 * ((1_u64 << segment) - 1);
        let Some(cell) = self.segments.get(segment) else { return uniform(self.rng_seed.wrapping_add(k)) };
        let values = cell.get_or_init(|| {
            let len = (FIRST_SEGMENT as u64) << segment;
            (first..first + len).map(|k| uniform(self.rng_seed.wrapping_add(k))).collect()
        });
        values[(k - first) as usize]
    }
}

/// Slippage in pips of one fill: `multiplier·(fixed + random·u)`, zero when costs are off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slippage {
    /// Fixed part, pips.
    pub fixed_pips: f64,
    /// Width of the uniform part, pips.
    pub random_pips: f64,
    /// `costs.slippage_multiplier`; 0 when costs are off.
    pub multiplier: f64,
}

impl Slippage {
    /// The same for every fill.
    pub fn is_fixed(&self) -> bool {
        self.multiplier == 0.0 || self.random_pips == 0.0
    }

    /// Pips of every fill, where they are [fixed](Self::is_fixed).
    #[inline(always)]
    pub(crate) fn fixed(&self) -> f64 {
        self.of(0.0)
    }

    /// Pips of fill `k`; the stream is not touched when there is no random part.
    #[inline(always)]
    pub fn pips(&self, k: u64, draws: &DrawTable) -> f64 {
        self.of(if self.is_fixed() { 0.0 } else { draws.get(k) })
    }

    #[inline(always)]
    fn of(&self, u: f64) -> f64 {
        if self.multiplier == 0.0 { 0.0 } else { self.multiplier * (self.fixed_pips + self.random_pips * u) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// execution §8.2, table.
    #[test]
    fn draws_match_the_reference_table() {
        let table = [
            (0, 0.7090754154265618, 0.41272262462796855),
            (1, 0.40248566366484806, 0.32074569909945444),
            (42, 0.6818961923066714, 0.40456885769200146),
            (43, 0.07986965224866338, 0.22396089567459904),
            (44, 0.9721978163880585, 0.49165934491641755),
            (45, 0.4892261014510917, 0.34676783043532755),
            (46, 0.73343906861363, 0.420031720584089),
            (u64::MAX, 0.6840841488189228, 0.40522524464567683),
        ];
        let slippage = Slippage { fixed_pips: 0.2, random_pips: 0.3, multiplier: 1.0 };
        for (seed, u, pips) in table {
            assert_eq!(uniform(seed), u, "seed {seed}");
            assert_eq!(slippage.pips(0, &DrawTable::new(seed)), pips, "seed {seed}");
        }
    }

    #[test]
    fn seed_42_expands_as_stated() {
        let hex: String = expand(42).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "a48fa17b58323d0aeab8a1cc690114b82b8cc87518b4f7548d446ea1e4df20f2");
    }

    #[test]
    fn the_table_equals_the_stream_across_segments() {
        let table = DrawTable::new(u64::MAX - 5);
        for k in [0, 1, 5, 6, 1023, 1024, 3071, 3072, 10_000] {
            assert_eq!(table.get(k), uniform((u64::MAX - 5).wrapping_add(k)), "k {k}");
        }
    }
}
