//! Why a job cannot be made, or not be submitted.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use shardtool::Escaped;

/// The reason why a job could not be made, or not be submitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has a value that makes no job.
    #[error("{option} `{}`: {reason}", Escaped::new(value))]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A path that cannot stand in a script.
    #[error("{}: {reason}", Escaped::new(path))]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is nothing to train.
    #[error("no configuration: nothing to train")]
    NoConfig,
    /// The time is up before the signal that asks for a checkpoint.
    #[error(
        "--signal-before {before}: no time is left of {limit} seconds (--time); give more time, or a later signal"
    )]
    NoTime {
        /// Seconds before the end at which the signal comes.
        before: u32,
        /// Seconds of a start.
        limit: u64,
    },
    /// The ranks cannot share the groups of a step.
    #[error(
        "{ranks} rank(s) cannot share a global batch of {global_batch} in groups of {batch_size} (data.batch_size): it \
         has to be made of whole groups, one for each rank at least; optimization.global_batch sets it"
    )]
    Share {
        /// Ranks of the job.
        ranks: u64,
        /// Images of a step.
        global_batch: u64,
        /// Images of a group.
        batch_size: u64,
    },
    /// sbatch is not there, or is no program.
    #[error(
        "cannot run sbatch: {0}; submit where SLURM's commands are (a login node, after its module is loaded), or take \
         the script of --dry-run there"
    )]
    NoSbatch(io::Error),
    /// sbatch did not take the job.
    #[error("sbatch ended with {status}: {}", Escaped::new(said))]
    Refused {
        /// How it ended.
        status: String,
        /// What it said.
        said: String,
    },
    /// sbatch said something else than the number of a job.
    #[error(
        "sbatch did not say the number of a job but `{}`; squeue tells if there is one",
        Escaped::new(said)
    )]
    NoNumber {
        /// What it said.
        said: String,
    },
    /// sbatch did not end.
    #[error(
        "sbatch waited more than {} s for SLURM's controller and was ended; squeue tells if there is a job",
        patience.as_secs()
    )]
    Silent {
        /// How long it was waited for.
        patience: Duration,
    },
}
