//! Where shards are read from: where the configuration says, or a copy on the node's own storage.
//!
//! `loader run` asks [`shards_dir`] once, before it opens the data set; so does `trainer launch`, so that all loaders
//! of a node find the copy made.

mod error;
mod local_copy;

use std::path::PathBuf;

use crate::config::LoaderConfig;

pub use error::Error;

/// Where shards are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    /// The directory.
    pub dir: PathBuf,
    /// What it is a copy of, if it is one.
    pub original: Option<PathBuf>,
}

/// Returns where to read shards from: where the configuration says, or with `meta.copy_data` a local copy of it.
///
/// A copy that is not whole is made or mended now; events tell its progress.
///
/// # Errors
/// If the configuration names no shards, or if they cannot be copied.
pub fn shards_dir(config: &LoaderConfig) -> Result<Shards, Error> {
    let source = config.shards_dir()?;
    if !config.copy_data {
        return Ok(Shards {
            dir: source,
            original: None,
        });
    }
    let local = local_copy::place(config, |name| std::env::var(name).ok())?;
    Ok(Shards {
        dir: local_copy::complete(&source, &local)?,
        original: Some(source),
    })
}
