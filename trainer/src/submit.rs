//! Trainings as jobs of SLURM: the batch script, and its way to `sbatch`.
//!
//! | room | what stands there |
//! |---|---|
//! | `script` | the batch script of a [`Job`] |
//! | `quote` | text for the shell and for `#SBATCH` lines |
//! | `time` | SLURM's ways to write a time |
//! | `sbatch` | the submission |
//!
//! A node runs one `trainer launch`, which starts the node's ranks and its loader. SLURM sends a signal before the time
//! is up; the run writes its checkpoint and ends with 75, and the script puts its own job back into the queue. The
//! start, and every start after it, is the same command.

mod error;
mod quote;
mod sbatch;
mod script;
mod time;

use std::path::PathBuf;

use crate::config::Config;

pub use error::Error;
pub use sbatch::submit;
pub use time::TimeLimit;

/// What ranks compute on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// The node's CPUs.
    Cpu,
    /// A GPU for each rank, asked for by `--gpus-per-node`; `None`: as many as ranks.
    GpusPerNode(Option<String>),
    /// A GPU for each rank, asked for by `--gres`.
    Gres(String),
}

/// A job of SLURM that trains one configuration, or an array of jobs that train one each.
#[derive(Clone, Debug)]
pub struct Job {
    /// Name of the job.
    pub name: String,
    /// Partition to run in; `None`: the cluster's default.
    pub partition: Option<String>,
    /// Account to charge.
    pub account: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// Nodes of a job.
    pub nodes: u32,
    /// Ranks on each node.
    pub tasks_per_node: u32,
    /// CPUs of each rank, for it and for its share of the loader.
    pub cpus_per_task: u32,
    /// Memory of each node, as SLURM writes it; `None`: the cluster's default.
    pub mem: Option<String>,
    /// What the ranks compute on.
    pub devices: Devices,
    /// Time of a start, after which SLURM ends it.
    pub time: TimeLimit,
    /// Seconds before that at which to ask for a checkpoint.
    pub signal_before: u32,
    /// How often a job goes back into the queue; `None`: never.
    pub requeues: Option<u32>,
    /// Directory of the jobs' output, an absolute path.
    pub folder: PathBuf,
    /// Directory from which relative paths count, an absolute path.
    pub directory: PathBuf,
    /// Further options of sbatch, as they are.
    pub extra: Vec<String>,
    /// The configuration of each job.
    pub configs: Vec<PathBuf>,
    /// How many jobs of the array run at the same time; `None`: as many as there is room for.
    pub at_once: Option<u32>,
    /// The program, on the nodes too.
    pub program: PathBuf,
    /// Options of `trainer launch` besides configuration and devices.
    pub options: Vec<String>,
}

impl Job {
    /// Returns the ranks of a job.
    pub fn ranks(&self) -> u64 {
        u64::from(self.nodes) * u64::from(self.tasks_per_node)
    }
}

/// Makes sure that each of `ranks` ranks gets a group of a step, so that no job waits in a queue for that to be found.
/// Returns the number of groups.
///
/// # Errors
/// [`Error::Share`] with the numbers that do not go together.
pub fn check_share(config: &Config, ranks: u64) -> Result<u64, Error> {
    let batch_size = config.loader.data.batch_size;
    let global_batch = config.loader.global_batch(ranks);
    let groups = global_batch / batch_size;
    if global_batch.is_multiple_of(batch_size) && groups >= ranks {
        return Ok(groups);
    }
    Err(Error::Share {
        ranks,
        global_batch,
        batch_size,
    })
}
