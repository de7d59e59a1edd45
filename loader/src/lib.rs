//! From shards to whole batches in shared memory.
//!
//! What a step sees is decided by [`sampler`], a pure function of [`config`], step and position: the [`order`] of
//! samples, their [`crop`]s, what is done to their colours ([`augment`]) and their [`masks`], all drawn from the
//! counter-based numbers of [`random`]. `pipeline` decodes and `resize`s that straight into the slots of a [`ring`], which
//! lies in [`memory`] shared with a trainer; the two find each other over a [`link`], behind which the loader's side is
//! `serve`. The last three names in plain type belong to the producing side (feature `serve`), which the trainer does
//! without. [`storage`] copies shards to local storage first, where that is asked for.

// A message that cannot be written must end nothing: speech goes through `tracing` and `shardtool::program`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod augment;
pub mod config;
pub mod crop;
pub mod error;
mod fingerprint;
pub mod link;
pub mod masks;
pub mod memory;
pub mod order;
#[cfg(feature = "serve")]
pub mod pipeline;
pub mod private_dir;
pub mod random;
#[cfg(feature = "serve")]
pub mod render;
#[cfg(feature = "serve")]
pub mod resize;
pub mod ring;
pub mod sampler;
#[cfg(feature = "serve")]
pub mod serve;
pub mod share;
pub mod storage;
mod sync;
#[cfg(test)]
mod testing;

pub use config::LoaderConfig;
pub use error::Error;
pub use sampler::PretrainingSampler;
