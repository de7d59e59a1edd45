//! `meta.copy_data`: a copy of the shards on the node's own storage.
//!
//! The official code unpacks its archive to the job's scratch directory (its
//! `src/datasets/imagenet1k.py`, `copy_imgnt_locally`). Here the shards are copied, once per node, and the loader reads
//! the copy. Which samples a step sees does not change: the copy has the data set's own manifest.
//!
//! ```text
//! LOCAL/NAME-CHECKSUM.shards/     named after the data set and its manifest's checksum: two never meet
//!     staging.lock                held by the process that copies; others wait for it
//!     train-00000.shard.part      being copied
//!     train-00000.shard           complete and verified
//!     dataset.json                written last: the copy is complete
//! ```
//!
//! A copy that was interrupted is continued at the shard where it stopped. Every shard is read back and compared,
//! header, index and payloads, with the manifest's checksums, and is on the disk before it takes its name. Each start
//! compares header and index again, and copies once more what is not as the manifest says. Payloads are compared when
//! they are read: the pipeline takes a sample that is damaged in the copy alone from the source, and removes the copy
//! of its shard, which the next start then makes again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use shardtool::dataset::{MANIFEST_FILE, ShardRecord};
use shardtool::disk::{self, Lock, LockError};
use shardtool::memory::Size;
use shardtool::{Escaped, Manifest, Shard};

use super::error::Error;
use crate::config::{LoaderConfig, is_placeholder};
use crate::error::Error as ConfigError;
use crate::private_dir::{self, Others};

/// Shards copied at a time: network file systems need several to be fast.
const STREAMS: usize = 4;
/// Between two lines of progress.
const REPORT: Duration = Duration::from_secs(5);
/// Between two looks at a lock that another process holds.
const LOOK: Duration = Duration::from_millis(100);
const LOCK: &str = "staging.lock";

/// Returns `loader.local_dir`, else what the job's environment names.
///
/// None is an error: `/tmp` is memory on many machines.
pub(super) fn place(
    config: &LoaderConfig,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<PathBuf, ConfigError> {
    if let Some(dir) = &config.loader.local_dir {
        let text = dir.to_string_lossy();
        if is_placeholder(&text) {
            return Err(ConfigError::Placeholder {
                key: "loader.local_dir".to_owned(),
                value: text.into_owned(),
                cure: "set it to a directory on the node's own storage".to_owned(),
            });
        }
        return Ok(dir.clone());
    }
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let job = set("SLURM_JOB_ID").or_else(|| set("SLURM_JOBID"));
    let scratch = job.map(|job| format!("/scratch/slurm_tmpdir/{job}"));
    set("SLURM_TMPDIR")
        .or(scratch.filter(|dir| Path::new(dir).is_dir()))
        .or_else(|| set("TMPDIR"))
        .map(PathBuf::from)
        .ok_or_else(|| ConfigError::MissingKey {
            key: "loader.local_dir".to_owned(),
            cure: "meta.copy_data: true needs a directory on the node's own storage, and neither $SLURM_TMPDIR nor \
                   $TMPDIR names one"
                .to_owned(),
        })
}

/// Copies the data set in `source` into a directory below `local`, or finds it there. Returns that directory.
pub(super) fn complete(source: &Path, local: &Path) -> Result<PathBuf, Error> {
    let manifest = Manifest::read(source)?;
    let canonical = fs::canonicalize(source).map_err(failed(source, "resolving its name"))?;
    let mut name = canonical.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{:016x}.shards", manifest.checksum()));
    let target = local.join(name);
    make_private(&target)?;
    let lock = lock(&target)?;
    let missing: Vec<&ShardRecord> = records(&manifest)
        .filter(|record| !is_whole(&target, record))
        .collect();
    let is_finished =
        Manifest::read(&target).is_ok_and(|found| found.checksum() == manifest.checksum());
    if is_finished && missing.is_empty() {
        tracing::info!(
            "shards are read from their copy in {}",
            Escaped::new(&target)
        );
        return Ok(target);
    }
    fill(source, &target, &manifest, &missing)?;
    drop(lock);
    Ok(target)
}

/// Returns the shards of all splits.
fn records(manifest: &Manifest) -> impl Iterator<Item = &ShardRecord> {
    manifest.splits.iter().flat_map(|split| &split.shards)
}

/// Tells if a shard has its name, and header and index that are the manifest's. An event names one that has not.
fn is_whole(target: &Path, record: &ShardRecord) -> bool {
    let path = target.join(&record.file);
    if !path.exists() {
        return false;
    }
    match compare(&path, &path, record) {
        Ok(_) => true,
        Err(damage) => {
            tracing::warn!("{damage}; the shard is copied again");
            false
        }
    }
}

/// Makes the copy's directory: where all may write, somebody else could have put one there.
fn make_private(target: &Path) -> Result<(), Error> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed(parent, "making the directory"))?;
    private_dir::make(target, Others::MayRead).map_err(|cause| Error::Directory { cause })
}

/// Waits until no other process copies to `target`.
fn lock(target: &Path) -> Result<Lock, Error> {
    let path = target.join(LOCK);
    let mut is_said = false;
    loop {
        match Lock::take(&path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held { holder, .. }) => {
                if !is_said {
                    is_said = true;
                    tracing::info!(
                        "waiting for another process that copies the shards to {} ({})",
                        Escaped::new(target),
                        Escaped::new(&holder)
                    );
                }
                std::thread::sleep(LOOK);
            }
            Err(cause) => return Err(Error::Lock { cause }),
        }
    }
}

/// Copies what is missing, and the manifest last.
fn fill(
    source: &Path,
    target: &Path,
    manifest: &Manifest,
    missing: &[&ShardRecord],
) -> Result<(), Error> {
    for record in records(manifest) {
        // What an interrupted copy left would only take room.
        let _ = fs::remove_file(part(target, record));
    }
    let needed: u64 = missing.iter().map(|record| record.bytes).sum();
    let space = statvfs(target)
        .map_err(|error| failed(target, "asking for free space")(io::Error::from(error)))?;
    let free = space.f_bavail * space.f_frsize;
    if free < needed {
        return Err(Error::NoSpace {
            path: target.to_owned(),
            original: source.to_owned(),
            free,
            needed,
        });
    }
    let total = records(manifest).count();
    tracing::info!(
        "copying {} of {total} shards, {}, from {} to {}",
        missing.len(),
        Size(needed),
        Escaped::new(source),
        Escaped::new(target)
    );
    let start = Instant::now();
    let (next, done, copied) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
    let stream = || -> Result<(), Error> {
        // Relaxed throughout: the numbers carry nothing with them, and the end of the scope orders the files.
        while let Some(record) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = copy_shard(source, target, record) {
                // Nobody begins another one.
                next.store(missing.len(), Ordering::Relaxed);
                return Err(error);
            }
            copied.fetch_add(record.bytes, Ordering::Relaxed);
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let progress = || {
        let (bytes, seconds) = (copied.load(Ordering::Relaxed), start.elapsed());
        let rate = (bytes as f64 / seconds.as_secs_f64().max(1e-3)) as u64;
        format!(
            "copied {} of {} shards, {} of {}, {}/s",
            done.load(Ordering::Relaxed),
            missing.len(),
            Size(bytes),
            Size(needed),
            Size(rate)
        )
    };
    std::thread::scope(|scope| {
        let streams: Vec<_> = (0..STREAMS.min(missing.len()))
            .map(|_| scope.spawn(stream))
            .collect();
        let mut reported = start;
        while streams.iter().any(|stream| !stream.is_finished()) {
            std::thread::sleep(Duration::from_millis(10));
            if reported.elapsed() > REPORT {
                reported = Instant::now();
                tracing::info!("{}", progress());
            }
        }
        streams
            .into_iter()
            .try_for_each(|stream| stream.join().expect("copying does not panic"))
    })?;
    let (from, aside) = (
        source.join(MANIFEST_FILE),
        target.join(format!("{MANIFEST_FILE}.part")),
    );
    copy_file(&from, &aside)?;
    rename(&aside, &target.join(MANIFEST_FILE))?;
    disk::sync_dir(target).map_err(failed(target, "writing it to the disk"))?;
    tracing::info!("{}", progress());
    Ok(())
}

fn part(target: &Path, record: &ShardRecord) -> PathBuf {
    target.join(format!("{}.part", record.file))
}

/// Copies one shard aside, reads it back, and gives it its name.
fn copy_shard(source: &Path, target: &Path, record: &ShardRecord) -> Result<(), Error> {
    let (from, aside) = (source.join(&record.file), part(target, record));
    copy_file(&from, &aside)?;
    verify(&from, &aside, record)?;
    rename(&aside, &target.join(&record.file))
}

fn copy_file(from: &Path, to: &Path) -> Result<(), Error> {
    let copied = File::open(from).and_then(|mut original| {
        // Under a name of its own, and with the mode that the umask asks for.
        let mut copy = disk::create(to)?;
        io::copy(&mut original, &mut copy)?;
        // A power cut would leave a file of zeros, or none.
        disk::sync(&copy)
    });
    copied.map_err(|cause| Error::Copy {
        path: to.to_owned(),
        original: from.to_owned(),
        cause,
    })
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(failed(to, "giving it its name"))
}

/// Opens a shard and compares header and index with the manifest. A difference is told as one of `of`.
fn compare(path: &Path, of: &Path, record: &ShardRecord) -> Result<Shard, Error> {
    let shard = Shard::open(path)?;
    for (what, expected, found) in [
        ("bytes", record.bytes, shard.bytes()),
        ("samples", record.samples.into(), shard.len().into()),
    ] {
        if expected != found {
            return Err(Error::OtherShard {
                path: of.to_owned(),
                what,
                found,
                expected,
            });
        }
    }
    if shard.checksum() != record.checksum {
        return Err(Error::Checksum {
            path: of.to_owned(),
            found: shard.checksum(),
            expected: record.checksum,
        });
    }
    Ok(shard)
}

/// Compares a copy with the manifest. Payloads that are damaged in the source already are the loader's to replace, as
/// they would be without a copy.
fn verify(from: &Path, copy: &Path, record: &ShardRecord) -> Result<(), Error> {
    let shard = compare(copy, from, record)?;
    let (mut original, mut buffer) = (None, Vec::new());
    for sample in 0..shard.len() {
        let Err(damage) = shard.read(sample, &mut buffer).map(drop) else {
            continue;
        };
        let original = match &mut original {
            Some(original) => original,
            none => none.insert(Shard::open(from)?),
        };
        if original.read(sample, &mut buffer).is_ok() {
            return Err(Error::Differs {
                path: copy.to_owned(),
                damage,
            });
        }
    }
    Ok(())
}

/// Returns a conversion from the system's answer to an error on `path`.
fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::Io { path, what, cause }
}

#[cfg(test)]
mod tests;
