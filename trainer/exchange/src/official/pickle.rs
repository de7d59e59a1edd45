//! Pickles as PyTorch's checkpoints have them, read without executing anything.
//!
//! Pickle is a program for a small stack machine. The part of its language that `torch.save` uses for nested
//! dictionaries of tensors and numbers (protocol 2) builds containers and calls few names: `OrderedDict`, a tensor's
//! reconstruction, storage types, and those that NumPy's numbers come as. What such a call would make is described by a
//! [`Value`] instead of being made. Every other name, and every object made by one, is [`Value::Foreign`]: it can be
//! passed by, and is an error where it is needed.
//!
//! Whatever bytes come in, memory and time are bounded by [`MAX_BYTES`], [`MAX_VALUES`] and [`MAX_VISITS`]. Values live
//! in one flat list and refer to each other by number, so neither sharing nor nesting multiplies or recurses. A value
//! that contains itself is found at the end. A tensor is checked against its storage's declared length here; the
//! storage itself is the archive's business.
//!
//! [`write()`] makes the pickle of a [`Node`], for `torch.load(weights_only=True)`.

mod calls;
mod machine;
pub(super) mod op;
mod tree;
mod value;
mod writer;

pub use tree::{Item, Tree};
pub use value::{Dtype, Global, Storage, Tensor, Value};
pub use writer::{Key, Node, write};

/// Longest pickle that is read, in bytes. That of the largest official model is under 1 MiB.
pub const MAX_BYTES: usize = 16 << 20;
/// Most values, references to them and memo entries in a pickle. The largest official model has some 100,000.
pub const MAX_VALUES: usize = 1 << 20;
/// Most elements of containers that are looked at after reading. The largest official model takes some 100,000.
///
/// A pickle of a megabyte can hold one large dictionary in a hundred thousand places; reading it at each of them would
/// take hours.
pub const MAX_VISITS: u64 = 32 << 20;
/// Most containers inside each other; an official checkpoint has 5.
const MAX_DEPTH: u8 = 32;
