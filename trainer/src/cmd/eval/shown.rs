//! The images of a split, each once, from a loader of our own.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use loader::link::Welcome;
use loader::sampler::Plan;
use rustix::fs::{MemfdFlags, memfd_create};
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

/// Which images of a split are shown, and how.
pub enum How<'a> {
    /// Each once, in order, its centre: all, or these samples alone, which ascend.
    InOrder(Option<&'a [u64]>),
    /// Shuffled each epoch, in random crops, mirrored or not.
    Shuffled {
        /// These samples alone, which ascend.
        only: &'a [u64],
        /// How often all are shown.
        epochs: u64,
        /// Images of a group, as many as there are samples at most.
        batch: u64,
        /// Range of a crop's share of the image.
        crop_scale: [f64; 2],
        /// Seed of order, crops and mirroring.
        seed: u64,
    },
}

/// A split that is being shown.
pub struct Showing {
    /// Its groups, from step 0 on.
    pub source: LoaderSource,
    /// Samples of the split.
    pub samples: u64,
    /// Groups that come.
    pub groups: u64,
    /// The list of samples, which the loader reads when it starts.
    _list: Option<File>,
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

    /// Starts a loader that shows all images of a split, each once.
    ///
    /// # Errors
    /// If there is no such split, or the loader does not start.
    pub fn open(&self, split: &str) -> Result<Showing> {
        self.open_how(split, &How::InOrder(None))
    }

    /// Starts a loader that shows images of a split.
    ///
    /// # Errors
    /// If there is no such split, or the loader does not start.
    pub fn open_how(&self, split: &str, how: &How<'_>) -> Result<Showing> {
        let mut config = self.config.loader.clone();
        config.loader.split = split.to_owned();
        let mut program = self.loader(split)?;
        let (plan, only, epochs) = match *how {
            How::InOrder(only) => (Plan::Evaluation, only, 1),
            How::Shuffled {
                only,
                epochs,
                batch,
                crop_scale,
                seed,
            } => {
                config.data.batch_size = batch;
                config.data.crop_scale = crop_scale;
                config.loader.seed = seed;
                program.args(["--set", &format!("data.batch_size={batch}")]);
                program.args(["--set", &format!("data.crop_scale={crop_scale:?}")]);
                program.args(["--set", &format!("loader.seed={seed}")]);
                (Plan::Probing, Some(only), epochs)
            }
        };
        program.args([format!("--{plan}")]);
        let list = only.map(listed).transpose()?;
        if let Some(list) = &list {
            config.only = only.map(Into::into);
            let (own, descriptor) = (std::process::id(), list.as_raw_fd());
            program.args(["--only", &format!("/proc/{own}/fd/{descriptor}")]);
        }
        let expected = Welcome::expected_for(plan, &config, self.manifest, 1)?;
        let (samples, groups) = (expected.samples, expected.epoch_len * epochs);
        let (loader, endpoint) = OwnLoader::start(&program)?;
        let hello = hello(plan, &config, self.manifest, groups);
        let patience = Duration::from_secs(self.config.trainer.loader_patience);
        // Nobody asks for a stop here: signals end the process, and nothing half is left.
        let stop = Stop::default();
        let source = LoaderSource::connect(endpoint, hello, expected, patience, self.device, stop)?;
        Ok(Showing {
            source: source.context("no loader")?,
            samples,
            groups,
            _list: list,
            _loader: loader,
        })
    }

    /// Returns the program that shows a split.
    fn loader(&self, split: &str) -> Result<Program> {
        let mut program = Program::beside_this("loader", "run")?;
        program.args(self.overrides.arguments(self.config_file));
        program.args(["--set", &format!("loader.split={split}")]);
        program.args(self.verbosity.arguments());
        Ok(program)
    }
}

/// Writes a list of samples where another process finds it as long as the file is open: it has no name.
fn listed(samples: &[u64]) -> Result<File> {
    let mut text = String::new();
    for id in samples {
        writeln!(text, "{id}").expect("a text grows");
    }
    let mut file = File::from(memfd_create("samples", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file)
}
