//! One truth value per bar, packed 64 to a word: what conditions, sessions and news come down to.

/// A fixed number of bits, all words complete; bits behind the end are always 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BitMask {
    words: Vec<u64>,
    len: usize,
}

impl BitMask {
    /// `len` bits, all equal to `value`.
    pub fn new(len: usize, value: bool) -> Self {
        let mut mask = Self { words: vec![if value { !0 } else { 0 }; len.div_ceil(64)], len };
        mask.clear_tail();
        mask
    }

    /// The bits an iterator over bars yields, in order.
    pub fn from_bools(bits: impl IntoIterator<Item = bool>) -> Self {
        let mut words = Vec::new();
        let mut len = 0;
        for bit in bits {
            if usize::is_multiple_of(len, 64) {
                words.push(0);
            }
            if let Some(word) = words.last_mut() {
                *word |= u64::from(bit) << (len % 64);
            }
            len += 1;
        }
        Self { words, len }
    }

    /// Ready-made words, bit `i` in word `i / 64`; missing words are 0, surplus bits are dropped.
    pub fn from_words(mut words: Vec<u64>, len: usize) -> Self {
        words.resize(len.div_ceil(64), 0);
        let mut mask = Self { words, len };
        mask.clear_tail();
        mask
    }

    /// Number of bits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without a bit.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The words; bits behind the end are 0.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.words.len() * size_of::<u64>()
    }

    /// Bit `i`; false behind the end.
    #[inline]
    pub fn get(&self, i: usize) -> bool {
        i < self.len && self.words[i / 64] >> (i % 64) & 1 == 1
    }

    /// Sets bit `i`; nothing happens behind the end.
    #[inline]
    pub fn set(&mut self, i: usize, value: bool) {
        if i >= self.len {
            return;
        }
        let bit = 1 << (i % 64);
        if value {
            self.words[i / 64] |= bit;
        } else {
            self.words[i / 64] &= !bit;
        }
    }

    /// Sets the bits `start .. end`, cut to the length.
    pub fn set_range(&mut self, start: usize, end: usize, value: bool) {
        let end = end.min(self.len);
        let mut i = start;
        while i < end {
            if i.is_multiple_of(64) && i + 64 <= end {
                self.words[i / 64] = if value { !0 } else { 0 };
                i += 64;
            } else {
                self.set(i, value);
                i += 1;
            }
        }
    }

    /// Keeps the bits that are also set in `other`. Bits behind the end of `other` become 0.
    pub fn and(&mut self, other: &Self) {
        for (i, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(i).copied().unwrap_or(0);
        }
    }

    /// Adds the bits set in `other`, up to the own length.
    pub fn or(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.clear_tail();
    }

    /// Turns every bit around.
    pub fn not(&mut self) {
        for word in &mut self.words {
            *word = !*word;
        }
        self.clear_tail();
    }

    /// Number of set bits.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The first set bit at or after `from`.
    #[inline]
    pub fn next_set(&self, from: usize) -> Option<usize> {
        if from >= self.len {
            return None;
        }
        let mut at = from / 64;
        let mut word = self.words[at] & (!0 << (from % 64));
        while word == 0 {
            at += 1;
            word = *self.words.get(at)?;
        }
        Some(at * 64 + word.trailing_zeros() as usize)
    }

    /// Indices of the set bits, ascending.
    pub fn ones(&self) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(self.next_set(0), |&i| self.next_set(i + 1))
    }

    fn clear_tail(&mut self) {
        if !self.len.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_behind_the_end_stay_zero() {
        let mut mask = BitMask::new(70, true);
        assert_eq!(mask.count(), 70);
        mask.not();
        assert_eq!(mask.count(), 0);
        mask.set(70, true);
        mask.or(&BitMask::new(128, true));
        assert_eq!((mask.count(), mask.words()[1]), (70, 0b11_1111));
        mask.and(&BitMask::new(3, true));
        assert_eq!(mask.ones().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(BitMask::new(0, true).next_set(0), None);
    }

    mod property_tests {
        use super::*;

        proptest! {
            #[test]
            fn prop_agrees_with_a_list_of_bools(bits in prop::collection::vec(any::<bool>(), 0..200), from in 0usize..220) {
                let mask = BitMask::from_bools(bits.iter().copied());
                prop_assert_eq!(mask.len(), bits.len());
                prop_assert_eq!(mask.count(), bits.iter().filter(|b| **b).count());
                let next = (from..bits.len()).find(|&i| bits[i]);
                prop_assert_eq!(mask.next_set(from), next);
                prop_assert_eq!((0..bits.len()).map(|i| mask.get(i)).collect::<Vec<_>>(), bits);
            }

            #[test]
            fn prop_a_range_is_its_single_bits(len in 0usize..300, start in 0usize..310, size in 0usize..310, value: bool) {
                let mut mask = BitMask::new(len, !value);
                let mut slow = mask.clone();
                mask.set_range(start, start + size, value);
                (start..start + size).for_each(|i| slow.set(i, value));
                prop_assert_eq!(mask, slow);
            }
        }
    }
}
