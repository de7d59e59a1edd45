//! Zip files as `torch.save` writes them: entries stored as they are, in one file, with or without the 64-bit
//! extensions.
//!
//! Reader and writer are our own for two reasons. A checkpoint is read from a mapped file, so an entry's content has to
//! be a slice of it, and is written at a multiple of 64 bytes, as PyTorch does. And the file may be hostile: every
//! entry is checked to lie inside it and apart from the others. Two crates were looked at: `zip` hands out readers,
//! which copy, and `rawzip` hands out slices but leaves the checks to its user.

mod reader;
mod writer;

pub use reader::{Entry, read};
pub use writer::ZipWriter;
