//! A run put together: from a configuration to the first step, and from the last step to what became of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loader::link::{Endpoint, Hello, PROTOCOL, Welcome, default_socket_path};
use loader::sampler::Plan;
use serde_json::Map;
use shardtool::{Escaped, Manifest};
use tch::Device;

use crate::checkpoint::{State, epoch_lengths};
use crate::config::{self, Config};
use crate::distributed::{First, World};
use crate::observe::{Log, Report};
use crate::run::{self, Begin, Keeper, Resume, RunDir, Terms};
use crate::source::{self, LoaderSource};
use crate::stop::Stop;
use crate::train::{self, Outcome, Run};

/// Time that a trainer before this one has for its last step and checkpoint.
const HANDOVER: Duration = Duration::from_secs(30);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The circumstances of a run's start, beside its configuration.
#[derive(Debug)]
pub struct Start {
    /// Where to compute.
    pub device: Device,
    /// This process among those that train.
    pub world: World,
    /// Where the loader is; by default at the socket that it chooses for the same configuration.
    pub endpoint: Option<Endpoint>,
    /// Where to begin; by default what the configuration says.
    pub resume: Option<Resume>,
    /// The keys that may differ from those of the checkpoint to begin with.
    pub allowed: Vec<String>,
    /// When the program started.
    pub started: Instant,
}

/// The reason why a run could not be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The shards.
    #[error(transparent)]
    Shards(#[from] shardtool::Error),
    /// The run directory.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// The loader.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The networks.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// The loader has epochs of another length than the checkpoint.
    #[error("the loader has epochs of {now} steps, the checkpoint of {then}")]
    EpochLength {
        /// Steps of the loader's epochs.
        now: u64,
        /// Steps of the checkpoint's.
        then: u64,
    },
}

/// The outcome of putting a run together.
pub enum Opened {
    /// It is ready for its first step.
    Ready(Box<Session>),
    /// This signal came before the loader did.
    Stopped(&'static str),
    /// The checkpoint to begin with stands at the last step already.
    NothingToDo {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Steps done.
        step: u64,
        /// Steps of an epoch.
        epoch_len: u64,
    },
}

/// A run that is ready for its first step.
pub struct Session {
    run: Run,
    source: LoaderSource,
    /// Rank 0's; other ranks keep nothing.
    keeper: Option<Keeper>,
    stop: Stop,
}

/// The end of a run.
#[derive(Debug)]
pub struct Ended {
    /// The way in which it ended.
    pub outcome: Result<Outcome, train::Error>,
    /// The step with which it began.
    pub first_step: u64,
    /// Steps done.
    pub step: u64,
    /// Its sum; rank 0 has it.
    pub report: Option<Report>,
    /// Loaders that were lost on the way.
    pub restarts: u32,
}

/// Returns what a trainer tells a loader when they meet.
pub fn hello(config: &Config, manifest: &Manifest, world: World, first_step: u64) -> Hello {
    Hello {
        protocol: PROTOCOL,
        pid: std::process::id(),
        plan: Plan::Pretraining,
        sampling_hash: config.loader.sampling_hash(),
        manifest_checksum: manifest.checksum(),
        rank: world.rank,
        world: world.world,
        global_batch: config.loader.global_batch(world.world.into()),
        first_step,
        end_step: None,
    }
}

impl Session {
    /// Puts a run together: directory, checkpoint to begin with, loader, networks, log.
    ///
    /// # Errors
    /// What is missing or at odds, and the cure where there is one. Nothing of an earlier run is lost by it.
    pub fn open(config: &Config, start: Start, stop: Stop) -> Result<Opened, Error> {
        let world = start.world;
        let manifest = Manifest::read(&config.loader.shards_dir().map_err(config::Error::from)?)?;
        let dir = match world.first() {
            None => None,
            Some(first) => match open_dir(config, first, &stop)? {
                None => return Ok(Opened::Stopped(stop.asked().unwrap_or("a signal"))),
                dir => dir,
            },
        };
        let expected = Welcome::expected(&config.loader, &manifest, world.world)
            .map_err(config::Error::from)?;
        let terms = Terms {
            data: Some(run::Data {
                manifest_checksum: manifest.checksum(),
                global_batch: config.loader.global_batch(world.world.into()),
                epoch_len: expected.epoch_len,
            }),
            allowed: start.allowed.clone(),
        };
        let found = match &dir {
            Some(dir) => dir.begin(config, start.resume.as_ref(), &terms)?,
            // Only rank 0 knows; there is no way to tell others yet, and there are no others yet.
            None => None,
        };
        let first_step = found.as_ref().map_or(0, |(_, state)| state.step);
        let hello = hello(config, &manifest, world, first_step);
        if let Some((path, state)) = &found
            && state.step >= config.last_step(state.epoch_len)
        {
            return Ok(Opened::NothingToDo {
                checkpoint: path.clone(),
                step: state.step,
                epoch_len: state.epoch_len,
            });
        }
        announce(config, dir.as_ref(), &start, &hello)?;
        if let Some((path, state)) = &found {
            continuing(path, state, start.device);
        }

        let endpoint = start
            .endpoint
            .unwrap_or_else(|| Endpoint::Path(default_socket_path(hello.sampling_hash)));
        let patience = Duration::from_secs(config.trainer.loader_patience);
        let largest = config.model_for(config.loader.data.crop_size.largest())?;
        train::memory::check(&largest, config, &expected.geometry, start.device)
            .map_err(train::Error::from)?;
        let connected = LoaderSource::connect(
            endpoint,
            hello.clone(),
            expected,
            patience,
            start.device,
            stop.clone(),
        )?;
        let Some(source) = connected else {
            return Ok(Opened::Stopped(stop.asked().unwrap_or("a signal")));
        };
        let epoch_len = source.epoch_len();
        let state = begin(config, &found, epoch_len, &hello)?;
        let checkpoint = found.as_ref().map(|(path, _)| path.as_path());
        let run = Run::new(config, &state, checkpoint, start.device)?;
        let keeper = match dir {
            Some(dir) => Some(keep(config, dir, &run, start.started)?),
            None => None,
        };
        tracing::info!(
            "{} steps of {} ({epoch_len} per epoch), {} thread(s)",
            run.total_steps,
            config.meta.model_name,
            tch::get_num_threads(),
        );
        Ok(Opened::Ready(Box::new(Session {
            run,
            source,
            keeper,
            stop,
        })))
    }

    /// Returns rank 0's log, for adding observers to it.
    pub fn log(&mut self) -> Option<&mut Log> {
        self.keeper.as_mut().map(|keeper| &mut keeper.log)
    }

    /// Trains to the end, or until told to stop.
    pub fn train(mut self) -> Ended {
        let first_step = self.run.step;
        let outcome = self
            .run
            .train(&mut self.source, &mut self.keeper, &self.stop);
        let restarts = self.source.restarts();
        self.source.goodbye();
        Ended {
            outcome,
            first_step,
            step: self.run.step,
            report: self.keeper.map(|mut keeper| keeper.log.finish()),
            restarts,
        }
    }
}

/// Opens the run directory, once another trainer in it has ended; `None` if a stop was asked for first.
///
/// The one before may be at its last step yet: its launcher was killed, or somebody stopped it and starts it again.
fn open_dir(config: &Config, first: First, stop: &Stop) -> Result<Option<RunDir>, run::Error> {
    let begun = Instant::now();
    let mut is_said = false;
    loop {
        match RunDir::open(config, first) {
            Err(error @ run::Error::InUse { .. }) if begun.elapsed() < HANDOVER => {
                if !is_said {
                    is_said = true;
                    let seconds = HANDOVER.as_secs();
                    tracing::info!("{error}; waiting {seconds} s at most for its end");
                }
                if stop.asked().is_some() {
                    return Ok(None);
                }
                std::thread::sleep(LOOK);
            }
            opened => return opened.map(Some),
        }
    }
}

/// Says what this run is, and stores its configuration.
fn announce(
    config: &Config,
    dir: Option<&RunDir>,
    start: &Start,
    hello: &Hello,
) -> Result<(), Error> {
    if let Some(dir) = dir {
        let text = dir.store_params(&config.resolved())?;
        tracing::info!("{text}");
    }
    let (batch_size, world) = (config.loader.data.batch_size, u64::from(hello.world));
    tracing::info!(
        "global batch {} = {} group(s) of {batch_size}, {} on each of {world} rank(s)",
        hello.global_batch,
        hello.global_batch / batch_size,
        hello.global_batch / batch_size / world,
    );
    for warning in config.warnings(start.device, world) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Says where the run continues, and what may keep it from doing so bit by bit.
fn continuing(path: &Path, state: &State, device: Device) {
    let (step, path) = (state.step, Escaped::new(path));
    tracing::info!("continuing at step {step} from {path}");
    let now = tch::get_num_threads() as u64;
    if let Some(then) = state
        .threads
        .filter(|&then| then != now && device == Device::Cpu)
    {
        tracing::warn!(
            "{path}: computed with {then} thread(s) of libtorch, and now there are {now}: sums on a CPU are rounded \
             otherwise, so the run will not be bit by bit what it would have been; trainer.threads={then} makes it so"
        );
    }
}

/// Returns the state that the run begins with: the checkpoint's, under the configuration of now.
fn begin(config: &Config, found: &Begin, epoch_len: u64, hello: &Hello) -> Result<State, Error> {
    let then = match found {
        Some((_, state)) => state.clone(),
        None => State::new(0, epoch_len, Map::new()),
    };
    if then.epoch_len != epoch_len {
        return Err(Error::EpochLength {
            now: epoch_len,
            then: then.epoch_len,
        });
    }
    Ok(State {
        global_batch: hello.global_batch,
        sampling_hash: Some(hello.sampling_hash),
        manifest_checksum: Some(hello.manifest_checksum),
        config: config.resolved(),
        ..then
    })
}

/// Opens what rank 0 keeps of a run.
fn keep(config: &Config, dir: RunDir, run: &Run, started: Instant) -> Result<Keeper, run::Error> {
    let log = Log::open(
        dir.path(),
        &config.logging.write_tag,
        run.step,
        &epoch_lengths(&run.identity.lineage, run.epoch_len),
        config.trainer.log_every,
        started,
    )?;
    Keeper::new(dir, log, config.checkpoint.clone(), run.step, &run.parts())
}
