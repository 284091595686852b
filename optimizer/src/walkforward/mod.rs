//! Choosing on the past, judging on the unseen, over and over.
pub mod cells;
pub mod choice;
pub mod chunk_file;
pub mod stats;
pub mod verdict;
pub mod windows;
