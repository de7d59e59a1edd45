//! Damaged samples: each is named once, and their number is kept.

use std::collections::HashSet;
use std::sync::Mutex;

use shardtool::{Escaped, Split};

/// The damaged samples met so far.
#[derive(Debug, Default)]
pub(super) struct Damage {
    seen: Mutex<HashSet<u64>>,
}

impl Damage {
    /// Emits an event that names a damaged sample, the first time it is met.
    pub(super) fn report(&self, split: &Split, id: u64, error: &shardtool::Error) {
        // The lock is given back before the event is written: a slow terminal must not hold up the other workers.
        let new = self.seen().insert(id);
        if new {
            let sample = split.sample(id);
            let name = sample.name();
            let name = name
                .map(|name| format!(" ({})", Escaped::new(name)))
                .unwrap_or_default();
            tracing::warn!("sample {id}{name} is damaged and replaced by another: {error}");
        }
    }

    /// Returns the number of different samples found damaged.
    pub(super) fn count(&self) -> u64 {
        self.seen().len() as u64
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.seen.lock().expect("nothing panics while holding it")
    }
}
