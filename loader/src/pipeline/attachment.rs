//! A ring that a pipeline fills, in the hands of whoever asked for it.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::assembly::Assembly;
use crate::ring::{WaitTimes, Waited};

/// A ring that is being filled. Dropping it stops the work and joins its thread, which takes 50 ms at most.
#[derive(Debug)]
pub struct Attachment {
    pub(super) assembly: Arc<Assembly>,
    pub(super) wait_times: WaitTimes,
    pub(super) images_per_slot: u64,
    pub(super) thread: Option<JoinHandle<()>>,
}

impl Attachment {
    /// Returns the waiting so far: of the loader for room in the ring, and of the consumer for slots.
    pub fn waited(&self) -> (Waited, Waited) {
        self.wait_times.waited()
    }

    /// Returns how many slots the consumer has given back, and whether all others wait for it.
    pub fn released(&self) -> (u64, bool) {
        self.wait_times.released()
    }

    /// Returns the number of images published.
    pub fn images(&self) -> u64 {
        self.assembly.published() * self.images_per_slot
    }

    /// Returns the number of images that stand in for a damaged sample.
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
