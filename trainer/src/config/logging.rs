//! The official `logging` section.

use std::path::{Path, PathBuf};

use loader::config::is_placeholder;
use serde::{Deserialize, Serialize};
use shardtool::Escaped;

use super::Error;

/// The official `logging` section: where a run writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logging {
    /// The run directory, where log, checkpoints and pictures go.
    pub folder: PathBuf,
    /// Prefix of the names of the files in it.
    pub write_tag: String,
}

impl Logging {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &["folder", "write_tag"];

    pub(super) fn check(&self) -> Result<(), Error> {
        let tag = &self.write_tag;
        if tag.is_empty() || tag.contains('/') {
            let reason = format!("{:?} is not a file name's beginning", Escaped::new(tag));
            return Err(Error::value("logging.write_tag", reason));
        }
        Ok(())
    }

    /// Returns the run directory.
    ///
    /// # Errors
    /// If it is still the official files' placeholder.
    pub fn folder(&self) -> Result<&Path, Error> {
        if is_placeholder(&self.folder.to_string_lossy()) {
            let reason = format!(
                "still the placeholder {:?}; set it in the file or with --set logging.folder=DIR",
                Escaped::new(&self.folder)
            );
            return Err(Error::value("logging.folder", reason));
        }
        Ok(&self.folder)
    }
}
