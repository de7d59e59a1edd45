//! Where a dataset goes: what may stand in its place, and what is there already.
//!
//! Names, for an output `photos.shards`: `photos.shards.building` is being written and is gone on with by the next
//! build if its writer died; `photos.shards.replaced` is the dataset that `--force` moved aside, for the moment between
//! two renames.

mod journal;
mod splits;
mod staging;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Difference, Error, Options, Outcome, REPORT_FILE, Report};
use crate::Error as DatasetError;
use crate::dataset::{Dataset, MANIFEST_FILE};
use crate::source::Source;

pub use journal::{Done, Journal, finished};
pub use splits::SplitWriter;
pub use staging::Staging;

/// Where the output goes.
pub enum Destination {
    /// It is there already.
    UpToDate(Box<Outcome>),
    /// The place is free, or may be taken.
    Free(Box<Staging>),
}

/// Looks at what is in the output's place and makes the directory in which it is built.
pub fn prepare(source: &Source, options: &Options) -> Result<Destination, Error> {
    let out = follow(&options.out)?;
    for place in source.places() {
        apart(&out, place)?;
    }
    if let Some(outcome) = look(&out, source, options)? {
        return Ok(Destination::UpToDate(Box::new(outcome)));
    }
    let staging = Staging::lock(out)?;
    // Another build may have finished between the look and the lock.
    match look(staging.out(), source, options)? {
        Some(outcome) => {
            staging.leave();
            Ok(Destination::UpToDate(Box::new(outcome)))
        }
        None => Ok(Destination::Free(Box::new(staging))),
    }
}

/// Returns the path without a slash at its end, and where it leads if it is a link, be it to nothing yet.
fn follow(out: &Path) -> Result<PathBuf, Error> {
    const MOST_LINKS: usize = 40;
    let mut path: PathBuf = out.components().collect();
    if path.file_name().is_none() {
        // `.` or `..`: beside it there is a place only under its own name.
        path = fs::canonicalize(out).map_err(DatasetError::io(out, "open"))?;
    }
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    let cause = std::io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error());
    Err(DatasetError::io(out, "open")(cause).into())
}

/// Refuses an output that is the source, holds it, or lies in it.
fn apart(out: &Path, source: &Path) -> Result<(), Error> {
    let (Ok(source), Some(full)) = (fs::canonicalize(source), full(out)) else {
        return Ok(()); // no file: standard input
    };
    let relation = if full == source {
        "is the source itself"
    } else if full.starts_with(&source) {
        "lies in the source, whose images it would mix with"
    } else if source.starts_with(&full) {
        "holds the source"
    } else {
        return Ok(());
    };
    Err(Error::AroundSource {
        path: out.to_owned(),
        relation,
    })
}

/// Returns a path from the root on, without links in what exists of it.
fn full(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(|above| {
        let full = fs::canonicalize(above).ok()?;
        Some(full.join(path.strip_prefix(above).ok()?))
    })
}

/// Returns the dataset in the output's place if a build would give the same; else tells if the place may be taken.
fn look(out: &Path, source: &Source, options: &Options) -> Result<Option<Outcome>, Error> {
    staging::restore_replaced(out)?;
    if !out.exists() || staging::is_free(out) {
        return Ok(None);
    }
    if !staging::is_dataset(out) {
        if staging::is_half_moved(out) {
            return Ok(None);
        }
        return Err(Error::Foreign {
            path: out.to_owned(),
        });
    }
    if options.force {
        return Ok(None);
    }
    match existing(out, source, options) {
        Ok(outcome) => Ok(Some(outcome)),
        Err(difference) => Err(Error::Exists {
            path: out.to_owned(),
            difference,
        }),
    }
}

/// Returns the dataset in the output's place, if a build would give the same; else in what it differs.
fn existing(out: &Path, source: &Source, options: &Options) -> Result<Outcome, Difference> {
    let dataset = Dataset::open(out).map_err(Difference::Damaged)?;
    let manifest = dataset.manifest().clone();
    let listing = source.listing();
    if manifest.codec != options.codec || manifest.order != listing.order {
        return Err(Difference::Options);
    }
    if manifest.source != listing.record || manifest.classes != listing.classes {
        return Err(Difference::Files);
    }
    let json = fs::read(out.join(REPORT_FILE)).map_err(Difference::NoReport)?;
    let report: Report = serde_json::from_slice(&json).map_err(Difference::DamagedReport)?;
    if !report.listing.is_empty() && report.listing != format!("{:016x}", listing.identity) {
        return Err(Difference::Files);
    }
    let began = fs::metadata(out.join(MANIFEST_FILE)).and_then(|meta| meta.modified());
    let began = began.map_err(Difference::NoReport)?;
    // A file that could not be kept may have been repaired in its rights alone, which only its inode tells.
    let repaired = report
        .rejected
        .iter()
        .filter_map(|note| inode_changed(&source.place().join(&note.path)));
    if listing
        .newest
        .into_iter()
        .chain(repaired)
        .any(|changed| changed > began)
    {
        return Err(Difference::Changed);
    }
    let shards = dataset.splits().iter().flat_map(|split| split.shards());
    let entries = shards.flat_map(|shard| shard.entries());
    Ok(Outcome {
        payload_bytes: entries.map(|entry| u64::from(entry.length)).sum(),
        manifest,
        report,
        up_to_date: true,
        resumed: 0,
    })
}

/// Returns when a file's inode was changed last, if there is such a file.
fn inode_changed(path: &Path) -> Option<SystemTime> {
    let meta = fs::metadata(path).ok()?;
    let since = Duration::new(meta.ctime().max(0) as u64, meta.ctime_nsec() as u32);
    Some(SystemTime::UNIX_EPOCH + since)
}
