//! The program as users run it, and the datasets that fix the format.

#![cfg(feature = "build")]

mod build;
mod cases;
mod common;
mod golden;
mod kinds;
mod lossless;
mod messages;
#[path = "../../src/testing.rs"]
mod testing;
mod verify;
