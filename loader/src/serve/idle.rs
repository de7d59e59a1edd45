//! Consumers that take nothing.

use std::time::Duration;

use tokio::time::Instant;

/// How long a consumer may leave a full ring alone before it is named.
const NAME_AFTER: Duration = Duration::from_secs(60);

/// Notices a consumer that gives no slot back although all others are filled.
///
/// It is named after a minute, and again when that time has doubled: a long step or a checkpoint is no fault.
#[derive(Debug)]
pub(super) struct Idle {
    released: u64,
    since: Instant,
    name_after: Duration,
}

impl Idle {
    /// Begins to look.
    pub(super) fn new(now: Instant) -> Idle {
        Idle {
            released: 0,
            since: now,
            name_after: NAME_AFTER,
        }
    }

    /// Looks at `released` slots of a ring, and whether all others are filled. Returns for how long nothing has
    /// happened, if that is to be said now.
    pub(super) fn look(&mut self, now: Instant, released: u64, is_full: bool) -> Option<Duration> {
        if released != self.released || !is_full {
            *self = Idle {
                released,
                ..Idle::new(now)
            };
            return None;
        }
        let idle = now - self.since;
        if idle < self.name_after {
            return None;
        }
        self.name_after *= 2;
        Some(idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_named_less_and_less_often_until_it_moves() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut idle = Idle::new(start);
        let mut named = |from: u64, to: u64, released, is_full| {
            let mut look = |second: &u64| idle.look(at(*second), released, is_full).is_some();
            (from..to)
                .filter(|second| look(second))
                .collect::<Vec<u64>>()
        };
        assert_eq!(named(0, 500, 0, true), [60, 120, 240, 480]);
        assert_eq!(named(500, 600, 3, true), [560]);
        // Here it is the loader that is slow.
        assert_eq!(named(600, 1000, 3, false), [0; 0]);
        assert_eq!(named(1000, 1100, 3, true), [1059]);
    }
}
