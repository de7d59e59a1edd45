//! Where shards are read from: where the configuration says, or a copy on the node's own storage.
//!
//! `loader run` asks [`shards_dir`] once, before it opens the data set; so does `trainer launch`, so that all loaders
//! of a node find the copy made.

mod error;
mod local_copy;
mod size;

use std::path::PathBuf;

use crate::config::LoaderConfig;

pub use error::Error;

/// Returns the directory to read shards from: where the configuration says, or with `meta.copy_data` a local copy of
/// it.
///
/// A copy that is not complete is made or continued now; events tell its progress.
///
/// # Errors
/// If the configuration names no shards, or if they cannot be copied.
pub fn shards_dir(config: &LoaderConfig) -> Result<PathBuf, Error> {
    let source = config.shards_dir()?;
    if !config.copy_data {
        return Ok(source);
    }
    let local = local_copy::place(config, |name| std::env::var(name).ok())?;
    local_copy::complete(&source, &local)
}
