//! Shards: the dataset format that stands between image folders and the loader.
//!
//! [`mod@format`] owns one shard file (writer, validating reader), [`dataset`] the directory around it (`dataset.json`
//! and every shard). [`codec`] turns payloads into pixels (feature `codecs`), and [`build`] turns an image folder into a
//! dataset (feature `build`); [`turbo`] is the way to libjpeg-turbo, which only conversion needs. Readers map the files
//! and copy nothing; everything but the payloads is validated when a dataset is opened, so that afterwards only payload
//! damage can fail.
//!
//! What the three programs have in common stands here, too: [`exit`] codes, [`Escaped`] text, and how they speak and
//! end ([`program`], feature `program`).
//!
//! The specification, which the code follows and a stranger could read alone:
#![doc = include_str!("../FORMAT.md")]
// A message that cannot be written must end nothing: speech goes through `tracing` and `shardtool::program`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

#[cfg(feature = "build")]
pub mod build;
#[cfg(feature = "codecs")]
pub mod codec;
mod corrupt;
pub mod cpus;
pub mod dataset;
pub mod dct;
mod error;
mod escaped;
pub mod exit;
pub mod format;
pub mod panics;
pub mod planes;
#[cfg(feature = "program")]
pub mod program;
pub mod rans;
pub mod simd;
#[cfg(feature = "build")]
pub mod source;
#[cfg(test)]
mod testing;
#[cfg(feature = "turbo")]
pub mod turbo;

pub use corrupt::Corrupt;
pub use dataset::{Dataset, Manifest, Sample, Split};
pub use error::{Error, Fault};
pub use escaped::Escaped;
pub use format::{Codec, Entry, Shard, ShardWriter};
