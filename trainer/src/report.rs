//! Pictures of what a run wrote.

pub mod plot;
