//! Checkpoints in and out: the official code's and Hugging Face's.
//!
//! Both directions move weights between files, without libtorch. The formats of others are read and written by the
//! crate [`exchange`](mod@::exchange).

mod error;
pub mod export;
pub mod import;

pub use error::{Error, StepsFault};
