//! What decides the rows of a run, part by part, and the digest that names it.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Named parts of everything that decides the rows: run config, space, search, seed, data, engine version.
///
/// Parts are compared as text, so a chunk of another run can be refused with the part that differs. Long parts are
/// best given as digests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint {
    parts: BTreeMap<String, String>,
}

impl Fingerprint {
    /// A fingerprint of these parts; their order does not matter.
    pub fn new<N: Into<String>, V: Into<String>>(parts: impl IntoIterator<Item = (N, V)>) -> Self {
        Self { parts: parts.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }

    /// Parts in order of name.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// SHA-256 over names and values, each preceded by its length.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for text in self.parts.iter().flat_map(|(name, value)| [name, value]) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.finalize().into()
    }

    /// First eight hex digits of the digest: the ending of the run folder's name.
    pub fn hash8(&self) -> String {
        hex(&self.digest()[..4])
    }

    /// One line per part that is not the same in both.
    pub fn differences(&self, other: &Self) -> Vec<PartDifference> {
        let names = self.parts.keys().chain(other.parts.keys().filter(|name| !self.parts.contains_key(*name)));
        names
            .filter(|name| self.parts.get(*name) != other.parts.get(*name))
            .map(|name| PartDifference {
                part: name.clone(),
                here: self.parts.get(name).cloned(),
                there: other.parts.get(name).cloned(),
            })
            .collect()
    }
}

/// One part in which two fingerprints differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartDifference {
    /// Name of the part.
    pub part: String,
    /// Its value in this run.
    pub here: Option<String>,
    /// Its value in the other.
    pub there: Option<String>,
}

impl std::fmt::Display for PartDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |value: &Option<String>| value.as_deref().map_or_else(|| "absent".to_owned(), shorten);
        write!(f, "{}: this run has {}, the file has {}", self.part, show(&self.here), show(&self.there))
    }
}

pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    // Digits are ASCII.
    String::from_utf8(text).unwrap_or_default()
}

/// Bytes of `2 * N` lower-case hex digits; `None` for anything else.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_depends_on_content_and_boundaries_not_on_order() {
        let a = Fingerprint::new([("data", "x"), ("engine", "y")]);
        assert_eq!(a.digest(), Fingerprint::new([("engine", "y"), ("data", "x")]).digest());
        assert_ne!(a.digest(), Fingerprint::new([("data", "xe"), ("ngine", "y")]).digest());
        assert_eq!(a.hash8().len(), 8);
    }

    #[test]
    fn differences_name_the_part() {
        let here = Fingerprint::new([("data", "x"), ("engine", "1")]);
        let there = Fingerprint::new([("data", "x"), ("engine", "2"), ("seed", "7")]);
        let lines: Vec<String> = here.differences(&there).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            ["engine: this run has `1`, the file has `2`", "seed: this run has absent, the file has `7`"]
        );
        assert!(here.differences(&here).is_empty());
    }

    #[test]
    fn hex_and_back() {
        assert_eq!(hex(&[0, 0x9f, 0xff]), "009fff");
        assert_eq!(unhex::<3>("009fff"), Some([0, 0x9f, 0xff]));
        assert_eq!(unhex::<3>("009ff"), None);
        assert_eq!(unhex::<1>("FF"), None);
        assert_eq!(unhex::<1>("é"), None);
    }
}
