//! A dataset: the directory with `dataset.json` and the shards it lists.
//!
//! The loader opens a [`Dataset`]; a trainer that only needs names and counts reads the
//! [`Manifest`]. Opening compares every shard with its line in the manifest, so a dataset with a
//! missing, replaced or cut-off shard is refused before the first sample is read.

mod manifest;
mod quarantine;

#[cfg(feature = "build")]
pub(crate) use manifest::is_plain;
pub use manifest::{
    Bound, CodecOptions, EntropyCoding, FORMAT_NAME, LabelColumn, MANIFEST_FILE, Manifest, Order,
    ShardRecord, SourceRecord, SplitRecord,
};

pub use quarantine::{MOST_QUARANTINED, QUARANTINE_FILE, Quarantine, Quarantined, today};

use std::path::{Path, PathBuf};

use crate::format::Label;
use crate::{Entry, Error, Shard};

/// An opened dataset.
#[derive(Debug)]
pub struct Dataset {
    path: PathBuf,
    manifest: Manifest,
    splits: Vec<Split>,
}

impl Dataset {
    /// Reads the manifest, opens every shard and compares the two.
    ///
    /// # Errors
    /// What the system says, which sentence of the format a shard violates, or where a shard and the manifest disagree.
    pub fn open(dir: &Path) -> Result<Dataset, Error> {
        let manifest = Manifest::read(dir)?;
        let mut splits: Vec<Split> = Vec::new();
        for record in &manifest.splits {
            let sibling = splits.iter().find_map(|split| split.shards.first());
            splits.push(Split::open(dir, record, manifest.classes.len(), sibling)?);
        }
        Ok(Dataset {
            path: dir.to_owned(),
            manifest,
            splits,
        })
    }

    /// Returns the directory this dataset was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what `dataset.json` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the split of a name, such as `train`.
    pub fn split(&self, name: &str) -> Option<&Split> {
        self.splits.iter().find(|split| split.name == name)
    }

    /// Returns all splits, in the manifest's order.
    pub fn splits(&self) -> &[Split] {
        &self.splits
    }
}

/// A split of a dataset: its shards, seen as one sequence of samples.
#[derive(Debug)]
pub struct Split {
    name: String,
    shards: Vec<Shard>,
    /// For each shard the id of its first sample.
    starts: Vec<u64>,
    len: u64,
}

impl Split {
    fn open(
        dir: &Path,
        record: &SplitRecord,
        classes: usize,
        sibling: Option<&Shard>,
    ) -> Result<Split, Error> {
        let mut split = Split {
            name: record.name.clone(),
            shards: Vec::with_capacity(record.shards.len()),
            starts: Vec::with_capacity(record.shards.len()),
            len: 0,
        };
        for listed in &record.shards {
            let sibling = sibling.or(split.shards.first());
            let shard = Shard::open_listed(dir, listed, classes, sibling)?;
            split.starts.push(split.len);
            split.len += u64::from(shard.len());
            split.shards.push(shard);
        }
        Ok(split)
    }

    /// Returns the split's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of samples.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Tells whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns sample `id` of this split, counted from zero.
    ///
    /// # Panics
    /// If there is none.
    pub fn sample(&self, id: u64) -> Sample<'_> {
        assert!(
            id < self.len,
            "sample {id} of split {} with {} samples",
            self.name,
            self.len
        );
        let shard = self.starts.partition_point(|&start| start <= id) - 1;
        Sample {
            shard: &self.shards[shard],
            index: (id - self.starts[shard]) as u32,
        }
    }

    /// Returns the shards, in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }
}

/// Compares an opened shard with its line in the manifest.
fn compare(shard: &Shard, listed: &ShardRecord, classes: usize) -> Result<(), Error> {
    let mismatch = |what, expected: String, got: String| {
        Err(Error::Mismatch {
            path: shard.path().to_owned(),
            what,
            expected,
            got,
        })
    };
    if shard.bytes() != listed.bytes {
        let (expected, got) = (listed.bytes.to_string(), shard.bytes().to_string());
        return mismatch("size in bytes", expected, got);
    }
    if shard.len() != listed.samples {
        let (expected, got) = (listed.samples.to_string(), shard.len().to_string());
        return mismatch("sample count", expected, got);
    }
    if shard.checksum() != listed.checksum {
        let (expected, got) = (listed.checksum, shard.checksum());
        return mismatch(
            "checksum",
            format!("{expected:016x}"),
            format!("{got:016x}"),
        );
    }
    for (sample, entry) in shard.entries().iter().enumerate() {
        if let Some(class) = entry.class.filter(|&class| class as usize >= classes) {
            return Err(Error::Class {
                path: shard.path().to_owned(),
                sample: sample as u32,
                classes,
                got: class,
            });
        }
    }
    Ok(())
}

/// A sample of an opened dataset, or shard.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    shard: &'a Shard,
    index: u32,
}

impl Shard {
    /// Opens a shard of the dataset in `dir` and compares it with its line in the manifest, which lists so many
    /// classes. See [`Shard::open_beside`].
    ///
    /// # Errors
    /// Those of [`Shard::open`], and where shard and manifest disagree.
    pub fn open_listed(
        dir: &Path,
        listed: &ShardRecord,
        classes: usize,
        sibling: Option<&Shard>,
    ) -> Result<Shard, Error> {
        let shard = Shard::open_beside(&dir.join(&listed.file), sibling)?;
        compare(&shard, listed, classes)?;
        Ok(shard)
    }

    /// Returns sample `index`.
    ///
    /// # Panics
    /// If there is none.
    pub fn sample(&self, index: u32) -> Sample<'_> {
        assert!(index < self.len(), "sample {index} of {}", self.len());
        Sample { shard: self, index }
    }
}

impl<'a> Sample<'a> {
    /// Returns what the index says about it.
    pub fn entry(&self) -> &'a Entry {
        self.shard.entry(self.index)
    }

    /// Reads its stored bytes into the front of `buffer`, which grows where it has to, and compares them with their
    /// checksum. Readers of many samples keep a buffer for each thread.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if the system does not give the bytes, [`Error::Payload`] if they are damaged.
    pub fn read<'b>(&self, buffer: &'b mut Vec<u8>) -> Result<Payload<'b>, Error>
    where
        'a: 'b,
    {
        let bytes = self.shard.read(self.index, buffer)?;
        Ok(Payload {
            sample: *self,
            bytes,
        })
    }

    /// Reads its stored bytes into memory of their own; see [`Sample::read`].
    ///
    /// # Errors
    /// Those of [`Sample::read`].
    pub fn payload(&self) -> Result<Vec<u8>, Error> {
        self.shard.payload(self.index)
    }

    /// Asks the kernel to fetch the stored bytes from disk, and does not wait for them.
    pub fn prefetch(&self) {
        self.shard.prefetch(self.index)
    }

    /// Returns the path of its source file below the image folder, if the dataset keeps paths.
    pub fn name(&self) -> Option<&'a str> {
        match self.label(crate::format::PATH_COLUMN)? {
            Label::Text(path) => Some(path),
            _ => None,
        }
    }

    /// Returns its value in a label column; none if the column or the value is missing.
    pub fn label(&self, name: &str) -> Option<Label<'a>> {
        self.shard.label(self.index, name)
    }

    /// Returns the shard that holds it.
    pub fn shard(&self) -> &'a Shard {
        self.shard
    }

    /// Returns its number inside its shard.
    pub fn index(&self) -> u32 {
        self.index
    }
}

/// The stored bytes of a sample, as they were written.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    sample: Sample<'a>,
    bytes: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Returns whose they are.
    pub fn sample(&self) -> Sample<'a> {
        self.sample
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
