//! Bytes to text and the first lines of a table: encoding, separator, header.

use std::path::Path;

use crate::data::import::refuse;
use crate::error::Result;

/// Rows that are looked at to tell a format.
const HEAD_ROWS: usize = 50;

/// The first lines of a file, cut into cells.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Between the cells.
    pub(crate) delimiter: u8,
    /// The header, trimmed, if the first line is one.
    pub(crate) names: Option<Vec<String>>,
    /// The first rows, trimmed.
    pub(crate) rows: Vec<Vec<String>>,
    first: String,
}

impl Head {
    /// Looks at the first lines of `text`.
    pub(crate) fn read(text: &str) -> Self {
        let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let count = |delimiter: u8| first.bytes().filter(|&b| b == delimiter).count();
        // A decimal comma loses against the semicolons that such files have.
        let delimiter = [b'\t', b';', b','].into_iter().find(|&d| count(d) > 0).unwrap_or(b',');
        let mut rows: Vec<Vec<String>> = reader(text, delimiter)
            .records()
            .take(HEAD_ROWS)
            .map_while(|record| record.ok())
            .map(|record| record.iter().map(|cell| cell.trim().to_owned()).collect())
            .collect();
        let wordy = |cell: &String| cell.contains(|c: char| c.is_alphabetic()) && cell.parse::<f64>().is_err();
        let headed = rows.first().is_some_and(|row| row.iter().skip(1).any(wordy));
        let names = headed.then(|| rows.remove(0));
        Self { delimiter, names, rows, first: first.to_owned() }
    }

    /// Number of columns.
    pub(crate) fn width(&self) -> usize {
        self.names.as_ref().or(self.rows.first()).map_or(0, Vec::len)
    }

    /// Column of a name, in any letter case; none where the name stands twice.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.only(|found| found.eq_ignore_ascii_case(name))
    }

    /// Column of exactly that name; none where the name stands twice.
    pub(crate) fn find_exact(&self, name: &str) -> Option<usize> {
        self.only(|found| found == name)
    }

    fn only(&self, is: impl Fn(&str) -> bool) -> Option<usize> {
        let names = self.names.as_ref()?;
        let mut found = names.iter().enumerate().filter(|(_, name)| is(name)).map(|(i, _)| i);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// True if the file begins like JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.first.starts_with(['{', '['])
    }

    /// The first line, cut to what fits in a message.
    pub(crate) fn first_line(&self) -> String {
        shorten(&self.first)
    }
}

/// `text` in at most 80 characters.
pub(crate) fn shorten(text: &str) -> String {
    if text.chars().count() <= 80 {
        return format!("`{text}`");
    }
    format!("`{}…`", text.chars().take(79).collect::<String>())
}

/// A reader of cells that takes every line as a row.
pub(crate) fn reader(text: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(text.as_bytes())
}

/// The text of a file: UTF-8, or UTF-16 with a byte order mark, as some terminals write.
pub(crate) fn decode(bytes: Vec<u8>, path: &Path) -> Result<String> {
    let packed = [(&b"PK\x03\x04"[..], "a zip archive"), (b"\x1f\x8b", "a gzip file"), (b"PAR1", "a Parquet file")];
    if let Some((_, what)) = packed.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Err(refuse(path, None, "must be text; unpack it first".to_owned(), (*what).to_owned(), None));
    }
    let wide = |of: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..].chunks_exact(2).map(|pair| of([pair[0], pair[1]])).collect();
        String::from_utf16(&units).ok()
    };
    let text = match bytes.get(..2) {
        Some([0xff, 0xfe]) => wide(u16::from_le_bytes),
        Some([0xfe, 0xff]) => wide(u16::from_be_bytes),
        _ => String::from_utf8(bytes).ok(),
    };
    match text {
        Some(text) if !text.contains('\0') => Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned)),
        _ => Err(refuse(path, None, "must be text in UTF-8 or UTF-16".to_owned(), "other bytes".to_owned(), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_separator_and_repeated_names() {
        let head = Head::read("time,open,Shapes,Shapes\n1,2,3,4\n");
        assert_eq!((head.width(), head.find("OPEN"), head.find("Shapes")), (4, Some(1), None));
        assert_eq!(Head::read("20170301 000000;1,05;2\n").delimiter, b';');
        assert!(Head::read("01.04.2025 00:00:00.000 GMT+0200,1.0,2e5,nan\n").names.is_none());
        assert_eq!(Head::read("").width(), 0);
    }

    #[test]
    fn encodings() {
        let path = Path::new("f");
        assert_eq!(decode(b"\xef\xbb\xbfa,b".to_vec(), path).unwrap(), "a,b");
        assert_eq!(decode(b"\xff\xfea\0,\0b\0".to_vec(), path).unwrap(), "a,b");
        for bytes in [&b"PK\x03\x04x"[..], b"\x1f\x8bx", b"PAR1", b"a\0b", b"\xff\xff\xff"] {
            assert!(decode(bytes.to_vec(), path).is_err());
        }
    }
}
