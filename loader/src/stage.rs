//! `meta.copy_data`: the shards on local storage of the node.
//!
//! The official code unpacks its archive to the job's scratch directory; here the shards are copied, once per node, and
//! the loader reads the copy. Which samples a step sees does not change: the copy has the data set's own manifest.
//!
//! ```text
//! LOCAL/NAME-CHECKSUM.shards/     named after the data set and its manifest's checksum: two never meet
//!     staging.lock                held by the process that copies; others wait for it
//!     train-00000.shard.part      being copied
//!     train-00000.shard           complete and verified
//!     dataset.json                written last: the copy is complete
//! ```
//!
//! A copy that was interrupted is continued at the shard where it stopped. Every shard is read back and compared, header,
//! index and payloads, with the manifest's checksums before it takes its name. Nothing is synced to the disk: what a power
//! cut damages is found when the shard is opened, or by its samples' own checksums.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use shardtool::dataset::{MANIFEST_FILE, ShardRecord};
use shardtool::{Manifest, Shard};

use crate::config::{LoaderConfig, is_placeholder};
use crate::error::Error;

/// Shards copied at a time: network file systems need several to be fast.
const STREAMS: usize = 4;
/// Between two lines of progress.
const REPORT: Duration = Duration::from_secs(5);
const LOCK: &str = "staging.lock";

/// Where the loader reads its shards: where the configuration says, or with `meta.copy_data` in a local copy of that,
/// which is made now if it is not complete. Progress is told on stderr.
pub fn shards(config: &LoaderConfig) -> Result<PathBuf, Error> {
    let source = config.shards_dir()?;
    if !config.copy_data {
        return Ok(source);
    }
    let local = local_dir(config, |name| std::env::var(name).ok())?;
    copy(&source, &local)
}

/// `loader.local_dir`, else what the job's environment names. None is an error: `/tmp` is memory on many machines.
fn local_dir(
    config: &LoaderConfig,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<PathBuf, Error> {
    if let Some(dir) = &config.loader.local_dir {
        let text = dir.to_string_lossy();
        if is_placeholder(&text) {
            return Err(Error::Placeholder {
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
        .ok_or_else(|| Error::MissingKey {
            key: "loader.local_dir".to_owned(),
            cure: "meta.copy_data: true needs a directory on the node's own storage, and neither $SLURM_TMPDIR nor \
                   $TMPDIR names one"
                .to_owned(),
        })
}

/// Copies the data set in `source` into a directory below `local`, or finds it there.
fn copy(source: &Path, local: &Path) -> Result<PathBuf, Error> {
    let manifest = Manifest::read(source).map_err(|error| fault(source, error))?;
    let canonical = fs::canonicalize(source).map_err(|error| fault(source, error))?;
    let stem = canonical.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{stem}-{:016x}.shards", manifest.checksum());
    let target = local.join(name);
    make_own(&target)?;
    let lock = lock(&target)?;
    if Manifest::read(&target).is_ok_and(|found| found.checksum() == manifest.checksum()) {
        let whole = records(&manifest).all(|record| is_complete(&target, record));
        if whole {
            tracing::info!("shards are read from their copy in {}", target.display());
            return Ok(target);
        }
    }
    fill(source, &target, &manifest)?;
    drop(lock);
    Ok(target)
}

fn records(manifest: &Manifest) -> impl Iterator<Item = &ShardRecord> {
    manifest.splits.iter().flat_map(|split| &split.shards)
}

/// Whether a shard has its name and its size. It was verified before it got them.
fn is_complete(target: &Path, record: &ShardRecord) -> bool {
    fs::metadata(target.join(&record.file)).is_ok_and(|found| found.len() == record.bytes)
}

/// A directory that this user alone writes to: where all may write, somebody else could have put one there.
fn make_own(target: &Path) -> Result<(), Error> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| fault(parent, error))?;
    match DirBuilder::new().mode(0o700).create(target) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(fault(target, error));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(target).map_err(|error| fault(target, error))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(fault(
            target,
            "not a directory of this user; set loader.local_dir to one of your own",
        ));
    }
    Ok(())
}

/// Waits until no other process copies to `target`.
fn lock(target: &Path) -> Result<File, Error> {
    let path = target.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| fault(&path, error))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            tracing::info!(
                "waiting for another process that copies the shards to {}",
                target.display()
            );
        }
        Err(TryLockError::Error(error)) => return Err(fault(&path, error)),
    }
    file.lock().map_err(|error| fault(&path, error))?;
    Ok(file)
}

/// Copies what is missing, and the manifest last.
fn fill(source: &Path, target: &Path, manifest: &Manifest) -> Result<(), Error> {
    let missing: Vec<&ShardRecord> = records(manifest)
        .filter(|record| !is_complete(target, record))
        .collect();
    for record in records(manifest) {
        // What an interrupted copy left would only take room.
        let _ = fs::remove_file(part(target, record));
    }
    let needed: u64 = missing.iter().map(|record| record.bytes).sum();
    let space = statvfs(target).map_err(|error| fault(target, std::io::Error::from(error)))?;
    let free = space.f_bavail * space.f_frsize;
    if free < needed {
        return Err(fault(
            target,
            format!(
                "{} free, but the copy of {} needs {} more; set loader.local_dir to a larger place, or meta.copy_data to \
                 false",
                size(free),
                source.display(),
                size(needed)
            ),
        ));
    }
    let total = records(manifest).count();
    tracing::info!(
        "copying {} of {total} shards, {}, from {} to {}",
        missing.len(),
        size(needed),
        source.display(),
        target.display()
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
    let told = || {
        let (bytes, seconds) = (copied.load(Ordering::Relaxed), start.elapsed());
        let rate = (bytes as f64 / seconds.as_secs_f64().max(1e-3)) as u64;
        format!(
            "copied {} of {} shards, {} of {}, {}/s",
            done.load(Ordering::Relaxed),
            missing.len(),
            size(bytes),
            size(needed),
            size(rate)
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
                tracing::info!("{}", told());
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
    fs::copy(&from, &aside).map_err(|error| fault(&from, error))?;
    let to = target.join(MANIFEST_FILE);
    fs::rename(&aside, &to).map_err(|error| fault(&to, error))?;
    tracing::info!("{}", told());
    Ok(())
}

fn part(target: &Path, record: &ShardRecord) -> PathBuf {
    target.join(format!("{}.part", record.file))
}

/// Copies one shard aside, reads it back, and gives it its name.
fn copy_shard(source: &Path, target: &Path, record: &ShardRecord) -> Result<(), Error> {
    let (from, aside) = (source.join(&record.file), part(target, record));
    fs::copy(&from, &aside)
        .map_err(|error| fault(&aside, format!("cannot copy {}: {error}", from.display())))?;
    verify(&from, &aside, record)?;
    let to = target.join(&record.file);
    fs::rename(&aside, &to).map_err(|error| fault(&to, error))
}

/// Compares a copy with the manifest. Payloads that are damaged in the source already are the loader's to replace, as they
/// would be without a copy.
fn verify(from: &Path, copy: &Path, record: &ShardRecord) -> Result<(), Error> {
    let shard = Shard::open(copy).map_err(|error| fault(copy, error))?;
    for (what, expected, found) in [
        ("bytes", record.bytes, shard.bytes()),
        ("samples", record.samples.into(), shard.len().into()),
    ] {
        if expected != found {
            let problem = format!("{found} {what}, but the manifest says {expected}");
            return Err(fault(from, problem));
        }
    }
    if shard.checksum() != record.checksum {
        let (found, expected) = (shard.checksum(), record.checksum);
        let problem = format!("checksum {found:016x}, but the manifest says {expected:016x}");
        return Err(fault(from, problem));
    }
    let mut original = None;
    for sample in 0..shard.len() {
        let Err(damage) = shard.verify(sample) else {
            continue;
        };
        let original = match &mut original {
            Some(original) => original,
            none => none.insert(Shard::open(from).map_err(|error| fault(from, error))?),
        };
        if original.verify(sample).is_ok() {
            return Err(fault(
                copy,
                format!("the copy differs from its source: {damage}"),
            ));
        }
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    let value = bytes as f64
        / f64::from(1_u32 << (10 * unit.min(3)))
        / if unit == 4 { 1024.0 } else { 1.0 };
    format!("{value:.1} {}", UNITS[unit as usize])
}

fn fault(path: &Path, problem: impl ToString) -> Error {
    Error::Staging {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests;
