//! A loader beside the measurement, for real images.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result};
use loader::link::Endpoint;
use shardtool::{Escaped, Manifest};
use tch::Device;

use crate::config::Config;
use crate::distributed::World;
use crate::session;
use crate::source::LoaderSource;
use crate::stop::Stop;

/// A loader of our own, ended when dropped.
#[derive(Debug)]
pub struct OwnLoader {
    process: Child,
    folder: PathBuf,
}

impl OwnLoader {
    /// Starts `program run` for the configuration in `file`, on a socket of its own.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(program: &Path, file: &Path, shards: &Path, sets: &[String]) -> Result<OwnLoader> {
        let folder = std::env::temp_dir().join(format!("ijepa-bench-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| Escaped::new(&folder).to_string())?;
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg("--socket")
            .arg(folder.join("socket"));
        command.arg("--config").arg(file);
        command.arg("--shards").arg(shards);
        for set in sets {
            command.args(["--set", set]);
        }
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {}", Escaped::new(program)))?;
        Ok(OwnLoader { process, folder })
    }

    /// Waits for the loader and returns what comes from it.
    ///
    /// # Errors
    /// If the shards cannot be read, or no loader answers in time.
    pub fn connect(&self, config: &Config, device: Device) -> Result<LoaderSource> {
        let manifest = Manifest::read(&config.loader.shards_dir()?)?;
        let hello = session::hello(config, &manifest, World::alone(), 0);
        let patience = Duration::from_secs(config.trainer.loader_patience);
        let endpoint = Endpoint::Path(self.folder.join("socket"));
        LoaderSource::connect(endpoint, hello, patience, device, Stop::default())?
            .context("no loader")
    }
}

impl Drop for OwnLoader {
    fn drop(&mut self) {
        // It may have ended by itself when its trainer left; what remains of it is of no interest then.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
