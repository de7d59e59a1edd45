//! The program as users run it, and the dataset that fixes the format.

#![cfg(feature = "build")]

mod build;
mod common;
mod golden;
