//! What a run tells about itself.
//!
//! Every log is made from one [`Record`] per step: the line of an interval on the console, a row in two files, and
//! whatever [`Observer`]s a program adds, such as its progress bar. `<write_tag>_r0.csv` has exactly the columns and
//! formats of the official log, so that existing notebooks read it; `<write_tag>_r0.jsonl` has everything. Rows of
//! steps that a resumed run does again are cut first, so each step stands there once. Other programs follow a run by
//! TensorBoard's event files and by `metrics.prom`.
//!
//! Nothing here can end a run, and observing changes no result.

mod collapse;
mod console;
mod contexts;
mod csv;
mod cut;
mod events;
mod jsonl;
mod log;
mod moment;
mod prometheus;
mod record;
mod report;
mod rows;
mod signs;
mod sums;

use std::io;
use std::path::{Path, PathBuf};

use shardtool::Escaped;

pub use csv::OfficialRow;
pub use log::{Log, Observer};
pub use moment::numbers;
pub use prometheus::text as prometheus_text;
pub use record::{AcrossRanks, RECORD_VERSION, Record};
pub use report::Report;
pub use signs::Signs;

/// The rank that keeps these logs, which alone has a run directory. The official names have it in them.
const RANK: u32 = 0;

/// The reason why a run's log cannot be opened.
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

/// Returns the logs of a form, `jsonl` or `csv`, in the run directory `folder`, in order of their names.
///
/// # Errors
/// If the directory cannot be read.
pub fn logs_in(folder: &Path, form: &str) -> io::Result<Vec<PathBuf>> {
    let ending = format!("_r{RANK}.{form}");
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(&ending) {
            logs.push(path);
        }
    }
    logs.sort();
    Ok(logs)
}

/// Returns where the log of a form stands in a run directory.
fn path_of(folder: &Path, tag: &str, form: &str) -> PathBuf {
    folder.join(format!("{tag}_r{RANK}.{form}"))
}
