//! Why processes do not train together.

use std::io;
use std::time::Duration;

use shardtool::Escaped;

use super::slurm;

/// The reason why ranks did not come together, or did not stay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A variable of the environment.
    #[error("{name}={}: {problem}", Escaped::new(value))]
    Variable {
        /// Its name.
        name: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The variables of SLURM.
    #[error(transparent)]
    Slurm(#[from] slurm::Error),
    /// The host of the store has no address.
    #[error("MASTER_ADDR={}: {cause}", Escaped::new(host))]
    Host {
        /// Its name.
        host: String,
        /// What the system says.
        cause: io::Error,
    },
    /// No port can be listened at.
    #[error("cannot listen at {}: {cause}", Escaped::new(place))]
    Listen {
        /// Address and port.
        place: String,
        /// What the system says.
        cause: io::Error,
    },
    /// The store where ranks meet failed.
    #[error("the ranks' meeting place at {}: {cause}", Escaped::new(place))]
    Store {
        /// Host and port.
        place: String,
        /// What libtorch says.
        cause: crate::Error,
    },
    /// Nobody listens where ranks meet: rank 0 did not come.
    #[error(
        "nobody listens at the ranks' meeting place {} after {} s ({cause}): rank 0 did not come",
        Escaped::new(place), waited.as_secs()
    )]
    NobodyListens {
        /// Host and port.
        place: String,
        /// For how long it was tried.
        waited: Duration,
        /// What the system says of the last attempt.
        cause: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread: {cause}")]
    Thread {
        /// What the system says.
        cause: io::Error,
    },
    /// Nobody answers there, or somebody who is no store.
    #[error(
        "the ranks' meeting place at {} has not answered for {} s: its process is stopped or cut off, or another \
         program listens there",
        Escaped::new(place), waited.as_secs()
    )]
    Silent {
        /// Host and port.
        place: String,
        /// For how long.
        waited: Duration,
    },
    /// Another run meets there.
    #[error(
        "at {} meets another run ({}), this is {}: choose another MASTER_PORT",
        Escaped::new(place),
        Escaped::new(theirs),
        Escaped::new(ours)
    )]
    OtherRun {
        /// Host and port.
        place: String,
        /// The run that meets there.
        theirs: String,
        /// This run.
        ours: String,
    },
    /// Two processes say that they are the same rank.
    #[error("rank {rank} is there already: {}", Escaped::new(by))]
    Twice {
        /// The rank.
        rank: u32,
        /// The process that came first.
        by: String,
    },
    /// Some ranks did not come.
    #[error(
        "{} of {world} ranks did not come within {} s: rank {}",
        ranks.len(), waited.as_secs(), list(ranks)
    )]
    Missing {
        /// Which.
        ranks: Vec<u32>,
        /// Number of all ranks.
        world: u32,
        /// For how long they were waited for.
        waited: Duration,
    },
    /// Ranks that had come together could not connect to each other.
    #[error(
        "the {world} ranks cannot connect to each other ({cause}); they listen at {}: another network interface can \
         be chosen by --interface",
        Escaped::new(at)
    )]
    Connect {
        /// Number of all ranks.
        world: u32,
        /// Where this rank listens.
        at: String,
        /// What libtorch says.
        cause: crate::Error,
    },
    /// A rank was started for something else than rank 0.
    #[error("{} has {what}", Escaped::new(rank))]
    Differs {
        /// The rank, and where it runs.
        rank: String,
        /// What it has, and what rank 0 has.
        what: String,
    },
    /// Rank 0 has found that the run cannot begin.
    #[error("rank 0 cannot begin: {}", Escaped::new(reason))]
    NotBegun {
        /// What it said.
        reason: String,
    },
    /// A peer is gone, or does not answer.
    #[error("{} ({cause})", Escaped::new(who))]
    Lost {
        /// Which, as far as that can be told.
        who: String,
        /// What libtorch says.
        cause: crate::Error,
    },
    /// What ranks sent each other makes no sense.
    #[error("{} sent what no rank of this version sends", Escaped::new(rank))]
    Nonsense {
        /// The rank.
        rank: String,
    },
    /// Torch failed on this rank.
    #[error(transparent)]
    Compute(#[from] crate::Error),
}

impl Error {
    /// Tells if it may pass: other ranks were lost or did not come, and starting all of them again may do.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Error::Lost { .. } | Error::Missing { .. } | Error::NobodyListens { .. }
        )
    }
}

fn list(ranks: &[u32]) -> String {
    const SHOWN: usize = 16;
    let shown: Vec<String> = ranks.iter().take(SHOWN).map(u32::to_string).collect();
    let more = if ranks.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
