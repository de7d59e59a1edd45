//! Sampling, masks, the ring and the link between loader and trainer.

pub mod config;
pub mod crop;
pub mod error;
pub mod link;
pub mod masks;
pub mod memory;
pub mod order;
#[cfg(feature = "serve")]
pub mod pipeline;
pub mod random;
#[cfg(feature = "serve")]
pub mod resize;
pub mod ring;
pub mod sampler;
#[cfg(feature = "serve")]
pub mod serve;
mod sync;
#[cfg(test)]
mod testing;

pub use config::LoaderConfig;
pub use error::Error;
pub use sampler::Sampler;
