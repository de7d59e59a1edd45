//! What the test programs share: shards of made-up images, a configuration for them, the loader as a process, and a
//! counting allocator.

#![allow(dead_code, reason = "no test program uses all of it")]

pub mod counting;
pub mod process;
pub mod shards;
