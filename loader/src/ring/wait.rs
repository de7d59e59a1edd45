//! Bounded waits, and how long they took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::block::Ring;
use super::control::{WaitCounters, Waited};
use super::error::Error;
use crate::sync::Word;

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

/// The times that the two sides of a ring have waited for each other, for threads that take no part in it.
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
}
