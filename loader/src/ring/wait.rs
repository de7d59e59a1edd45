//! Bounded waits, and how long they took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::block::Ring;
use super::control::{WaitCounters, Waited};
use super::error::Error;
use crate::sync::{Ordering, Word};

/// Repeats `look` until it finds something or `timeout` is over, sleeping on `word` in between; counts the waiting.
pub(super) fn wait<T>(
    word: &Word,
    timeout: Duration,
    awaited: &'static str,
    counters: &WaitCounters,
    steady: bool,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let mut start = None;
    let outcome = loop {
        let seen = word.observe();
        match look() {
            Ok(None) => {}
            Ok(Some(found)) => break Ok(found),
            Err(error) => break Err(error),
        }
        let waited = start.get_or_insert_with(Instant::now).elapsed();
        if waited >= timeout {
            break Err(Error::TimedOut {
                awaited,
                waited: timeout,
            });
        }
        word.sleep(seen, timeout - waited);
    };
    if let Some(start) = start {
        counters.add(start.elapsed(), steady);
        if outcome.is_ok() {
            counters.count();
        }
    }
    outcome
}

/// A ring as threads see it that take no part in it: who has waited for whom, and how far the consumer is.
#[derive(Debug)]
pub struct WaitTimes {
    pub(super) ring: Arc<Ring>,
}

impl WaitTimes {
    /// Returns the waiting so far: of the producer for room, and of the consumer for slots.
    ///
    /// A wait counts when it ends or times out.
    pub fn waited(&self) -> (Waited, Waited) {
        self.ring.waited()
    }

    /// Returns how many slots the consumer has given back, and whether all others are published and wait for it.
    pub fn released(&self) -> (u64, bool) {
        let control = self.ring.control();
        // Relaxed: numbers for people.
        let released = control.consumer.released.load(Ordering::Relaxed);
        let published = control.producer.published.load(Ordering::Relaxed);
        let slots = self.ring.geometry.slots as u64;
        (released, published.saturating_sub(released) >= slots)
    }
}
