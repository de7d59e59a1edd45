//! From an image folder to a dataset.
//!
//! `source` lists the folder and its labels, a pool of workers turns each file into a payload
//! (`ingest`), and the calling thread writes the results in the order of the list (`output`).
//! So the output depends on the folder's content and the options alone: not on the number of
//! workers, timing, or the order in which the system lists directories. No more than a fixed
//! number of files is between the list and the shards at a time, which bounds memory.

mod ingest;
mod jpeg;
mod labels;
mod output;
mod source;

use crate::dataset::{CodecOptions, EntropyCoding, Manifest};
use crate::dct::encode::{Coding, Statistics};
use crate::dct::tables::Tables;
use crate::rans::EncodeTable;
use crate::{Codec, Error as DatasetError};
use output::{Destination, Staging};
use serde::{Deserialize, Serialize};
use source::{Source, SourceFile};
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Name of the report in a dataset's directory.
pub const REPORT_FILE: &str = "report.json";
/// Name of the file with labels in a source folder.
pub const LABELS_FILE: &str = "labels.csv";

/// Why no dataset was built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The source is not a folder.
    #[error("{path}: not a folder", path = .0.display())]
    NotAFolder(PathBuf),
    /// A directory contains itself through a symbolic link.
    #[error("{path}: links back to a folder above it", path = .0.display())]
    Loop(PathBuf),
    /// The folder has no image.
    #[error("{path}: no image files found", path = .0.display())]
    NoImages(PathBuf),
    /// None of the images could be kept.
    #[error("{path}: none of {found} image files could be kept; the first: {first}", path = path.display())]
    NoneKept {
        /// The source folder.
        path: PathBuf,
        /// Number of candidates.
        found: u64,
        /// Path and reason of the first.
        first: Note,
    },
    /// A line of `labels.csv` cannot be understood.
    #[error("{path}:{line}: {reason}", path = path.display())]
    Labels {
        /// The labels file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file was rejected, and the build was told to stop at the first.
    #[error("{path}: {reason}", path = path.display())]
    Rejected {
        /// The source file.
        path: PathBuf,
        /// Why it cannot be kept.
        reason: String,
    },
    /// The output exists and is another dataset.
    #[error("{path}: exists already and {difference}; --force replaces it, --out names another place", path = path.display())]
    Exists {
        /// The output directory.
        path: PathBuf,
        /// In what it differs from what would be built.
        difference: String,
    },
    /// The output exists and is no dataset; it is never deleted.
    #[error("{path}: exists already and is not a dataset; remove it or name another place with --out", path = path.display())]
    Foreign {
        /// The output path.
        path: PathBuf,
    },
    /// Another build is writing the same dataset.
    #[error("{path}: another build is writing here", path = .0.display())]
    Busy(PathBuf),
}

/// What to do with a file that cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// Name it in the report and go on.
    Skip,
    /// Stop without building anything.
    Fail,
}

/// What to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source folder.
    pub images: PathBuf,
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
}

/// A file and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Path below the source folder.
    pub path: String,
    /// What became of it, and why.
    pub reason: String,
}

/// One line, whatever the file is called: a newline or an escape sequence in a name must not reach the terminal.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.path.chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        write!(f, ": {}", self.reason)
    }
}

/// What a build left out or changed; `report.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Number of samples written.
    pub kept: u64,
    /// Images that could not be kept: damaged, empty, unreadable or of an unknown type.
    pub rejected: Vec<Note>,
    /// Images that are stored otherwise than asked for: files that are not JPEG, or of a rare kind of it.
    pub stored_otherwise: Vec<Note>,
    /// JPEG files with faulty data that decoders read all the same, with libjpeg's words for the fault; they are kept.
    #[serde(default)]
    pub faulty: Vec<Note>,
    /// Files that were not taken for images.
    pub ignored: Vec<Note>,
    /// Paths in `labels.csv` at which there is no image.
    pub labels_without_image: Vec<String>,
}

/// What a build did.
#[derive(Debug)]
pub struct Outcome {
    /// The manifest: of the dataset built or found, or after a dry run of what would be built,
    /// without shards.
    pub manifest: Manifest,
    /// What was left out.
    pub report: Report,
    /// Bytes of all payloads.
    pub payload_bytes: u64,
    /// The dataset was there already, built from the same files with the same options.
    pub up_to_date: bool,
}

/// How far a build is; given to the progress callback after each file.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Files done.
    pub done: u64,
    /// Files in all.
    pub total: u64,
    /// Files rejected so far.
    pub rejected: u64,
}

/// Where the dataset of a folder goes unless told otherwise: `photos` becomes `photos.shards`.
pub fn default_output(images: &Path) -> Result<PathBuf, Error> {
    let trimmed: PathBuf = images.components().collect();
    let mut path = match trimmed.file_name() {
        Some(_) => trimmed,
        None => std::fs::canonicalize(images).map_err(DatasetError::io(images, "open"))?,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".shards");
    path.set_file_name(name);
    Ok(path)
}

/// Builds a dataset, or finds that it is there already.
pub fn run(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, Error> {
    let source = Source::scan(&options.images)?;
    let codec = &options.codec;
    let staging = match options.dry_run {
        true => None,
        false => match output::prepare(&options.out, options.force, &source.record, codec)? {
            Destination::UpToDate(outcome) => return Ok(*outcome),
            Destination::Free(staging) => Some(staging),
        },
    };
    let built = build(options, &source, staging.as_ref(), progress);
    let (outcome, staging) = match (built, staging) {
        (Ok(outcome), staging) => (outcome, staging),
        (Err(error), Some(staging)) => {
            // Gives the space back, which a full disk needs most.
            staging.remove();
            return Err(error);
        }
        (Err(error), None) => return Err(error),
    };
    if let Some(staging) = staging {
        staging.finish(&outcome)?;
    }
    Ok(outcome)
}

fn build(
    options: &Options,
    source: &Source,
    staging: Option<&Staging>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, Error> {
    let mut report = Report {
        ignored: source.ignored.clone(),
        labels_without_image: source.labels.without_image(source.files()),
        ..Report::default()
    };
    let (coding, codec_data) = coding(options, source);
    let mut payload_bytes = 0;
    let mut done = 0;
    let mut splits = Vec::new();
    for split in &source.splits {
        let mut writer = staging.map(|staging| {
            let shard_size = options.codec.shard_size;
            output::SplitWriter::new(
                staging,
                &split.name,
                &source.labels,
                shard_size,
                &codec_data,
            )
        });
        in_order(options, &coding, &split.files, |file, ingested| {
            done += 1;
            match ingested {
                Ok(image) => {
                    if let Some(change) = &image.change {
                        report.stored_otherwise.push(file.note(change.clone()));
                    }
                    if let Some(warning) = &image.warning {
                        report.faulty.push(file.note(warning.clone()));
                    }
                    payload_bytes += image.payload.len() as u64;
                    report.kept += 1;
                    if let Some(writer) = &mut writer {
                        writer.append(file, &image)?;
                    }
                }
                Err(reason) if options.on_error == OnError::Fail => {
                    let path = options.images.join(&file.path);
                    return Err(Error::Rejected { path, reason });
                }
                Err(reason) => report.rejected.push(file.note(reason)),
            }
            progress(Progress {
                done,
                total: source.record.files,
                rejected: report.rejected.len() as u64,
            });
            Ok(())
        })?;
        if let Some(writer) = writer {
            splits.push(writer.finish()?);
        }
    }
    if report.kept == 0 {
        // No dataset means no report either, so the error has to say why.
        return Err(match report.rejected.into_iter().next() {
            None => Error::NoImages(options.images.clone()),
            Some(first) => Error::NoneKept {
                path: options.images.clone(),
                found: source.record.files,
                first,
            },
        });
    }
    let manifest = Manifest::new(
        source.record.clone(),
        options.codec.clone(),
        source.classes.clone(),
        source.labels.columns(),
        splits,
    );
    Ok(Outcome {
        manifest,
        report,
        payload_bytes,
        up_to_date: false,
    })
}

/// How streams are coded, and what the shards have to hold so that they can be decoded.
fn coding(options: &Options, source: &Source) -> (Coding, Vec<u8>) {
    let codec = &options.codec;
    if codec.name != Codec::Dct || codec.entropy == Some(EntropyCoding::Zstd) {
        return (Coding::Zstd(codec.level), Vec::new());
    }
    let frequencies = statistics(options, source).frequencies();
    let tables = frequencies.iter().map(|frequencies| {
        EncodeTable::new(frequencies).expect("normalized frequencies make a table")
    });
    (Coding::Rans(tables.collect()), Tables::write(&frequencies))
}

/// Counts the streams of files spread evenly over the source: as many as it takes to know how bytes are distributed, and
/// too few to matter in a large build.
fn statistics(options: &Options, source: &Source) -> Statistics {
    const ENOUGH_FILES: usize = 64;
    const ENOUGH_BYTES: u64 = 8 << 20;
    const MOST_FILES: usize = 2048;
    let files: Vec<&SourceFile> = source.files().collect();
    let average = (source.record.bytes / source.record.files.max(1)).max(1);
    let wanted = ((ENOUGH_BYTES / average) as usize).clamp(ENOUGH_FILES, MOST_FILES);
    let wanted = wanted.min(files.len());
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Statistics::default());
    std::thread::scope(|scope| {
        for _ in 0..options.workers {
            scope.spawn(|| {
                let mut worker = ingest::Worker::new(options.codec.clone(), Coding::Zstd(1));
                let mut counted = Statistics::default();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= wanted {
                        break;
                    }
                    let file = files[number * files.len() / wanted];
                    worker.count(&options.images, file, &mut counted);
                }
                total
                    .lock()
                    .expect("no thread panics with it")
                    .merge(&counted);
            });
        }
    });
    total.into_inner().expect("no thread panics with it")
}

/// Turns files into payloads on all workers and hands them to `take` in the order of the list.
fn in_order(
    options: &Options,
    coding: &Coding,
    files: &[SourceFile],
    mut take: impl FnMut(&SourceFile, Result<ingest::Image, String>) -> Result<(), Error>,
) -> Result<(), Error> {
    // Files between the list and `take`: enough to keep the workers busy past one slow file.
    let window = 8 * options.workers;
    let (to_workers, jobs) = crossbeam::channel::bounded::<usize>(window);
    let (results, from_workers) = crossbeam::channel::bounded(window);
    std::thread::scope(|scope| {
        for _ in 0..options.workers {
            let (jobs, results) = (jobs.clone(), results.clone());
            scope.spawn(move || {
                let mut worker = ingest::Worker::new(options.codec.clone(), coding.clone());
                for i in jobs {
                    let image = worker.ingest(&options.images, &files[i]);
                    if results.send((i, image)).is_err() {
                        return; // the build has stopped at an error
                    }
                }
            });
        }
        drop((jobs, results));

        let mut sent = 0;
        let mut waiting: VecDeque<Option<_>> = VecDeque::new();
        for (taken, file) in files.iter().enumerate() {
            while sent < files.len() && sent < taken + window {
                to_workers
                    .send(sent)
                    .expect("workers live until the list ends");
                waiting.push_back(None);
                sent += 1;
            }
            while waiting[0].is_none() {
                let (i, image) = from_workers.recv().expect("a sent job gives a result");
                waiting[i - taken] = Some(image);
            }
            let image = waiting.pop_front().flatten().expect("just found");
            if let Err(error) = take(file, image) {
                drop((to_workers, from_workers));
                return Err(error);
            }
        }
        drop(to_workers);
        Ok(())
    })
}
