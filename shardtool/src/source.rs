//! Where images come from: folders, archives, tables of records, lists.
//!
//! Each kind of source is a module with an `open` that gives a [`Part`]: what is there ([`Contents`]), and a way to
//! read it ([`Files`]). [`Source::new`] joins the parts that make one dataset, numbers their classes and orders their
//! files. [`mod@crate::build`] knows no more than the [`Source`]. No source decodes an image, and none writes to the
//! disk.

mod clevr;
mod error;
mod folder;
mod imagenet;
pub mod kind;
mod labels;
mod layout;
mod list;
mod mds;
mod open;
mod order;
mod parquet;
mod records;
mod tar;
mod tfrecord;
mod webdataset;
mod zip;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::Escaped;
use crate::dataset::{Order, SourceRecord};

pub use error::Error;
pub use kind::Kind;
pub use labels::{Joined, LabelFault, Labels};
pub use layout::{Layout, Options};
pub use open::{Request, expand_argument, open};

/// Name of the file with labels in a source folder.
pub const LABELS_FILE: &str = "labels.csv";

/// The images that a dataset is built from.
pub struct Source {
    /// What the user named, one thing or more.
    places: Vec<PathBuf>,
    listing: Listing,
    parts: Vec<Box<dyn Files>>,
}

/// Gives the bytes of listed files, to many threads at a time.
pub trait Files: Send + Sync {
    /// Reads all bytes of a file.
    ///
    /// # Errors
    /// If the system refuses, or the archive is damaged there; the build then rejects this file alone.
    fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>>;

    /// Reads the first bytes of a file, at most `length`: what is large is looked at before it is read.
    ///
    /// # Errors
    /// As for [`Files::read`].
    fn head(&self, file: &SourceFile, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = self.read(file)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// One of the things that a dataset is built from, opened.
pub struct Part {
    /// What it holds.
    pub contents: Contents,
    /// How it is read.
    pub files: Box<dyn Files>,
}

/// What a part holds, before classes have numbers and files their order.
#[derive(Debug, Default)]
pub struct Contents {
    /// Name of the folder or archive, without the path to it.
    pub name: String,
    /// The files that are taken for images, in the part's own order.
    pub items: Vec<Item>,
    /// Names of the classes by their numbers, where the part numbers its classes itself.
    pub classes: Option<Vec<String>>,
    /// Further labels.
    pub labels: Labels,
    /// Files that hold no image and are known not to, or were excluded by the user.
    pub ignored: Vec<Note>,
    /// What may hold images and is not in the dataset all the same: a fault.
    pub left_out: Vec<Note>,
    /// What a user should know of how the part was understood.
    pub remarks: Vec<String>,
    /// When the newest of the files was changed last.
    pub newest: Option<SystemTime>,
    /// Checksum of all bytes of the part, where they have no date: those of a pipe.
    pub checksum: Option<u64>,
    /// Whether the part's own order is meant (records), not one of names.
    pub is_ordered: bool,
    /// Whether the part can be read in its own order only, or at a price beyond reason in another.
    pub is_sequential: bool,
}

/// A file that is taken for an image, before its class has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The split's name, such as `train`.
    pub split: String,
    /// Path below the part, with `/` between components.
    pub path: String,
    /// Its class, if it has one.
    pub class: Option<Class>,
    /// Size in bytes, or about so where finding out would mean reading all.
    pub size: u64,
    /// Why the file cannot be kept, where listing it has shown that.
    pub fault: Option<String>,
    /// Which of the part's containers it lies in, from 0.
    pub container: u32,
    /// Where it lies in the container, in the part's own terms.
    pub position: u64,
}

/// What a part says of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Its name.
    Name(String),
    /// Its number, from 0.
    Number(u32),
}

/// The files of a source in their final order, with all that is known before one is read.
#[derive(Debug)]
pub struct Listing {
    /// What the dataset's manifest says of the source.
    pub record: SourceRecord,
    /// Class names; the number of a class is its index.
    pub classes: Vec<String>,
    /// The splits.
    pub splits: Vec<SourceSplit>,
    /// Further labels.
    pub labels: Joined,
    /// Files that hold no image and are known not to, or were excluded, sorted by path.
    pub ignored: Vec<Note>,
    /// What may hold images and is not in the dataset all the same, sorted by path.
    pub left_out: Vec<Note>,
    /// What a user should know of how the source was understood.
    pub remarks: Vec<String>,
    /// When the newest of the files was changed last.
    pub newest: Option<SystemTime>,
    /// The order of the samples.
    pub order: Order,
    /// Checksum of all that is known before a file is read: splits, paths, sizes, classes, labels, the bytes of a pipe.
    pub identity: u64,
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
    /// Its files, in sample order.
    pub files: Vec<SourceFile>,
}

/// A file that is taken for an image.
#[derive(Debug)]
pub struct SourceFile {
    /// Path below its part of the source, with `/` between components.
    pub path: String,
    /// Number of the file's class, if it has one.
    pub class: Option<u32>,
    /// Size in bytes, or about so.
    pub size: u64,
    /// Why the file cannot be kept, where listing it has shown that.
    pub fault: Option<String>,
    /// Which part of the source it belongs to, from 0.
    pub part: u32,
    /// Which of the part's containers it lies in, from 0.
    pub container: u32,
    /// Where it lies in the container.
    pub position: u64,
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

impl Note {
    /// Makes a note.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Note {
        Note {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, reason) = (Escaped::new(&self.path), Escaped::new(&self.reason));
        write!(f, "{path}: {reason}")
    }
}

impl Source {
    /// Joins parts into one source. `order` is that of the samples; without one it is the parts' own where all mean
    /// theirs, else by class and path.
    ///
    /// # Errors
    /// If the parts contradict each other about classes, or have different label columns.
    pub fn new(
        places: Vec<PathBuf>,
        parts: Vec<Part>,
        order: Option<Order>,
    ) -> Result<Source, Error> {
        let (contents, files) = parts
            .into_iter()
            .map(|part| (part.contents, part.files))
            .unzip();
        Ok(Source {
            listing: order::arrange(first(&places), contents, order)?,
            places,
            parts: files,
        })
    }

    /// Opens a folder of images as all of a source.
    ///
    /// # Errors
    /// If it is no folder, cannot be listed, or has a faulty `labels.csv`.
    pub fn folder(root: &Path) -> Result<Source, Error> {
        let part = folder::open(root, &Options::default())?;
        Source::new(vec![root.to_owned()], vec![part], None)
    }

    /// Returns the path of the folder or archive, or the first of several, for messages.
    pub fn place(&self) -> &Path {
        first(&self.places)
    }

    /// Returns the paths of all folders and archives that the user named.
    pub fn places(&self) -> &[PathBuf] {
        &self.places
    }

    /// Returns all files with their classes and labels.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Reads all bytes of a listed file.
    ///
    /// # Errors
    /// If the system refuses, or an archive is damaged there.
    pub fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>> {
        self.part(file).read(file)
    }

    /// Reads the first bytes of a listed file, at most `length`.
    ///
    /// # Errors
    /// As for [`Source::read`].
    pub fn head(&self, file: &SourceFile, length: usize) -> io::Result<Vec<u8>> {
        self.part(file).head(file, length)
    }

    fn part(&self, file: &SourceFile) -> &dyn Files {
        &*self.parts[file.part as usize]
    }
}

fn first(places: &[PathBuf]) -> &Path {
    places.first().map_or(Path::new(""), PathBuf::as_path)
}
