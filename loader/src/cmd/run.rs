//! `loader run`: serve rings to trainers.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use loader::config::LoaderConfig;
use loader::link::{self, NamedSocket, default_socket_path};
use loader::memory;
use loader::pipeline::{OpenSplit, Pipeline};
use loader::sampler::{Plan, Sampler, read_samples};
use loader::serve::{Listener, ServeOptions, serve};
use loader::storage;
use shardtool::program::arguments;
use shardtool::{Escaped, exit};

use super::Workers;

/// Serve shuffled, cropped and masked images to the trainers of this machine
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file of the run, the same as the trainer's
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    config: PathBuf,
    /// Socket to listen at [default: $XDG_RUNTIME_DIR/ijepa-UID/HASH.sock, where the trainer looks for it]
    #[arg(long, value_name = "PATH", value_parser = arguments::path())]
    socket: Option<PathBuf>,
    /// Take connections from this inherited descriptor instead (what `trainer launch` does)
    #[arg(long, value_name = "N", conflicts_with_all = ["socket", "stay"])]
    socket_fd: Option<RawFd>,
    /// Directory of the shards, instead of the configuration's
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    shards: Option<PathBuf>,
    /// Override a key of the configuration, such as loader.slots=8
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = arguments::text())]
    sets: Vec<String>,
    /// Serve an evaluation instead: every sample of the split once, in order, resized, its centre, without masks
    #[arg(long)]
    evaluation: bool,
    /// Serve what probes learn from instead: shuffled, randomly cropped (data.crop_scale) and mirrored, without masks
    #[arg(long, conflicts_with = "evaluation")]
    probing: bool,
    /// With --evaluation or --probing: file of the sample numbers that are shown alone, a line each, ascending
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    only: Option<PathBuf>,
    /// Keep serving when the last trainer has left
    #[arg(long)]
    stay: bool,
    #[command(flatten)]
    workers: Workers,
    /// Seconds between two lines of statistics on stderr; 0 for none
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    statistics: f64,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    // First of all, before this process opens a descriptor that could have the same number by mistake.
    let channel = args.socket_fd.map(link::inherit).transpose()?;
    let statistics = Duration::try_from_secs_f64(args.statistics).context("--statistics")?;
    let mut config = LoaderConfig::load(&args.config, &args.sets, args.shards.as_deref())?;
    let source = OpenSplit::open_shards(&storage::shards_dir(&config)?, &config.loader.split)?;
    let samples = source.split().len();
    // What the configuration alone gets wrong is said now, not when a trainer asks.
    let plan = match (args.evaluation, args.probing) {
        (true, _) => Plan::Evaluation,
        (_, true) => Plan::Probing,
        _ => Plan::Pretraining,
    };
    if let Some(list) = &args.only {
        ensure!(
            plan != Plan::Pretraining,
            "--only is of --evaluation and --probing: pretraining shows all samples"
        );
        config.only = Some(read_samples(list)?);
    }
    let sampler = Sampler::new(plan, &config, samples, 1)?;
    memory::check(1, sampler.geometry(&config).total_len()?)?;
    let (listener, place) = match channel {
        Some(channel) => (
            Listener::Inherited(channel),
            "the launcher's channel".to_owned(),
        ),
        None => {
            let path = args
                .socket
                .clone()
                .unwrap_or_else(|| default_socket_path(config.plan_hash(plan)));
            (
                Listener::Named(NamedSocket::bind(&path)?),
                Escaped::new(&path).to_string(),
            )
        }
    };
    let pipeline = Pipeline::start(source, args.workers.count(&config), &config.loader)?;
    tracing::info!(
        "{samples} samples of split {:?} in groups of {}, {} worker threads; waiting for trainers at {place}",
        Escaped::new(&config.loader.split),
        config.data.batch_size,
        pipeline.workers()
    );
    let options = ServeOptions {
        plan,
        stay: args.stay,
        statistics,
    };
    match serve(Arc::new(pipeline), config, listener, options) {
        Ok(()) => Ok(exit::FINE),
        Err(error) if error.is_midway() => {
            tracing::error!("{error}");
            Ok(exit::FAILED_MIDWAY)
        }
        Err(error) => Err(error).context("serving"),
    }
}
