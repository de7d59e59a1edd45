//! The program as users run it, and the datasets that fix the format.

#![cfg(feature = "build")]

mod build;
mod cases;
mod common;
mod golden;
mod kinds;
mod layouts;
mod lossless;
mod messages;
mod outputs;
mod pipes;
mod repair;
#[path = "../../src/testing.rs"]
mod testing;
mod verify;
