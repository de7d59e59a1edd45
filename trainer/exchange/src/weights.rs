//! Weights as they lie in files: names, shapes and bytes, without libtorch.
//!
//! Import and export move gigabytes from one file format to another without computing anything, so they work on mapped
//! files: a [`Data`] is a handful of slices of them, and what is written is read one tensor at a time. [`sizes`] and
//! [`check`] hold tensors against the list of [`parameters`](crate::parameters) that there must be.

mod data;
mod fit;
mod mapped;
mod writer;

use std::collections::BTreeMap;

pub use data::{Data, DataError};
pub use fit::{MAX_DEPTH, Unfit, check, sizes};
pub use mapped::Mapped;
pub use writer::write;

/// Tensors of one network, or of the optimiser, by name.
pub type Tensors<'a> = BTreeMap<String, Data<'a>>;

#[cfg(test)]
mod tests;
