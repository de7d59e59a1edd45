//! What the threads of a pipeline have in common.

use shardtool::codec::Largest;

use super::damage::Damage;
use super::open_split::OpenSplit;
use super::relaxed::RelaxedContexts;
use super::work_times::WorkerCounters;
use crate::config::Fidelity;

/// What all workers and assemblers know.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) source: OpenSplit,
    pub(super) fidelity: Fidelity,
    /// What the largest images of the split ask of a worker.
    pub(super) largest: Largest,
    pub(super) counters: Vec<WorkerCounters>,
    pub(super) damage: Damage,
    pub(super) relaxed: RelaxedContexts,
}
