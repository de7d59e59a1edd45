//! One ring in the making: its assembler thread claims slots ahead and queues their jobs; whoever finishes a part publishes
//! what has become complete.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam::channel::Sender;

use super::worker::Job;
use super::{End, Share, Shared};
use crate::link::rank_groups;
use crate::ring::{self, ClaimedSlot, Claimer, Publisher};
use crate::sampler::Sampler;

/// How late an assembler may notice that it was stopped.
const TICK: Duration = Duration::from_millis(50);

/// What the jobs of one ring share.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) sampler: Arc<Sampler>,
    /// Side of the square images, in pixels.
    pub(super) side: u32,
    stopped: AtomicBool,
    replaced: AtomicU64,
    output: Mutex<Output>,
    /// Notified when the output is complete or has failed.
    changed: Condvar,
}

#[derive(Debug)]
struct Output {
    publisher: Publisher,
    /// Claimed slots, oldest first.
    pending: VecDeque<ClaimedSlot>,
    /// Set when the last slot of the share is pending.
    complete: bool,
    failure: Option<String>,
}

impl Assembly {
    pub(super) fn new(sampler: Arc<Sampler>, side: u32, publisher: Publisher) -> Assembly {
        let output = Output {
            publisher,
            pending: VecDeque::new(),
            complete: false,
            failure: None,
        };
        Assembly {
            sampler,
            side,
            stopped: AtomicBool::new(false),
            replaced: AtomicU64::new(0),
            output: Mutex::new(output),
            changed: Condvar::new(),
        }
    }

    /// Slots published so far.
    pub(super) fn published(&self) -> u64 {
        self.lock().publisher.published()
    }

    /// Counts an image that stands in for a damaged sample.
    pub(super) fn count_replaced(&self) {
        // Relaxed, here and below: a number for people.
        self.replaced.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().expect("nothing panics while publishing")
    }

    pub(super) fn is_stopped(&self) -> bool {
        // Relaxed: a flag that carries nothing with it; reasons are behind the mutex.
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.lock().publisher.fail();
        self.changed.notify_all();
    }

    /// Closes the ring as failed. The first reason is the one that counts.
    pub(super) fn fail(&self, reason: String) {
        self.lock().failure.get_or_insert(reason);
        self.stop();
    }

    /// Publishes every complete slot at the head of the queue. Called after each finished part, so that whoever finishes
    /// the last part of the oldest slot publishes it, and those behind it that were waiting.
    pub(super) fn publish_ready(&self) {
        let mut output = self.lock();
        while !self.is_stopped() && output.pending.front().is_some_and(ClaimedSlot::is_complete) {
            let slot = output.pending.pop_front().expect("there is a front");
            if let Err(error) = output.publisher.publish(slot) {
                drop(output);
                return self.fail(error.to_string());
            }
        }
        if output.complete && output.pending.is_empty() {
            output.publisher.end();
            self.changed.notify_all();
        }
    }
}

/// Claims slots and queues their jobs until the share is done or somebody ends it.
pub(super) fn assemble(
    shared: &Shared,
    assembly: &Arc<Assembly>,
    mut claimer: Claimer,
    jobs: &Sender<Job>,
    share: Share,
) -> End {
    let sampler = &assembly.sampler;
    let batch = sampler.global_batch() / sampler.groups();
    let groups = rank_groups(share.rank, share.world, sampler.groups());
    let stopped = || {
        assembly
            .lock()
            .failure
            .clone()
            .map_or(End::Stopped, End::Failed)
    };
    for step in share.first_step..share.end_step.unwrap_or(u64::MAX) {
        for group in groups.clone() {
            let (slot, images, masks) = loop {
                if assembly.is_stopped() {
                    return stopped();
                }
                match claimer.claim(TICK) {
                    Ok(claimed) => break claimed,
                    Err(ring::Error::TimedOut { .. }) => {}
                    Err(ring::Error::Left) => {
                        assembly.stop();
                        return End::Left;
                    }
                    Err(error) => {
                        assembly.fail(error.to_string());
                        return stopped();
                    }
                }
            };
            assembly.lock().pending.push_back(slot);
            // Masks first: they are one long job, which had better not be the last of its slot.
            let job = Job::Masks {
                assembly: assembly.clone(),
                part: masks,
                step,
                group,
            };
            if jobs.send(job).is_err() {
                return End::Stopped;
            }
            for part in images {
                let position = group * batch + part.index() as u64;
                shared
                    .source
                    .split()
                    .sample(sampler.sample_id(step, position))
                    .prefetch();
                let job = Job::Image {
                    assembly: assembly.clone(),
                    part,
                    step,
                    position,
                };
                if jobs.send(job).is_err() {
                    return End::Stopped;
                }
            }
        }
    }
    assembly.lock().complete = true;
    assembly.publish_ready();
    let mut output = assembly.lock();
    while !output.pending.is_empty() && !assembly.is_stopped() {
        output = assembly
            .changed
            .wait(output)
            .expect("nothing panics while publishing");
    }
    drop(output);
    if assembly.is_stopped() {
        stopped()
    } else {
        End::Finished
    }
}
