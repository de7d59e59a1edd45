//! Checkpoints of the official code (`.pth.tar`), read without executing anything and written so that it can go on from
//! them.
//!
//! Such a file is what `torch.save` makes of a dictionary: a [`zip`] file ([`archive`]) of a [`pickle`] and the tensors'
//! elements. [`checkpoint`] knows what the dictionary means. [`write`](mod@write) is the other direction. The readers
//! depend on nothing of libtorch, so that they can be fuzzed alone; whatever bytes come in, they neither panic nor take
//! memory beyond a small multiple of the pickle's size.

pub mod archive;
pub mod checkpoint;
pub mod fault;
pub mod pickle;
pub mod write;
pub mod zip;

#[cfg(test)]
mod tests;
