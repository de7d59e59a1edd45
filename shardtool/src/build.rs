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
mod report;

use std::path::{Path, PathBuf};

use crate::Error as DatasetError;
use crate::dataset::{CodecOptions, Manifest, SplitRecord};
use crate::dct::encode::Coding;
use crate::source::{Source, SourceFile, SourceSplit};
use budget::Memory;
use ingest::Ingested;
use output::{Destination, SplitWriter, Staging};

pub use crate::source::Note;
pub use error::{Difference, Error};
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
}

/// Returns where the dataset of a source goes unless told otherwise: `photos` becomes `photos.shards`.
///
/// # Errors
/// If `images` has no name of its own (`.`, `..`) and cannot be opened.
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
///
/// A failed build leaves nothing behind, and what was in the output's place stays.
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
    let staging = if options.dry_run {
        None
    } else {
        match output::prepare(&options.out, options.force, source, &options.codec)? {
            Destination::UpToDate(outcome) => return Ok(*outcome),
            Destination::Free(staging) => Some(staging),
        }
    };
    let built = Build::new(source, options, progress).run(staging.as_ref());
    match (built, staging) {
        (Ok(outcome), Some(staging)) => {
            staging.finish(&outcome)?;
            Ok(outcome)
        }
        (Err(error), Some(staging)) => {
            // Gives the space back, which a full disk needs most.
            staging.remove();
            Err(error)
        }
        (built, None) => built,
    }
}

/// A build under way.
struct Build<'a> {
    source: &'a Source,
    options: &'a Options,
    progress: &'a mut dyn FnMut(Progress),
    report: Report,
    payload_bytes: u64,
    done: u64,
    /// How many images of each class were kept.
    of_class: Vec<u64>,
}

impl<'a> Build<'a> {
    fn new(
        source: &'a Source,
        options: &'a Options,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Build<'a> {
        let listing = source.listing();
        Build {
            source,
            options,
            progress,
            report: Report {
                ignored: listing.ignored.clone(),
                left_out: listing.left_out.clone(),
                remarks: listing.remarks.clone(),
                labels_without_image: listing.labels.without_image(listing.files()),
                ..Report::default()
            },
            payload_bytes: 0,
            done: 0,
            of_class: vec![0; listing.classes.len()],
        }
    }

    fn run(mut self, staging: Option<&Staging>) -> Result<Outcome, Error> {
        let listing = self.source.listing();
        let memory = Memory::available();
        let (coding, codec_data) = pool::coding(self.options, self.source, &memory);
        let mut splits = Vec::new();
        for split in &listing.splits {
            let writer = staging.map(|staging| {
                let (name, size) = (&split.name, self.options.codec.shard_size);
                SplitWriter::new(staging, name, &listing.labels, size, &codec_data)
            });
            splits.extend(self.split(split, &coding, &memory, writer)?);
        }
        if self.report.kept == 0 {
            // No dataset means no report either, so the error has to say why.
            let path = self.source.place().to_owned();
            return Err(match self.report.rejected.into_iter().next() {
                None => Error::NoImages(path),
                Some(first) => Error::NoneKept {
                    path,
                    found: listing.record.files,
                    first,
                },
            });
        }
        let without = self
            .of_class
            .iter()
            .zip(&listing.classes)
            .filter(|(kept, _)| **kept == 0);
        self.report.classes_without_image = without.map(|(_, name)| name.clone()).collect();
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
            report: self.report,
            payload_bytes: self.payload_bytes,
            up_to_date: false,
        })
    }

    /// Codes the files of a split, and writes them if there is a writer.
    fn split(
        &mut self,
        split: &SourceSplit,
        coding: &Coding,
        memory: &Memory,
        mut writer: Option<SplitWriter<'_>>,
    ) -> Result<Option<SplitRecord>, Error> {
        let (options, source) = (self.options, self.source);
        pool::in_order(
            options,
            source,
            coding,
            memory,
            &split.files,
            |file, ingested| self.take(file, ingested, writer.as_mut()),
        )?;
        writer.map(SplitWriter::finish).transpose()
    }

    /// Notes what became of a file, and writes it if it can be kept.
    fn take(
        &mut self,
        file: &SourceFile,
        ingested: Result<Ingested, String>,
        writer: Option<&mut SplitWriter<'_>>,
    ) -> Result<(), Error> {
        match ingested {
            Ok(image) => {
                if let Some(change) = &image.change {
                    self.report.stored_otherwise.push(file.note(change.clone()));
                }
                if let Some(warning) = &image.warning {
                    self.report.faulty.push(file.note(warning.clone()));
                }
                if let Some(named) = &image.misnamed {
                    self.report.misnamed.push(file.note(named.clone()));
                }
                if let Some(class) = file.class {
                    self.of_class[class as usize] += 1;
                }
                self.payload_bytes += image.payload.len() as u64;
                self.report.kept += 1;
                if let Some(writer) = writer {
                    writer.append(file, &image)?;
                }
            }
            Err(reason) if self.options.on_error == OnError::Fail => {
                let path = self.source.place().join(&file.path);
                return Err(Error::Rejected { path, reason });
            }
            Err(reason) => self.report.rejected.push(file.note(reason)),
        }
        self.done += 1;
        (self.progress)(Progress {
            done: self.done,
            total: self.source.listing().record.files,
            rejected: self.report.rejected.len() as u64,
        });
        Ok(())
    }
}
