//! I-JEPA weights in other programs' files, without libtorch.

pub mod huggingface;
pub mod model;
pub mod official;
pub mod parameters;
pub mod weights;
