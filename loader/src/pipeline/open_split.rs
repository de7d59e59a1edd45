//! The split that a pipeline reads.

use std::collections::HashSet;
use std::path::Path;

use shardtool::dataset::{QUARANTINE_FILE, Quarantine};
use shardtool::{Dataset, Escaped, Shard, Split};

use super::error::Error;
use super::original::Original;
use crate::storage::Shards;

/// A split of an opened data set.
#[derive(Debug)]
pub struct OpenSplit {
    dataset: Dataset,
    split: usize,
    original: Option<Original>,
    quarantined: HashSet<u64>,
}

impl OpenSplit {
    /// Opens the data set in `dir` and finds its split. An event tells how many of its samples are in quarantine.
    ///
    /// # Errors
    /// If the data set cannot be opened, has no such split, or a quarantine of too many samples.
    pub fn open(dir: &Path, split: &str) -> Result<OpenSplit, Error> {
        OpenSplit::open_with(dir, dir, split)
    }

    /// Opens the data set in `dir`, whose quarantine is in the directory `listed`.
    fn open_with(dir: &Path, listed: &Path, split: &str) -> Result<OpenSplit, Error> {
        let dataset = Dataset::open(dir)?;
        let splits = dataset.splits();
        for split in splits {
            split.shards().iter().for_each(Shard::expect_random_access);
        }
        match splits.iter().position(|found| found.name() == split) {
            Some(number) => {
                let quarantine = Quarantine::read(listed, dataset.manifest())?;
                let record = &dataset.manifest().splits[number];
                let quarantined = quarantine.map_or(HashSet::new(), |listed| listed.ids(record));
                if !quarantined.is_empty() {
                    tracing::info!(
                        "{} of {} samples are in quarantine: {}",
                        quarantined.len(),
                        record.samples,
                        Escaped::new(&listed.join(QUARANTINE_FILE))
                    );
                }
                Ok(OpenSplit {
                    dataset,
                    split: number,
                    original: None,
                    quarantined,
                })
            }
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
        let listed = shards.original.as_deref().unwrap_or(&shards.dir);
        let original = shards.original.as_deref().map(Original::new);
        Ok(OpenSplit {
            original,
            ..OpenSplit::open_with(&shards.dir, listed, split)?
        })
    }

    /// Returns the numbers of the samples that are known to be damaged, and are not read.
    pub fn quarantined(&self) -> &HashSet<u64> {
        &self.quarantined
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
