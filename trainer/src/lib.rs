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
//! | [`observe`], [`report`] | what a run tells about itself, and pictures and pages of it |
//! | [`launch`] | a loader and its trainers started together |
//! | [`distributed`] | many processes that train one model: who is there, and what they sum and agree on |
//! | [`plan`] | what a run will need and take |
//! | [`submit`] | a run as a job of SLURM |
//! | [`evaluate`] | what trained networks are worth: features of images |
//! | [`exchange`] | checkpoints from and for the official code and Hugging Face |
//! | [`proof`] | replays of the official code, tests of a device |
//!
//! # The method in three calls
//!
//! ```
//! use tch::{Device, Kind, Tensor};
//! use trainer::method::hooks::NoHooks;
//! use trainer::method::ijepa::{IJepa, backward};
//! use trainer::method::model::ModelConfig;
//!
//! # fn main() -> Result<(), trainer::Error> {
//! let sizes = ModelConfig::preset("vit_tiny", 32, 8, 96, 1)?; // 4 × 4 patches
//! let networks = IJepa::new(&sizes, 7, Device::Cpu)?;
//!
//! let images = Tensor::f_rand([2, 3, 32, 32], (Kind::Float, Device::Cpu))?;
//! // Of both images: what is seen, and two blocks to predict.
//! let patches = |numbers: &[i64]| Tensor::f_from_slice(numbers)?.f_expand([2, -1], false);
//! let (context, targets) = ([patches(&[0, 1, 4, 5])?], [patches(&[10, 11])?, patches(&[14, 15])?]);
//!
//! let loss = networks.forward(&images, &context, &targets, &mut NoHooks)?;
//! backward(&loss, 1)?;
//! assert!(f64::try_from(&loss)? > 0.0);
//! # Ok(())
//! # }
//! ```
//!
//! [`method::optimizer::Optimizer`] then moves the networks and [`method::ijepa::IJepa::update_target`] lets the target
//! follow, which is a step of [`train::Run`]. `examples/features.rs` takes features from a checkpoint.

// A message that cannot be written must end nothing: speech goes through `tracing` and `shardtool::program`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod checkpoint;
pub mod config;
pub mod distributed;
mod error;
pub mod evaluate;
pub mod exchange;
pub mod launch;
pub mod method;
pub mod observe;
pub mod plan;
pub mod proof;
pub mod report;
pub mod run;
pub mod session;
pub mod source;
pub mod stop;
pub mod submit;
pub mod torch;
pub mod train;

pub use error::Error;
