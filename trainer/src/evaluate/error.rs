//! Why networks cannot be evaluated.

use std::io;
use std::path::PathBuf;

use shardtool::Escaped;

use crate::{checkpoint, config, source};

/// The reason why there are no features, or no probe of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint is missing, damaged or of another version, or its weights do not fit its configuration.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The checkpoint holds no whole configuration, as imported weights may, so its sizes are not known.
    #[error("{}: {cause}", Escaped::new(path))]
    Config {
        /// The checkpoint.
        path: PathBuf,
        /// What is missing or wrong.
        cause: Box<config::Error>,
    },
    /// The device failed, or the images are not made of whole patches.
    #[error(transparent)]
    Compute(#[from] crate::Error),
    /// No more images come.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// Features could not be kept.
    #[error("{}: {cause}", Escaped::new(path))]
    Table {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// Nothing is left of a split to probe with.
    #[error(
        "split {:?} has no sample that is whole and has a class",
        Escaped::new(split)
    )]
    Empty {
        /// The split.
        split: String,
    },
    /// A list names images, and the shards keep no names.
    #[error("the shards keep no names of their images, so a list cannot say which are labelled")]
    NoNames,
    /// No image of the split has a name of the list.
    #[error("{:?} of the list is no image of the split", Escaped::new(name))]
    Unlisted {
        /// The name.
        name: String,
    },
    /// Several images have a name of the list.
    #[error(
        "{:?} of the list are {samples} images of the split; give paths below the image folder",
        Escaped::new(name)
    )]
    Ambiguous {
        /// The name.
        name: String,
        /// The number of images.
        samples: usize,
    },
    /// No image is labelled.
    #[error("no labelled image is whole and has a class")]
    NothingLabelled,
    /// The grid of patches has no room for cells to hide.
    #[error("a grid of {grid}x{grid} patches has no blocks to hide: 3x3 is the least")]
    Grid {
        /// Patches along a side.
        grid: i64,
    },
    /// There were too few images to measure anything.
    #[error(
        "too few images: at least one to look for, and {groups} groups (data.batch_size) to learn the means from"
    )]
    NothingShown {
        /// Groups that are needed.
        groups: u64,
    },
    /// The shards have no such label column.
    #[error(
        "no label column {:?} in the shards; they have {}",
        Escaped::new(name),
        Listed(known)
    )]
    NoColumn {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Bounds between classes are missing, or not wanted, or not ascending.
    #[error(
        "label column {:?}: {}",
        Escaped::new(name),
        if *is_parted {
            "numbers with fractions are parted into classes by --bounds, ascending"
        } else {
            "its values are classes as they are, and take no --bounds"
        }
    )]
    Bounds {
        /// The column.
        name: String,
        /// True if its values are numbers with fractions.
        is_parted: bool,
    },
    /// A label column has so many values that it is no class.
    #[error("label column {:?} has more than {most} values", Escaped::new(name))]
    ManyValues {
        /// The column.
        name: String,
        /// The most that are told apart.
        most: usize,
    },
    /// A class is beyond those of the data set.
    #[error("class {class} of a sample is not below {classes}, the classes of the shards")]
    Class {
        /// The class.
        class: i64,
        /// Classes of the data set.
        classes: i64,
    },
}

/// Names in a sentence.
struct Listed<'a>(&'a [String]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (number, name) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{}", Escaped::new(name))?;
        }
        Ok(())
    }
}
