//! The run directory (`logging.folder`): who may write in it, and where a run in it begins.
//!
//! One trainer at a time: an advisory lock on `run.lock`, which the kernel drops with the process, however that ends.
//! Nothing of an earlier run is ever overwritten: a run either continues what is there, from a checkpoint and under a
//! configuration of the same results, or it is refused.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use loader::config::ConfigFile;
use serde_json::{Map, Value};

use crate::checkpoint::{self, State, Store, write_durably};
use crate::config::Config;
use crate::exchange::import;

/// The official name of the stored configuration.
const PARAMS: &str = "params-ijepa.yaml";
const LOCK: &str = "run.lock";

/// Where a run begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Resume {
    /// At the latest checkpoint of the run directory, or at step 0 where there is none.
    Auto,
    /// At step 0, in a directory without a run.
    Never,
    /// Like `Auto`, but damaged checkpoints are set aside, with a word about each, and the latest whole one is taken.
    LastGood,
    /// At this checkpoint, or at the latest one of this run directory.
    From(PathBuf),
}

impl std::str::FromStr for Resume {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Resume, Self::Err> {
        Ok(match text {
            "auto" => Resume::Auto,
            "never" => Resume::Never,
            "last-good" => Resume::LastGood,
            path => Resume::From(path.into()),
        })
    }
}

/// A run directory that this process alone writes to, until it is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// The checkpoints in it.
    pub store: Store,
    _lock: File,
}

impl RunDir {
    /// Creates the directory where needed, and locks it.
    pub fn open(config: &Config) -> Result<RunDir> {
        let path = config.folder()?.to_owned();
        fs::create_dir_all(&path)
            .with_context(|| format!("{}: cannot make the run directory", path.display()))?;
        let file = path.join(LOCK);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file);
        let mut lock = opened.with_context(|| format!("{}", file.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only a hint; it may be torn while the holder writes it.
                let _ = lock.read_to_string(&mut holder);
                bail!(
                    "{}: in use by another trainer ({})",
                    path.display(),
                    holder.trim()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{}: cannot be locked", file.display()));
            }
        }
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "process {} on {}", std::process::id(), host.trim()))
            .with_context(|| format!("{}", file.display()))?;
        let store = Store::new(&path, &config.logging.write_tag);
        store.clean()?;
        Ok(RunDir {
            path,
            store,
            _lock: lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoint to begin with, `None` for step 0, after refusing everything that would mix two runs.
    pub fn begin(
        &self,
        config: &Config,
        resume: Option<&Resume>,
    ) -> Result<Option<(PathBuf, State)>> {
        let found = match (resume, config.meta.load_checkpoint) {
            (Some(Resume::Never), _) => {
                let earlier = self.path.join(PARAMS).exists();
                ensure!(
                    !earlier,
                    "{}: holds a run already; continue it with --resume auto, or give another logging.folder",
                    self.path.display()
                );
                None
            }
            (Some(Resume::LastGood), _) => {
                self.store.last_good(&mut |fault| eprintln!("{fault}"))?
            }
            (Some(Resume::From(path)), _) => Some(self.take(path, config)?),
            (Some(Resume::Auto), _) | (None, false) => self.store.latest()?,
            (None, true) => Some(self.official(config)?),
        };
        let Some(path) = found else {
            // A run that died before its first checkpoint begins anew, if it is the same run.
            self.check_params(config)?;
            return Ok(None);
        };
        let state = checkpoint::advise(&path, checkpoint::read_state(&path))?;
        ensure!(
            state.config.contains_key("optimization"),
            "{}: weights that were imported without a configuration; to continue from them, import them again with --config",
            path.display()
        );
        let earlier = Config::from_file(&ConfigFile::parse(&path, &json(&state.config), &[])?)
            .with_context(|| format!("{}: its configuration", path.display()))?;
        same(&earlier, config, &path)?;
        if path.parent() != Some(&self.path.join("checkpoints")) {
            self.check_params(config)?;
        }
        if let Some((newest, directory)) = self.store.list()?.pop()
            && newest > state.step
        {
            bail!(
                "{}: this run has gone on to step {newest} ({}); to branch off at step {}, give another logging.folder",
                self.path.display(),
                directory.display(),
                state.step
            );
        }
        Ok(Some((path, state)))
    }

    /// What the official keys `load_checkpoint: true` and `read_checkpoint` mean.
    fn official(&self, config: &Config) -> Result<PathBuf> {
        if let Some(name) = &config.meta.read_checkpoint {
            return self
                .take(&self.path.join(name), config)
                .context("meta.read_checkpoint");
        }
        if let Some(path) = self.store.latest()? {
            return Ok(path);
        }
        let official = format!("{}-latest.pth.tar", config.logging.write_tag);
        let official = self.path.join(official);
        if official.exists() {
            return self.take(&official, config).context("meta.load_checkpoint");
        }
        bail!(
            "meta.load_checkpoint: true, but {} holds neither a checkpoint of ours nor {}; --resume auto begins at step 0 \
             where there is none",
            self.path.display(),
            official.display()
        )
    }

    /// The checkpoint that `path` means. One of the official code is imported into this run directory, once: a run that
    /// has gone on from it continues where it stands.
    fn take(&self, path: &Path, config: &Config) -> Result<PathBuf> {
        if !import::is_official(path) {
            return checkpoint::find(path);
        }
        if let Some(latest) = self.store.latest()? {
            eprintln!(
                "{}: was begun already; going on from {}",
                self.path.display(),
                latest.display()
            );
            return Ok(latest);
        }
        let imported = import::import(path, &self.path, Some(config), &import::Options::default())?;
        for note in &imported.notes {
            eprintln!("{}: {note}", path.display());
        }
        Ok(imported.path)
    }

    /// Refuses a directory whose stored configuration belongs to another run.
    fn check_params(&self, config: &Config) -> Result<()> {
        let path = self.path.join(PARAMS);
        if !path.exists() {
            return Ok(());
        }
        let earlier = ConfigFile::load(&path, &[])
            .map_err(anyhow::Error::from)
            .and_then(|file| Config::from_file(&file));
        same(
            &earlier.with_context(|| format!("{}", path.display()))?,
            config,
            &path,
        )
    }

    /// Stores the resolved configuration and returns it as text.
    pub fn store_params(&self, resolved: &Map<String, Value>) -> Result<String> {
        let text =
            serde_saphyr::to_string(resolved).context("cannot write the configuration as YAML")?;
        write_durably(&self.path.join(PARAMS), text.as_bytes())?;
        Ok(text)
    }
}

fn json(config: &Map<String, Value>) -> String {
    // JSON is YAML: a stored configuration is read by the very code that reads files.
    serde_json::to_string(config).expect("a JSON value always serialises")
}

fn same(earlier: &Config, config: &Config, source: &Path) -> Result<()> {
    let differences = config.differences(earlier);
    ensure!(
        differences.is_empty(),
        "{}: this is another run; they differ in\n  {}\nGive another logging.folder, or set these keys as they were.",
        source.display(),
        differences.join("\n  ")
    );
    Ok(())
}

#[cfg(test)]
mod tests;
