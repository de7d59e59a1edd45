//! A loader beside the measurement, for real images.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use shardtool::Manifest;
use tch::Device;

use crate::config::Config;
use crate::distributed::World;
use crate::launch::{OwnLoader, Program};
use crate::session;
use crate::source::LoaderSource;
use crate::stop::Stop;

/// Starts a loader for the configuration in `file`, and returns it with what comes from it.
///
/// `config` is what `file` and `sets` say.
///
/// # Errors
/// If the loader cannot be started, the shards cannot be read, or no loader answers in time.
pub fn start(
    file: &Path,
    shards: &Path,
    sets: &[String],
    config: &Config,
    device: Device,
) -> Result<(OwnLoader, LoaderSource)> {
    let mut program = Program::beside_this("loader", "run")?;
    program.args(["--config".as_ref(), file, "--shards".as_ref(), shards]);
    for set in sets {
        program.args(["--set", set]);
    }
    let manifest = Manifest::read(&config.loader.shards_dir()?)?;
    let (loader, endpoint) = OwnLoader::start(&program)?;
    let hello = session::hello(config, &manifest, World::alone(), 0);
    let patience = Duration::from_secs(config.trainer.loader_patience);
    let source = LoaderSource::connect(endpoint, hello, patience, device, Stop::default())?
        .context("no loader")?;
    Ok((loader, source))
}
