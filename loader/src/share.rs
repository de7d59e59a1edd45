//! The part of a run's steps that one rank consumes.
//!
//! Link and pipeline use it: a rank asks for a share in its hello, and the pipeline fills a ring with it.

use std::ops::Range;

/// The groups that one ring carries: a rank's part of every step, from one step to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankShare {
    /// Number of the rank.
    pub rank: u32,
    /// Number of ranks.
    pub world: u32,
    /// The first step.
    pub first_step: u64,
    /// The step before which to end the ring; none: go on until the consumer leaves.
    pub end_step: Option<u64>,
}

impl RankShare {
    /// Returns all groups of steps `first..first + count`, for a consumer in this process.
    pub fn steps(first: u64, count: u64) -> RankShare {
        RankShare {
            end_step: Some(first.saturating_add(count)),
            ..RankShare::from_step(first)
        }
    }

    /// Returns all groups from step `first` on, without an end.
    pub fn from_step(first: u64) -> RankShare {
        RankShare {
            rank: 0,
            world: 1,
            first_step: first,
            end_step: None,
        }
    }

    /// Returns which of a step's `groups` belong to this rank.
    pub fn groups(&self, groups: u64) -> Range<u64> {
        let first = |rank: u64| rank * groups / u64::from(self.world);
        first(u64::from(self.rank))..first(u64::from(self.rank) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_the_groups_in_order() {
        for (world, groups) in [(1, 4), (2, 4), (4, 4), (3, 12), (3, 4), (4, 7), (5, 16)] {
            let share = |rank| RankShare {
                rank,
                world,
                ..RankShare::from_step(0)
            };
            let shares = Vec::from_iter((0..world).map(|rank| share(rank).groups(groups)));
            assert!(shares.iter().cloned().flatten().eq(0..groups));
            // As even as can be, so that none is left without one.
            let even = groups / u64::from(world);
            for share in shares {
                let count = share.end - share.start;
                assert!((even..=even + 1).contains(&count), "{world} of {groups}");
            }
        }
    }
}
