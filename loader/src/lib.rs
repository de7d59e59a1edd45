//! Sampling, masks, the ring and the link between loader and trainer.

pub mod config;
pub mod crop;
pub mod error;
pub mod link;
pub mod masks;
pub mod memory;
pub mod order;
pub mod random;
#[cfg(feature = "serve")]
pub mod resize;
pub mod ring;
pub mod sampler;
mod sync;
#[cfg(test)]
mod testing;

pub use config::LoaderConfig;
pub use error::Error;
pub use sampler::Sampler;
