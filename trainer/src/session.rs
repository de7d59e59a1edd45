//! A run put together: from a configuration to the first step, and from the last step to what became of it.

mod agreement;
mod beginning;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loader::config::LoaderConfig;
use loader::link::{Endpoint, Hello, PROTOCOL, Welcome, default_socket_path};
use loader::sampler::Plan;
use serde_json::Map;
use shardtool::{Escaped, Manifest};
use tch::Device;

use crate::checkpoint::{Change, State, epoch_lengths};
use crate::config::resume::GLOBAL_BATCH;
use crate::config::{self, Config};
use crate::distributed::{self, First, Place, Ranks, World};
use crate::observe::{Log, Report};
use crate::run::{self, Begin, Keeper, Resume, RunDir, Terms};
use crate::source::{self, LoaderSource};
use crate::stop::{self, Stop};
use crate::train::{self, Outcome, Run};
use beginning::Beginning;

/// Time that a trainer before this one has for its last step and checkpoint.
const HANDOVER: Duration = Duration::from_secs(30);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The circumstances of a run's start, beside its configuration.
#[derive(Debug)]
pub struct Start {
    /// Where to compute.
    pub device: Device,
    /// This process among those that train, and where they meet.
    pub place: Place,
    /// The network interface at which it listens for the others; by default the one that reaches the meeting place.
    pub interface: Option<String>,
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
    /// The other ranks.
    #[error(transparent)]
    Ranks(#[from] distributed::Error),
    /// There are more ranks than groups.
    #[error(
        "{world} ranks for {groups} group(s): each needs one at least; a step has optimization.global_batch / \
         data.batch_size groups"
    )]
    TooManyRanks {
        /// Ranks of the run.
        world: u32,
        /// Groups of a step.
        groups: u64,
    },
    /// The loader has epochs of another length than the checkpoint.
    #[error("the loader has epochs of {now} steps, the checkpoint of {then}")]
    EpochLength {
        /// Steps of the loader's epochs.
        now: u64,
        /// Steps of the checkpoint's.
        then: u64,
    },
}

impl Error {
    /// Tells if it may pass: other ranks were [lost or did not come](distributed::Error::may_pass).
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Ranks(error) | Error::Train(train::Error::Ranks(error)) => error.may_pass(),
            _ => false,
        }
    }
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
    /// Puts a run together: the other ranks, directory, checkpoint to begin with, loader, networks, log.
    ///
    /// # Errors
    /// What is missing or at odds, and the cure where there is one. Nothing of an earlier run is lost by it.
    pub fn open(config: &Config, start: Start, stop: Stop) -> Result<Opened, Error> {
        let terms = distributed::Terms {
            interface: start.interface.clone(),
            patience: Duration::from_secs(config.trainer.peer_patience),
        };
        let Some(ranks) = distributed::join(&start.place, &terms, &stop)? else {
            return Ok(stopped(&stop));
        };
        let last_words = ranks.last_words();
        let opened = Session::with(config.clone(), start, stop.clone(), ranks);
        match &opened {
            // Those that were asked to stop before this rank was have left.
            Err(error) if error.may_pass() && stop.asked().is_some() => return Ok(stopped(&stop)),
            // It is who is lost that left, or all ranks know.
            Err(error) if error.may_pass() || matches!(error, Error::Ranks(_)) => {}
            Err(error) => last_words.say(&error.to_string()),
            Ok(_) => {}
        }
        opened
    }

    fn with(mut config: Config, start: Start, stop: Stop, ranks: Ranks) -> Result<Opened, Error> {
        let world = ranks.world();
        let manifest = Manifest::read(&config.loader.shards_dir().map_err(config::Error::from)?)?;
        agreement::check(&config, &manifest, &ranks)?;
        let mut dir = None;
        let own = world
            .first()
            .map(|first| begin(&config, &manifest, world, first, &start, &stop, &mut dir));
        let found = match beginning::share(own, &ranks)? {
            Beginning::At(found, global_batch) => {
                // Where the configuration leaves it to the number of ranks, a run keeps the one that it had.
                config.loader.global_batch = Some(global_batch);
                *found
            }
            Beginning::Stopped(signal) => return Ok(Opened::Stopped(stop::name(signal))),
        };
        let expected = Welcome::expected(&config.loader, &manifest, world.world)
            .map_err(config::Error::from)?;
        let groups = expected.groups;
        if u64::from(world.world) > groups {
            let world = world.world;
            return Err(Error::TooManyRanks { world, groups });
        }
        let first_step = found.as_ref().map_or(0, |(_, state)| state.step);
        let hello = hello(&config, &manifest, world, first_step);
        if let Some((path, state)) = &found
            && state.step >= config.last_step(state.epoch_len)
        {
            return Ok(Opened::NothingToDo {
                checkpoint: path.clone(),
                step: state.step,
                epoch_len: state.epoch_len,
            });
        }
        announce(&config, dir.as_ref(), &start, &hello)?;
        if let (Some((path, state)), Some(_)) = (&found, &dir) {
            continuing(path, state, start.device);
        }

        let endpoint = start
            .endpoint
            .unwrap_or_else(|| Endpoint::Path(default_socket_path(hello.sampling_hash)));
        let patience = Duration::from_secs(config.trainer.loader_patience);
        let largest = config.model_for(config.loader.data.crop_size.largest())?;
        let sharing = world.local_world;
        train::memory::check(&largest, &config, &expected.geometry, start.device, sharing)
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
            ranks.last_words().say("it was asked to stop");
            return Ok(stopped(&stop));
        };
        let epoch_len = source.epoch_len();
        let state = initial(&config, &found, epoch_len, &hello)?;
        let checkpoint = found.as_ref().map(|(path, _)| path.as_path());
        let run = Run::new(&config, &state, checkpoint, start.device, ranks)?;
        let keeper = match dir {
            Some(dir) => Some(keep(&config, dir, &run, start.started)?),
            None => None,
        };
        if keeper.is_some() {
            tracing::info!(
                "{} steps of {} ({epoch_len} per epoch), {} thread(s)",
                run.total_steps,
                config.meta.model_name,
                tch::get_num_threads(),
            );
        }
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

/// Returns that a signal came before the first step.
fn stopped(stop: &Stop) -> Opened {
    Opened::Stopped(stop.asked().unwrap_or("a signal"))
}

/// Opens the run directory as rank 0, into `dir`, and decides where the run begins.
fn begin(
    config: &Config,
    manifest: &Manifest,
    world: World,
    first: First,
    start: &Start,
    stop: &Stop,
    dir: &mut Option<RunDir>,
) -> Result<Beginning, Error> {
    let Some(opened) = open_dir(config, first, stop)? else {
        return Ok(Beginning::Stopped(stop.signal().unwrap_or_default()));
    };
    let opened = dir.insert(opened);
    let mut config = config.clone();
    let batch = config.loader.global_batch(world.world.into());
    let found = match find(&config, manifest, batch, opened, start) {
        // The number of ranks made another global batch than it made then.
        Err(Error::Run(run::Error::OtherRun { changes, .. }))
            if config.loader.global_batch.is_none() && only_batch(&changes).is_some() =>
        {
            config.loader.global_batch = only_batch(&changes);
            let batch = config.loader.global_batch(world.world.into());
            let found = find(&config, manifest, batch, opened, start)?;
            return Ok(Beginning::At(Box::new(found), batch));
        }
        found => found?,
    };
    Ok(Beginning::At(Box::new(found), batch))
}

/// Returns the global batch of before, if nothing else has changed.
fn only_batch(changes: &[Change]) -> Option<u64> {
    match changes {
        [change] if change.key == GLOBAL_BATCH => change.then.as_u64(),
        _ => None,
    }
}

/// Finds the checkpoint to begin with, of a run with this global batch.
fn find(
    config: &Config,
    manifest: &Manifest,
    global_batch: u64,
    dir: &RunDir,
    start: &Start,
) -> Result<Begin, Error> {
    let loader = LoaderConfig {
        global_batch: Some(global_batch),
        ..config.loader.clone()
    };
    let expected = Welcome::expected(&loader, manifest, 1).map_err(config::Error::from)?;
    let terms = Terms {
        data: Some(run::Data {
            manifest_checksum: manifest.checksum(),
            global_batch,
            epoch_len: expected.epoch_len,
        }),
        allowed: start.allowed.clone(),
    };
    Ok(dir.begin(config, start.resume.as_ref(), &terms)?)
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
    // The others would say the same.
    let Some(dir) = dir else {
        return Ok(());
    };
    let text = dir.store_params(&config.resolved())?;
    tracing::info!("{text}");
    let (batch_size, world) = (config.loader.data.batch_size, u64::from(hello.world));
    let groups = hello.global_batch / batch_size;
    let each = match groups.is_multiple_of(world) {
        true => (groups / world).to_string(),
        false => format!("{} or {}", groups / world, groups / world + 1),
    };
    tracing::info!(
        "global batch {} = {groups} group(s) of {batch_size}, {each} on each of {world} rank(s)",
        hello.global_batch,
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
fn initial(config: &Config, found: &Begin, epoch_len: u64, hello: &Hello) -> Result<State, Error> {
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
    let mut log = Log::open(
        dir.path(),
        &config.logging.write_tag,
        run.step,
        &epoch_lengths(&run.identity.lineage, run.epoch_len),
        config.trainer.log_every,
        started,
    )?;
    if config.logging.tensorboard {
        log.add_events(dir.path());
    }
    Keeper::new(dir, log, config.checkpoint.clone(), run.step, &run.parts())
}
