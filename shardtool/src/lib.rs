//! Shards: the dataset format that stands between image folders and the loader.
//!
//! [`mod@format`] owns a shard file (writer, validating reader), [`dataset`] the directory around it (`dataset.json`
//! and every shard). [`codec`] turns payloads into pixels (feature `codecs`). [`source`] lists images, [`build`] turns
//! them into a dataset (feature `build`), and [`turbo`] is the way to libjpeg-turbo, which only conversion needs.
//! Opening a dataset validates everything but the payloads, so that afterwards only payload damage can fail.
//!
//! The three calls that matter open a dataset, read a sample and decode it:
//!
//! ```
//! # #[cfg(feature = "codecs")]
//! # fn main() -> Result<(), shardtool::Error> {
//! use shardtool::Dataset;
//! use shardtool::codec::{Decoder, Picture};
//! use shardtool::planes::{Area, Resolution};
//!
//! let dataset = Dataset::open("../tests/golden/dct".as_ref())?;
//! let sample = dataset.split("train").expect("there is one").sample(0);
//! let mut buffer = Vec::new(); // keep one for each thread
//! let payload = sample.read(&mut buffer)?;
//!
//! let entry = sample.entry();
//! let whole = Area::whole((entry.stored_width, entry.stored_height));
//! let mut decoder = Decoder::new(); // keep one for each thread
//! match decoder.decode(&payload, whole, Resolution::Full)? {
//!     Picture::Rgb(view) => assert_eq!(view.rows().count(), entry.stored_height as usize),
//!     Picture::Planes(planes) => assert_eq!(planes.planes[0].width, f64::from(entry.stored_width)),
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "codecs"))]
//! # fn main() {}
//! ```
//!
//! What the three programs have in common stands here, too: [`exit`] codes, [`Escaped`] text, files on all kinds of
//! [`disk`], a look at another [`process`], and how they speak and end ([`program`], feature `program`).
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
pub mod disk;
mod error;
mod escaped;
pub mod exit;
pub mod format;
pub mod memory;
pub mod panics;
pub mod paths;
pub mod planes;
pub mod process;
#[cfg(feature = "program")]
pub mod program;
pub mod rans;
pub mod regular;
pub mod simd;
#[cfg(feature = "build")]
pub mod source;
#[cfg(test)]
mod testing;
#[cfg(feature = "turbo")]
pub mod turbo;

pub use corrupt::Corrupt;
pub use dataset::{Dataset, Manifest, Payload, Sample, Split};
pub use error::{Error, Fault};
pub use escaped::Escaped;
pub use format::{Codec, Entry, Shard, ShardWriter};
