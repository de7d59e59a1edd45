//! I-JEPA pretraining on libtorch.
//!
//! The way of the data and the method is the way through these rooms:
//!
//! | room | what stands there |
//! |---|---|
//! | [`config`] | everything a run is made from: the official YAML files and our own keys |
//! | [`method`] | the networks, the loss, the schedules and the optimiser, as the paper has them |
//! | [`mod@torch`] | devices and CUDA, and what the bindings of libtorch lack |
//! | [`source`] | batches from the loader's ring, on their way to the device |
//! | [`mod@train`] | the training loop, the method on one screen |
//! | [`run`] | a run's directory, and the signals that stop it |
//! | [`checkpoint`] | what a run leaves and goes on from |
//! | [`observe`], [`report`] | what a run tells about itself, and pictures of it |
//! | [`launch`] | a loader and a trainer started together |
//! | [`exchange`] | checkpoints from and for the official code and Hugging Face |
//! | [`proof`] | replays of the official code, tests of a device, benchmarks |

// A message that cannot be written must end nothing: speech goes through `tracing` and `shardtool::program`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod checkpoint;
pub mod config;
pub mod distributed;
pub mod durable;
mod error;
pub mod exchange;
pub mod launch;
pub mod method;
pub mod observe;
pub mod proof;
pub mod report;
pub mod run;
pub mod session;
pub mod source;
pub mod stop;
pub mod torch;
pub mod train;

pub use error::Error;
