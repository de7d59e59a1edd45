//! A job's programs, and its end.

use shardtool::exit;

use super::events::Events;
use super::loaders::Loaders;
use super::supervise::supervise;
use super::team::Team;
use super::{Error, Program};

/// The loader and the ranks of one job on this machine.
pub struct Job {
    /// The program that serves; none where another launcher of this machine starts it.
    pub loader: Option<Program>,
    /// Returns the program of each rank, at the first attempt (0) and at later ones.
    pub ranks: Box<dyn Fn(u32) -> Vec<Program>>,
    /// Times that the ranks are started again, from their last checkpoint, after one of them failed.
    pub max_restarts: u32,
}

impl Job {
    /// Runs all of them until the ranks end; returns their exit code, or 128 + n after signal n.
    ///
    /// Signals that stand in `events` are passed on to the ranks.
    ///
    /// # Errors
    /// If one of them cannot be started, or if the loader cannot be kept going. The ranks have then been asked to
    /// write their checkpoint, and have ended.
    pub fn run(&self, events: &Events) -> Result<u8, Error> {
        let mut loaders = Loaders::new(self.loader.as_ref());
        let ended = self.attempts(events, &mut loaders);
        loaders.end();
        ended
    }

    fn attempts(&self, events: &Events, loaders: &mut Loaders<'_>) -> Result<u8, Error> {
        for attempt in 0.. {
            // The loader does not see the terminal's Ctrl-C, and so serves the ranks' last step.
            let mut team = Team::start(&(self.ranks)(attempt), events)?;
            let supervised = supervise(events, &mut team, loaders);
            if supervised.is_err() {
                // Without a loader they can only write their checkpoint.
                team.end();
            }
            let end = supervised?;
            if end.is_asked || attempt == self.max_restarts || !is_mended_by_restart(end.code) {
                return Ok(end.code);
            }
            tracing::warn!(
                "starting again from the last checkpoint, restart {} of {}",
                attempt + 1,
                self.max_restarts
            );
        }
        unreachable!("the loop has no end of its own")
    }
}

/// Tells if a run that ended with `code` may go on when it is started again: one that was killed or failed in its
/// midst, but not one that could not run, or whose numbers were at fault.
fn is_mended_by_restart(code: u8) -> bool {
    !matches!(
        code,
        exit::FINE | exit::FAULTS | exit::COULD_NOT_RUN | exit::PREEMPTED
    )
}
