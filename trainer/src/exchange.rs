//! Checkpoints in and out: the official code's and Hugging Face's.

pub mod export;
pub mod huggingface;
pub mod import;
pub mod official;
pub mod weights;
