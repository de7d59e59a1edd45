//! Weights as they lie in files: names, shapes and bytes, without libtorch.
//!
//! Import and export move gigabytes from one file format to another without computing anything, so they work on mapped
//! files: a [`Data`] is a handful of slices of them, and what is written is read one tensor at a time. [`names`] says
//! which tensors there must be.

mod data;
pub mod names;

pub use data::{Data, Mapped};

use std::collections::BTreeMap;

/// The tensors of one network, or of the optimiser, by name.
pub type Tensors<'a> = BTreeMap<String, Data<'a>>;
