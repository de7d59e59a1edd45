//! What a rank and the loader say to each other.

use serde::{Deserialize, Serialize};

use crate::ring::Geometry;
use crate::sampler::Plan;
use crate::share::RankShare;

/// Version of the messages below. Any change to them raises it.
pub const PROTOCOL: u32 = 2;
/// Length of the longest frame that is read; a length beyond it is a stranger on the socket.
pub(super) const MAX_FRAME: usize = 1 << 16;

/// What a rank says first: what it is configured for, and where it wants to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Process number of the sender, for events. (A launcher makes the socket, so the kernel's own record names it.)
    pub pid: u32,
    /// What samples are wanted for.
    pub plan: Plan,
    /// Hash of everything in the configuration that decides samples.
    pub sampling_hash: u64,
    /// Checksum of the data set's manifest.
    pub manifest_checksum: u64,
    /// Number of this rank among all ranks of the run.
    pub rank: u32,
    /// Ranks of the run.
    pub world: u32,
    /// Images per step over all ranks.
    pub global_batch: u64,
    /// The first step wanted.
    pub first_step: u64,
    /// The step before which to stop, if the rank knows; otherwise it just leaves.
    pub end_step: Option<u64>,
}

/// What the loader serves: the other half of every comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// As in [`Hello::plan`].
    pub plan: Plan,
    /// As in [`Hello::sampling_hash`].
    pub sampling_hash: u64,
    /// As in [`Hello::manifest_checksum`].
    pub manifest_checksum: u64,
    /// As in [`Hello::global_batch`].
    pub global_batch: u64,
    /// Groups per step over all ranks.
    pub groups: u64,
}

/// The reason why a loader does not serve a rank. Each names what the rank expects and what the loader has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The two speak different versions of the link.
    #[error("trainer speaks link version {found}, loader version {PROTOCOL}")]
    Protocol {
        /// The rank's version.
        found: u32,
    },
    /// The plans differ.
    #[error("trainer asks for samples for {expected}, loader serves them for {served}")]
    Plan {
        /// The rank's plan.
        expected: Plan,
        /// The loader's plan.
        served: Plan,
    },
    /// The data sets differ.
    #[error(
        "trainer expects the data set with manifest checksum {expected:016x}, loader serves {served:016x}"
    )]
    Manifest {
        /// The rank's checksum.
        expected: u64,
        /// The loader's checksum.
        served: u64,
    },
    /// The global batches differ.
    #[error("trainer has a global batch of {expected}, loader one of {served}")]
    GlobalBatch {
        /// The rank's global batch.
        expected: u64,
        /// The loader's global batch.
        served: u64,
    },
    /// The configurations of samples and masks differ.
    #[error(
        "trainer's data and mask configuration has hash {expected:016x}, loader's {served:016x}"
    )]
    Sampling {
        /// The rank's hash.
        expected: u64,
        /// The loader's hash.
        served: u64,
    },
    /// There is no such rank.
    #[error("rank {rank} of a world of {world}")]
    Rank {
        /// The rank.
        rank: u32,
        /// The number of ranks.
        world: u32,
    },
    /// There would be nothing to do for some ranks.
    #[error("{groups} groups per step are too few for {world} ranks, each of which needs one")]
    TooFew {
        /// Groups per step.
        groups: u64,
        /// The number of ranks.
        world: u32,
    },
    /// The steps asked for end before they begin.
    #[error("first step {first} lies behind end step {end}")]
    Steps {
        /// The first step.
        first: u64,
        /// The step before which to stop.
        end: u64,
    },
}

impl Hello {
    /// Compares what a rank expects with what the loader serves.
    ///
    /// # Errors
    /// The first field that differs, with both values.
    pub fn check(&self, served: &Served) -> Result<(), Refusal> {
        if self.protocol != PROTOCOL {
            return Err(Refusal::Protocol {
                found: self.protocol,
            });
        }
        if self.plan != served.plan {
            return Err(Refusal::Plan {
                expected: self.plan,
                served: served.plan,
            });
        }
        if self.manifest_checksum != served.manifest_checksum {
            return Err(Refusal::Manifest {
                expected: self.manifest_checksum,
                served: served.manifest_checksum,
            });
        }
        if self.global_batch != served.global_batch {
            return Err(Refusal::GlobalBatch {
                expected: self.global_batch,
                served: served.global_batch,
            });
        }
        if self.sampling_hash != served.sampling_hash {
            return Err(Refusal::Sampling {
                expected: self.sampling_hash,
                served: served.sampling_hash,
            });
        }
        let (rank, world) = (self.rank, self.world);
        if rank >= world {
            return Err(Refusal::Rank { rank, world });
        }
        let groups = served.groups;
        if groups < u64::from(world) {
            return Err(Refusal::TooFew { groups, world });
        }
        match self.end_step {
            Some(end) if end < self.first_step => Err(Refusal::Steps {
                first: self.first_step,
                end,
            }),
            _ => Ok(()),
        }
    }

    /// Returns which part of every step this rank consumes, and which steps.
    pub fn share(&self) -> RankShare {
        RankShare {
            rank: self.rank,
            world: self.world,
            first_step: self.first_step,
            end_step: self.end_step,
        }
    }
}

/// What the loader tells a rank that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL`] of the loader.
    pub protocol: u32,
    /// Process number of the loader.
    pub pid: u32,
    /// Dimensions of the ring.
    pub geometry: Geometry,
    /// Steps per epoch.
    pub epoch_len: u64,
    /// Samples in the split.
    pub samples: u64,
    /// Classes in the data set, 0 if it has no labels.
    pub classes: u64,
    /// Groups per step over all ranks.
    pub groups: u64,
}

/// Frames from the loader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// You are served; the ring's memory comes with this.
    Welcome(Welcome),
    /// You are not served.
    Refused {
        /// Why, with both values.
        reason: String,
    },
    /// No further slot will come.
    Closing {
        /// Why.
        reason: String,
    },
}

/// Frames from a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// The first frame.
    Hello(Hello),
    /// The last frame.
    Goodbye,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mismatch_names_both_values() {
        let served = Served {
            plan: Plan::Pretraining,
            sampling_hash: 0xa,
            manifest_checksum: 0xb,
            global_batch: 64,
            groups: 4,
        };
        let hello = Hello {
            protocol: PROTOCOL,
            pid: 1,
            plan: Plan::Pretraining,
            sampling_hash: 0xa,
            manifest_checksum: 0xb,
            rank: 1,
            world: 2,
            global_batch: 64,
            first_step: 5,
            end_step: Some(9),
        };
        assert_eq!(hello.check(&served), Ok(()));
        assert_eq!(hello.share().groups(4), 2..4);
        let cases: [(Hello, [&str; 2]); 8] = [
            (
                Hello {
                    protocol: 7,
                    ..hello.clone()
                },
                ["version 7", "version 2"],
            ),
            (
                Hello {
                    plan: Plan::Evaluation,
                    ..hello.clone()
                },
                ["for evaluation", "for pretraining"],
            ),
            (
                Hello {
                    sampling_hash: 0xc,
                    ..hello.clone()
                },
                ["000000000000000c", "000000000000000a"],
            ),
            (
                Hello {
                    manifest_checksum: 0xd,
                    ..hello.clone()
                },
                ["000000000000000d", "000000000000000b"],
            ),
            (
                Hello {
                    global_batch: 128,
                    ..hello.clone()
                },
                ["128", "64"],
            ),
            (
                Hello {
                    rank: 2,
                    ..hello.clone()
                },
                ["rank 2", "world of 2"],
            ),
            (
                Hello {
                    world: 5,
                    ..hello.clone()
                },
                ["4 groups", "5 ranks"],
            ),
            (
                Hello {
                    end_step: Some(4),
                    ..hello.clone()
                },
                ["step 5", "step 4"],
            ),
        ];
        for (hello, words) in cases {
            let reason = hello.check(&served).unwrap_err().to_string();
            assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        }
    }
}
