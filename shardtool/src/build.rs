//! From images to a dataset.
//!
//! A [`Source`] lists its files and labels, a pool of workers turns each file into a payload (`ingest`), and the
//! calling thread writes the results in the order of the list (`output`). So the output depends on the source's content
//! and the options alone: not on the number of workers, timing, or the order in which the system lists directories. No
//! more than a fixed number of files is between the list and the shards at a time, which bounds memory.

mod budget;
mod error;
mod ingest;
mod output;
mod pool;
mod repair;
mod report;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::Error as DatasetError;
use crate::dataset::{CodecOptions, Manifest, ShardRecord, SplitRecord};
use crate::dct::encode::Coding;
use crate::source::{Source, SourceFile, SourceSplit};
use budget::Memory;
use ingest::Ingested;
use output::{Destination, Done, Journal, SplitWriter, Staging};

pub use crate::source::Note;
pub use error::{Difference, Error};
pub use repair::{Damage, Repair};
pub use report::{Outcome, Progress, REPORT_FILE, Report};

/// What to do with a file that cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// Name it in the report and go on.
    Skip,
    /// Stop without building anything.
    Fail,
}

/// How to build, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The dataset's directory; see [`default_output`].
    pub out: PathBuf,
    /// How images are coded, where they can be, and how large shards are.
    pub codec: CodecOptions,
    /// Number of worker threads.
    pub workers: usize,
    /// What to do with a file that cannot be kept.
    pub on_error: OnError,
    /// Check every file, but write nothing.
    pub dry_run: bool,
    /// Replace an existing dataset.
    pub force: bool,
    /// When listing the source began: what is changed in it later, the next build will see.
    pub began: SystemTime,
}

/// Returns where the dataset of a source goes unless told otherwise: `photos` and `photos.tar` become `photos.shards`.
///
/// # Errors
/// If `source` has no name of its own (`.`, `..`) and cannot be opened.
pub fn default_output(source: &Path) -> Result<PathBuf, Error> {
    const ENDINGS: [&str; 7] = [
        ".tar.gz", ".tgz", ".tar", ".zip", ".parquet", ".csv", ".jsonl",
    ];
    let trimmed: PathBuf = source.components().collect();
    let mut path = match trimmed.file_name() {
        Some(_) => trimmed,
        None => std::fs::canonicalize(source).map_err(DatasetError::io(source, "open"))?,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let stem = |ending: &&str| name.as_bytes().strip_suffix(ending.as_bytes());
    let stem = ENDINGS.iter().find_map(stem);
    if let Some(stem) = stem.filter(|_| !path.is_dir()) {
        name = OsStr::from_bytes(stem).to_owned();
    }
    name.push(".shards");
    path.set_file_name(name);
    Ok(path)
}

/// Builds a dataset, or finds that it is there already.
///
/// A failed build leaves what was in the output's place as it was. What it has finished stays beside it, and the same
/// build goes on from there.
///
/// # Errors
/// If the source has no image that can be kept, the output's place is taken, or the disk fails or is full.
pub fn run(
    source: &Source,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, Error> {
    let listing = source.listing();
    if listing.record.files == 0 {
        return Err(match listing.left_out.first() {
            None => Error::NoImages(source.place().to_owned()),
            Some(first) => Error::AllLeftOut {
                path: source.place().to_owned(),
                found: listing.left_out.len(),
                first: first.clone(),
            },
        });
    }
    if options.dry_run {
        return Build::new(source, options, progress).run(None);
    }
    let staging = match output::prepare(source, options)? {
        Destination::UpToDate(outcome) => return Ok(*outcome),
        Destination::Free(staging) => *staging,
    };
    let built = Build::new(source, options, progress).run(Some(&staging));
    let finished = built.and_then(|outcome| {
        staging.finish(&outcome, options.began)?;
        Ok(outcome)
    });
    finished.map_err(|error| unfinished(error, staging))
}

/// Removes what is not finished, which gives space back, and tells of what is.
fn unfinished(error: Error, staging: Staging) -> Error {
    let finished = match error {
        Error::Rejected { .. } | Error::NoneKept { .. } => Vec::new(),
        _ => output::finished(staging.dir()),
    };
    if finished.is_empty() {
        staging.remove();
        return error;
    }
    // The error that led here matters more than a failure of this, and the next build does it again.
    let _ = staging.keep_only(&finished);
    Error::Unfinished {
        cause: Box::new(error),
        dir: staging.dir().to_owned(),
        shards: finished.len() - 1,
    }
}

/// A build under way.
struct Build<'a> {
    source: &'a Source,
    options: &'a Options,
    progress: &'a mut dyn FnMut(Progress),
    /// What became of all files.
    total: Tally,
    /// What became of those since the last finished shard.
    since: Tally,
    /// Files dealt with, of all splits.
    done: u64,
    resumed: u64,
}

/// What became of some files.
#[derive(Default)]
struct Tally {
    report: Report,
    payload_bytes: u64,
    /// How many images of each class were kept.
    of_class: BTreeMap<u32, u64>,
}

impl Tally {
    fn absorb(&mut self, other: Tally) {
        self.report.absorb(other.report);
        self.payload_bytes += other.payload_bytes;
        for (class, kept) in other.of_class {
            *self.of_class.entry(class).or_default() += kept;
        }
    }

    fn add(&mut self, file: &SourceFile, image: &Ingested) {
        let report = &mut self.report;
        for (notes, text) in [
            (&mut report.stored_otherwise, &image.change),
            (&mut report.faulty, &image.warning),
            (&mut report.misnamed, &image.misnamed),
        ] {
            notes.extend(text.clone().map(|text| file.note(text)));
        }
        report.kept += 1;
        self.payload_bytes += image.payload.len() as u64;
        if let Some(class) = file.class {
            *self.of_class.entry(class).or_default() += 1;
        }
    }
}

impl<'a> Build<'a> {
    fn new(
        source: &'a Source,
        options: &'a Options,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Build<'a> {
        let listing = source.listing();
        let report = Report {
            listing: format!("{:016x}", listing.identity),
            ignored: listing.ignored.clone(),
            left_out: listing.left_out.clone(),
            remarks: listing.remarks.clone(),
            labels_without_image: listing.labels.without_image(listing.files()),
            ..Report::default()
        };
        Build {
            source,
            options,
            progress,
            total: Tally {
                report,
                ..Tally::default()
            },
            since: Tally::default(),
            done: 0,
            resumed: 0,
        }
    }

    fn run(mut self, staging: Option<&Staging>) -> Result<Outcome, Error> {
        let listing = self.source.listing();
        let memory = Memory::available();
        let (coding, codec_data) = pool::coding(self.options, self.source, &memory);
        let mut journal = match staging {
            None => None,
            Some(staging) => Some(Journal::open(
                staging,
                self.source,
                self.options,
                &codec_data,
            )?),
        };
        let mut splits = Vec::new();
        for split in &listing.splits {
            let mut out = match (staging, &mut journal) {
                (Some(staging), Some(journal)) => {
                    let shards = self.take_up(split, journal);
                    let size = self.options.codec.shard_size;
                    Some(Out {
                        writer: SplitWriter::new(
                            staging,
                            &split.name,
                            &listing.labels,
                            size,
                            &codec_data,
                            shards.len(),
                        ),
                        staging,
                        journal,
                        shards,
                    })
                }
                _ => None,
            };
            self.split(split, &coding, &memory, &mut out)?;
            splits.extend(out.map(|out| {
                SplitRecord {
                    name: split.name.clone(),
                    samples: out
                        .shards
                        .iter()
                        .map(|shard| u64::from(shard.samples))
                        .sum(),
                    shards: out.shards,
                }
            }));
        }
        self.outcome(splits)
    }

    fn outcome(mut self, splits: Vec<SplitRecord>) -> Result<Outcome, Error> {
        let listing = self.source.listing();
        let mut report = std::mem::take(&mut self.total.report);
        if report.kept == 0 {
            // No dataset means no report either, so the error has to say why.
            let path = self.source.place().to_owned();
            return Err(match report.rejected.into_iter().next() {
                None => Error::NoImages(path),
                Some(first) => Error::NoneKept {
                    path,
                    found: listing.record.files,
                    first,
                },
            });
        }
        let without = (0..)
            .zip(&listing.classes)
            .filter(|(class, _)| !self.total.of_class.contains_key(class));
        report.classes_without_image = without.map(|(_, name)| name.clone()).collect();
        let manifest = Manifest::new(
            listing.record.clone(),
            self.options.codec.clone(),
            listing.order,
            listing.classes.clone(),
            listing.labels.columns(),
            splits,
        );
        Ok(Outcome {
            manifest,
            report,
            payload_bytes: self.total.payload_bytes,
            up_to_date: false,
            resumed: self.resumed,
        })
    }

    /// Takes up what an unfinished build has done of a split, and returns its shards.
    fn take_up(&mut self, split: &SourceSplit, journal: &Journal) -> Vec<ShardRecord> {
        let mut shards = Vec::new();
        for done in journal
            .done()
            .iter()
            .filter(|done| done.split == split.name)
        {
            self.total.absorb(Tally {
                report: done.report.clone(),
                payload_bytes: done.payload_bytes,
                of_class: done.of_class.iter().copied().collect(),
            });
            self.done += done.files;
            shards.push(done.shard.clone());
        }
        self.resumed += shards.len() as u64;
        shards
    }

    /// Codes the files of a split, and writes them if there is where to.
    fn split(
        &mut self,
        split: &SourceSplit,
        coding: &Coding,
        memory: &Memory,
        out: &mut Option<Out<'_, '_>>,
    ) -> Result<(), Error> {
        let (options, source) = (self.options, self.source);
        let before = out.as_ref().map_or(0, |out| out.files_done(&split.name));
        let files = &split.files[before as usize..];
        let mut since = 0;
        pool::in_order(options, source, coding, memory, files, |file, ingested| {
            self.take(file, ingested, split, out, &mut since)
        })?;
        if let Some(out) = out {
            let closed = out.writer.close()?;
            self.note(split, closed, out, &mut since)?;
        }
        self.total.absorb(std::mem::take(&mut self.since));
        Ok(())
    }

    /// Writes a file if it can be kept, and notes what became of it. `since` counts the files since the last finished
    /// shard.
    fn take(
        &mut self,
        file: &SourceFile,
        ingested: Result<Ingested, String>,
        split: &SourceSplit,
        out: &mut Option<Out<'_, '_>>,
        since: &mut u64,
    ) -> Result<(), Error> {
        match ingested {
            Ok(image) => {
                if let Some(out) = out {
                    let closed = out.writer.append(file, &image)?;
                    self.note(split, closed, out, since)?;
                }
                self.since.add(file, &image);
            }
            Err(reason) if self.options.on_error == OnError::Fail => {
                let path = self.source.place().join(&file.path);
                return Err(Error::Rejected { path, reason });
            }
            Err(reason) => self.since.report.rejected.push(file.note(reason)),
        }
        *since += 1;
        self.done += 1;
        let rejected = self.total.report.rejected.len() + self.since.report.rejected.len();
        (self.progress)(Progress {
            done: self.done,
            total: self.source.listing().record.files,
            rejected: rejected as u64,
        });
        Ok(())
    }

    /// Writes a finished shard, if one is, into the journal.
    fn note(
        &mut self,
        split: &SourceSplit,
        closed: Option<ShardRecord>,
        out: &mut Out<'_, '_>,
        since: &mut u64,
    ) -> Result<(), Error> {
        let Some(shard) = closed else {
            return Ok(());
        };
        let tally = std::mem::take(&mut self.since);
        out.shards.push(shard.clone());
        let done = Done {
            split: split.name.clone(),
            shard,
            files: std::mem::take(since),
            report: tally.report.clone(),
            payload_bytes: tally.payload_bytes,
            of_class: tally
                .of_class
                .iter()
                .map(|(class, kept)| (*class, *kept))
                .collect(),
        };
        self.total.absorb(tally);
        out.journal.append(out.staging, done)
    }
}

/// Where a split's samples go.
struct Out<'a, 'j> {
    writer: SplitWriter<'a>,
    staging: &'a Staging,
    journal: &'j mut Journal,
    /// The finished shards.
    shards: Vec<ShardRecord>,
}

impl Out<'_, '_> {
    /// Returns how many files of a split were dealt with before this build.
    fn files_done(&self, split: &str) -> u64 {
        let lines = self
            .journal
            .done()
            .iter()
            .filter(|done| done.split == split);
        lines.map(|done| done.files).sum()
    }
}
