//! What is dear to compute and shared by all trials and threads: made once per key, kept while a memory budget allows,
//! dropped least recently used first. Columns and masks lie on shelves of their own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::cache::{Budget, Reservation};

/// A value that many may hold at once.
pub(crate) trait Shared: Clone {
    /// Nobody but the holder of this handle holds the memory, and dropping it frees some.
    fn is_last(&self) -> bool;
    /// Worth keeping.
    fn is_sound(&self) -> bool {
        true
    }
}

impl<T: Shared, E: Clone> Shared for Result<T, E> {
    fn is_sound(&self) -> bool {
        self.is_ok()
    }

    fn is_last(&self) -> bool {
        self.as_ref().is_ok_and(T::is_last)
    }
}

/// How hard to try to keep what was made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Others on the shelf make room.
    Evicting,
    /// Kept only where there is room anyway.
    IfRoom,
}

struct Entry<V> {
    slot: Arc<OnceLock<V>>,
    last_used: u64,
}

struct Entries<K, V> {
    by_key: BTreeMap<K, Entry<V>>,
    clock: u64,
}

/// Values of one size by key. Any number of threads may ask: a value is made by the first, the others wait for that
/// value only. A value in use is never evicted.
pub(crate) struct Shelf<K, V> {
    entries: Mutex<Entries<K, V>>,
    budget: Arc<dyn Budget>,
    /// Bytes of one value.
    bytes: usize,
    made: AtomicU64,
    evicted: AtomicU64,
}

impl<K: Ord + Clone, V: Shared> Shelf<K, V> {
    pub(crate) fn new(budget: Arc<dyn Budget>, bytes: usize) -> Self {
        let entries = Mutex::new(Entries { by_key: BTreeMap::new(), clock: 0 });
        Self { entries, budget, bytes, made: AtomicU64::new(0), evicted: AtomicU64::new(0) }
    }

    pub(crate) fn budget(&self) -> &Arc<dyn Budget> {
        &self.budget
    }

    /// Bytes of one value.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    pub(crate) fn kept(&self) -> usize {
        self.lock().by_key.len()
    }

    /// The value of `key`. `make` gets the booking that the value is to hold; none: there was no room, and the value is
    /// handed out but not kept.
    pub(crate) fn get(&self, key: &K, keep: Keep, make: impl FnOnce(Option<Reservation>) -> V) -> V {
        let slot = self.slot(key);
        let mut kept = true;
        // Only threads that want this very value wait here.
        let value = slot.get_or_init(|| {
            let reservation = self.book(keep);
            kept = reservation.is_some();
            self.made.fetch_add(1, Ordering::Relaxed);
            let value = make(reservation);
            kept &= value.is_sound();
            value
        });
        if !kept {
            self.forget(key, &slot);
        }
        value.clone()
    }

    /// Drops least recently used values that nobody holds until `bytes` are free or none is left; returns the bytes
    /// given back to the budget.
    pub(crate) fn evict(&self, bytes: usize) -> usize {
        self.evict_oldest(bytes.div_ceil(self.bytes.max(1))) * self.bytes
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        // The map is changed by single calls that do not panic half-way.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, key: &K) -> Arc<OnceLock<V>> {
        let mut entries = self.lock();
        entries.clock += 1;
        let now = entries.clock;
        let new = || Entry { slot: Arc::default(), last_used: now };
        let entry = entries.by_key.entry(key.clone()).or_insert_with(new);
        entry.last_used = now;
        Arc::clone(&entry.slot)
    }

    fn forget(&self, key: &K, slot: &Arc<OnceLock<V>>) {
        let mut entries = self.lock();
        if entries.by_key.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.slot, slot)) {
            entries.by_key.remove(key);
        }
    }

    fn book(&self, keep: Keep) -> Option<Reservation> {
        loop {
            let reservation = Reservation::take(&self.budget, self.bytes);
            // Looking for the oldest takes a look at all: of many, several go at once.
            if reservation.is_some() || keep == Keep::IfRoom || self.evict_oldest((self.kept() / 64).max(1)) == 0 {
                return reservation;
            }
        }
    }

    /// Drops the `count` least recently used values that nobody holds; returns how many there were.
    fn evict_oldest(&self, count: usize) -> usize {
        let evicted: Vec<Entry<V>> = {
            let mut entries = self.lock();
            let evictable = entries.by_key.iter().filter(|(_, entry)| is_evictable(entry));
            let mut oldest: Vec<(u64, K)> = evictable.map(|(key, entry)| (entry.last_used, key.clone())).collect();
            if count < oldest.len() {
                oldest.select_nth_unstable_by_key(count, |(last_used, _)| *last_used);
                oldest.truncate(count);
            }
            oldest.iter().filter_map(|(_, key)| entries.by_key.remove(key)).collect()
        };
        // Freed after the lock.
        self.evicted.fetch_add(evicted.len() as u64, Ordering::Relaxed);
        evicted.len()
    }
}

/// Made, and held by the shelf alone. New holders need the lock under which this is asked.
fn is_evictable<V: Shared>(entry: &Entry<V>) -> bool {
    Arc::strong_count(&entry.slot) == 1 && entry.slot.get().is_some_and(V::is_last)
}
