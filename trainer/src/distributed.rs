//! Many processes that train one model together: ranks.
//!
//! | room | what stands there |
//! |---|---|
//! | `place` | where a process stands among those that were started with it: `torchrun`, SLURM, a launcher, by hand |
//! | [`slurm`], [`nodelist`] | the same from SLURM's variables |
//! | `world` | that place in numbers, and the proof of being rank 0 |
//! | `store` | the store where ranks meet, with a bound on every wait |
//! | `address` | which machine, and which of its addresses |
//! | `join` | from a place to ranks that are connected and agree on what they do |
//! | `ranks` | what connected ranks do together: tell, sum, agree |
//! | `obituary` | who is lost, when somebody is |
//!
//! The engine is PyTorch's c10d, behind `csrc/distributed.cpp`: a TCP store, Gloo between CPUs, and the reducer of
//! `DistributedDataParallel`, which sums gradients while the backward pass goes on. Every rank takes its share of the
//! groups of a step, in order, and weighs their losses as shares of the whole step. So the world's size changes nothing
//! but the order of sums.

mod address;
mod error;
mod join;
mod obituary;
mod place;
mod ranks;
mod store;
mod world;

pub mod nodelist;
pub mod slurm;

pub use error::Error;
pub use join::{Terms, join};
pub use obituary::LastWords;
pub use place::{Meeting, Place};
pub use ranks::Ranks;
pub use store::Served;
pub use world::{First, World};
