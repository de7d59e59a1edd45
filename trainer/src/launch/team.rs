//! The ranks of a job on this machine: they run together, and when one fails they end together.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use shardtool::exit;

use super::Error;
use super::child::{Child, Program, Tie, code, describe};
use super::events::Events;

/// Time in which ranks notice by themselves that another one has failed, and say so.
const NOTICE: Duration = Duration::from_secs(10);
/// Time that a checkpoint may take after that.
const CHECKPOINT: Duration = Duration::from_secs(600);

/// The ranks that were started together.
#[derive(Debug)]
pub(super) struct Team {
    running: Vec<Child>,
    /// The codes of those that ended as they should: finished, or stopped by a signal.
    codes: Vec<u8>,
    failure: Option<Failure>,
}

/// The first rank that failed, which takes the others with it.
#[derive(Debug)]
struct Failure {
    status: ExitStatus,
    at: Instant,
    is_told: bool,
}

impl Team {
    /// Starts a rank of each program; their ends will stand in `events`.
    pub(super) fn start(programs: &[Program], events: &Events) -> Result<Team, Error> {
        let mut team = Team {
            running: Vec::new(),
            codes: Vec::new(),
            failure: None,
        };
        for program in programs {
            let started = program
                .start(Tie::Asked)
                .and_then(|rank| rank.watch(events).map(|()| rank));
            match started {
                Ok(rank) => team.running.push(rank),
                Err(error) => {
                    team.end();
                    return Err(error);
                }
            }
        }
        Ok(team)
    }

    /// Returns those that have not ended.
    pub(super) fn running(&self) -> &[Child] {
        &self.running
    }

    /// Sends a signal to all of them.
    pub(super) fn signal(&self, signal: Signal) {
        self.running.iter().for_each(|rank| rank.signal(signal));
    }

    /// Takes note of those that have ended.
    pub(super) fn look(&mut self) -> Result<(), Error> {
        for mut rank in std::mem::take(&mut self.running) {
            let Some(status) = rank.ended()? else {
                self.running.push(rank);
                continue;
            };
            match code(status) {
                code @ (exit::FINE | exit::PREEMPTED) => self.codes.push(code),
                _ if self.failure.is_some() => {}
                _ => {
                    if !self.running.is_empty() || !self.codes.is_empty() {
                        tracing::error!("{} ended ({})", rank.name(), describe(status));
                    }
                    self.failure = Some(Failure {
                        status,
                        at: Instant::now(),
                        is_told: false,
                    });
                }
            }
        }
        Ok(())
    }

    /// Returns the code of the whole, once all have ended: that of the first failure, if there was one.
    pub(super) fn code(&self) -> Option<u8> {
        let worst = self.codes.iter().copied().max();
        let code = self.failure.as_ref().map(|failure| code(failure.status));
        self.running
            .is_empty()
            .then(|| code.or(worst).unwrap_or(exit::FINE))
    }

    /// Tells if one has failed, so that the others have to end.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Ends those that do not end by themselves after a failure.
    pub(super) fn press(&mut self) {
        let Some(failure) = &mut self.failure else {
            return;
        };
        let passed = failure.at.elapsed();
        if passed < NOTICE {
            return;
        }
        if !std::mem::replace(&mut failure.is_told, true) {
            self.running
                .iter()
                .for_each(|rank| rank.signal(Signal::TERM));
        }
        for rank in &self.running {
            if rank.is_stopped() || passed > NOTICE + CHECKPOINT {
                tracing::warn!("{} does not end; killing it", rank.name());
                rank.signal(Signal::KILL);
            }
        }
    }

    /// Asks all of them for a checkpoint, and waits for their ends.
    pub(super) fn end(&mut self) {
        self.signal(Signal::TERM);
        self.wait();
    }

    /// Kills all of them.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    fn wait(&mut self) {
        self.running.iter_mut().for_each(Child::wait);
        self.running.clear();
    }
}
