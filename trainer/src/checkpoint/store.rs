//! The checkpoints in a run directory: writing one, listing them, removing old ones, finding a whole one.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use exchange::weights::{self, Tensors};
use shardtool::Escaped;
use shardtool::disk::{TEMPORARY, parent};
use xxhash_rust::xxh3::Xxh3;

use super::files::{Disk, Files, entries, named, remove_all};
use super::part::Part;
use super::{Error, FileDigest, STATE, Snapshot, State, file_name, read_state, verify};

/// Beginning of the names of checkpoints that turned out to be damaged.
const DAMAGED: &str = "damaged-";

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    tag: String,
    files: Arc<dyn Files>,
}

impl Store {
    /// Names the checkpoints of the run directory `run`; nothing is created yet.
    pub fn new(run: &Path, tag: &str) -> Store {
        Store {
            folder: run.join("checkpoints"),
            tag: tag.to_owned(),
            files: Arc::new(Disk),
        }
    }

    /// Moves it to another file system.
    #[cfg(test)]
    pub(super) fn on(self, files: Arc<dyn Files>) -> Store {
        Store { files, ..self }
    }

    /// Removes what an interrupted write or removal left. Only for the holder of the run's lock.
    ///
    /// What cannot be removed is told, and stays: it only takes room.
    ///
    /// # Errors
    /// [`Error::NotPlain`], or a directory that cannot be read.
    pub fn clean(&self) -> Result<(), Error> {
        self.is_there()?;
        for entry in entries(&self.folder)? {
            if begins(&entry, TEMPORARY)
                && let Err(error) = remove_all(&*self.files, &entry)
            {
                tracing::warn!("what an interrupted write left cannot be removed: {error}");
            }
        }
        Ok(())
    }

    /// Tells whether the directory of the checkpoints is there.
    ///
    /// # Errors
    /// [`Error::NotPlain`]: through a link, checkpoints would be written and removed somewhere else.
    fn is_there(&self) -> Result<bool, Error> {
        match fs::symlink_metadata(&self.folder) {
            Ok(found) if found.is_dir() => Ok(true),
            Ok(_) => Err(Error::NotPlain {
                path: self.folder.clone(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => named(&self.folder, Err(error)),
        }
    }

    /// Returns steps and directories of all checkpoints, oldest first.
    ///
    /// A directory holds one run, whatever its `logging.write_tag` was in the meantime.
    ///
    /// # Errors
    /// What the file system says.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>, Error> {
        let mut found: Vec<(u64, PathBuf)> = entries(&self.folder)?
            .into_iter()
            .filter(|path| !begins(path, TEMPORARY) && !begins(path, DAMAGED))
            .filter_map(|path| {
                let (_, step) = path.file_name()?.to_str()?.rsplit_once("-step")?;
                Some((step.parse().ok()?, path))
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// Returns the directory of the latest checkpoint, damaged or not.
    ///
    /// # Errors
    /// What the file system says.
    pub fn latest(&self) -> Result<Option<PathBuf>, Error> {
        Ok(self.list()?.pop().map(|(_, path)| path))
    }

    /// Reads whole checkpoints, latest first, until one agrees with its checksums, and returns its directory.
    ///
    /// Damaged ones get a name that begins with `damaged-`, so that nothing takes them for checkpoints any more; what
    /// was wrong with each is returned as well. `None` where there is no checkpoint at all. Only for the holder of the
    /// run's lock.
    ///
    /// # Errors
    /// [`Error::AllDamaged`], and what the file system says.
    pub fn last_good(&self) -> Result<(Option<PathBuf>, Vec<String>), Error> {
        let mut faults = Vec::new();
        let mut bad = Vec::new();
        let mut good = None;
        for (_, path) in self.list()?.into_iter().rev() {
            match verify(&path) {
                Ok(_) => {
                    good = Some(path);
                    break;
                }
                Err(fault) => {
                    faults.push(fault);
                    bad.push(path);
                }
            }
        }
        if good.is_none() && !bad.is_empty() {
            return Err(Error::AllDamaged {
                folder: self.folder.clone(),
                faults,
            });
        }
        let mut said = Vec::new();
        for (path, fault) in bad.iter().zip(faults) {
            let aside = self.set_aside(path)?;
            said.push(format!(
                "{fault}
{} is damaged and is now called {}",
                Escaped::new(path),
                Escaped::new(&aside)
            ));
        }
        Ok((good, said))
    }

    fn set_aside(&self, path: &Path) -> Result<PathBuf, Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let names = (1..).map(|number| match number {
            1 => self.folder.join(format!("{DAMAGED}{name}")),
            _ => self.folder.join(format!("{DAMAGED}{name}.{number}")),
        });
        let aside = names
            .into_iter()
            .find(|aside| fs::symlink_metadata(aside).is_err())
            .expect("the numbers do not end");
        named(path, self.files.rename(path, &aside))?;
        named(&self.folder, self.files.sync(&self.folder))?;
        Ok(aside)
    }

    /// Returns the directory of the checkpoint after `step` steps, whether it exists or not.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{}-step{step:08}", self.tag))
    }

    /// Writes a checkpoint, whole and on disk when this returns, and returns its bytes.
    ///
    /// Where the step has a checkpoint already, that one stays and 0 is returned. The checksums in `state` are filled
    /// in.
    ///
    /// # Errors
    /// [`Error::Unwritten`]; nothing of it is left then.
    pub fn save(&self, state: &State, snapshot: &Snapshot) -> Result<u64, Error> {
        self.save_parts(state, &snapshot.parts())
    }

    /// Writes a checkpoint of tensors that lie in files, and returns its directory.
    ///
    /// The run directory need not be there yet. A checkpoint of weights alone has fewer parts.
    ///
    /// # Errors
    /// [`Error::Unwritten`]; nothing of it is left then.
    pub fn save_files(
        &self,
        state: &State,
        parts: &[(&'static str, Tensors<'_>)],
    ) -> Result<PathBuf, Error> {
        let parts = parts.iter().map(|(part, tensors)| -> Part<'_> {
            let fill = |out: &mut dyn Write| {
                let tensors = tensors
                    .iter()
                    .map(|(name, tensor)| (&name[..], tensor.clone()));
                weights::write(tensors.collect(), None, out)
            };
            (part, Box::new(fill))
        });
        self.save_parts(state, &parts.collect::<Vec<_>>())?;
        Ok(self.path(state.step))
    }

    fn save_parts(&self, state: &State, parts: &[Part<'_>]) -> Result<u64, Error> {
        let path = self.path(state.step);
        if path.exists() {
            return Ok(0);
        }
        let aside = self.aside(&path);
        let written = self.write(&aside, state, parts).and_then(|bytes| {
            named(&path, self.files.rename(&aside, &path))?;
            named(&self.folder, self.files.sync(&self.folder))?;
            Ok(bytes)
        });
        if written.is_err() && aside.exists() {
            // Makes room on a full disk. If it cannot be removed, the next write or start tries again.
            let _ = remove_all(&*self.files, &aside);
        }
        written.map_err(|cause| Error::Unwritten {
            path,
            cause: Box::new(cause),
        })
    }

    fn write(&self, aside: &Path, state: &State, parts: &[Part<'_>]) -> Result<u64, Error> {
        let files = &*self.files;
        if !self.is_there()? {
            // The run directory may have been moved or deleted meanwhile.
            let run = parent(&self.folder);
            named(run, fs::create_dir_all(run))?;
            named(&self.folder, files.create_dir(&self.folder))?;
            // The new directory's own name must survive too.
            named(run, files.sync(run))?;
        }
        if fs::symlink_metadata(aside).is_ok() {
            remove_all(files, aside)?;
        }
        named(aside, files.create_dir(aside))?;
        let mut state = state.clone();
        state.files.clear();
        for (part, fill) in parts {
            let name = file_name(part);
            let mut sum = Summing::new();
            let path = aside.join(&name);
            let written = files.write(&path, &mut |out| {
                sum = Summing::new();
                fill(&mut Tee(out, &mut sum))
            });
            named(&path, written)?;
            named(&path, files.sync(&path))?;
            state.files.insert(name, sum.finish());
        }
        let path = aside.join(STATE);
        let text = state.to_json();
        let written = files.write(&path, &mut |out| out.write_all(text.as_bytes()));
        named(&path, written)?;
        named(&path, files.sync(&path))?;
        named(aside, files.sync(aside))?;
        Ok(state.files.values().map(|sum| sum.bytes).sum::<u64>() + text.len() as u64)
    }

    /// Removes all but the `keep` latest checkpoints and those at multiples of `epochs` whole epochs (0: none).
    ///
    /// An epoch has `epoch_len` steps, unless a checkpoint says otherwise: data may have changed since.
    ///
    /// # Errors
    /// What the file system says.
    pub fn prune(&self, keep: usize, epochs: u64, epoch_len: u64) -> Result<(), Error> {
        self.is_there()?;
        for path in self.superseded(keep, epochs, epoch_len)? {
            let path = &path;
            // Renamed first, durably: a half-removed checkpoint must not have a checkpoint's name.
            let aside = self.aside(path);
            named(path, self.files.rename(path, &aside))?;
            named(&self.folder, self.files.sync(&self.folder))?;
            remove_all(&*self.files, &aside)?;
        }
        Ok(())
    }

    /// Returns all but the `keep` latest checkpoints and those at multiples of `epochs` whole epochs.
    fn superseded(&self, keep: usize, epochs: u64, epoch_len: u64) -> Result<Vec<PathBuf>, Error> {
        let mut all = self.list()?;
        all.truncate(all.len().saturating_sub(keep));
        all.retain(|(step, path)| {
            let epoch_len = read_state(path).map_or(epoch_len, |state| state.epoch_len);
            !is_milestone(*step, epochs, epoch_len)
        });
        Ok(all.into_iter().map(|(_, path)| path).collect())
    }

    /// Makes room for a checkpoint on a full disk: removes what [`Store::prune`] would remove after it. True if there
    /// was something to remove.
    ///
    /// The latest one stays, and is read first: unless it is whole, nothing is removed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make_room(&self, keep: usize, epochs: u64, epoch_len: u64) -> Result<bool, Error> {
        let keep = keep.saturating_sub(1).max(1);
        let Some(latest) = self.latest()? else {
            return Ok(false);
        };
        if self.superseded(keep, epochs, epoch_len)?.is_empty() || verify(&latest).is_err() {
            return Ok(false);
        }
        self.prune(keep, epochs, epoch_len)?;
        Ok(true)
    }

    fn aside(&self, path: &Path) -> PathBuf {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.folder.join(format!("{TEMPORARY}{name}"))
    }
}

/// Tells whether `step` steps are a multiple of `epochs` whole epochs (0: never).
pub(super) fn is_milestone(step: u64, epochs: u64, epoch_len: u64) -> bool {
    epochs > 0 && step > 0 && step.is_multiple_of(epochs.saturating_mul(epoch_len))
}

/// Returns the checkpoint that `path` means: itself, or the latest of the run directory `path`.
///
/// # Errors
/// [`Error::Missing`], [`Error::Foreign`], or what is wrong with one that is there.
pub fn find(path: &Path) -> Result<PathBuf, Error> {
    if path.join(STATE).is_file() {
        return Ok(path.to_owned());
    }
    // A file, or a model's directory in Hugging Face's layout.
    if (path.exists() && !path.is_dir()) || path.join("config.json").exists() {
        return Err(Error::Foreign {
            path: path.to_owned(),
        });
    }
    let mut found = Vec::new();
    for candidate in entries(&path.join("checkpoints"))? {
        let other = begins(&candidate, TEMPORARY) || begins(&candidate, DAMAGED);
        if !other && candidate.join(STATE).is_file() {
            found.push((read_state(&candidate)?.step, candidate));
        }
    }
    match found.into_iter().max() {
        Some((_, latest)) => Ok(latest),
        None => Err(Error::Missing {
            path: path.to_owned(),
        }),
    }
}

fn begins(path: &Path, with: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(with))
}

/// A checksum of what was written so far.
struct Summing {
    hash: Xxh3,
    bytes: u64,
}

impl Summing {
    fn new() -> Summing {
        Summing {
            hash: Xxh3::new(),
            bytes: 0,
        }
    }

    fn finish(&self) -> FileDigest {
        FileDigest {
            bytes: self.bytes,
            xxh3: format!("{:016x}", self.hash.digest()),
        }
    }
}

/// A writer that sums up what passes through.
struct Tee<'a>(&'a mut dyn Write, &'a mut Summing);

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Tee(out, sum) = self;
        let count = out.write(bytes)?;
        sum.hash.update(&bytes[..count]);
        sum.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
