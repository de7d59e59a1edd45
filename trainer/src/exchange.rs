//! Checkpoints in and out: the official code's and Hugging Face's.
//!
//! Both directions move weights between files, without libtorch. The formats of others are read and written by the
//! crate [`exchange`](mod@::exchange).

mod error;
pub mod export;
pub mod import;

use crate::checkpoint::State;
use crate::config::Config;

pub use error::{Error, StepsFault};

/// Returns the attention heads of a checkpoint's networks, where its configuration tells: no tensor does.
fn heads_of(state: &State) -> Option<i64> {
    let whole = Config::from_resolved(&state.config).ok();
    let heads = whole.and_then(|config| config.model().ok());
    // Of weights that came without a configuration only the sizes are known.
    let part = || state.config.get("meta")?.get("num_heads")?.as_i64();
    heads.map(|model| model.heads).or_else(part)
}
