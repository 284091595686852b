//! The order of all rows, from a key each: as many at a time as memory allows.

use std::collections::BTreeMap;

use engine::metrics::MetricValues;
use rayon::prelude::*;

use super::{LeaderboardError, ROW_GROUP, Reader, Room, Summary};
use crate::chunk::Chunk;
use crate::fingerprint::unhex;
use crate::objective::RankKey;
use crate::row::ChunkColumns;

/// Key and place of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) key: RankKey,
    pub(super) chunk: u32,
    pub(super) row: u32,
    pub(super) rules_hash: [u8; 8],
}

/// The next rows in order.
pub(super) struct Selected {
    pub(super) entries: Vec<Entry>,
    /// There are further ones.
    pub(super) more: bool,
}

/// Selects rows in order and counts over all of them on the way.
pub(super) struct Keys<'a> {
    reader: &'a Reader<'a>,
    /// Rows one selection may return.
    most: usize,
    /// The last row selected, duplicates included.
    last: Option<Entry>,
    counts: Option<Counts>,
    duplicates: u64,
}

/// Counts over all rows, made by the first selection.
#[derive(Default)]
struct Counts {
    gates: Vec<u64>,
    ways: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    first_failure: Option<([u8; 32], String, String)>,
    /// Rules hashes of all rows, where one selection holds them all.
    rules: Option<Vec<u64>>,
}

/// What one chunk adds.
struct Read {
    entries: Vec<Entry>,
    counts: Counts,
}

impl<'a> Keys<'a> {
    pub(super) fn new(reader: &'a Reader<'a>, room: &Room) -> Self {
        Self { reader, most: room.keys, last: None, counts: None, duplicates: 0 }
    }

    /// The best rows that come after the last ones, in order, one per config hash.
    pub(super) fn select_next(&mut self) -> Result<Selected, LeaderboardError> {
        let first = self.counts.is_none();
        let all_at_once = self.most as u64 >= self.reader.sources.plan.total();
        let rows = usize::try_from(self.reader.sources.plan.total()).unwrap_or(usize::MAX);
        let room = || Vec::with_capacity(rows);
        let mut counts = Counts { rules: (first && all_at_once).then(room), ..Counts::default() };
        let mut best: Vec<Entry> = Vec::with_capacity(rows.min(self.most.saturating_mul(2)));
        let mut more = false;
        let chunks = self.reader.sources.indices();
        for some in chunks.chunks(at_a_time(self.reader)) {
            let read = self.reader.read_all(some, |index, Chunk { header, batch }| {
                let columns = self.reader.columns(&batch, index)?;
                let mut read = read_keys(self.reader, &columns, index, batch.num_rows(), first)?;
                read.counts.ways = header.ways;
                Ok(read)
            })?;
            for Read { entries, counts: of_chunk } in read {
                if first {
                    counts.add(of_chunk, &entries);
                }
                for entry in entries {
                    if self.last.is_some_and(|last| entry <= last) {
                        continue;
                    }
                    if best.len() == self.most.saturating_mul(2) {
                        keep_smallest(&mut best, self.most);
                        more = true;
                    }
                    best.push(entry);
                }
            }
        }
        more |= best.len() > self.most;
        keep_smallest(&mut best, self.most);
        match &self.reader.pool {
            Some(pool) => pool.install(|| best.par_sort_unstable()),
            None => best.sort_unstable(),
        }
        let mut previous = self.last.map(|last| last.key);
        self.last = best.last().copied().or(self.last);
        let found = best.len();
        // Equal keys are the same trial (metrics-and-outputs §10: keep one); the first place comes first and stays.
        best.retain(|entry| previous.replace(entry.key) != Some(entry.key));
        self.duplicates += (found - best.len()) as u64;
        // The candidates' room is needed for the rows.
        best.shrink_to_fit();
        if first {
            self.counts = Some(counts);
        }
        Ok(Selected { entries: best, more })
    }

    /// Tells what was counted.
    pub(super) fn tell(self, summary: &mut Summary) -> Result<(), LeaderboardError> {
        let counts = self.counts.unwrap_or_default();
        summary.duplicates = self.duplicates;
        summary.distinct_rules = match counts.rules {
            Some(rules) => distinct(rules),
            None => distinct_rules(self.reader, self.most)?,
        };
        summary.gates = counts.gates;
        summary.gates.resize(self.reader.sources.gates.texts().len(), 0);
        summary.ways = counts.ways;
        summary.failures = counts.failures;
        summary.first_failure = counts.first_failure.map(|(_, code, reason)| (code, reason));
        Ok(())
    }
}

impl Counts {
    fn add(&mut self, other: Self, entries: &[Entry]) {
        self.gates.resize(other.gates.len(), 0);
        self.gates.iter_mut().zip(other.gates).for_each(|(sum, more)| *sum += more);
        let add = |to: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>| {
            more.into_iter().for_each(|(name, rows)| *to.entry(name).or_default() += rows);
        };
        add(&mut self.ways, other.ways);
        add(&mut self.failures, other.failures);
        if let Some(failure) = other.first_failure {
            self.note_failure(failure);
        }
        if let Some(rules) = &mut self.rules {
            rules.extend(entries.iter().map(|entry| u64::from_be_bytes(entry.rules_hash)));
        }
    }

    fn note_failure(&mut self, failure: ([u8; 32], String, String)) {
        if self.first_failure.as_ref().is_none_or(|(hash, ..)| failure.0 < *hash) {
            self.first_failure = Some(failure);
        }
    }
}

/// Chunks read at a time, some per thread: what they leave is small, they themselves are not.
fn at_a_time(reader: &Reader<'_>) -> usize {
    let chunk_rows = usize::try_from(reader.sources.plan.size()).unwrap_or(usize::MAX);
    (ROW_GROUP / chunk_rows.max(1)).max(4 * reader.sources.threads)
}

fn keep_smallest(entries: &mut Vec<Entry>, most: usize) {
    if entries.len() > most {
        entries.select_nth_unstable(most);
        entries.truncate(most);
    }
}

fn read_keys(
    reader: &Reader<'_>,
    columns: &ChunkColumns<'_>,
    index: u64,
    rows: usize,
    count: bool,
) -> Result<Read, LeaderboardError> {
    let (objective, gates) = (reader.sources.objective, reader.sources.gates);
    let mut counts = Counts { gates: vec![0; gates.texts().len()], ..Counts::default() };
    let mut entries = Vec::with_capacity(rows);
    let chunk = u32::try_from(index).map_err(|_| reader.damaged(index, "more than 2^32 chunks"))?;
    let mut place = MetricValues::UNDEFINED;
    for row in 0..rows {
        let config_hash = unhex(columns.config_hash.value(row))
            .ok_or_else(|| reader.damaged(index, "a config hash is not 64 hex digits"))?;
        let rules_hash = rules_hash(reader, columns, index, row)?;
        let (judgement, values) = reader.judge(columns, row, &mut place);
        let key = RankKey::of(objective.goal, &judgement, values, config_hash);
        let row_number = u32::try_from(row).map_err(|_| reader.damaged(index, "more than 2^32 rows"))?;
        entries.push(Entry { key, chunk, row: row_number, rules_hash });
        if !count {
            continue;
        }
        match values {
            Some(values) => {
                counts.gates.iter_mut().zip(gates.passes(values)).for_each(|(sum, passes)| *sum += u64::from(passes));
            }
            None => {
                let (code, reason) = columns.reason(row).and_then(|text| text.split_once(": ")).unwrap_or_default();
                *counts.failures.entry(code.to_owned()).or_default() += 1;
                counts.note_failure((config_hash, code.to_owned(), reason.to_owned()));
            }
        }
    }
    Ok(Read { entries, counts })
}

fn rules_hash(
    reader: &Reader<'_>,
    columns: &ChunkColumns<'_>,
    index: u64,
    row: usize,
) -> Result<[u8; 8], LeaderboardError> {
    unhex(columns.rules_hash.value(row)).ok_or_else(|| reader.damaged(index, "a rules hash is not 16 hex digits"))
}

fn distinct(mut hashes: Vec<u64>) -> u64 {
    hashes.sort_unstable();
    hashes.dedup();
    hashes.len() as u64
}

/// Counts distinct rules hashes where not all of them fit: as many of the possible ones at a time as there is room for.
fn distinct_rules(reader: &Reader<'_>, keys: usize) -> Result<u64, LeaderboardError> {
    // What the candidates of a selection take, half of it for hashes, since a list doubles as it grows.
    let at_once = (2 * keys * size_of::<Entry>() / size_of::<u64>() / 2).max(1) as u64;
    let parts = reader.sources.plan.total().div_ceil(at_once).max(1);
    let chunks = reader.sources.indices();
    let mut found = 0;
    for part in 0..parts {
        let mut hashes: Vec<u64> = Vec::new();
        for some in chunks.chunks(at_a_time(reader)) {
            let read = reader.read_all(some, |index, Chunk { batch, .. }| {
                let columns = reader.columns(&batch, index)?;
                let all = (0..batch.num_rows()).map(|row| rules_hash(reader, &columns, index, row));
                let all = all.map(|hash| hash.map(u64::from_be_bytes)).collect::<Result<Vec<_>, _>>()?;
                Ok(all.into_iter().filter(|hash| hash % parts == part).collect::<Vec<_>>())
            })?;
            hashes.extend(read.into_iter().flatten());
        }
        found += distinct(hashes);
    }
    Ok(found)
}
