//! I-JEPA pretraining on libtorch.
//!
//! The method is [`ijepa`]: a context encoder, a predictor and a slowly following target encoder, whose networks stand
//! in [`model`] and start from [`init`]. [`optimizer`] and [`schedule`] move them. [`reference`] replays recorded runs
//! of the official code through the same functions and says how far the results lie apart.

pub mod device;
mod error;
pub mod ijepa;
pub mod init;
pub mod model;
pub mod optimizer;
pub mod schedule;
pub mod shim;
pub mod taps;

pub use error::Error;
