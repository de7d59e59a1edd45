//! Replaying recorded runs of the official code: the proof that this trainer computes the same thing.
//!
//! A reference set is a directory of safetensors files and a `meta.json`: initial weights, inputs, and what the official
//! code made of them: intermediate results, gradients, states, moments, losses, schedules. [`check`] loads the weights,
//! runs the same batches through the very functions that training uses, and compares everything that is recorded. Every
//! dimension comes from `meta.json`; a reduced set is compared as far as it goes, and what it lacks is named.
//!
//! `set` reads, `replay` runs, `compare` measures and judges by the `yardstick`. Under autocast to bfloat16 the same run is
//! compared with the same records, within bounds of its own.

mod compare;
mod replay;
mod set;
mod yardstick;

pub use compare::{BF16_ROUNDING, Group, KEYS_MULTIPLE, MULTIPLE, Report};
pub use replay::{Precision, check};
pub use yardstick::autocast;
