//! What a sweep may use, in which order it works, and what it will take.

pub mod memory;
pub mod outlook;
pub(crate) mod places;
pub mod survey;
