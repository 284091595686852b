//! What can end a command, and the exit code it ends with.

use std::any::Any;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::Error;
use engine::error::Category;

use crate::atomic::FileError;
use crate::chunk::ChunkError;
use crate::diagnostic::Diagnostics;
use crate::driver::DriverError;
use crate::leaderboard::LeaderboardError;
use crate::merge::MergeError;
use crate::plan::memory::{enough_bytes, show_bytes};
use crate::replay::ReplayError;
use crate::run_folder::FolderError;

/// Exit codes of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// Internal error.
    Internal = 1,
    /// Usage or configuration.
    Usage = 2,
    /// Data.
    Data = 3,
    /// Finished with failed trials.
    FailedTrials = 4,
    /// Nothing passed the gates.
    NothingPassed = 5,
    /// A recomputed row differs from the stored one.
    Mismatch = 6,
    /// Limit, deadline or full disk; resumable.
    Limit = 7,
    /// Interrupted; resumable.
    Interrupted = 130,
}

/// A command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A file the user wrote is wrong.
    #[error(transparent)]
    Input(#[from] Box<Diagnostics>),
    /// The engine refused data or configuration.
    #[error("{0}")]
    Engine(#[from] Error),
    /// The run folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A chunk cannot be used.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// Run folders cannot be united.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Evaluation stopped.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// Ranking stopped.
    #[error(transparent)]
    Leaderboard(#[from] LeaderboardError),
    /// Artefacts could not be made.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The cap is too small for the least amount of work.
    #[error("the memory cap of {} is too small: this run needs at least {}", show_bytes(*.cap), show_bytes(*.needed))]
    Memory {
        /// `--memory`.
        cap: usize,
        /// What it would need.
        needed: usize,
    },
    /// Every trial failed; the error of the one with the smallest config hash.
    #[error("all {trials} trials failed; the first by config hash: {code} {reason}")]
    AllFailed {
        /// How many.
        trials: u64,
        /// Code of that trial.
        code: String,
        /// Its reason.
        reason: String,
    },
}

impl ExitCode {
    /// Codes of what several runs came to, the one that stands for all of them first: what continues by itself before what
    /// needs a person, and both before what is done.
    const BY_WEIGHT: [Self; 9] = [
        Self::Interrupted,
        Self::Limit,
        Self::Internal,
        Self::Usage,
        Self::Data,
        Self::Mismatch,
        Self::NothingPassed,
        Self::FailedTrials,
        Self::Done,
    ];

    /// The code of several runs together; [`ExitCode::Done`] of none.
    pub fn of_all(codes: impl IntoIterator<Item = Self>) -> Self {
        let weight = |code: &Self| Self::BY_WEIGHT.iter().position(|other| other == code);
        codes.into_iter().min_by_key(weight).unwrap_or(Self::Done)
    }

    /// The code of a number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::BY_WEIGHT.into_iter().find(|code| *code as u8 == number)
    }
}

impl CommandError {
    /// The code the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        if self.is_full() {
            return ExitCode::Limit;
        }
        match self {
            Self::Input(_) | Self::Memory { .. } => ExitCode::Usage,
            Self::Engine(error) => match error.category() {
                Category::Config => ExitCode::Usage,
                Category::MarketData => ExitCode::Data,
                _ => ExitCode::Internal,
            },
            Self::Folder(_) | Self::Chunk(ChunkError::Foreign { .. } | ChunkError::Newer { .. }) => ExitCode::Usage,
            Self::Driver(DriverError::Memory { .. }) | Self::Leaderboard(LeaderboardError::Memory { .. }) => {
                ExitCode::Usage
            }
            Self::File(_) | Self::Chunk(ChunkError::File(_)) => ExitCode::Usage,
            Self::Chunk(ChunkError::Damaged { .. }) | Self::Merge(MergeError::Damaged { .. }) => ExitCode::Data,
            Self::Merge(_) => ExitCode::Usage,
            Self::AllFailed { .. } => ExitCode::FailedTrials,
            Self::Driver(_) | Self::Leaderboard(_) | Self::Replay(_) => ExitCode::Internal,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) | Self::Replay(ReplayError::Engine(error)) => error.hint(),
            Self::Folder(error) => error.hint().map(str::to_owned),
            Self::Merge(error) => error.hint(),
            Self::File(error) | Self::Driver(DriverError::File(error)) => error.hint().map(str::to_owned),
            Self::Memory { needed, .. } => Some(format!("--memory {}", enough_bytes(*needed))),
            Self::Chunk(ChunkError::Foreign { .. }) => Some("--fresh drops its chunks and starts anew".to_owned()),
            Self::Chunk(ChunkError::Damaged { .. }) => {
                Some("start the same sweep again: it sets the chunk aside and evaluates it anew".to_owned())
            }
            Self::Chunk(ChunkError::File(FileError::Io { source, .. })) if source.kind() == ErrorKind::NotFound => {
                Some("the run is not finished: start the same sweep again".to_owned())
            }
            _ => None,
        }
    }

    /// The same command may succeed later although nobody changes its input: what failed is the system, a file that may
    /// yet arrive, a folder that another process may yet leave. A wrong grid, refused bars or a cap that is too small
    /// fail the same way every time.
    pub fn may_pass_later(&self) -> bool {
        match self {
            Self::Engine(error) => matches!(error, Error::DataFile { .. } | Error::Internal(_)),
            Self::Folder(error) => matches!(error, FolderError::InUse { .. } | FolderError::File(_)),
            Self::Chunk(error) => matches!(error, ChunkError::Damaged { .. } | ChunkError::File(_)),
            Self::Leaderboard(LeaderboardError::Memory { .. }) | Self::Driver(DriverError::Memory { .. }) => false,
            Self::File(_) | Self::Driver(_) | Self::Leaderboard(_) | Self::Replay(_) => true,
            Self::Merge(MergeError::File(_)) => true,
            Self::Input(_) | Self::Memory { .. } | Self::AllFailed { .. } | Self::Merge(_) => false,
        }
    }

    /// The disk is full; what is finished stays and the run can go on later.
    pub fn is_full(&self) -> bool {
        match self {
            Self::File(error) | Self::Driver(DriverError::File(error)) | Self::Folder(FolderError::File(error)) => {
                error.is_full()
            }
            Self::Merge(MergeError::File(error)) => error.is_full(),
            Self::Leaderboard(error) => error.is_full(),
            Self::Engine(Error::DataFile { kind: "StorageFull", .. }) => true,
            Self::Replay(ReplayError::Artefact(engine::backtest::artefact::ArtefactError::Io { source, .. })) => {
                crate::atomic::is_full(source)
            }
            _ => false,
        }
    }
}

/// Runs `work`; a panic becomes an error.
pub(crate) fn guarded<T, E: From<Error>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(Error::Internal(panic_text(payload.as_ref())).into()))
}

/// Message of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// config-and-errors §8.4: a caught panic and an error end the trial they happen in, with their code.
    #[test]
    fn several_codes_become_the_heaviest() {
        use ExitCode::*;
        assert_eq!(ExitCode::of_all([]), Done);
        assert_eq!(ExitCode::of_all([Done, FailedTrials, NothingPassed]), NothingPassed);
        assert_eq!(ExitCode::of_all([NothingPassed, Data, Done]), Data);
        assert_eq!(ExitCode::of_all([Usage, Limit, FailedTrials]), Limit);
        assert_eq!(ExitCode::of_all([Limit, Interrupted, Internal]), Interrupted);
        assert!(ExitCode::BY_WEIGHT.iter().all(|code| ExitCode::of_number(*code as u8) == Some(*code)));
        assert_eq!(ExitCode::of_number(8), None);
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        let said = |work: &dyn Fn() -> Result<(), Error>| {
            let error = guarded(work).unwrap_err();
            (error.code().to_owned(), error.to_string())
        };
        assert_eq!(
            said(&|| panic!("index {} of nothing", 3)),
            ("E4900".to_owned(), "internal error: index 3 of nothing".to_owned())
        );
        assert_eq!(
            said(&|| Err(Error::MetricNotFinite { key: "calmar_ratio" })),
            ("E4302".to_owned(), "metric `calmar_ratio` is not finite".to_owned())
        );
        assert_eq!(guarded(|| Ok::<_, Error>(7)).ok(), Some(7));
    }
}
