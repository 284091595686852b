//! A share of a run's chunks: what one of several machines works on, in a folder of its own.

use std::fmt;
use std::str::FromStr;

/// One of `count` shards, counted from 1: it holds every `count`-th chunk, so that each shard gets a fair part of what
/// is dear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    number: u64,
    count: u64,
}

/// A text is no shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be i/n with whole numbers and 1 <= i <= n, got `{0}`")]
pub struct BadShard(pub String);

impl BadShard {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        "for example --shard 3/7, the third of seven; add 1 to a number counted from 0"
    }
}

impl Shard {
    /// Shard that holds a chunk, of `count` ≥ 1.
    pub fn of_chunk(chunk: u64, count: u64) -> Self {
        let count = count.max(1);
        Self { number: chunk % count + 1, count }
    }

    /// Its first chunk; every [`Shard::count`]-th from there on is its work.
    pub fn first_chunk(self) -> u64 {
        self.number - 1
    }

    /// Number of shards the run is cut into.
    pub fn count(self) -> u64 {
        self.count
    }

    /// Name of its folder, given that of the run: `grid-0123abcd.shard-3-of-7`.
    pub fn folder_name(self, run: &str) -> String {
        format!("{run}.shard-{}-of-{}", self.number, self.count)
    }

    /// What a folder's name made by [`Shard::folder_name`] says; `None` for any other name.
    pub fn of_folder_name(name: &str) -> Option<(&str, Self)> {
        let (run, tail) = name.rsplit_once(".shard-")?;
        let (number, count) = tail.split_once("-of-")?;
        let shard: Self = format!("{number}/{count}").parse().ok()?;
        (shard.folder_name(run) == name).then_some((run, shard))
    }
}

impl fmt::Display for Shard {
    /// `3/7`, as it is typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl FromStr for Shard {
    type Err = BadShard;

    fn from_str(text: &str) -> Result<Self, BadShard> {
        let whole = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
        let parts = text.split_once('/').and_then(|(number, count)| Some((whole(number)?, whole(count)?)));
        match parts {
            Some((number, count)) if (1..=count).contains(&number) => Ok(Self { number, count }),
            _ => Err(BadShard(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_counted_from_one() {
        let shard: Shard = "3/7".parse().unwrap();
        assert_eq!(shard.to_string(), "3/7");
        for text in ["0/7", "8/7", "0/0", "3", "3/", "/7", "a/b", "1/7/2", "-1/7", "+1/7", "1 /7", "1.0/7", ""] {
            assert_eq!(text.parse::<Shard>(), Err(BadShard(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_chunk_belongs_to_the_shard_that_starts_at_it_or_a_multiple_before() {
        assert_eq!(Shard::of_chunk(9, 7).to_string(), "3/7");
        assert_eq!(Shard::of_chunk(9, 7).first_chunk(), 2);
        assert_eq!(Shard::of_chunk(5, 0).to_string(), "1/1");
    }

    #[test]
    fn folder_names_and_back() {
        let shard: Shard = "3/7".parse().unwrap();
        let name = shard.folder_name("my.grid-0123abcd");
        assert_eq!(name, "my.grid-0123abcd.shard-3-of-7");
        assert_eq!(Shard::of_folder_name(&name), Some(("my.grid-0123abcd", shard)));
        for name in ["my.grid-0123abcd", "x.shard-8-of-7", "x.shard-03-of-7", "x.shard-3"] {
            assert_eq!(Shard::of_folder_name(name), None, "{name}");
        }
    }
}
