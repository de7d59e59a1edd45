//! Checkpoints of the official code (`.pth.tar`), read without executing anything, and written for it to go on from.
//!
//! Such a file is what `torch.save` makes of a dictionary: a [`zip`] file ([`archive`]) of a [`pickle`] and the
//! tensors' elements. [`checkpoint`] knows what the dictionary means; [`archive::write`] is the other direction.
//!
//! Whatever bytes come in, the readers do not panic. They take no memory beyond a small multiple of the pickle's size,
//! and time that grows with the size of the file alone. Fuzzing holds them to it.

pub mod archive;
pub mod checkpoint;
mod fault;
pub mod optimizer;
pub mod pickle;
pub mod zip;

pub use archive::{Archive, Elements};
pub use checkpoint::Checkpoint;
pub use fault::{Cause, Fault};
pub use optimizer::Optimizer;

#[cfg(test)]
mod tests;
