//! A run: its directory, and the signals that stop it.

pub mod run_dir;
pub mod stop;
