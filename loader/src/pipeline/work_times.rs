//! Where the workers' time goes: counters cheap enough to be always on (five clock readings per image of hundreds of
//! µs).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

/// Work done and time spent, summed over workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkTimes {
    /// Images written to slots.
    pub images: u64,
    /// Groups for which masks were drawn.
    pub groups: u64,
    /// Contexts in those masks.
    pub contexts: u64,
    /// Contexts that may overlap targets: [`GroupMasks::relaxed`](crate::masks::GroupMasks::relaxed).
    pub relaxed: u64,
    /// Payload bytes of those images.
    pub bytes: u64,
    /// Fetching a payload and verifying its checksum (page faults and disk are in here).
    pub read: Duration,
    /// Undoing the entropy coding: part of decoding, where the codec tells it apart.
    pub entropy: Duration,
    /// The rest of decoding.
    pub decode: Duration,
    /// Resampling to the crop size, into the slot.
    pub resize: Duration,
    /// Changing colours and sharpness, in the slot.
    pub augment: Duration,
    /// Drawing masks.
    pub masks: Duration,
}

impl WorkTimes {
    /// Returns in words how many contexts may overlap targets, if any do.
    pub fn relaxed_contexts(&self) -> Option<String> {
        let (relaxed, contexts) = (self.relaxed, self.contexts);
        let share = 100.0 * relaxed as f64 / contexts.max(1) as f64;
        (relaxed > 0).then(|| {
            format!(
                "{relaxed} of {contexts} contexts ({share:.2} %) found no place clear of the targets and may overlap them"
            )
        })
    }

    /// Returns the work since an earlier reading.
    pub fn since(&self, earlier: &WorkTimes) -> WorkTimes {
        WorkTimes {
            images: self.images - earlier.images,
            groups: self.groups - earlier.groups,
            contexts: self.contexts - earlier.contexts,
            relaxed: self.relaxed - earlier.relaxed,
            bytes: self.bytes - earlier.bytes,
            read: self.read - earlier.read,
            entropy: self.entropy - earlier.entropy,
            decode: self.decode - earlier.decode,
            resize: self.resize - earlier.resize,
            augment: self.augment - earlier.augment,
            masks: self.masks - earlier.masks,
        }
    }
}

impl std::iter::Sum for WorkTimes {
    fn sum<I: Iterator<Item = WorkTimes>>(parts: I) -> WorkTimes {
        parts.fold(WorkTimes::default(), |sum, part| WorkTimes {
            images: sum.images + part.images,
            groups: sum.groups + part.groups,
            contexts: sum.contexts + part.contexts,
            relaxed: sum.relaxed + part.relaxed,
            bytes: sum.bytes + part.bytes,
            read: sum.read + part.read,
            entropy: sum.entropy + part.entropy,
            decode: sum.decode + part.decode,
            resize: sum.resize + part.resize,
            augment: sum.augment + part.augment,
            masks: sum.masks + part.masks,
        })
    }
}

/// A worker's counters, on cache lines of its own. Relaxed throughout: they order nothing.
#[derive(Debug, Default)]
pub(super) struct WorkerCounters(CachePadded<Counters>);

#[derive(Debug, Default)]
struct Counters {
    images: AtomicU64,
    groups: AtomicU64,
    contexts: AtomicU64,
    relaxed: AtomicU64,
    bytes: AtomicU64,
    read: AtomicU64,
    entropy: AtomicU64,
    decode: AtomicU64,
    resize: AtomicU64,
    augment: AtomicU64,
    masks: AtomicU64,
}

impl WorkerCounters {
    pub(super) fn add(&self, work: WorkTimes) {
        let counters = &*self.0;
        let nanoseconds = |time: Duration| time.as_nanos() as u64;
        for (counter, value) in [
            (&counters.images, work.images),
            (&counters.groups, work.groups),
            (&counters.contexts, work.contexts),
            (&counters.relaxed, work.relaxed),
            (&counters.bytes, work.bytes),
            (&counters.read, nanoseconds(work.read)),
            (&counters.entropy, nanoseconds(work.entropy)),
            (&counters.decode, nanoseconds(work.decode)),
            (&counters.resize, nanoseconds(work.resize)),
            (&counters.augment, nanoseconds(work.augment)),
            (&counters.masks, nanoseconds(work.masks)),
        ] {
            counter.fetch_add(value, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> WorkTimes {
        let counters = &*self.0;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = |counter: &AtomicU64| Duration::from_nanos(get(counter));
        WorkTimes {
            images: get(&counters.images),
            groups: get(&counters.groups),
            contexts: get(&counters.contexts),
            relaxed: get(&counters.relaxed),
            bytes: get(&counters.bytes),
            read: time(&counters.read),
            entropy: time(&counters.entropy),
            decode: time(&counters.decode),
            resize: time(&counters.resize),
            augment: time(&counters.augment),
            masks: time(&counters.masks),
        }
    }
}
