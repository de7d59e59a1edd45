//! The commands, and what they share: which configuration, shards, steps and threads are meant.

pub mod bench;
#[cfg(feature = "compare")]
pub mod compare;
pub mod hash;
pub mod run;
pub mod show;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use loader::config::{LoaderConfig, MAX_WORKERS};
use loader::pipeline::{Attachment, OpenSplit, Pipeline, geometry};
use loader::ring::Consumer;
use loader::sampler::PretrainingSampler;
use loader::share::RankShare;
use shardtool::Escaped;
use shardtool::program::arguments;

/// Time that is longer than any group takes: a pipeline that delivers nothing for so long never will.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The steps that `bench`, `hash` and `show` look at.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// Configuration file of the run, the same as the trainer's
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    config: PathBuf,
    /// Directory of the shards, instead of the configuration's
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    shards: Option<PathBuf>,
    /// Split, instead of the configuration's loader.split
    #[arg(long, value_name = "NAME", value_parser = arguments::text())]
    split: Option<String>,
    /// Override a key of the configuration, such as loader.seed=1
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = arguments::text())]
    sets: Vec<String>,
    /// Number of ranks, which decides the global batch where optimization.global_batch does not
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    world: u64,
    #[command(flatten)]
    workers: Workers,
}

/// How many threads decode.
#[derive(Debug, clap::Args)]
pub struct Workers {
    /// Worker threads [default: loader.workers, else one per CPU this process may use]
    #[arg(
        long,
        alias = "threads",
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=MAX_WORKERS as i64)
    )]
    workers: Option<u16>,
}

impl Workers {
    /// Returns the number of worker threads: the argument's, the configuration's, or one per CPU.
    pub fn count(&self, config: &LoaderConfig) -> usize {
        self.workers
            .map(usize::from)
            .or(config.loader.workers)
            .unwrap_or_else(shardtool::cpus::count)
    }
}

/// A started pipeline and what it was started from.
pub struct Session {
    pub config: LoaderConfig,
    pub sampler: Arc<PretrainingSampler>,
    pub pipeline: Pipeline,
}

impl Selection {
    /// Reads the configuration, opens the shards and starts the workers.
    pub fn start(&self) -> anyhow::Result<Session> {
        let mut config = LoaderConfig::load(&self.config, &self.sets, self.shards.as_deref())?;
        if let Some(split) = &self.split {
            config.loader.split.clone_from(split);
        }
        let source = OpenSplit::open(&config.shards_dir()?, &config.loader.split)?;
        let sampler = PretrainingSampler::new(
            &config,
            source.split().len(),
            config.global_batch(self.world),
        )
        .with_context(|| format!("split {:?}", Escaped::new(&config.loader.split)))?;
        let workers = self.workers.count(&config);
        let pipeline = Pipeline::start(source, workers, &config.loader)?;
        Ok(Session {
            config,
            sampler: Arc::new(sampler),
            pipeline,
        })
    }
}

impl Session {
    /// Attaches a ring of this process to the pipeline.
    pub fn attach(&self, share: RankShare) -> anyhow::Result<(Consumer, Attachment)> {
        let geometry = geometry(&self.config, &self.sampler);
        Ok(self.pipeline.local(geometry, self.sampler.clone(), share)?)
    }

    /// Attaches one for `count` steps from `first` on, which `option` gave.
    ///
    /// # Errors
    /// For steps beyond those that can be counted, and what the pipeline says.
    pub fn attach_steps(
        &self,
        option: &str,
        first: u64,
        count: u64,
    ) -> anyhow::Result<(Consumer, Attachment)> {
        if first.checked_add(count).is_none() {
            bail!(
                "{option} {first}: {count} step(s) from there on go beyond the last, {}; an epoch has {}",
                u64::MAX - 1,
                self.sampler.epoch_len()
            );
        }
        self.attach(RankShare::steps(first, count))
    }
}
