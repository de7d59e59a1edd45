//! Replaying recorded runs of the official code: the proof that this trainer computes the same thing.
//!
//! A reference set is a directory of safetensors files and a `meta.json`: initial weights, inputs, and what the
//! official code made of them: intermediate results, gradients, states, moments, losses, schedules. [`check`] loads the
//! weights, runs the same batches through the functions that training uses, and compares everything that is recorded.
//! Every dimension comes from `meta.json`. A reduced set is compared as far as it goes, and what it lacks is named.
//!
//! Which functions those are: the networks, the loss, the optimiser and the target's update are the training loop's
//! own, called in its order. Step 1, and the batch with two context masks, have [hooks](crate::method::hooks) that want
//! whole results, so every row of every block is computed. All later steps have none, as in training, so rows that
//! nothing looks at are left out: their losses, gradients and states are what proves that way.
//!
//! | file | what it does |
//! |---|---|
//! | `precision`, `set` | what is computed in, and reading a set |
//! | `compare`, `yardstick` | measuring differences, and how large they may be |
//! | `split`, `recorded` | comparing tensors, and all tensors of a file |
//! | `replay` | runs the steps |
//!
//! Under autocast to bfloat16 the same run is compared with the same records, within bounds of its own.

mod compare;
mod precision;
mod recorded;
mod replay;
mod set;
mod split;
mod yardstick;

pub use compare::{BF16_ROUNDING, Group, KEYS_MULTIPLE, MULTIPLE, Report};
pub use precision::Precision;
pub use replay::check;
pub use yardstick::autocast;
