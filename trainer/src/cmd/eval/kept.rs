//! The features of a split: those that were kept, or new ones from a loader of our own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use loader::link::Welcome;
use loader::sampler::Plan;
use shardtool::paths::literal;
use shardtool::program::{self, Verbosity};
use shardtool::{Escaped, Manifest};
use tch::Device;
use trainer::config::Config;
use trainer::evaluate::{Features, Key, NotKept, Pass, Table, hello};
use trainer::launch::{OwnLoader, Program};
use trainer::source::LoaderSource;
use trainer::stop::Stop;

/// All that decides features, and where they are kept.
pub struct Splits<'a> {
    pub features: Features,
    /// Checksum of the encoder's weights.
    pub checksum: u64,
    /// `target` or `context`.
    pub encoder: &'static str,
    /// The directory of the features.
    pub out: PathBuf,
    pub config: &'a Config,
    pub config_file: &'a Path,
    pub manifest: &'a Manifest,
    pub shards: Option<&'a Path>,
    pub sets: &'a [String],
    pub verbosity: &'a Verbosity,
    pub device: Device,
    /// Last blocks whose features stand side by side.
    pub layers: usize,
    pub bfloat16: bool,
    /// To keep the features is what was asked for.
    pub must_be_kept: bool,
}

impl Splits<'_> {
    /// Returns the type of the encoder's matrix products.
    pub fn dtype(&self) -> &'static str {
        match self.bfloat16 {
            true => "bfloat16",
            false => "float32",
        }
    }

    /// Returns the file of a split's features.
    pub fn path(&self, split: &str) -> PathBuf {
        let kind = match self.layers {
            1 => "last".to_owned(),
            layers => format!("last{layers}"),
        };
        let size = self.config.loader.eval_crop();
        let name = format!("{split}-{}-{size}px-{kind}.safetensors", self.encoder);
        self.out.join(name)
    }

    /// Returns the features of a split, and keeps them for the next time.
    pub fn table(&self, split: &str) -> Result<Table> {
        let (path, key) = (self.path(split), self.key(split)?);
        let shown = Escaped::new(&path);
        match Table::read(&path, &key) {
            Ok(table) => {
                tracing::info!("{split:?}: features of {} images from {shown}", table.len());
                return Ok(table);
            }
            Err(NotKept::Missing) => {}
            Err(cause) => tracing::warn!("{shown}: {cause}; computing them anew"),
        }
        let table = self.compute(split)?;
        let written = table.write(&path, &key);
        match written {
            Ok(()) => tracing::info!("{split:?}: features of {} images in {shown}", table.len()),
            Err(error) if self.must_be_kept => return Err(error.into()),
            Err(error) => {
                tracing::warn!("{error}: the features are not kept; --out names another place")
            }
        }
        Ok(table)
    }

    fn key(&self, split: &str) -> Result<Key> {
        let config = &self.config.loader;
        let fidelity = serde_json::to_value(config.loader.fidelity)?;
        Ok(Key {
            weights: format!("{:016x}", self.checksum),
            manifest: format!("{:016x}", self.manifest.checksum()),
            split: split.to_owned(),
            crop_size: config.eval_crop(),
            resize: config.eval_resize(),
            fidelity: fidelity.as_str().unwrap_or_default().to_owned(),
            layers: self.layers,
            dtype: self.dtype().to_owned(),
        })
    }

    /// Takes the features of every image of a split once, from a loader beside this process.
    fn compute(&self, split: &str) -> Result<Table> {
        let mut config = self.config.loader.clone();
        config.loader.split = split.to_owned();
        let expected = Welcome::expected_for(Plan::Evaluation, &config, self.manifest, 1)?;
        let (samples, groups) = (expected.samples, expected.epoch_len);
        let (_loader, endpoint) = OwnLoader::start(&self.loader(split)?)?;
        let hello = hello(&config, self.manifest, groups);
        let patience = Duration::from_secs(self.config.trainer.loader_patience);
        // Nobody asks for a stop here: signals end the process, and nothing half is left.
        let stop = Stop::default();
        let source = LoaderSource::connect(endpoint, hello, expected, patience, self.device, stop)?;
        let mut source = source.context("no loader")?;
        let pass = Pass {
            groups,
            samples,
            layers: self.layers,
            bfloat16: self.bfloat16,
        };
        let template = "{wide_bar:.cyan/238} features, group {pos}/{len}  {eta_precise} to go";
        let bar = program::progress_bar(Some(groups), template);
        let progress = &mut |group| bar.set_position(group);
        let table = pass.run(&self.features, &mut source, progress);
        bar.finish_and_clear();
        source.goodbye();
        let table = table?;
        let missing = samples - table.len() as u64;
        if missing > 0 {
            tracing::warn!(
                "{split:?}: {missing} of {samples} images cannot be read, and are left out"
            );
        }
        Ok(table)
    }

    /// Returns the program that shows a split.
    fn loader(&self, split: &str) -> Result<Program> {
        let mut program = Program::beside_this("loader", "run")?;
        program.args(["--config".into(), literal(self.config_file)]);
        if let Some(shards) = self.shards {
            program.args(["--shards".into(), literal(shards)]);
        }
        for set in self.sets {
            program.args(["--set", set]);
        }
        program.args(["--set", &format!("loader.split={split}"), "--evaluation"]);
        program.args(self.verbosity.arguments());
        Ok(program)
    }
}
