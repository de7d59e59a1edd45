//! Checkpoints in and out: the official code's and Hugging Face's.
//!
//! Both move [`weights`] between files without libtorch.

mod error;
pub mod export;
pub(crate) mod huggingface;
pub mod import;
pub mod official;
pub mod weights;

pub use error::Error;
