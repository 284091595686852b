//! Random search: feasible lattice points drawn one after another, without repeats.
//!
//! The stream is ChaCha8 keyed by the seed: its 8 bytes, little end first, then 24 zero bytes; stream and counter 0. A
//! 128-bit number is two 64-bit outputs, the lower half first. Of it the lowest `b` bits are kept, `b` being the
//! fewest bits that hold the largest index; a number that is no index is thrown away and the next one taken, so every
//! index is equally likely. Each index obtained is one *draw*.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::search::SearchError;
use crate::space::Space;

/// Most trials of a random search: they are kept as a list.
pub const MAX_RANDOM_TRIALS: u64 = 100_000_000;

/// Draws per wanted trial before the search gives up.
const DRAWS_PER_TRIAL: u64 = 100;
/// Fewest draws before it gives up.
const MIN_DRAWS: u64 = 1_000_000;
/// Lattices up to this size are watched for exhaustion, one bit per point.
const WATCHED: u128 = 1 << 28;

/// Uniform lattice indices from a seed.
#[derive(Debug)]
pub(crate) struct IndexStream {
    rng: ChaCha8Rng,
    size: u128,
    mask: u128,
}

impl IndexStream {
    /// Indices `0 .. size`, `size >= 1`.
    pub(crate) fn new(seed: u64, size: u128) -> Self {
        let mut key = [0_u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let bits = u128::BITS - size.saturating_sub(1).leading_zeros();
        let mask = if bits == u128::BITS { u128::MAX } else { (1 << bits) - 1 };
        Self { rng: ChaCha8Rng::from_seed(key), size: size.max(1), mask }
    }

    pub(crate) fn draw(&mut self) -> u128 {
        loop {
            let low = u128::from(self.rng.next_u64());
            let high = u128::from(self.rng.next_u64());
            let index = (high << 64 | low) & self.mask;
            if index < self.size {
                return index;
            }
        }
    }
}

/// The points drawn, in the order of drawing.
#[derive(Debug)]
pub struct Draws {
    indices: Vec<u128>,
    numbers: HashMap<u128, u32>,
}

impl Draws {
    /// Draws until `trials` feasible points are found or every point of the lattice was seen.
    ///
    /// # Errors
    /// Too many trials wanted, or too few found in 100 draws per wanted trial (at least 10^6).
    pub(crate) fn new(space: &Space, trials: u64, seed: u64) -> Result<Self, SearchError> {
        if trials > MAX_RANDOM_TRIALS {
            return Err(SearchError::TooManyTrials { wanted: trials });
        }
        let mut stream = IndexStream::new(seed, space.size());
        let mut seen = (space.size() <= WATCHED).then(|| Seen::new(space.size() as usize));
        let (mut indices, mut numbers) = (Vec::new(), HashMap::new());
        let limit = trials.saturating_mul(DRAWS_PER_TRIAL).max(MIN_DRAWS);
        let mut draws = 0;
        while (indices.len() as u64) < trials && !seen.as_ref().is_some_and(Seen::is_full) {
            if draws == limit {
                return Err(SearchError::DrawsExhausted { found: indices.len() as u64, wanted: trials, draws });
            }
            draws += 1;
            let index = stream.draw();
            let repeated = match &mut seen {
                Some(seen) => seen.mark(index as usize),
                None => numbers.contains_key(&index),
            };
            if !repeated && space.is_feasible(&space.value_index(index)) {
                numbers.insert(index, indices.len() as u32);
                indices.push(index);
            }
        }
        if indices.is_empty() {
            return Err(SearchError::DrawsExhausted { found: 0, wanted: trials, draws });
        }
        Ok(Self { indices, numbers })
    }

    /// Number of points drawn.
    pub fn len(&self) -> u64 {
        self.indices.len() as u64
    }

    /// Nothing was drawn; never true.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The point of a trial.
    pub fn get(&self, trial: u64) -> Option<u128> {
        self.indices.get(usize::try_from(trial).ok()?).copied()
    }

    /// The trial of a point.
    pub fn trial_of(&self, lattice_index: u128) -> Option<u64> {
        self.numbers.get(&lattice_index).map(|number| u64::from(*number))
    }
}

/// One bit per point: drawn before.
struct Seen {
    bits: Vec<u64>,
    left: usize,
}

impl Seen {
    fn new(size: usize) -> Self {
        Self { bits: vec![0; size.div_ceil(64)], left: size }
    }

    /// Marks a point; true if it was marked before.
    fn mark(&mut self, index: usize) -> bool {
        let (word, bit) = (index / 64, 1 << (index % 64));
        let before = self.bits[word] & bit != 0;
        if !before {
            self.bits[word] |= bit;
            self.left -= 1;
        }
        before
    }

    fn is_full(&self) -> bool {
        self.left == 0
    }
}
