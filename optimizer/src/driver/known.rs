//! Outcomes of earlier waves, found again by `rules_hash`.

use super::Work;
use crate::plan::memory::Ledger;
use crate::plan::places::{Places, SHARE};

/// Which chunk holds the outcome of a rule set, as long as the ledger has room.
pub(super) struct Known<S> {
    places: Places,
    /// The chunk read last: sharers of a rule set tend to share a chunk.
    open: Option<(u64, Option<S>)>,
}

impl<S> Known<S> {
    pub(super) fn new(ledger: Ledger) -> Self {
        let most = ledger.cap() / SHARE;
        Self { places: Places::new(ledger, most), open: None }
    }

    /// Memory booked.
    pub(super) fn bytes(&self) -> usize {
        self.places.bytes()
    }

    pub(super) fn remember(&mut self, rules_hash: [u8; 8], chunk: u64, row: usize) {
        // Without room it is evaluated again, should it come again.
        self.places.insert(rules_hash, chunk, row);
    }

    /// Where outcomes are, as far as the chunks can be read.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn recall<W: Work<Stored = S>>(&mut self, work: &W, rules_hash: &[u8; 8]) -> Option<W::Outcome> {
        let (index, row) = self.places.get(rules_hash)?;
        let index = u64::from(index);
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            self.open = Some((index, work.read(index)));
        }
        let (_, stored) = self.open.as_ref()?;
        work.recall(stored.as_ref()?, row as usize, rules_hash)
    }
}
