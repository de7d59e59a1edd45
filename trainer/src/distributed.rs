//! Many processes that train one model together. So far there is one.

mod world;

pub mod nodelist;
pub mod slurm;

pub use world::{First, World};
