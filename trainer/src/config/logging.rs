//! The official `logging` section.

use std::path::{Path, PathBuf};

use loader::config::is_placeholder;
use serde::{Deserialize, Serialize};
use shardtool::Escaped;

use super::Error;

/// The most bytes of `write_tag`: names that begin with it have less than 255.
const MAX_TAG: usize = 200;

/// The official `logging` section: where a run writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logging {
    /// The run directory, where log, checkpoints and pictures go.
    #[serde(with = "loader::config::path_key")]
    pub folder: PathBuf,
    /// Prefix of the names of the files in it.
    pub write_tag: String,
    /// Write what is logged for TensorBoard, too, into `tensorboard/` of the run directory.
    #[serde(default = "yes")]
    pub tensorboard: bool,
}

/// Returns the default of `tensorboard`.
fn yes() -> bool {
    true
}

impl Logging {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &["folder", "tensorboard", "write_tag"];

    pub(super) fn check(&self) -> Result<(), Error> {
        let tag = &self.write_tag;
        // A name with a dot in front would be hidden, or taken for what an interrupted write left.
        let plain = !tag.is_empty() && !tag.starts_with('.') && tag.len() <= MAX_TAG;
        if !plain || tag.contains(|character: char| character == '/' || character.is_control()) {
            let reason = format!(
                "{:?} is not a plain file name of at most {MAX_TAG} bytes that begins with no dot",
                Escaped::new(tag)
            );
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
