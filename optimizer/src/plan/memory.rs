//! The ledger: whoever wants much memory asks first and gives back when dropped. A refusal makes the asker evict,
//! shrink or wait, so the cap is kept by asking, never by dying.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::indicators::Budget;

/// Count of bytes granted, shared by all threads of a process. Cloning shares the count.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    cap: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl Ledger {
    /// A ledger that never grants more than `cap` bytes in all.
    pub fn new(cap: usize) -> Self {
        Self(Arc::new(Counts { cap, used: AtomicUsize::new(0), peak: AtomicUsize::new(0) }))
    }

    /// A ledger for a process that is to stay within `memory` bytes: it grants four fifths of them. The rest is for what
    /// nobody books: the program itself, intermediate results, and the holes that dropped columns leave behind until
    /// the allocator fills them again.
    pub fn within(memory: usize) -> Self {
        Self::new(grantable(memory))
    }

    /// Grants `bytes`, or refuses and changes nothing. What is granted must be given back by [`Ledger::release`].
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.0.cap);
        match self.0.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(before) => {
                self.0.peak.fetch_max(before + bytes, Ordering::AcqRel);
                true
            }
            Err(_) => false,
        }
    }

    /// Gives back what was granted. More than that is a mistake of the caller and is cut to what is in use.
    pub fn release(&self, bytes: usize) {
        let before =
            self.0.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| Some(used.saturating_sub(bytes)));
        debug_assert!(before.is_ok_and(|used| used >= bytes), "released more than was reserved");
    }

    /// Grants `bytes` until the reservation is dropped.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        self.reserve(bytes).then(|| Reservation { ledger: self.clone(), bytes })
    }

    /// The largest grant of at most `most` bytes that fits, found by halving; `None` below `least`.
    pub fn reserve_between(&self, least: usize, most: usize) -> Option<Reservation> {
        let mut bytes = most.max(least);
        loop {
            if let Some(granted) = self.try_reserve(bytes) {
                return Some(granted);
            }
            if bytes == least {
                return None;
            }
            bytes = (bytes / 2).max(least);
        }
    }

    /// Counts `bytes` that were in use for a while beside what is granted now, for the peak.
    pub fn note(&self, bytes: usize) {
        self.0.peak.fetch_max(self.used().saturating_add(bytes), Ordering::AcqRel);
    }

    /// Bytes that may be granted in all.
    pub fn cap(&self) -> usize {
        self.0.cap
    }

    /// Bytes granted now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Acquire)
    }

    /// Most bytes ever granted at once.
    pub fn peak(&self) -> usize {
        self.0.peak.load(Ordering::Acquire)
    }
}

/// What a ledger [within](Ledger::within) `memory` bytes grants: `⌊4m/5⌋`.
fn grantable(memory: usize) -> usize {
    memory / 5 * 4 + memory % 5 * 4 / 5
}

/// The least memory within which a ledger grants `bytes`: `⌈5b/4⌉`.
pub fn memory_for(bytes: usize) -> usize {
    bytes.saturating_add(bytes.div_ceil(4))
}

impl Budget for Ledger {
    fn reserve(&self, bytes: usize) -> bool {
        Self::reserve(self, bytes)
    }

    fn release(&self, bytes: usize) {
        Self::release(self, bytes);
    }
}

/// Bytes granted until dropped.
#[derive(Debug)]
pub struct Reservation {
    ledger: Ledger,
    bytes: usize,
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes or gives back so that `bytes` are held; false, and nothing changes, if that does not fit.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes && !self.ledger.reserve(bytes - self.bytes) {
            return false;
        }
        if bytes < self.bytes {
            self.ledger.release(self.bytes - bytes);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.release(self.bytes);
    }
}

/// A text is no amount of memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount of memory: a positive number with one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB")]
pub struct BadAmount(pub String);

/// Bytes of `8GB`, `512MiB`, `1.5 GiB`, `4096`.
///
/// `kB`, `MB`, `GB`, `TB` are powers of 1000, `KiB` … `TiB` powers of 1024; letter case does not matter, a lone
/// `k`, `m`, `g`, `t` is the decimal unit. The product is cut to whole bytes. Zero is refused.
pub fn parse_bytes(text: &str) -> Result<usize, BadAmount> {
    let bad = || BadAmount(text.to_owned());
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let scale: u128 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u128.pow(2),
        "g" | "gb" => 1000_u128.pow(3),
        "t" | "tb" => 1000_u128.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(bad()),
    };
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 12 || fraction.contains('.') {
        return Err(bad());
    }
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| bad())?;
    let bytes = digits * scale / 10_u128.pow(fraction.len() as u32);
    usize::try_from(bytes).ok().filter(|bytes| *bytes > 0).ok_or_else(bad)
}

/// The least round amount that holds `bytes`, as [`parse_bytes`] reads it: `369kB`.
pub fn enough_bytes(bytes: usize) -> String {
    let (mut value, mut unit) = (bytes, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 10_000 {
            break;
        }
        value = value.div_ceil(1000);
        unit = larger;
    }
    format!("{value}{unit}")
}

/// Bytes with a decimal unit and one decimal, for people: `8.0 GB`.
pub fn show_bytes(bytes: usize) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// Share of the machine's memory a sweep takes when nothing is said, in percent.
const DEFAULT_SHARE: usize = 60;
/// Taken for the machine's memory where it cannot be found out.
const UNKNOWN_MACHINE: usize = 4 << 30;

/// The cap when none is given: a share of physical memory, or of the control group's limit where that is smaller.
pub fn default_cap() -> usize {
    let physical = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let machine = match (physical, group) {
        (Some(physical), Some(group)) => physical.min(group),
        (Some(physical), None) => physical,
        (None, _) => return UNKNOWN_MACHINE,
    };
    machine / 100 * DEFAULT_SHARE
}

fn mem_total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_enough_is_enough_when_typed() {
        for bytes in [1, 999, 1000, 1001, 367_912, 999_001, 1_000_000, 1_234_567_890] {
            let text = enough_bytes(bytes);
            assert!(parse_bytes(&text).is_ok_and(|read| read >= bytes && read <= bytes + bytes / 10), "{bytes} {text}");
        }
        assert_eq!(enough_bytes(367_912), "368kB");
    }

    #[test]
    fn the_least_memory_is_enough_and_one_byte_less_is_not() {
        for bytes in (0..1000).chain([115_500_001, 115_500_002, 115_500_003, 115_500_004]) {
            let memory = memory_for(bytes);
            assert!(Ledger::within(memory).cap() >= bytes, "{bytes}");
            assert!(memory == 0 || Ledger::within(memory - 1).cap() < bytes, "{bytes}");
        }
        assert_eq!(Ledger::within(usize::MAX).cap(), usize::MAX / 5 * 4 + usize::MAX % 5 * 4 / 5);
    }

    #[test]
    fn grants_up_to_the_cap_and_remembers_the_peak() {
        let ledger = Ledger::new(100);
        assert!(ledger.reserve(60));
        assert!(!ledger.reserve(41));
        assert!(ledger.reserve(40));
        assert!(!ledger.reserve(usize::MAX));
        ledger.release(60);
        assert_eq!((ledger.used(), ledger.peak()), (40, 100));
        {
            let mut held = ledger.try_reserve(10).unwrap();
            assert!(held.resize(60));
            assert!(!held.resize(61));
            assert!(held.resize(5));
            assert_eq!(ledger.used(), 45);
        }
        assert_eq!(ledger.used(), 40);
        ledger.note(50);
        assert_eq!((ledger.used(), ledger.peak()), (40, 100));
        ledger.note(70);
        assert_eq!((ledger.used(), ledger.peak()), (40, 110));
    }

    #[test]
    fn a_grant_shrinks_to_what_fits() {
        let ledger = Ledger::new(100);
        assert_eq!(ledger.reserve_between(10, 1000).unwrap().bytes(), 62);
        assert_eq!(ledger.reserve_between(10, 50).unwrap().bytes(), 50);
        let _held = ledger.try_reserve(95);
        assert!(ledger.reserve_between(10, 1000).is_none());
    }

    #[test]
    fn the_cap_holds_under_threads() {
        let ledger = Ledger::new(1000);
        std::thread::scope(|scope| {
            for thread in 0..8_usize {
                let ledger = ledger.clone();
                scope.spawn(move || {
                    for i in 0..2000 {
                        if let Some(held) = ledger.try_reserve((i * 7 + thread * 31) % 400) {
                            assert!(ledger.used() <= 1000);
                            drop(held);
                        }
                    }
                });
            }
        });
        assert_eq!(ledger.used(), 0);
        assert!(ledger.peak() <= 1000 && ledger.peak() > 0);
    }

    #[test]
    fn amounts_of_memory() {
        for (text, bytes) in [
            ("8GB", 8_000_000_000),
            ("512MiB", 512 << 20),
            ("1.5 GiB", 3 << 29),
            ("4096", 4096),
            ("10 kb", 10_000),
            ("2g", 2_000_000_000),
            ("1_000b", 1000),
            ("0.1GB", 100_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "-1GB", "1e9", "8 gigs", "0", "0.0GB", "1.2.3MB", "99999999999999999999TB", ".5GB"] {
            assert_eq!(parse_bytes(text), Err(BadAmount(text.to_owned())), "{text}");
        }
        assert_eq!(show_bytes(8_000_000_000), "8.0 GB");
        assert_eq!(show_bytes(999), "999 B");
    }

    #[test]
    fn physical_memory_is_read() {
        assert_eq!(mem_total("MemTotal:       16303104 kB\nMemFree: 1 kB\n"), Some(16_303_104 * 1024));
        assert_eq!(mem_total("nothing"), None);
        assert!(default_cap() > 0);
    }
}
