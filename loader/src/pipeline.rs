//! The pipeline: worker threads that turn (step, position) into pixels, straight into the slots of any number of rings.
//!
//! `serve` attaches one ring per rank; `bench`, `hash` and `show` attach one of their own process ([`Pipeline::local`]).
//!
//! ```text
//!  per ring: assembler thread ── claims free slots ahead ──▶ 1 mask job + B image jobs per slot ──┐
//!                                                                                                   ▼
//!  consumer ◀── published in order by whoever finishes the oldest slot ◀── workers ◀── one queue for all rings
//! ```
//!
//! Invariants:
//! * What lands in a slot depends on the sampler, step and position alone, never on which worker did it or when.
//! * Jobs of consecutive slots are in the queue together, so all workers stay busy across the border between batches.
//! * A damaged sample costs a replacement draw, not the run; a panicking worker costs its ring, not a hang: the ring is
//!   closed with the reason and the worker goes on.

mod assembly;
mod stages;
mod worker;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};
use rustix::thread::CpuSet;
use shardtool::codec::Largest;
use shardtool::{Dataset, Shard, Split};

use crate::config::{Fidelity, Loader, LoaderConfig};
use crate::memory::Mapping;
use crate::ring::{self, Consumer, Gauge, Geometry, Memory, Waited};
use crate::sampler::Sampler;
use assembly::{Assembly, assemble};
pub use stages::Stages;
use stages::WorkerCounters;
use worker::{Job, Worker};

/// Why a pipeline could not be started or attached to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data set cannot be opened.
    #[error(transparent)]
    Dataset(#[from] shardtool::Error),
    /// The data set has no split of that name.
    #[error("loader.split: {} has no split {wanted:?}; it has: {}", dir.display(), found.join(", "))]
    NoSplit {
        /// The data set.
        dir: std::path::PathBuf,
        /// The split asked for.
        wanted: String,
        /// The splits there are.
        found: Vec<String>,
    },
    /// The ring cannot be made.
    #[error(transparent)]
    Ring(#[from] ring::Error),
    /// The system gave no memory, or no thread.
    #[error("cannot make {what}: {source}")]
    System {
        /// What was asked for.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// One split of an opened data set.
#[derive(Debug)]
pub struct Source {
    dataset: Dataset,
    split: usize,
}

impl Source {
    /// Opens the data set in `dir` and looks for its split.
    pub fn open(dir: &Path, split: &str) -> Result<Source, Error> {
        let dataset = Dataset::open(dir)?;
        for split in dataset.splits() {
            split.shards().iter().for_each(Shard::expect_random_access);
        }
        match dataset
            .splits()
            .iter()
            .position(|found| found.name() == split)
        {
            Some(split) => Ok(Source { dataset, split }),
            None => Err(Error::NoSplit {
                dir: dir.to_owned(),
                wanted: split.to_owned(),
                found: dataset
                    .splits()
                    .iter()
                    .map(|split| split.name().to_owned())
                    .collect(),
            }),
        }
    }

    /// The split.
    pub fn split(&self) -> &Split {
        &self.dataset.splits()[self.split]
    }

    /// The data set.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }
}

/// The ring that fits a configuration.
pub fn geometry(config: &LoaderConfig, sampler: &Sampler) -> Geometry {
    let limits = sampler.mask_limits();
    let side = config.data.crop_size as usize;
    Geometry {
        slots: config.loader.slots,
        images_per_slot: config.data.batch_size as usize,
        channels: 3,
        height: side,
        width: side,
        context_masks: config.mask.num_enc_masks,
        target_masks: config.mask.num_pred_masks,
        max_context: limits.context,
        max_target: limits.target,
    }
}

/// Jobs that may wait; assemblers with more wait themselves. Enough to keep many workers busy across the border between
/// batches. A queue with a limit is one piece of memory, where one without would allocate as it goes.
const QUEUE: usize = 1 << 12;

/// Which groups a ring carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Number of the rank.
    pub rank: u32,
    /// Ranks in all.
    pub world: u32,
    /// The first step.
    pub first_step: u64,
    /// The step before which to end the ring; none: go on until the consumer leaves.
    pub end_step: Option<u64>,
}

impl Share {
    /// Steps `first..first + count`, all groups, for a consumer in this process.
    pub fn steps(first: u64, count: u64) -> Share {
        Share {
            rank: 0,
            world: 1,
            first_step: first,
            end_step: Some(first.saturating_add(count)),
        }
    }
}

/// How an attachment came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Every step of the share is published.
    Finished,
    /// The consumer has left the ring.
    Left,
    /// [`Attachment::stop`], or the end of the pipeline.
    Stopped,
    /// It cannot go on; the consumer finds the ring failed.
    Failed(String),
}

/// The workers and what they share.
#[derive(Debug)]
pub struct Pipeline {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    attached: Mutex<Vec<Weak<Assembly>>>,
}

/// What all workers and assemblers know.
#[derive(Debug)]
struct Shared {
    source: Source,
    fidelity: Fidelity,
    /// What the largest images of the split ask of a worker.
    largest: Largest,
    counters: Vec<WorkerCounters>,
    /// Samples that were named as damaged, so that each is named once.
    damaged: Mutex<HashSet<u64>>,
}

impl Shared {
    /// Names a damaged sample on stderr, the first time it is met.
    fn report_damage(&self, id: u64, error: &shardtool::Error) {
        let mut damaged = self
            .damaged
            .lock()
            .expect("nothing panics while holding it");
        if damaged.insert(id) {
            let name = self
                .source
                .split()
                .sample(id)
                .name()
                .map(|name| format!(" ({name})"))
                .unwrap_or_default();
            tracing::warn!("sample {id}{name} is damaged and replaced by another: {error}");
        }
    }
}

impl Pipeline {
    /// Starts `workers` threads on a split. Of the options, `fidelity` says how they decode, and with `pin_cores` each
    /// stays on one of the CPUs this process may use.
    pub fn start(source: Source, workers: usize, options: &Loader) -> Result<Pipeline, Error> {
        let workers = workers.max(1);
        let shards = source.split().shards().iter();
        let largest = Largest::of(shards.flat_map(|shard| shard.entries()));
        let shared = Arc::new(Shared {
            source,
            largest,
            fidelity: options.fidelity,
            counters: (0..workers).map(|_| WorkerCounters::default()).collect(),
            damaged: Mutex::default(),
        });
        let cpus = if options.pin_cores {
            allowed_cpus()
        } else {
            Vec::new()
        };
        let (jobs, queue) = bounded(QUEUE);
        let mut pipeline = Pipeline {
            shared,
            jobs: Some(jobs),
            workers: Vec::new(),
            attached: Mutex::default(),
        };
        for number in 0..workers {
            let (shared, queue): (_, Receiver<Job>) = (pipeline.shared.clone(), queue.clone());
            let cpu = (!cpus.is_empty()).then(|| cpus[number % cpus.len()]);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    if let Some(cpu) = cpu {
                        pin(cpu);
                    }
                    Worker::new(shared, number).run(&queue);
                });
            let thread = thread.map_err(|source| Error::System {
                what: format!("worker thread {number}"),
                source,
            })?;
            pipeline.workers.push(thread);
        }
        Ok(pipeline)
    }

    /// The split that is served.
    pub fn source(&self) -> &Source {
        &self.shared.source
    }

    /// Number of worker threads.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Makes a ring in zeroed `memory` and starts to fill it. `on_end` is called once, on the assembler's thread, when
    /// nothing more will be published; it must not drop the attachment.
    pub fn attach(
        &self,
        memory: Arc<dyn Memory>,
        geometry: Geometry,
        sampler: Arc<Sampler>,
        share: Share,
        on_end: impl FnOnce(End) + Send + 'static,
    ) -> Result<Attachment, Error> {
        let (claimer, publisher) = ring::create(memory, geometry)?;
        let gauge = claimer.gauge();
        let assembly = Arc::new(Assembly::new(sampler, geometry.width as u32, publisher));
        {
            let mut attached = self
                .attached
                .lock()
                .expect("nothing panics while holding it");
            attached.retain(|assembly| assembly.strong_count() > 0);
            attached.push(Arc::downgrade(&assembly));
        }
        let (shared, jobs) = (
            self.shared.clone(),
            self.jobs.clone().expect("present until the drop"),
        );
        let thread = {
            let assembly = assembly.clone();
            std::thread::Builder::new()
                .name(format!("assembler-{}", share.rank))
                .spawn(move || {
                    let end = assemble(&shared, &assembly, claimer, &jobs, share);
                    drop(jobs);
                    on_end(end);
                })
                .map_err(|source| Error::System {
                    what: "the assembler's thread".into(),
                    source,
                })?
        };
        Ok(Attachment {
            assembly,
            gauge,
            images_per_slot: geometry.images_per_slot as u64,
            thread: Some(thread),
        })
    }

    /// A ring inside this process, for commands that look at what the trainer would see.
    pub fn local(
        &self,
        geometry: Geometry,
        sampler: Arc<Sampler>,
        share: Share,
    ) -> Result<(Consumer, Attachment), Error> {
        let len = geometry.total_len()?;
        let (memory, _file) = Mapping::create(len).map_err(|source| Error::System {
            what: format!("{len} bytes of ring memory"),
            source,
        })?;
        let memory = Arc::new(memory);
        let attachment = self.attach(memory.clone(), geometry, sampler, share, |_| {})?;
        Ok((ring::attach(memory)?, attachment))
    }

    /// What the workers have done so far, and the time each stage took.
    pub fn stages(&self) -> Stages {
        self.shared.counters.iter().map(WorkerCounters::get).sum()
    }

    /// Number of different samples found damaged.
    pub fn damaged(&self) -> u64 {
        self.shared
            .damaged
            .lock()
            .expect("nothing panics while holding it")
            .len() as u64
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // Assemblers hold senders of jobs, and workers run as long as there is a sender.
        for assembly in self
            .attached
            .lock()
            .expect("nothing panics while holding it")
            .iter()
            .filter_map(Weak::upgrade)
        {
            assembly.stop();
        }
        self.jobs = None;
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// One ring in the making. Dropping it stops the work and joins its thread, which takes 50 ms at most.
#[derive(Debug)]
pub struct Attachment {
    assembly: Arc<Assembly>,
    gauge: Gauge,
    images_per_slot: u64,
    thread: Option<JoinHandle<()>>,
}

impl Attachment {
    /// Waiting so far: of the loader for room in the ring, and of the consumer for slots.
    pub fn waited(&self) -> (Waited, Waited) {
        self.gauge.waited()
    }

    /// Images published.
    pub fn images(&self) -> u64 {
        self.assembly.published() * self.images_per_slot
    }

    /// Images that stand in for a damaged sample.
    pub fn replaced(&self) -> u64 {
        self.assembly.replaced()
    }

    /// Stops filling the ring. What is published stays readable; the consumer then finds the ring failed.
    pub fn stop(&self) {
        self.assembly.stop();
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The CPUs this process may run on; none where the system does not tell.
pub fn allowed_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!("cannot pin a thread to CPU {cpu}: {error}");
    }
}
