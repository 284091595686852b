//! Choosing on the past, judging on the unseen, over and over.
//!
//! [`windows`] says where trains and tests lie; [`cells`] is one setting on all of them, which [`work`]
//! tells the driver; a chunk ([`chunk_file`]) keeps
//! that for a range of trials; [`choice`] finds what each window chooses and where it stands on its test; [`result`]
//! walks the choices again, [`stitch`] lays their tests end to end, [`stats`] and [`verdict`] judge the whole, [`files`]
//! writes it down. [`run`] is the whole of it, from a grid to a run folder.

pub mod cells;
pub mod choice;
pub mod chunk_file;
pub mod files;
pub mod result;
pub mod run;
pub mod stats;
pub mod stitch;
pub mod table;
pub mod verdict;
pub mod windows;
pub mod work;
