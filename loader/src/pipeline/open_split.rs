//! The split that a pipeline reads.

use std::path::Path;

use shardtool::{Dataset, Shard, Split};

use super::error::Error;

/// A split of an opened data set.
#[derive(Debug)]
pub struct OpenSplit {
    dataset: Dataset,
    split: usize,
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
            Some(split) => Ok(OpenSplit { dataset, split }),
            None => Err(Error::NoSplit {
                dir: dir.to_owned(),
                wanted: split.to_owned(),
                found: splits.iter().map(|split| split.name().to_owned()).collect(),
            }),
        }
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
