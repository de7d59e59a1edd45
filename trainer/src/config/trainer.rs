//! The `trainer` section: keys of the training loop that the official files do not have.

use serde::{Deserialize, Serialize};

use super::{Error, between};

/// The most `threads`, as of `loader.workers`: each is a thread of the system, which has no more for long.
pub const MAX_THREADS: usize = 4096;

/// The `trainer` section: keys of the training loop that the official files do not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trainer {
    /// Seed of the initial weights; that of order, crops and masks is `loader.seed`.
    pub seed: u64,
    /// Threads of libtorch on the CPU, 1 to 4096. By default `$OMP_NUM_THREADS`, else one per CPU of this process.
    pub threads: Option<usize>,
    /// Steps between two lines on the console.
    pub log_every: u64,
    /// Global batch of the results that this file claims to reproduce; a run with another warns. By default no claim.
    pub reproduces_global_batch: Option<u64>,
    /// Group (`data.batch_size`) of those results, on whose size masks depend; a run with another warns. By default no
    /// claim.
    pub reproduces_group: Option<u64>,
    /// Step before which to end the run with a checkpoint; schedules stay those of the whole run. By default the last.
    pub stop_at_step: Option<u64>,
    /// Seconds to wait for a loader's welcome, at the start and after one died, and then for each group.
    pub loader_patience: u64,
    /// Seconds in which all ranks must have come at the start, and in which each must do its part of a step.
    pub peer_patience: u64,
    /// Form in which gradients go from rank to rank: `bf16` halves the bytes, and rounds each sum on its way.
    pub compress_gradients: Compression,
    /// MiB of gradients that go from rank to rank at a time, while the backward pass goes on, as PyTorch's
    /// `bucket_cap_mb`; 0 for all of them after it.
    pub bucket_mb: u16,
    /// Compute each block a second time in the backward pass instead of keeping it: much less memory, longer steps.
    ///
    /// This changes no result where operators repeat themselves, as they do on a CPU.
    pub activation_checkpointing: bool,
    /// Let a GPU round the inputs of float32 products to TF32.
    ///
    /// The official runs compute products in bfloat16 and do
    /// not care.
    pub tf32: bool,
    /// Answer to a step whose loss or gradient is not finite.
    pub on_nonfinite: OnNonfinite,
    /// Number of such steps in a row that are skipped before the run stops all the same.
    pub max_skipped: u64,
    /// Steps between two measurements of the [signs of collapse](../trainer/LEARNING.md#signs-of-collapse); 0 for none.
    pub signs_every: u64,
}

/// Form in which gradients go from rank to rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    None,
    /// In bfloat16.
    Bf16,
}

/// What to do about a step whose loss or gradient is not finite.
///
/// See [`crate::train`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNonfinite {
    /// End the run and write what was computed beside the log.
    Stop,
    /// Leave the weights as they are and go on with the next step.
    Skip,
}

impl Default for Trainer {
    fn default() -> Self {
        Trainer {
            seed: 0,
            threads: None,
            log_every: 10,
            reproduces_global_batch: None,
            reproduces_group: None,
            stop_at_step: None,
            loader_patience: 300,
            peer_patience: 300,
            compress_gradients: Compression::None,
            bucket_mb: 25,
            activation_checkpointing: false,
            tf32: false,
            on_nonfinite: OnNonfinite::Stop,
            max_skipped: 10,
            signs_every: 100,
        }
    }
}

/// Returns the threads of libtorch where nothing sets them: those of `$OMP_NUM_THREADS`, else `cpus`.
///
/// Of a list, which OpenMP takes for levels inside each other, the first counts. What is no number is passed by, as
/// OpenMP does.
pub fn default_threads(omp: Option<&str>, cpus: usize) -> usize {
    let first = omp.and_then(|list| list.split(',').next()?.trim().parse().ok());
    let threads = first.filter(|&threads| threads > 0).unwrap_or(cpus);
    threads.min(MAX_THREADS)
}

impl Trainer {
    /// Keys that may differ between a checkpoint and the run that continues it.
    ///
    /// They move speed and output, not results. The two about steps that are not finite are here because a run that
    /// stopped at one may have to go on by skipping it.
    pub const FREE_ON_RESUME: &[&str] = &[
        "activation_checkpointing",
        "bucket_mb",
        "log_every",
        "loader_patience",
        "max_skipped",
        "on_nonfinite",
        "peer_patience",
        "reproduces_global_batch",
        "reproduces_group",
        "signs_every",
        "stop_at_step",
        "threads",
    ];

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.log_every == 0 {
            let reason = "0; give the number of steps between two lines";
            return Err(Error::value("trainer.log_every", reason));
        }
        if self.loader_patience == 0 {
            let reason = "0; give the seconds that a loader may take, at least 1";
            return Err(Error::value("trainer.loader_patience", reason));
        }
        between("trainer.peer_patience", self.peer_patience, 1, 86_400)?;
        match self.threads {
            Some(threads) => between("trainer.threads", threads, 1, MAX_THREADS),
            None => Ok(()),
        }
    }
}
