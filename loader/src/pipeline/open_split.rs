//! The split that a pipeline reads.

use std::path::Path;

use shardtool::{Dataset, Shard, Split};

use super::error::Error;
use super::original::Original;
use crate::storage::Shards;

/// A split of an opened data set.
#[derive(Debug)]
pub struct OpenSplit {
    dataset: Dataset,
    split: usize,
    original: Option<Original>,
}

impl OpenSplit {
    /// Opens the data set in `dir` and finds its split.
    ///
    /// # Errors
    /// If the data set cannot be opened, or has no such split.
    pub fn open(dir: &Path, split: &str) -> Result<OpenSplit, Error> {
        let dataset = Dataset::open(dir)?;
        let splits = dataset.splits();
        for split in splits {
            split.shards().iter().for_each(Shard::expect_random_access);
        }
        match splits.iter().position(|found| found.name() == split) {
            Some(split) => Ok(OpenSplit {
                dataset,
                split,
                original: None,
            }),
            None => Err(Error::NoSplit {
                dir: dir.to_owned(),
                wanted: split.to_owned(),
                found: splits.iter().map(|split| split.name().to_owned()).collect(),
            }),
        }
    }

    /// Opens shards that may be a copy: what is damaged in it is then read from its original.
    ///
    /// # Errors
    /// Those of [`OpenSplit::open`].
    pub fn open_shards(shards: &Shards, split: &str) -> Result<OpenSplit, Error> {
        let original = shards.original.as_deref().map(Original::new);
        Ok(OpenSplit {
            original,
            ..OpenSplit::open(&shards.dir, split)?
        })
    }

    /// Returns what the shards were copied from, if they were.
    pub(super) fn original(&self) -> Option<&Original> {
        self.original.as_ref()
    }

    /// Returns the split.
    pub fn split(&self) -> &Split {
        &self.dataset.splits()[self.split]
    }

    /// Returns the data set.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }
}
