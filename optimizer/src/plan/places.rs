//! Where outcomes are found again by a hash: a map to file and row that grows as long as the ledger has room.

use std::collections::HashMap;

use crate::plan::memory::{Ledger, Reservation};

/// Memory of one hash: the entry, the room a map leaves free, and the old map while it grows.
const ENTRY_BYTES: usize = 48;

/// Hashes booked at a time.
const BLOCK: usize = 4096;

/// Share of the cap that one such map may take.
pub(crate) const SHARE: usize = 8;

/// File and row by hash, on the books of a ledger.
pub(crate) struct Places {
    ledger: Ledger,
    /// Bytes it may book.
    most: usize,
    places: HashMap<[u8; 8], (u32, u32)>,
    memory: Vec<Reservation>,
    free: usize,
}

impl Places {
    /// An empty map that books at most `most` bytes.
    pub(crate) fn new(ledger: Ledger, most: usize) -> Self {
        Self { ledger, most, places: HashMap::new(), memory: Vec::new(), free: 0 }
    }

    /// Memory booked.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.len() * BLOCK * ENTRY_BYTES
    }

    /// Hashes in it.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn get(&self, hash: &[u8; 8]) -> Option<(u32, u32)> {
        self.places.get(hash).copied()
    }

    /// Remembers a place, the last one of a hash; false if there is no room.
    pub(crate) fn insert(&mut self, hash: [u8; 8], file: u64, row: usize) -> bool {
        if self.free == 0 {
            if self.bytes() + BLOCK * ENTRY_BYTES > self.most {
                return false;
            }
            let Some(reservation) = self.ledger.try_reserve(BLOCK * ENTRY_BYTES) else { return false };
            self.memory.push(reservation);
            self.free = BLOCK;
        }
        let (Ok(file), Ok(row)) = (u32::try_from(file), u32::try_from(row)) else { return false };
        if self.places.insert(hash, (file, row)).is_none() {
            self.free -= 1;
        }
        true
    }

    /// Forgets everything and gives the memory back.
    pub(crate) fn clear(&mut self) {
        self.places = HashMap::new();
        self.memory.clear();
        self.free = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_no_further_than_it_may_and_gives_back() {
        let ledger = Ledger::new(1 << 20);
        let mut places = Places::new(ledger.clone(), 2 * BLOCK * ENTRY_BYTES);
        let hash = |n: usize| (n as u64).to_be_bytes();
        let taken = (0..3 * BLOCK).take_while(|n| places.insert(hash(*n), 7, *n)).count();
        assert_eq!((taken, places.len(), ledger.used()), (2 * BLOCK, 2 * BLOCK, places.bytes()));
        assert_eq!((places.get(&hash(5)), places.get(&hash(3 * BLOCK))), (Some((7, 5)), None));
        places.clear();
        assert_eq!((places.len(), ledger.used()), (0, 0));
        let mut refused = Places::new(Ledger::new(100), usize::MAX);
        assert!(!refused.insert(hash(1), 0, 0));
    }
}
