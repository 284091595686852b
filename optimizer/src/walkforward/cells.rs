//! One setting on every window: what a search keeps of it.

use std::collections::BTreeSet;
use std::ops::Range;

use engine::Error;
use engine::backtest::Prepared;
use engine::backtest::tile::{Evaluated, Job};

use crate::objective::{Gates, Objective, Verdict, judge};
use crate::walkforward::windows::{Design, Window};

/// All windows of a run under one number each, and the distinct ranges of bars they are made of: what two windows of a
/// matrix share is evaluated once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    designs: Vec<Design>,
    spans: Vec<Range<usize>>,
    places: Vec<Place>,
}

/// Where a window stands and which spans it reads; none for a part without a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of its design.
    pub design: usize,
    /// Number within the design.
    pub number: usize,
    /// Span of the train part.
    pub train: Option<usize>,
    /// Span of the test part.
    pub test: Option<usize>,
}

impl Layout {
    /// Numbers the windows of `designs`, design by design.
    pub fn new(designs: Vec<Design>) -> Self {
        let windows = || designs.iter().flat_map(|design| &design.windows);
        let bars = |range: &Range<usize>| (range.start, range.end);
        let distinct: BTreeSet<(usize, usize)> = windows()
            .flat_map(|window| [&window.train.bars, &window.test.bars])
            .filter(|range| !range.is_empty())
            .map(bars)
            .collect();
        let spans: Vec<(usize, usize)> = distinct.into_iter().collect();
        let span = |range: &Range<usize>| spans.binary_search(&bars(range)).ok();
        let places = designs.iter().enumerate().flat_map(|(design, of)| {
            of.windows.iter().enumerate().map(move |(number, window)| Place {
                design,
                number,
                train: span(&window.train.bars),
                test: span(&window.test.bars),
            })
        });
        let places = places.collect();
        Self { places, spans: spans.into_iter().map(|(start, end)| start..end).collect(), designs }
    }

    /// Designs, in the order of the grid.
    pub fn designs(&self) -> &[Design] {
        &self.designs
    }

    /// Distinct ranges of bars, each evaluated once per setting.
    pub fn spans(&self) -> &[Range<usize>] {
        &self.spans
    }

    /// Windows of all designs.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// A window by its place.
    pub fn window(&self, place: &Place) -> &Window {
        &self.designs[place.design].windows[place.number]
    }

    /// The backtests of one setting, one per span.
    pub fn jobs<'a>(&self, setting: &'a Prepared) -> impl Iterator<Item = Job<'a>> {
        self.spans.iter().map(move |bars| Job { setting, bars: bars.clone(), close_at_end: true })
    }
}

/// What is kept of one backtest: how it is judged, and its objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// `ok`, `gated`, `no_score` or `failed`.
    pub verdict: Verdict,
    /// Raw objective; there for `ok` and `gated` only.
    pub score: Option<f64>,
}

impl Cell {
    /// Of a part without a bar.
    pub const EMPTY: Self = Self { verdict: Verdict::NoScore, score: None };
}

/// The cells of one setting, one per span.
#[derive(Debug, Clone, PartialEq)]
pub struct Cells {
    /// In the order of [`Layout::spans`].
    pub cells: Vec<Cell>,
    /// The first cell that failed: code and reason.
    pub failure: Option<(String, String)>,
}

impl Cells {
    /// Judges the backtests of [`Layout::jobs`].
    pub fn judge(results: &[Result<Evaluated, Error>], objective: &Objective, gates: &Gates) -> Self {
        let cell = |result: &Result<Evaluated, Error>| {
            let judgement = judge(objective, gates, result.as_ref().ok().map(|done| &done.values));
            Cell { verdict: judgement.verdict, score: judgement.score }
        };
        let failure = results.iter().find_map(|result| result.as_ref().err());
        Self {
            cells: results.iter().map(cell).collect(),
            failure: failure.map(|error| (error.code().to_owned(), error.to_string())),
        }
    }

    /// The cell of a part; one without a score where the part has no bar.
    pub fn of(&self, span: Option<usize>) -> Cell {
        span.and_then(|span| self.cells.get(span)).copied().unwrap_or(Cell::EMPTY)
    }
}

/// What became of one trial.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Evaluated; single cells may have failed.
    Done(Cells),
    /// Could not be evaluated at all.
    Failed {
        /// `E4003` …
        code: String,
        /// What happened.
        reason: String,
    },
}

impl Outcome {
    /// The cell of a part; failed where the trial failed.
    pub fn cell(&self, span: Option<usize>) -> Cell {
        match self {
            Self::Done(cells) => cells.of(span),
            Self::Failed { .. } => Cell { verdict: Verdict::Failed, score: None },
        }
    }
}
