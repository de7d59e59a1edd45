//! From shards to whole groups of images in shared memory.
//!
//! What a step sees is decided by [`sampler`], a pure function of [`config`], step and position. It draws the [`order`]
//! of samples, their [`crop`]s, what is done to their colours ([`augment`]) and their [`masks`], all from the
//! counter-based numbers of [`random`]. `pipeline` decodes and `resize`s that straight into the slots of a [`ring`],
//! which lies in [`memory`] shared with a trainer. The two find each other over a [`link`], behind which the loader's
//! side is `serve`. The names in plain type belong to the producing side (feature `serve`), which the trainer does
//! without. [`storage`] copies shards to the node's own storage first, where that is asked for.
//!
//! # What a step sees
//!
//! ```
//! use loader::config::{ConfigFile, LoaderConfig};
//! use loader::PretrainingSampler;
//!
//! let text = "data: {batch_size: 64}\nmask: {patch_size: 14}";
//! let config = LoaderConfig::from_file(&ConfigFile::parse("demo.yaml".as_ref(), text, &[])?)?;
//! let sampler = PretrainingSampler::new(&config, 1_281_167, 2048)?;
//!
//! let (step, position) = (7, 100);
//! let sample = sampler.sample_id(step, position);
//! let crop = sampler.crop(step, position, (500, 375));
//! let masks = sampler.masks(step, position / 64);
//! assert!(sample < 1_281_167 && crop.left + crop.width <= 500);
//! assert_eq!((masks.context.len(), masks.targets.len()), (1, 4));
//! # Ok::<(), loader::Error>(())
//! ```
//!
//! How a consumer takes groups from a running loader is in `examples/follow.rs`.
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | sample | an image of a split, known by its number |
//! | step | a step of the optimiser, counted from 0 over all epochs |
//! | global batch | the images of a step, over all ranks |
//! | position | the place of an image in the global batch |
//! | group | `data.batch_size` consecutive positions, whose masks are cut to equal length |
//! | rank, world | a training process, and the number of them; each takes its share of a step's groups |
//! | ring | the shared memory between the loader and one rank |
//! | slot | the place of a group in a ring |
//! | context, target | the patches that the encoder sees, and a block that the predictor fills in |
//! | law | the rule by which something is drawn; under the same law a step sees the same |

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
mod span;
pub mod storage;
mod sync;
#[cfg(test)]
mod testing;

pub use config::LoaderConfig;
pub use error::Error;
pub use sampler::PretrainingSampler;
