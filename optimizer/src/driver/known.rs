//! Outcomes of earlier waves, found again by `rules_hash`.

use std::collections::HashMap;

use super::Work;
use crate::plan::memory::{Ledger, Reservation};

/// Memory of one remembered `rules_hash`: the entry, the room a map leaves free, and the old map while it grows.
const REMEMBERED_BYTES: usize = 48;

/// Share of the cap that may be spent on it.
const SHARE: usize = 8;

/// Hashes booked at a time.
const BLOCK: usize = 4096;

/// Which chunk holds the outcome of a rule set, as long as the ledger has room.
pub(super) struct Known<S> {
    ledger: Ledger,
    places: HashMap<[u8; 8], (u32, u32)>,
    memory: Vec<Reservation>,
    free: usize,
    /// The chunk read last: sharers of a rule set tend to share a chunk.
    open: Option<(u64, Option<S>)>,
}

impl<S> Known<S> {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self { ledger, places: HashMap::new(), memory: Vec::new(), free: 0, open: None }
    }

    /// Memory booked.
    pub(super) fn bytes(&self) -> usize {
        self.memory.len() * BLOCK * REMEMBERED_BYTES
    }

    pub(super) fn remember(&mut self, rules_hash: [u8; 8], chunk: u64, row: usize) {
        if self.free == 0 {
            if self.bytes() >= self.ledger.cap() / SHARE {
                return;
            }
            match self.ledger.try_reserve(BLOCK * REMEMBERED_BYTES) {
                Some(reservation) => self.memory.push(reservation),
                None => return,
            }
            self.free = BLOCK;
        }
        if let (Ok(chunk), Ok(row)) = (u32::try_from(chunk), u32::try_from(row))
            && self.places.insert(rules_hash, (chunk, row)).is_none()
        {
            self.free -= 1;
        }
    }

    pub(super) fn recall<W: Work<Stored = S>>(&mut self, work: &W, rules_hash: &[u8; 8]) -> Option<W::Outcome> {
        let (index, row) = *self.places.get(rules_hash)?;
        let index = u64::from(index);
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            self.open = Some((index, work.read(index)));
        }
        let (_, stored) = self.open.as_ref()?;
        work.recall(stored.as_ref()?, row as usize, rules_hash)
    }
}
