//! Where images come from: what a build sees of folders, and of whatever else may hold images one day.
//!
//! A [`Source`] lists its files once and then gives their bytes. [`mod@crate::build`] knows no more than the trait, so
//! that an archive needs nothing but an implementation beside [`Folder`]. No source decodes an image.

mod folder;
mod labels;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::Escaped;
use crate::dataset::SourceRecord;

pub use folder::Folder;
pub use labels::{LabelFault, Labels};

/// Name of the file with labels in a source folder.
pub const LABELS_FILE: &str = "labels.csv";

/// A collection of images that a dataset is built from.
///
/// Workers read files at the same time, hence `Sync`.
pub trait Source: Sync {
    /// Returns the path of the folder or archive, for messages.
    fn place(&self) -> &Path;

    /// Returns all files with their classes and labels.
    fn listing(&self) -> &Listing;

    /// Reads the bytes of a listed file.
    ///
    /// # Errors
    /// If the system refuses; the build then rejects this file alone.
    fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>>;
}

/// The files of a source in their final order, with all that is known before one is read.
#[derive(Debug)]
pub struct Listing {
    /// What the dataset's manifest says of the source; see [`record`].
    pub record: SourceRecord,
    /// Class names; the number of a class is its index.
    pub classes: Vec<String>,
    /// The splits.
    pub splits: Vec<SourceSplit>,
    /// Further labels.
    pub labels: Labels,
    /// Files that are not taken for images, sorted by path.
    pub ignored: Vec<Note>,
}

impl Listing {
    /// Returns all files, in sample order.
    pub fn files(&self) -> impl Iterator<Item = &SourceFile> {
        self.splits.iter().flat_map(|split| &split.files)
    }
}

/// The files of one split.
#[derive(Debug)]
pub struct SourceSplit {
    /// The split's name, such as `train`.
    pub name: String,
    /// Its files, sorted by class and path.
    pub files: Vec<SourceFile>,
}

/// A file that is taken for an image.
#[derive(Debug)]
pub struct SourceFile {
    /// Path below the source, with `/` between components.
    pub path: String,
    /// Number of the file's class, if it has one.
    pub class: Option<u32>,
    /// Size in bytes.
    pub size: u64,
    /// Why the file cannot be kept, where listing it has shown that.
    pub fault: Option<String>,
}

impl SourceFile {
    /// Returns a note about this file.
    pub fn note(&self, reason: String) -> Note {
        Note {
            path: self.path.clone(),
            reason,
        }
    }
}

/// A file and what there is to say about it. It is displayed as one line, [`Escaped`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Path below the source.
    pub path: String,
    /// What became of it, and why.
    pub reason: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, reason) = (Escaped::new(&self.path), Escaped::new(&self.reason));
        write!(f, "{path}: {reason}")
    }
}

/// The reason why a source cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {cause}", Escaped::new(path))]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What was being done, as a verb phrase: "open", "list".
        action: &'static str,
        /// The system's reason.
        cause: io::Error,
    },
    /// The path does not lead to a folder.
    #[error("{}: not a folder", Escaped::new(.0))]
    NotAFolder(PathBuf),
    /// A directory contains itself through a symbolic link.
    #[error("{}: links back to a folder above it", Escaped::new(.0))]
    Loop(PathBuf),
    /// A line of the labels file cannot be understood.
    #[error("{}:{line}: {fault}", Escaped::new(path))]
    Labels {
        /// The labels file.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// What is wrong with the line.
        fault: LabelFault,
    },
}

impl Error {
    /// Returns a closure for `map_err` that adds the file and the action to a system error.
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |cause| Error::Io {
            path,
            action,
            cause,
        }
    }
}

/// Returns the identity of a source: its name, its size, and the checksum that `FORMAT.md` calls `source.listing`.
///
/// `labels` are the bytes of the labels file, empty if there is none.
pub fn record(name: String, splits: &[SourceSplit], labels: &[u8]) -> SourceRecord {
    let mut listing = Xxh3::new();
    let (mut files, mut bytes) = (0, 0);
    for file in splits.iter().flat_map(|split| &split.files) {
        listing.update(file.path.as_bytes());
        listing.update(format!("\0{}\n", file.size).as_bytes());
        files += 1;
        bytes += file.size;
    }
    listing.update(labels);
    SourceRecord {
        name,
        files,
        bytes,
        listing: listing.digest(),
    }
}
