//! The pipeline: worker threads that turn (step, position) into pixels, straight into the slots of any number of rings.
//!
//! `serve` attaches one ring per rank; `bench`, `hash` and `show` attach one of their own process
//! ([`Pipeline::local`]).
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

mod assembler;
mod assembly;
mod attachment;
mod damage;
mod end;
mod error;
mod job;
mod open_split;
mod original;
mod pinning;
mod relaxed;
mod shared;
mod work_times;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};
use shardtool::codec::Largest;

use crate::config::Loader;
use crate::memory::Mapping;
use crate::ring::{self, Consumer, Geometry, Memory};
use crate::sampler::Sampler;
use crate::share::RankShare;

use assembler::assemble;
use assembly::Assembly;
use damage::Damage;
use job::Job;
use relaxed::RelaxedContexts;
use shared::Shared;
use work_times::WorkerCounters;
use worker::Worker;

pub use crate::link::geometry;
pub use attachment::Attachment;
pub use end::{End, Failure};
pub use error::Error;
pub use open_split::OpenSplit;
pub use pinning::{allowed_cpus, pin};
pub use work_times::WorkTimes;

/// Jobs that may wait; assemblers with more wait themselves. Enough to keep many workers busy across the border between
/// batches. A queue with a limit is one piece of memory, where one without would allocate as it goes.
const QUEUE: usize = 1 << 12;

/// The workers and what they share.
#[derive(Debug)]
pub struct Pipeline {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    attached: Mutex<Vec<Weak<Assembly>>>,
}

impl Pipeline {
    /// Starts `workers` threads on a split. Of the options, `fidelity` says how they decode, and with `pin_cores` each
    /// stays on one of the CPUs this process may use.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(source: OpenSplit, workers: usize, options: &Loader) -> Result<Pipeline, Error> {
        let workers = workers.max(1);
        let shards = source.split().shards().iter();
        let largest = Largest::of(shards.flat_map(|shard| shard.entries()));
        let shared = Arc::new(Shared {
            source,
            largest,
            fidelity: options.fidelity,
            counters: (0..workers).map(|_| WorkerCounters::default()).collect(),
            damage: Damage::default(),
            relaxed: RelaxedContexts::default(),
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
            let thread = thread.map_err(|cause| Error::System {
                what: format!("worker thread {number}"),
                cause,
            })?;
            pipeline.workers.push(thread);
        }
        Ok(pipeline)
    }

    /// Returns the split that is served.
    pub fn source(&self) -> &OpenSplit {
        &self.shared.source
    }

    /// Returns the number of worker threads.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Makes a ring in zeroed `memory` and starts to fill it. `on_end` is called once, on the assembler's thread, when
    /// nothing more will be published; it must not drop the attachment.
    ///
    /// # Errors
    /// If the memory does not fit the geometry, or the system gives no thread.
    pub fn attach(
        &self,
        memory: Arc<dyn Memory>,
        geometry: Geometry,
        sampler: impl Into<Sampler>,
        share: RankShare,
        on_end: impl FnOnce(End) + Send + 'static,
    ) -> Result<Attachment, Error> {
        let (claimer, publisher) = ring::create(memory, geometry)?;
        let wait_times = claimer.wait_times();
        let assembly = Arc::new(Assembly::new(sampler.into(), &geometry, publisher));
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
                .map_err(|cause| Error::System {
                    what: "the assembler's thread".into(),
                    cause,
                })?
        };
        Ok(Attachment {
            assembly,
            wait_times,
            images_per_slot: geometry.images_per_slot as u64,
            thread: Some(thread),
        })
    }

    /// Attaches a ring inside this process, for commands that look at what the trainer would see.
    ///
    /// # Errors
    /// If there is no memory for the ring, or no thread.
    pub fn local(
        &self,
        geometry: Geometry,
        sampler: impl Into<Sampler>,
        share: RankShare,
    ) -> Result<(Consumer, Attachment), Error> {
        let len = geometry.total_len()?;
        let (memory, _file) = Mapping::create(len)?;
        let memory = Arc::new(memory);
        let attachment = self.attach(memory.clone(), geometry, sampler, share, |_| {})?;
        Ok((ring::attach(memory)?, attachment))
    }

    /// Returns what the workers have done so far, and the time each stage took.
    pub fn work_times(&self) -> WorkTimes {
        self.shared.counters.iter().map(WorkerCounters::get).sum()
    }

    /// Returns the number of different samples found damaged.
    pub fn damaged(&self) -> u64 {
        self.shared.damage.count()
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
