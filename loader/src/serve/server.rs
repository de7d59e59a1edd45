//! What the loader serves, and the rings that it makes for ranks.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use shardtool::Escaped;
use tokio::sync::oneshot;

use super::complaints::Complaints;
use crate::config::LoaderConfig;
use crate::link::{Hello, Refusal, Served, Welcome};
use crate::memory::{self, Mapping};
use crate::pipeline::{self, Attachment, End, Pipeline};
use crate::ring;
use crate::sampler::{Plan, Sampler};

/// How long the memory of a ring may be in use after its consumer has gone.
const RING_ENDS: Duration = Duration::from_secs(3);

/// A ring that was made for a rank, and the answer to its hello.
pub(super) struct Prepared {
    /// The answer.
    pub(super) welcome: Welcome,
    /// The ring's memory, for the other process.
    pub(super) memory: OwnedFd,
    /// The filling of the ring.
    pub(super) attachment: Arc<Attachment>,
    /// How that came to its end.
    pub(super) ended: oneshot::Receiver<End>,
}

/// The reason why a rank is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unserved {
    #[error(transparent)]
    Refusal(#[from] Refusal),
    #[error(transparent)]
    Config(#[from] crate::Error),
    #[error(transparent)]
    Geometry(#[from] ring::Error),
    #[error(transparent)]
    Memory(#[from] memory::Error),
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    #[error("preparing the ring panicked: {}", Escaped::new(.0))]
    Panic(String),
}

/// What all connections share.
pub(super) struct Server {
    pub(super) pipeline: Arc<Pipeline>,
    /// Warnings about peers.
    pub(super) complaints: Complaints,
    plan: Plan,
    config: LoaderConfig,
    /// For the statistics only; connections own their attachments.
    attached: Mutex<Vec<Weak<Attachment>>>,
}

impl Server {
    pub(super) fn new(pipeline: Arc<Pipeline>, plan: Plan, config: LoaderConfig) -> Server {
        Server {
            pipeline,
            complaints: Complaints::default(),
            plan,
            config,
            attached: Mutex::default(),
        }
    }

    /// Returns the rings that are being filled, and some that have gone.
    pub(super) fn attached(&self) -> MutexGuard<'_, Vec<Weak<Attachment>>> {
        self.attached
            .lock()
            .expect("nothing panics while holding it")
    }

    /// Checks a hello and makes the ring that it asks for. An error is the reason for the refusal.
    pub(super) fn prepare(&self, hello: &Hello) -> Result<Prepared, Unserved> {
        let source = self.pipeline.source();
        let manifest = source.dataset().manifest();
        let mut config = self.config.clone();
        let global_batch = match self.plan {
            // Where the configuration does not say, the run does: it keeps its own on another number of ranks.
            Plan::Pretraining => *config.global_batch.get_or_insert(hello.global_batch),
            Plan::Evaluation | Plan::Probing => config.data.batch_size,
        };
        let served = Served {
            plan: self.plan,
            sampling_hash: config.plan_hash(self.plan),
            manifest_checksum: manifest.checksum(),
            global_batch,
            groups: global_batch / config.data.batch_size,
        };
        hello.check(&served)?;
        let samples = source.split().len();
        let sampler = Sampler::new(self.plan, &config, samples, u64::from(hello.world))?;
        let geometry = sampler.geometry(&config);
        let len = geometry.total_len()?;
        self.room(hello.world, len)?;
        let (mapping, memory) = Mapping::create(len)?;
        let (ended, end) = oneshot::channel();
        let attachment = self.pipeline.attach(
            Arc::new(mapping),
            geometry,
            sampler.clone(),
            hello.share(),
            |end| drop(ended.send(end)),
        )?;
        let welcome = Welcome::of(&config, manifest, samples, &sampler);
        Ok(Prepared {
            welcome,
            memory,
            attachment: Arc::new(attachment),
            ended: end,
        })
    }

    /// Makes sure that there is memory for a ring of `len` bytes for each rank that has none yet.
    fn room(&self, world: u32, len: usize) -> Result<(), memory::Error> {
        let start = Instant::now();
        loop {
            let attached = {
                let rings = self.attached();
                rings.iter().filter(|ring| ring.strong_count() > 0).count() as u64
            };
            let missing = u64::from(world).saturating_sub(attached).max(1);
            match memory::check(missing, len) {
                // A rank that comes back may be faster than the end of the ring that it had.
                Err(_) if attached > 0 && start.elapsed() < RING_ENDS => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}
