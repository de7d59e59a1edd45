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
/// Time that ranks may take to end once they are asked to: a step, and a checkpoint on a disk that is slow to answer.
const FAREWELL: Duration = Duration::from_secs(1800);
/// Between two looks at ranks that are to end.
const LOOK: Duration = Duration::from_millis(20);

/// The ranks that were started together.
#[derive(Debug)]
pub(super) struct Team {
    running: Vec<Child>,
    /// The codes of those that ended as they should: finished, or stopped by a signal.
    codes: Vec<u8>,
    failure: Option<Failure>,
    /// Since they are asked to end.
    asked: Option<Asked>,
}

/// When ranks were asked to end, and when to say next that they have not.
#[derive(Debug)]
struct Asked {
    at: Instant,
    say_after: Duration,
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
            asked: None,
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

    /// Asks all of them, by a signal, to write a checkpoint and end.
    pub(super) fn ask(&mut self, signal: Signal) {
        self.signal(signal);
        self.asked.get_or_insert_with(|| Asked {
            at: Instant::now(),
            say_after: NOTICE,
        });
    }

    fn signal(&self, signal: Signal) {
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

    /// Tells if all are to end, and [`Team::press`] has to be called from time to time.
    pub(super) fn is_ending(&self) -> bool {
        self.has_failed() || self.asked.is_some()
    }

    /// Ends those that do not end by themselves: after a failure, or when they were asked to.
    pub(super) fn press(&mut self) {
        if let Some(failure) = &mut self.failure
            && failure.at.elapsed() >= NOTICE
        {
            let passed = failure.at.elapsed();
            if !std::mem::replace(&mut failure.is_told, true) {
                self.signal(Signal::TERM);
            }
            self.kill_if(|rank| rank.is_stopped() || passed > NOTICE + CHECKPOINT);
        }
        if let Some(asked) = &mut self.asked
            && asked.at.elapsed() >= asked.say_after
        {
            let passed = asked.at.elapsed();
            asked.say_after *= 2;
            for rank in &self.running {
                let is = match rank.is_stopped() {
                    true => "is stopped by a signal: it goes on after SIGCONT",
                    false => "has not ended",
                };
                let (name, id, seconds) = (rank.name(), rank.id(), passed.as_secs());
                tracing::warn!("{name} ({id}) {is}; it was asked to {seconds} s ago");
            }
            self.kill_if(|_| passed > FAREWELL);
        }
    }

    /// Kills some of them. One that cannot even be killed is left, as if it had been.
    fn kill_if(&mut self, condition: impl Fn(&Child) -> bool) {
        for mut rank in std::mem::take(&mut self.running) {
            if condition(&rank) {
                tracing::warn!("{} does not end; killing it", rank.name());
                if !rank.kill() {
                    self.codes.push(128 + Signal::KILL.as_raw() as u8);
                    continue;
                }
            }
            self.running.push(rank);
        }
    }

    /// Asks all of them for a checkpoint, and waits for their ends.
    pub(super) fn end(&mut self) {
        self.ask(Signal::TERM);
        while matches!(self.look(), Ok(())) && !self.running.is_empty() {
            self.press();
            std::thread::sleep(LOOK);
        }
    }

    /// Kills all of them.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        for mut rank in std::mem::take(&mut self.running) {
            rank.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_that_does_not_end_when_it_is_asked_is_killed_after_a_while() {
        let mut deaf = Program::new("bash".into(), "-c");
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("deaf");
        let text = format!(
            "trap '' TERM; touch {}; while :; do sleep 0.05; done",
            mark.display()
        );
        deaf.args([&text, "bash"]);
        let mut team = Team::start(&[deaf], &Events::deaf()).unwrap();
        while !mark.exists() {
            std::thread::sleep(LOOK);
        }
        team.ask(Signal::TERM);
        team.press();
        team.look().unwrap();
        assert_eq!((team.is_ending(), team.code()), (true, None));
        let long_ago = Instant::now().checked_sub(FAREWELL + LOOK).unwrap();
        team.asked.as_mut().unwrap().at = long_ago;
        team.end();
        assert_eq!(team.code(), Some(128 + 9));
    }
}
