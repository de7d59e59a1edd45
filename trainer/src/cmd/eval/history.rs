//! The scores of a run's checkpoints, kept in its directory for its report.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;
use shardtool::{Escaped, regular};
use trainer::checkpoint;
use trainer::report::EVALUATIONS;

use super::args::run_of;

/// Appends the scores of a checkpoint to those of its run, where it is in a run directory: `trainer report` draws them.
///
/// What was asked for is on standard output by then, so that a fault here is no more than a warning.
pub fn keep(weights: &Path, scores: &BTreeMap<String, f64>) {
    let (Some(run), Ok(state)) = (run_of(weights), checkpoint::read_state(weights)) else {
        return;
    };
    let path = run.join(EVALUATIONS);
    let row = json!({"step": state.step, "epoch": state.epoch, "scores": scores});
    let append =
        || -> io::Result<()> { regular::append(&path)?.write_all(format!("{row}\n").as_bytes()) };
    if let Err(error) = append() {
        tracing::warn!(
            "{}: {error}; the run's report will lack these scores",
            Escaped::new(&path)
        );
    }
}
