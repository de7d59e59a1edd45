//! The directory being written: beside its final place, locked, renamed when complete.
//!
//! Names, for an output `photos.shards`: `photos.shards.building` is being written and is replaced
//! by the next build if its writer died; `photos.shards.replaced` is the dataset that `--force`
//! moved aside, for the moment between two renames.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::ingest::Ingested;
use super::{Difference, Error, Outcome, REPORT_FILE, Report};
use crate::Error as DatasetError;
use crate::dataset::{CodecOptions, Dataset, MANIFEST_FILE, ShardRecord, SplitRecord};
use crate::format::{LabelType, NewSample, ShardWriter};
use crate::source::{Labels, Source, SourceFile};

/// Where the output goes.
pub enum Destination {
    /// It is there already.
    UpToDate(Box<Outcome>),
    /// The place is free, or may be taken.
    Free(Staging),
}

/// Looks at what is in the output's place and makes the directory beside it.
pub fn prepare(
    out: &Path,
    force: bool,
    source: &Source,
    codec: &CodecOptions,
) -> Result<Destination, Error> {
    let out: PathBuf = out.components().collect(); // without a slash at the end
    let replaced = with_suffix(&out, ".replaced");
    if replaced.exists() && !out.exists() {
        // A build with --force died between its two renames.
        rename(&replaced, &out)?;
    }
    if out.exists() && !is_empty_directory(&out) {
        if !out.join(MANIFEST_FILE).is_file() {
            return Err(Error::Foreign { path: out });
        }
        if !force {
            return match existing(&out, source, codec) {
                Ok(outcome) => Ok(Destination::UpToDate(Box::new(outcome))),
                Err(difference) => Err(Error::Exists {
                    path: out,
                    difference,
                }),
            };
        }
    }
    Staging::create(out).map(Destination::Free)
}

/// Returns the dataset in the output's place, if a build would give the same; else in what it differs.
fn existing(out: &Path, source: &Source, codec: &CodecOptions) -> Result<Outcome, Difference> {
    let dataset = Dataset::open(out).map_err(Difference::Damaged)?;
    let manifest = dataset.manifest().clone();
    if manifest.source != source.listing().record {
        return Err(Difference::Files);
    }
    if manifest.codec != *codec || manifest.order != source.listing().order {
        return Err(Difference::Options);
    }
    let json = fs::read(out.join(REPORT_FILE)).map_err(Difference::NoReport)?;
    let report: Report = serde_json::from_slice(&json).map_err(Difference::DamagedReport)?;
    let shards = dataset.splits().iter().flat_map(|split| split.shards());
    let entries = shards.flat_map(|shard| shard.entries());
    Ok(Outcome {
        payload_bytes: entries.map(|entry| u64::from(entry.length)).sum(),
        manifest,
        report,
        up_to_date: true,
    })
}

/// A dataset that is being written.
pub struct Staging {
    out: PathBuf,
    dir: PathBuf,
    /// The directory, opened and locked: a second build sees that it is alive.
    lock: File,
}

impl Staging {
    fn create(out: PathBuf) -> Result<Staging, Error> {
        let dir = with_suffix(&out, ".building");
        if dir.exists() {
            drop(Staging::lock(&dir)?);
            fs::remove_dir_all(&dir).map_err(DatasetError::io(&dir, "remove"))?;
        }
        fs::create_dir_all(&dir).map_err(DatasetError::io(&dir, "create"))?;
        let lock = Staging::lock(&dir)?;
        Ok(Staging { out, dir, lock })
    }

    fn lock(dir: &Path) -> Result<File, Error> {
        let file = File::open(dir).map_err(DatasetError::io(dir, "open"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::Busy(dir.to_owned())),
            // Some network file systems cannot lock; then two builds at once are the user's care.
            Err(TryLockError::Error(_)) => Ok(file),
        }
    }

    /// Writes manifest and report, and moves the directory to its final place.
    pub fn finish(self, outcome: &Outcome) -> Result<(), Error> {
        let mut report = serde_json::to_string_pretty(&outcome.report).expect("plain data");
        report.push('\n');
        self.write(REPORT_FILE, &report)?;
        self.write(MANIFEST_FILE, &outcome.manifest.to_json())?;
        let sync = self.lock.sync_all();
        sync.map_err(DatasetError::io(&self.dir, "write"))?;

        let replaced = with_suffix(&self.out, ".replaced");
        if replaced.exists() {
            fs::remove_dir_all(&replaced).map_err(DatasetError::io(&replaced, "remove"))?;
        }
        if self.out.exists() && !is_empty_directory(&self.out) {
            rename(&self.out, &replaced)?;
        }
        rename(&self.dir, &self.out)?;
        let parent = match self.out.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let sync = File::open(parent).and_then(|parent| parent.sync_all());
        sync.map_err(DatasetError::io(parent, "write"))?;
        if replaced.exists() {
            fs::remove_dir_all(&replaced).map_err(DatasetError::io(&replaced, "remove"))?;
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        let mut file = File::create(&path).map_err(DatasetError::io(&path, "create"))?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        written.map_err(DatasetError::io(&path, "write"))?;
        Ok(())
    }

    /// Removes what has been written.
    ///
    /// The error that led here matters more than a failure of this, and the next build removes what is left.
    pub fn remove(self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Writes the samples of one split into as many shards as they need.
pub struct SplitWriter<'a> {
    dir: &'a Path,
    name: &'a str,
    labels: &'a Labels,
    columns: Vec<(String, LabelType)>,
    shard_size: u64,
    codec_data: &'a [u8],
    open: Option<(String, ShardWriter)>,
    shards: Vec<ShardRecord>,
}

impl<'a> SplitWriter<'a> {
    pub fn new(
        staging: &'a Staging,
        name: &'a str,
        labels: &'a Labels,
        shard_size: u64,
        codec_data: &'a [u8],
    ) -> Self {
        let columns = labels.columns().into_iter();
        SplitWriter {
            dir: &staging.dir,
            name,
            labels,
            columns: columns.map(|column| (column.name, column.kind)).collect(),
            shard_size,
            codec_data,
            open: None,
            shards: Vec::new(),
        }
    }

    pub fn append(&mut self, file: &SourceFile, image: &Ingested) -> Result<(), Error> {
        let labels = self.labels.of(&file.path);
        let full = |writer: &ShardWriter| {
            let size = writer.bytes() + image.payload.len() as u64;
            size > self.shard_size || !writer.has_room(&labels)
        };
        if self.open.as_ref().is_some_and(|(_, writer)| full(writer)) {
            self.close()?;
        }
        if self.open.is_none() {
            let name = format!("{}-{:05}.shard", self.name, self.shards.len());
            let columns = self.columns.iter();
            let columns: Vec<_> = columns.map(|(name, kind)| (name.as_str(), *kind)).collect();
            let writer = ShardWriter::create(&self.dir.join(&name), &columns, self.codec_data)?;
            self.open = Some((name, writer));
        }
        let (_, writer) = self.open.as_mut().expect("opened above");
        writer.append(&NewSample {
            payload: &image.payload,
            codec: image.codec,
            stored: image.stored,
            source: image.source,
            class: file.class,
            orientation: image.orientation,
            labels: &labels,
        })?;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        if let Some((file, writer)) = self.open.take() {
            let written = writer.finish()?;
            self.shards.push(ShardRecord {
                file,
                samples: written.samples,
                bytes: written.bytes,
                checksum: written.checksum,
            });
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<SplitRecord, Error> {
        self.close()?;
        Ok(SplitRecord {
            name: self.name.to_owned(),
            samples: self
                .shards
                .iter()
                .map(|shard| u64::from(shard.samples))
                .sum(),
            shards: self.shards,
        })
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn is_empty_directory(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(DatasetError::io(to, "rename the finished directory to"))?;
    Ok(())
}
