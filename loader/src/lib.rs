//! Sampling, masks, the ring and the link between loader and trainer.

pub mod link;
pub mod memory;
pub mod ring;
mod sync;
