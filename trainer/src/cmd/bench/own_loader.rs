//! A loader beside the measurement, for real images.

use std::time::Duration;

use anyhow::{Context, Result};
use loader::link::Welcome;
use shardtool::Manifest;
use tch::Device;

use trainer::config::Config;
use trainer::distributed::World;
use trainer::launch::{OwnLoader, Program};
use trainer::session;
use trainer::source::LoaderSource;
use trainer::stop::Stop;

/// Starts `program`, a loader, and returns it with what comes from it.
///
/// # Errors
/// If the loader cannot be started, the shards cannot be read, or no loader answers in time.
pub fn start(
    program: &Program,
    config: &Config,
    device: Device,
) -> Result<(OwnLoader, LoaderSource)> {
    let manifest = Manifest::read(&config.loader.shards_dir()?)?;
    let (loader, endpoint) = OwnLoader::start(program)?;
    let hello = session::hello(config, &manifest, World::alone(), 0);
    let patience = Duration::from_secs(config.trainer.loader_patience);
    let expected = Welcome::expected(&config.loader, &manifest, hello.world)?;
    let stop = Stop::default();
    let source = LoaderSource::connect(endpoint, hello, expected, patience, device, stop)?
        .context("no loader")?;
    Ok((loader, source))
}
