//! A ring in the making: claimed slots in their order, published by whoever finishes the oldest one's last part.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use super::end::{End, Failure};
use crate::ring::{ClaimedSlot, Geometry, Publisher};
use crate::sampler::Sampler;

/// What the jobs of one ring share.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) sampler: Sampler,
    pub(super) images_per_slot: u64,
    /// Side of the largest images, in pixels.
    pub(super) largest: u32,
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
    failure: Option<Failure>,
}

impl Assembly {
    pub(super) fn new(sampler: Sampler, geometry: &Geometry, publisher: Publisher) -> Assembly {
        let output = Output {
            publisher,
            pending: VecDeque::new(),
            complete: false,
            failure: None,
        };
        Assembly {
            sampler,
            images_per_slot: geometry.images_per_slot as u64,
            largest: geometry.width as u32,
            stopped: AtomicBool::new(false),
            replaced: AtomicU64::new(0),
            output: Mutex::new(output),
            changed: Condvar::new(),
        }
    }

    /// Returns the number of slots published.
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
    pub(super) fn fail(&self, reason: Failure) {
        self.lock().failure.get_or_insert(reason);
        self.stop();
    }

    /// Publishes every complete slot at the head of the queue. Called after each finished part, so that whoever
    /// finishes the last part of the oldest slot publishes it, and those behind it that were waiting.
    pub(super) fn publish_ready(&self) {
        let mut output = self.lock();
        while !self.is_stopped() && output.pending.front().is_some_and(ClaimedSlot::is_complete) {
            let slot = output.pending.pop_front().expect("there is a front");
            if let Err(error) = output.publisher.publish(slot) {
                drop(output);
                return self.fail(error.into());
            }
        }
        if output.complete && output.pending.is_empty() {
            output.publisher.end();
            self.changed.notify_all();
        }
    }

    /// Takes charge of a claimed slot, behind all earlier ones.
    pub(super) fn push(&self, slot: ClaimedSlot) {
        self.lock().pending.push_back(slot);
    }

    /// Says that no slot will follow, and waits until all are published or somebody has stopped the work.
    pub(super) fn finish(&self) {
        self.lock().complete = true;
        self.publish_ready();
        let mut output = self.lock();
        while !output.pending.is_empty() && !self.is_stopped() {
            output = self
                .changed
                .wait(output)
                .expect("nothing panics while publishing");
        }
    }

    /// Returns how the work came to its end, once it has.
    pub(super) fn end(&self) -> End {
        if !self.is_stopped() {
            return End::Finished;
        }
        let failure = self.lock().failure.clone();
        failure.map_or(End::Stopped, End::Failed)
    }
}
