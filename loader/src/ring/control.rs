//! The ring's header as it lies in memory: one structure per writer (see the table in [`super`]).

use std::sync::atomic::AtomicU64 as Counter;
use std::time::Duration;

use crate::sync::{AtomicU32, AtomicU64, Ordering, Word};

/// The first word of a ring.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"IJEPRING");
/// `ended`: no slot will follow.
pub(super) const ENDED: u32 = 1;
/// `ended`: the producer failed.
pub(super) const FAILED: u32 = 2;

/// The ring's header. Its layout is checked by a golden test.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Control {
    pub(super) identity: Identity,
    pub(super) producer: ProducerLine,
    pub(super) consumer: ConsumerLine,
}

/// Two cache lines per writer: processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct Identity {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU32,
    pub(super) header_len: AtomicU32,
    pub(super) geometry: [AtomicU32; 9],
    pub(super) total_len: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct ProducerLine {
    pub(super) published: AtomicU64,
    pub(super) word: Word,
    pub(super) ended: AtomicU32,
    pub(super) waits: WaitCounters,
}

#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct ConsumerLine {
    pub(super) released: AtomicU64,
    pub(super) word: Word,
    pub(super) left: AtomicU32,
    pub(super) attached: AtomicU32,
    pub(super) waits: WaitCounters,
}

/// Counters of one side, for people. Relaxed throughout: nothing is ordered by them and each has one writer. They take
/// no part in the protocol, so they are std's atomics even under loom, which then has fewer interleavings to try.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct WaitCounters {
    first_ns: Counter,
    steady_ns: Counter,
    count: Counter,
}

/// Time that one side of a ring has spent waiting for the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// Start-up: before the other side's first slot (or release) came.
    pub start: Duration,
    /// All later waits.
    pub steady: Duration,
    /// How often there was something to wait for.
    pub count: u64,
}

impl WaitCounters {
    pub(super) fn add(&self, waited: Duration, steady: bool) {
        let (time, waited) = (
            if steady {
                &self.steady_ns
            } else {
                &self.first_ns
            },
            waited.as_nanos() as u64,
        );
        // Relaxed, and no read-modify-write needed: see the type.
        time.store(time.load(Ordering::Relaxed) + waited, Ordering::Relaxed);
    }

    pub(super) fn count(&self) {
        // Relaxed: see the type.
        self.count
            .store(self.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Waited {
        // Relaxed: see the type.
        Waited {
            start: Duration::from_nanos(self.first_ns.load(Ordering::Relaxed)),
            steady: Duration::from_nanos(self.steady_ns.load(Ordering::Relaxed)),
            count: self.count.load(Ordering::Relaxed),
        }
    }
}
