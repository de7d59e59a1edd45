//! What the ring needs from the machine: atomics and a futex, each with a stand-in under loom.
//!
//! Used by `ring` alone. With `--cfg loom` the same protocol code runs on loom's atomics, and [`Word`] sleeps on a loom
//! mutex and condition variable which have the futex's contract: the value is compared and the sleeper queued in one
//! step, so a wake-up that follows a change is never lost, and one that is missing shows up as a deadlock.

use std::time::Duration;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A 32-bit event count on which another process may sleep. It says only "look again"; what happened is in the cursors.
#[cfg(not(loom))]
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Word(AtomicU32);

#[cfg(not(loom))]
impl Word {
    /// Returns the present count, to be taken *before* looking at the state that the sleeper waits for.
    pub(crate) fn observe(&self) -> u32 {
        // SYNC word: pairs with the Release in `announce`; whoever sees the new count sees the state behind it.
        self.0.load(Ordering::Acquire)
    }

    /// Counts one event and wakes all sleepers. Called *after* the state was changed.
    pub(crate) fn announce(&self) {
        // SYNC word: pairs with the Acquire in `observe`.
        self.0.fetch_add(1, Ordering::Release);
        #[cfg(not(miri))]
        {
            // Not PRIVATE: the sleeper may be another process. The call cannot fail on a mapped, aligned word.
            let _ = rustix::thread::futex::wake(
                &self.0,
                rustix::thread::futex::Flags::empty(),
                i32::MAX as u32,
            );
        }
    }

    /// Sleeps until the count differs from `seen`, somebody announces, `timeout` is over, or for no reason at all.
    pub(crate) fn sleep(&self, seen: u32, timeout: Duration) {
        #[cfg(not(miri))]
        {
            let timeout = rustix::thread::futex::Timespec {
                tv_sec: timeout.as_secs().min(i32::MAX as u64) as i64,
                tv_nsec: i64::from(timeout.subsec_nanos()),
            };
            // Every outcome (woken, changed before sleeping, interrupted, out of time) means the same: look again.
            let _ = rustix::thread::futex::wait(
                &self.0,
                rustix::thread::futex::Flags::empty(),
                seen,
                Some(&timeout),
            );
        }
        #[cfg(miri)]
        {
            let _ = (seen, timeout);
            std::thread::yield_now();
        }
    }
}

/// The loom stand-in. It ignores time-outs: a wait that only ends by its time-out is a lost wake-up, and loom reports
/// it.
#[cfg(loom)]
#[derive(Debug, Default)]
pub(crate) struct Word {
    count: AtomicU32,
    lock: loom::sync::Mutex<()>,
    sleepers: loom::sync::Condvar,
}

#[cfg(loom)]
impl Word {
    pub(crate) fn observe(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn announce(&self) {
        self.count.fetch_add(1, Ordering::Release);
        let _queue = self.lock.lock().unwrap();
        self.sleepers.notify_all();
    }

    pub(crate) fn sleep(&self, seen: u32, _timeout: Duration) {
        let queue = self.lock.lock().unwrap();
        if self.count.load(Ordering::Relaxed) == seen {
            drop(self.sleepers.wait(queue).unwrap());
        }
    }
}
