//! What a run tells about itself.
//!
//! Every log is made from one [`Record`] per step: the line of an interval on the console, a row in two files, and
//! whatever [`Observer`]s a program adds, such as its progress bar. `<write_tag>_r0.csv` has exactly the columns and
//! formats of the official log, so that existing notebooks read it; `<write_tag>_r0.jsonl` has everything. Rows of steps
//! that a resumed run does again are cut first, so each step stands there once.
//!
//! Nothing here can end a run, and observing changes no result.

mod log;
mod record;
mod rows;
mod summary;

use std::io;
use std::path::{Path, PathBuf};

use shardtool::Escaped;

pub use log::{Log, Observer};
pub use record::Record;
pub use summary::Report;

/// Why a run's log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of rows cannot be read, cut or opened.
    #[error("{}: {cause}", Escaped::new(path))]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

impl Error {
    fn log(path: &Path, cause: io::Error) -> Error {
        Error::Log {
            path: path.to_owned(),
            cause,
        }
    }
}
