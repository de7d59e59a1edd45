//! Damaged samples: each is named once, and their number is kept.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Mutex;

use shardtool::{Escaped, Split};

/// So many damaged samples of a shard are named one by one: one that is gone has thousands.
const NAMED: usize = 50;

/// The damaged samples met so far.
#[derive(Debug, Default)]
pub(super) struct Damage(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    samples: HashSet<u64>,
    of_shard: HashMap<PathBuf, usize>,
}

impl Damage {
    /// Emits an event that names a damaged sample, the first time it is met, and says whether another stands in for it.
    pub(super) fn report(
        &self,
        split: &Split,
        id: u64,
        is_replaced: bool,
        error: &shardtool::Error,
    ) {
        let outcome = match is_replaced {
            true => "replaced by another",
            false => "left out",
        };
        let sample = split.sample(id);
        let path = sample.shard().path();
        // The lock is given back before the event is written: a slow terminal must not hold up the other workers.
        let number = {
            let mut seen = self.seen();
            if !seen.samples.insert(id) {
                return;
            }
            let number = seen.of_shard.entry(path.to_owned()).or_default();
            *number += 1;
            *number
        };
        let name = sample.name();
        let name = name
            .map(|name| format!(" ({})", Escaped::new(name)))
            .unwrap_or_default();
        if number <= NAMED {
            tracing::warn!("sample {id}{name} is damaged and {outcome}: {error}");
        }
        if number == NAMED {
            tracing::warn!(
                "{}: {NAMED} samples are damaged; the others of this shard are {outcome} without a word",
                Escaped::new(path)
            );
        }
    }

    /// Returns the number of different samples found damaged.
    pub(super) fn count(&self) -> u64 {
        self.seen().samples.len() as u64
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().expect("nothing panics while holding it")
    }
}
