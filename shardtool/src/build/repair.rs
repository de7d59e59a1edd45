//! Damaged shards made whole again from the images that they were built from.
//!
//! A sample is converted as the build did it, and taken if it has the checksum that the index says. A shard whose
//! header or index is damaged, or that is gone, is built once more from its part of the source, and taken if it has the
//! checksum that the manifest says. So a repaired dataset is the one that was built, to the last byte, and runs go on
//! with it. A shard is written beside the damaged one and takes its place when it is complete and on the disk.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::budget::Memory;
use super::ingest::Worker;
use super::{Error, Note, OnError, Options, REPORT_FILE, Report, pool};
use crate::dataset::{Manifest, ShardRecord, SplitRecord};
use crate::dct::encode::Coding;
use crate::dct::tables::Tables;
use crate::disk::{self, Tried};
use crate::format::{Shard, ShardWriter, checksum};
use crate::rans::EncodeTable;
use crate::source::{Source, SourceFile, SourceSplit};
use crate::{Error as DatasetError, Escaped};

/// What is damaged of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The payloads of these samples.
    Samples(Vec<u32>),
    /// Header or index, or all of it: it cannot be opened, or is not the one that the manifest lists.
    Whole,
}

/// Repairs the shards of one dataset, which no other build or repair writes to meanwhile.
pub struct Repair<'a> {
    dir: &'a Path,
    manifest: &'a Manifest,
    source: &'a Source,
    options: Options,
    memory: Memory,
    by_path: HashMap<&'a str, Vec<&'a SourceFile>>,
    /// Paths of images that the build could not keep.
    rejected: HashSet<String>,
    /// The directory, locked.
    _lock: File,
}

impl<'a> Repair<'a> {
    /// Begins to repair the dataset in `dir` from `source`.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process repairs it, and what the system says.
    pub fn new(
        dir: &'a Path,
        manifest: &'a Manifest,
        source: &'a Source,
        workers: usize,
    ) -> Result<Repair<'a>, Error> {
        let lock = File::open(dir).map_err(DatasetError::io(dir, "open"))?;
        if disk::try_lock(&lock, dir) == Tried::Held {
            return Err(Error::Busy(dir.to_owned()));
        }
        let mut by_path: HashMap<&str, Vec<&SourceFile>> = HashMap::new();
        for file in source.listing().files() {
            by_path.entry(&file.path).or_default().push(file);
        }
        // Without a report, all images are thought to have been kept; what comes of that is compared.
        let report = fs::read(dir.join(REPORT_FILE)).unwrap_or_default();
        let report: Report = serde_json::from_slice(&report).unwrap_or_default();
        Ok(Repair {
            dir,
            manifest,
            source,
            options: Options {
                out: dir.to_owned(),
                codec: manifest.codec.clone(),
                workers,
                on_error: OnError::Skip,
                dry_run: false,
                force: false,
                began: SystemTime::now(),
            },
            memory: Memory::available(),
            by_path,
            rejected: report.rejected.into_iter().map(|note| note.path).collect(),
            _lock: lock,
        })
    }

    /// Repairs shard `number` of a split. Returns what stays damaged, and why.
    ///
    /// # Errors
    /// If the shard cannot be written. It stays as it was then.
    pub fn shard(
        &self,
        split: &SplitRecord,
        number: usize,
        damage: &Damage,
    ) -> Result<Vec<Note>, Error> {
        let record = &split.shards[number];
        let stays = match damage {
            Damage::Samples(samples) => self.restore(record, samples),
            Damage::Whole => self.rebuild(split, number).map(|rebuilt| {
                let lost = rebuilt.err();
                lost.map(|reason| Note::new(&*record.file, reason))
                    .into_iter()
                    .collect()
            }),
        };
        if stays.is_err() {
            // Makes room on a full disk; the error that led here matters more.
            let _ = fs::remove_file(self.aside(record));
        }
        stays
    }

    /// Writes a shard with those of its samples that the source gives back.
    fn restore(&self, record: &ShardRecord, samples: &[u32]) -> Result<Vec<Note>, Error> {
        let path = self.dir.join(&record.file);
        let shard = Shard::open(&path)?;
        let mut worker = match self.coding(shard.codec_data()) {
            Ok(coding) => Worker::new(self.options.codec.clone(), coding, self.memory.clone()),
            Err(reason) => return Ok(vec![Note::new(&*record.file, reason)]),
        };
        let (mut whole, mut lost) = (HashMap::new(), Vec::new());
        for &sample in samples {
            match self.convert(&mut worker, &shard, sample) {
                Ok(payload) => {
                    whole.insert(sample, payload);
                }
                Err(reason) => {
                    let name = shard.sample(sample).name().unwrap_or("no path");
                    let what = format!("{}: sample {sample} ({name})", record.file);
                    lost.push(Note::new(what, reason));
                }
            }
        }
        if !whole.is_empty() {
            let aside = self.aside(record);
            let written = patch(&shard, &whole, &aside);
            written.map_err(DatasetError::io(&aside, "write"))?;
            self.take(record, &aside, Some(&whole))?;
        }
        Ok(lost)
    }

    /// Converts the image of a sample once more.
    fn convert(&self, worker: &mut Worker, shard: &Shard, sample: u32) -> Result<Vec<u8>, String> {
        let name = shard.sample(sample).name();
        let name =
            name.ok_or("the dataset does not say of which image it is (no column `path`)")?;
        let candidates = self.by_path.get(name);
        let candidates = candidates.ok_or("the source has no such image")?;
        if shard.payload(sample).is_ok() {
            return Err("it is as the build wrote it, and yet no image".to_owned());
        }
        let entry = shard.entry(sample);
        let mut reason = String::new();
        for file in candidates {
            match worker.ingest(self.source, file) {
                Ok(image) if checksum(&image.payload) == entry.checksum => {
                    return Ok(image.payload);
                }
                Ok(_) => {
                    reason = "the source's image gives other bytes: it was changed since, or the dataset is of another \
                              version of this program"
                        .to_owned();
                }
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    /// Builds a shard once more. An error within is the reason why the source does not give it.
    fn rebuild(&self, split: &SplitRecord, number: usize) -> Result<Result<(), String>, Error> {
        let (listing, was) = (self.source.listing(), &self.manifest.source);
        let now = &listing.record;
        if (now.files, now.bytes, now.listing) != (was.files, was.bytes, was.listing)
            || listing.classes != self.manifest.classes
            || listing.labels.columns() != self.manifest.labels
        {
            return Ok(Err(
                "a whole shard can be built again only from exactly the files and labels that the dataset was built \
                 from, which this source does not list, read with these options; give those of the build (--layout, \
                 --class-depth, --classes, --val-labels, --exclude), or build the dataset again"
                    .to_owned(),
            ));
        }
        let record = &split.shards[number];
        let files = listing.splits.iter().find(|found| found.name == split.name);
        let files = files.and_then(|files| self.files_of(files, split, number));
        let Some(files) = files else {
            return Ok(Err("the source has too few images for it".to_owned()));
        };
        let (coding, codec_data) = match self.sibling_data() {
            Some(codec_data) => match self.coding(&codec_data) {
                Ok(coding) => (coding, codec_data),
                Err(reason) => return Ok(Err(reason)),
            },
            None => pool::coding(&self.options, self.source, &self.memory),
        };
        let columns = listing.labels.columns();
        let columns: Vec<_> = columns
            .iter()
            .map(|column| (column.name.as_str(), column.kind))
            .collect();
        let aside = self.aside(record);
        let mut writer = ShardWriter::create(&aside, &columns, &codec_data)?;
        let (options, source, memory) = (&self.options, self.source, &self.memory);
        pool::in_order(options, source, &coding, memory, files, |file, ingested| {
            // What cannot be kept now was not kept then; else the checksum tells.
            let Ok(image) = ingested else {
                return Ok(());
            };
            let labels = listing.labels.of(file);
            writer.append(&image.sample(file.class, &labels))?;
            Ok(())
        })?;
        if writer.samples() > 0 {
            let written = writer.finish()?;
            let got = (written.samples, written.bytes, written.checksum);
            if got == (record.samples, record.bytes, record.checksum) {
                return self.take(record, &aside, None).map(Ok);
            }
        }
        fs::remove_file(&aside).map_err(DatasetError::io(&aside, "remove"))?;
        Ok(Err(
            "the source gives another shard: its images were changed since, or the dataset is of another version of \
             this program"
                .to_owned(),
        ))
    }

    /// Returns the part of a split's files of which the build made this shard.
    fn files_of<'s>(
        &self,
        files: &'s SourceSplit,
        split: &SplitRecord,
        number: usize,
    ) -> Option<&'s [SourceFile]> {
        let before: u32 = split.shards[..number]
            .iter()
            .map(|shard| shard.samples)
            .sum();
        let kept: Vec<usize> = files
            .files
            .iter()
            .enumerate()
            .filter(|(_, file)| !self.rejected.contains(&file.path))
            .map(|(place, _)| place)
            .collect();
        let last = before + split.shards[number].samples - 1;
        let (first, last) = (kept.get(before as usize)?, kept.get(last as usize)?);
        Some(&files.files[*first..=*last])
    }

    /// Returns the codec data of a whole shard, which are those of all.
    fn sibling_data(&self) -> Option<Vec<u8>> {
        let mut records = self.manifest.splits.iter().flat_map(|split| &split.shards);
        records.find_map(|record| {
            let shard = Shard::open(&self.dir.join(&record.file)).ok()?;
            (shard.checksum() == record.checksum).then(|| shard.codec_data().to_owned())
        })
    }

    /// Returns how the streams of a shard with these codec data are coded.
    fn coding(&self, codec_data: &[u8]) -> Result<Coding, String> {
        if codec_data.is_empty() {
            return Ok(Coding::Zstd(self.options.codec.level));
        }
        let frequencies = Tables::frequencies(codec_data).map_err(|error| error.to_string())?;
        let tables = frequencies.iter().map(EncodeTable::new);
        let tables: Result<_, _> = tables.collect();
        tables.map(Coding::Rans).map_err(|error| error.to_string())
    }

    fn aside(&self, record: &ShardRecord) -> PathBuf {
        self.dir.join(format!("{}.repair", record.file))
    }

    /// Reads back what was written aside and gives it the shard's name.
    fn take(
        &self,
        record: &ShardRecord,
        aside: &Path,
        restored: Option<&HashMap<u32, Vec<u8>>>,
    ) -> Result<(), Error> {
        let shard = Shard::open(aside)?;
        let mut buffer = Vec::new();
        for sample in 0..shard.len() {
            if restored.is_none_or(|restored| restored.contains_key(&sample)) {
                shard.read(sample, &mut buffer)?;
            }
        }
        let path = self.dir.join(&record.file);
        fs::rename(aside, &path)
            .map_err(DatasetError::io(&path, "rename the repaired shard to"))?;
        disk::sync_dir(self.dir).map_err(DatasetError::io(self.dir, "write"))?;
        tracing::info!("{}: repaired", Escaped::new(&path));
        Ok(())
    }
}

/// Writes a copy of a shard with other payloads for some samples, and waits until it is on the disk. What stays damaged
/// is copied as far as it can be read.
fn patch(shard: &Shard, whole: &HashMap<u32, Vec<u8>>, aside: &Path) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, disk::create(aside)?);
    let mut buffer = Vec::new();
    out.write_all(shard.raw(0..shard.entry(0).offset, &mut buffer)?)?;
    for (sample, entry) in (0..).zip(shard.entries()) {
        let end = entry.offset + u64::from(entry.length);
        match whole.get(&sample) {
            Some(payload) => out.write_all(payload)?,
            None => match shard.raw(entry.offset..end, &mut buffer) {
                Ok(payload) => out.write_all(payload)?,
                Err(_) => out.write_all(&vec![0; entry.length as usize])?,
            },
        }
    }
    let last = shard.entry(shard.len() - 1);
    let index = last.offset + u64::from(last.length);
    out.write_all(shard.raw(index..shard.bytes(), &mut buffer)?)?;
    out.flush()?;
    disk::sync(out.get_ref())
}
