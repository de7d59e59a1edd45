//! Which of the training processes this one is.

/// The training processes of a run, and this one's place among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// Number of this process in the run, from 0.
    pub rank: u32,
    /// Number of processes in the run.
    pub world: u32,
    /// Number of this process on its node, from 0.
    pub local_rank: u32,
    /// Number of processes on this node.
    pub local_world: u32,
}

/// A proof that this process is rank 0.
///
/// What exists once in a run takes one to be opened: the run directory, and with it the checkpoints and the log. So no
/// other rank can have any of them.
#[derive(Clone, Copy, Debug)]
pub struct First(());

impl World {
    /// Returns the world of a run in a single process.
    pub fn alone() -> World {
        World {
            rank: 0,
            world: 1,
            local_rank: 0,
            local_world: 1,
        }
    }

    /// Returns the proof that this process is rank 0, to rank 0 alone.
    pub fn first(&self) -> Option<First> {
        (self.rank == 0).then_some(First(()))
    }

    /// Returns the place of number `index` of `count` ranks that this process, a launcher, starts: launchers of one run
    /// start as many each.
    pub fn member(&self, index: u32, count: u32) -> World {
        World {
            rank: self.rank * count + index,
            world: self.world * count,
            local_rank: self.local_rank * count + index,
            local_world: self.local_world * count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_0_alone_is_the_first() {
        assert!(World::alone().first().is_some());
        let third = World {
            rank: 2,
            world: 4,
            ..World::alone()
        };
        assert!(third.first().is_none());
    }

    #[test]
    fn launchers_number_their_ranks_one_after_the_other() {
        // The second launcher of the second of two nodes, with three ranks each.
        let launcher = World {
            rank: 3,
            world: 4,
            local_rank: 1,
            local_world: 2,
        };
        let last = World {
            rank: 11,
            world: 12,
            local_rank: 5,
            local_world: 6,
        };
        assert_eq!(launcher.member(2, 3), last);
        assert_eq!(World::alone().member(1, 2).world, 2);
    }
}
