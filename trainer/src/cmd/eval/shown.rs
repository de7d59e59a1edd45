//! The images of a split, each once, from a loader of our own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use loader::link::Welcome;
use loader::sampler::Plan;
use shardtool::Manifest;
use shardtool::program::Verbosity;
use tch::Device;
use trainer::config::Config;
use trainer::evaluate::hello;
use trainer::launch::{OwnLoader, Program};
use trainer::source::LoaderSource;
use trainer::stop::Stop;

use super::args::{Args, Setting};
use crate::cmd::Overrides;

/// All that decides what images are shown, and how.
pub struct Shown<'a> {
    pub config: &'a Config,
    pub config_file: &'a Path,
    pub manifest: &'a Manifest,
    pub overrides: &'a Overrides,
    pub verbosity: &'a Verbosity,
    /// Where the images go.
    pub device: Device,
}

/// A split that is being shown.
pub struct Showing {
    /// Its groups, from step 0 on.
    pub source: LoaderSource,
    /// Samples of the split.
    pub samples: u64,
    /// Groups that come.
    pub groups: u64,
    _loader: OwnLoader,
}

impl<'a> Shown<'a> {
    /// Shows the images of a setting.
    pub fn of(
        setting: &'a Setting,
        args: &'a Args,
        verbosity: &'a Verbosity,
        device: Device,
    ) -> Shown<'a> {
        Shown {
            config: &setting.config,
            config_file: &setting.file,
            manifest: &setting.manifest,
            overrides: &args.overrides,
            verbosity,
            device,
        }
    }

    /// Starts a loader that shows a split.
    ///
    /// # Errors
    /// If there is no such split, or the loader does not start.
    pub fn open(&self, split: &str) -> Result<Showing> {
        let mut config = self.config.loader.clone();
        config.loader.split = split.to_owned();
        let expected = Welcome::expected_for(Plan::Evaluation, &config, self.manifest, 1)?;
        let (samples, groups) = (expected.samples, expected.epoch_len);
        let (loader, endpoint) = OwnLoader::start(&self.loader(split)?)?;
        let hello = hello(&config, self.manifest, groups);
        let patience = Duration::from_secs(self.config.trainer.loader_patience);
        // Nobody asks for a stop here: signals end the process, and nothing half is left.
        let stop = Stop::default();
        let source = LoaderSource::connect(endpoint, hello, expected, patience, self.device, stop)?;
        Ok(Showing {
            source: source.context("no loader")?,
            samples,
            groups,
            _loader: loader,
        })
    }

    /// Returns the program that shows a split.
    fn loader(&self, split: &str) -> Result<Program> {
        let mut program = Program::beside_this("loader", "run")?;
        program.args(self.overrides.arguments(self.config_file));
        program.args(["--set", &format!("loader.split={split}"), "--evaluation"]);
        program.args(self.verbosity.arguments());
        Ok(program)
    }
}
