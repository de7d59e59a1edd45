//! The run directory (`logging.folder`): who may write in it, and where a run in it begins.
//!
//! One trainer at a time: a lock on `run.lock`, which the kernel drops with the process, however that ends. A directory
//! that is moved or deleted in mid-run is made again, for the checkpoints to come.
//!
//! Nothing of an earlier run is ever overwritten: a run either continues what is there, from a checkpoint and under a
//! configuration of the same results, or it is refused.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use loader::config::ConfigFile;
use serde_json::{Map, Value};
use shardtool::Escaped;
use shardtool::disk::{self, Lock, LockError};
use shardtool::paths;

use super::{Error, Terms, changes};
use crate::checkpoint::{self, State, Store};
use crate::config::Config;
use crate::distributed::First;
use crate::exchange::import;

/// The official name of the stored configuration.
pub const PARAMS: &str = "params-ijepa.yaml";
const LOCK: &str = "run.lock";

/// The place where a run begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Resume {
    /// The latest checkpoint of the run directory, or step 0 where there is none.
    Auto,
    /// Step 0, in a directory without a run.
    Never,
    /// The latest whole checkpoint. Damaged ones are set aside, with a warning about each.
    LastGood,
    /// This checkpoint, or the latest one of this run directory.
    From(PathBuf),
}

impl Resume {
    /// Returns the place that an argument names: a word, or a path.
    ///
    /// # Errors
    /// If the path [cannot be expanded](paths::expand_argument).
    pub fn of_argument(written: &OsStr) -> Result<Resume, paths::Error> {
        Ok(match written.to_str() {
            Some("auto") => Resume::Auto,
            Some("never") => Resume::Never,
            Some("last-good") => Resume::LastGood,
            _ => Resume::From(paths::expand_argument(written)?),
        })
    }

    /// Returns the argument that names it.
    pub fn argument(&self) -> OsString {
        match self {
            Resume::Auto => "auto".into(),
            Resume::Never => "never".into(),
            Resume::LastGood => "last-good".into(),
            Resume::From(path) => paths::literal(path),
        }
    }
}

/// A checkpoint to begin with, and what it knows; `None` for step 0.
pub type Begin = Option<(PathBuf, State)>;

/// A run directory that this process alone writes to, until it is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// The checkpoints in it.
    pub store: Store,
    /// The stored configuration.
    params: OnceCell<String>,
    /// Device and number of the directory, by which another one in its place is noticed.
    identity: Option<(u64, u64)>,
    lock: Lock,
}

impl RunDir {
    /// Creates the directory where needed, and locks it.
    ///
    /// # Errors
    /// [`Error::InUse`], or what the file system says.
    pub fn open(config: &Config, _: First) -> Result<RunDir, Error> {
        let path = config.folder()?.to_owned();
        named(&path, fs::create_dir_all(&path))?;
        let lock = lock(&path)?;
        let store = Store::new(&path, &config.logging.write_tag);
        store.clean()?;
        Ok(RunDir {
            identity: identity(&path),
            path,
            store,
            params: OnceCell::new(),
            lock,
        })
    }

    /// Makes the directory again, with its lock and the configuration, where it was moved, deleted or unmounted in
    /// mid-run.
    ///
    /// # Errors
    /// [`Error::InUse`] if another trainer has begun in its place, or what the file system says.
    pub fn restore(&mut self) -> Result<(), Error> {
        let now = identity(&self.path);
        if now.is_some() && now == self.identity {
            return Ok(());
        }
        tracing::warn!(
            "{}: the run directory was moved or deleted in mid-run; it is made again, without the checkpoints so far",
            Escaped::new(&self.path)
        );
        named(&self.path, fs::create_dir_all(&self.path))?;
        self.lock = lock(&self.path)?;
        self.identity = identity(&self.path);
        if let Some(text) = self.params.get() {
            let path = self.path.join(PARAMS);
            named(&path, disk::write(&path, text.as_bytes()))?;
        }
        Ok(())
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the checkpoint to begin with, after refusing everything that would mix two runs.
    ///
    /// The state is that of the checkpoint, with what changes from there on.
    ///
    /// # Errors
    /// [`Error::OtherRun`], [`Error::HoldsRun`], [`Error::WentOn`] and others: what is at odds, and the cure.
    pub fn begin(
        &self,
        config: &Config,
        resume: Option<&Resume>,
        terms: &Terms,
    ) -> Result<Begin, Error> {
        let found = match (resume, config.meta.load_checkpoint) {
            (Some(Resume::Never), _) => {
                if self.store.latest()?.is_some() || self.has_steps()? {
                    return Err(self.holds_run());
                }
                None
            }
            (Some(Resume::LastGood), _) => {
                let (good, said) = self.store.last_good()?;
                said.iter().for_each(|fault| tracing::warn!("{fault}"));
                good
            }
            (Some(Resume::From(path)), _) => Some(self.take(path, config)?),
            (Some(Resume::Auto), _) | (None, false) => self.store.latest()?,
            (None, true) => Some(self.by_official_keys(config)?),
        };
        let Some(path) = found else {
            // A run that died before its first checkpoint begins at step 0 again, if it is the same run.
            self.check_params(config, terms)?;
            return Ok(None);
        };
        let state = checkpoint::read_state(&path)?;
        if !state.config.contains_key("optimization") {
            return Err(Error::WeightsOnly { path });
        }
        let earlier = ConfigFile::parse(&path, &json(&state.config), &[])
            .map_err(Into::into)
            .and_then(|file| Config::from_file(&file));
        let earlier = stored(&path, earlier)?;
        let changes = changes::differences(&path, &state, &earlier, config, terms)?;
        changes::accept(&path, &changes, terms)?;
        let moves = path.parent().map(whole) != Some(whole(&self.path.join("checkpoints")));
        if moves {
            self.check_params(config, terms)?;
        }
        if let Some((newest, checkpoint)) = self.store.list()?.pop() {
            if moves {
                return Err(self.holds_run());
            }
            if newest > state.step {
                return Err(Error::WentOn {
                    path: self.path.clone(),
                    newest,
                    checkpoint,
                    step: state.step,
                });
            }
        }
        let state = match moves || !changes.is_empty() {
            true => changes::turn(&path, state, changes, terms),
            false => state,
        };
        Ok(Some((path, state)))
    }

    /// Tells whether a step of a run is in a log here.
    fn has_steps(&self) -> Result<bool, Error> {
        for entry in named(&self.path, fs::read_dir(&self.path))? {
            let entry = named(&self.path, entry)?;
            let is_log = entry.file_name().to_string_lossy().ends_with("_r0.jsonl");
            if is_log && entry.metadata().is_ok_and(|log| log.len() > 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn holds_run(&self) -> Error {
        Error::HoldsRun {
            path: self.path.clone(),
        }
    }

    /// Returns the checkpoint that the official keys `load_checkpoint: true` and `read_checkpoint` mean.
    fn by_official_keys(&self, config: &Config) -> Result<PathBuf, Error> {
        let named = |key, outcome: Result<PathBuf, Error>| {
            outcome.map_err(|cause| Error::Named {
                key,
                cause: Box::new(cause),
            })
        };
        if let Some(name) = &config.meta.read_checkpoint {
            return named(
                "meta.read_checkpoint",
                self.take(&self.path.join(name), config),
            );
        }
        if let Some(path) = self.store.latest()? {
            return Ok(path);
        }
        let official = format!("{}-latest.pth.tar", config.logging.write_tag);
        let official = self.path.join(official);
        if official.exists() {
            return named("meta.load_checkpoint", self.take(&official, config));
        }
        Err(Error::NothingToLoad {
            path: self.path.clone(),
            official,
        })
    }

    /// Returns the checkpoint that `path` means.
    ///
    /// One of the official code is imported into this run directory, once. A run that has gone on from it, or from one
    /// of another run directory, continues where it stands: the same command begins it and goes on.
    fn take(&self, path: &Path, config: &Config) -> Result<PathBuf, Error> {
        let latest = self.store.latest()?;
        if !import::is_official(path) {
            let found = checkpoint::find(path)?;
            let begun = latest.filter(|latest| came_from(latest, path));
            return Ok(begun.unwrap_or(found));
        }
        if let Some(latest) = latest {
            tracing::info!(
                "{}: was begun already; going on from {}",
                Escaped::new(&self.path),
                Escaped::new(&latest)
            );
            return Ok(latest);
        }
        let imported = import::import(path, &self.path, Some(config), &import::Options::default())?;
        for note in &imported.notes {
            tracing::info!("{}: {note}", Escaped::new(path));
        }
        Ok(imported.path)
    }

    /// Refuses a directory whose stored configuration belongs to another run. One that made no step is none.
    fn check_params(&self, config: &Config, terms: &Terms) -> Result<(), Error> {
        let path = self.path.join(PARAMS);
        if !self.has_steps()? {
            return Ok(());
        }
        match fs::metadata(&path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => {
                let cause = io::Error::other("is no file, and so no run's configuration");
                return named(&path, Err(cause));
            }
            Err(_) => return Ok(()),
        }
        let earlier = ConfigFile::load(&path, &[])
            .map_err(Into::into)
            .and_then(|file| Config::from_file(&file));
        let changes = changes::params_differences(&stored(&path, earlier)?, config, terms);
        changes::accept(&path, &changes, terms)
    }

    /// Stores the resolved configuration and returns it as text.
    ///
    /// # Errors
    /// What the file system says.
    pub fn store_params(&self, resolved: &Map<String, Value>) -> Result<String, Error> {
        let path = self.path.join(PARAMS);
        let text = named(
            &path,
            serde_saphyr::to_string(resolved).map_err(io::Error::other),
        )?;
        named(&path, disk::write(&path, text.as_bytes()))?;
        let _ = self.params.set(text.clone());
        Ok(text)
    }
}

/// Takes the lock of a run directory.
fn lock(folder: &Path) -> Result<Lock, Error> {
    Lock::take(&folder.join(LOCK)).map_err(|error| match error {
        LockError::Held { holder, .. } => Error::InUse {
            path: folder.to_owned(),
            holder,
        },
        other => Error::Lock(other),
    })
}

/// Returns device and number of a directory.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Puts the path in front of what the system says.
fn named<T>(path: &Path, outcome: io::Result<T>) -> Result<T, Error> {
    outcome.map_err(|cause| Error::Io {
        path: path.to_owned(),
        cause,
    })
}

/// Says of which stored configuration an error is.
fn stored(path: &Path, config: Result<Config, crate::config::Error>) -> Result<Config, Error> {
    config.map_err(|cause| Error::Stored {
        path: path.to_owned(),
        cause: cause.into(),
    })
}

/// Returns a stored configuration as text.
fn json(config: &Map<String, Value>) -> String {
    // JSON is YAML: a stored configuration is read by the very code that reads files.
    serde_json::to_string(config).expect("a JSON value always serialises")
}

/// Returns a path that does not depend on how it was written.
fn whole(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Tells whether the run of the checkpoint `latest` once went on from `path`: a checkpoint, or a directory of one.
fn came_from(latest: &Path, path: &Path) -> bool {
    let lineage = checkpoint::read_state(latest).map_or(Vec::new(), |state| state.lineage);
    let mut from = lineage.iter().map(|turn| Path::new(&turn.checkpoint));
    // As the lineage holds it: text, whatever the path is.
    let path = whole(path).to_string_lossy().into_owned();
    from.any(|from| from.starts_with(&path))
}

#[cfg(test)]
mod tests;
