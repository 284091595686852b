//! What a sweep may use and in which order it works.

pub mod memory;
