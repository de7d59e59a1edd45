//! The loader that is running, and how those before it fared.

use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use loader::link::{Endpoint, send_stream};
use shardtool::exit;

use super::Error;
use super::child::{Child, Program, Tie, describe, pair};
use super::events::Events;

/// A loader that lives this long has recovered: earlier deaths no longer count.
const RECOVERED: Duration = Duration::from_secs(60);
/// Deaths in a row after which it is not started again.
const DEATHS: u32 = 5;
/// Pause before the second loader in a row; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// The loaders of a job, of which one runs at a time.
#[derive(Debug)]
pub(super) struct Loaders<'a> {
    /// None where another launcher of this node starts the loader.
    program: Option<&'a Program>,
    running: Option<Child>,
    started: Instant,
    /// Ends in a row.
    deaths: u32,
    /// Ends in all.
    ends: u32,
}

impl<'a> Loaders<'a> {
    /// Returns the loaders of a job that has started none yet.
    pub(super) fn new(program: Option<&'a Program>) -> Loaders<'a> {
        Loaders {
            program,
            running: None,
            started: Instant::now(),
            deaths: 0,
            ends: 0,
        }
    }

    /// Starts one, unless one is running; its end will stand in `events`.
    pub(super) fn start(&mut self, events: &Events) -> Result<(), Error> {
        if let (Some(program), None) = (self.program, &self.running) {
            let child = program.start(Tie::Killed)?;
            child.watch(events)?;
            self.running = Some(child);
            self.started = Instant::now();
        }
        Ok(())
    }

    /// Connects the running one with each of `ranks`.
    pub(super) fn connect<'b>(
        &self,
        ranks: impl IntoIterator<Item = &'b Child>,
    ) -> Result<(), Error> {
        let Some(child) = &self.running else {
            return Ok(());
        };
        for rank in ranks {
            let (one, other) = pair()?;
            child.connect(one, rank.id());
            rank.connect(other, child.id());
        }
        Ok(())
    }

    /// Returns how the running one ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        let Some(child) = &mut self.running else {
            return Ok(None);
        };
        let status = child.ended()?;
        if status.is_some() {
            self.running = None;
        }
        Ok(status)
    }

    /// Returns how long to wait before the next one, after one that ended with `status`.
    ///
    /// # Errors
    /// If there should be no next one.
    pub(super) fn pause(&mut self, status: ExitStatus) -> Result<Duration, Error> {
        if status.code() == Some(exit::COULD_NOT_RUN.into()) {
            return Err(Error::LoaderCannotRun {
                was_running: self.ends > 0,
            });
        }
        if self.started.elapsed() > RECOVERED {
            self.deaths = 0;
        }
        self.deaths += 1;
        self.ends += 1;
        if self.deaths >= DEATHS {
            return Err(Error::LoaderKeepsEnding {
                times: DEATHS,
                last: describe(status),
            });
        }
        Ok(PAUSE * 2u32.pow(self.deaths - 1))
    }

    /// Ends the running one: by closing its channel, then by force.
    pub(super) fn end(&mut self) {
        if let Some(child) = self.running.take() {
            child.end();
        }
    }
}

/// A loader that serves this very process, ended when dropped.
#[derive(Debug)]
pub struct OwnLoader {
    child: Option<Child>,
}

impl OwnLoader {
    /// Starts `program` and returns it with where this process finds it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &Program) -> Result<(OwnLoader, Endpoint), Error> {
        let child = program.start(Tie::Killed)?;
        let (one, other) = pair()?;
        child.connect(one, std::process::id());
        // A single connection waits in this channel: when the loader dies, the next one is not waited for.
        let (ours, theirs) = pair()?;
        send_stream(ours.as_fd(), other.into(), child.id())
            .map_err(Error::system("cannot pass a connection on"))?;
        let loader = OwnLoader { child: Some(child) };
        Ok((loader, Endpoint::Inherited(theirs.into())))
    }
}

impl Drop for OwnLoader {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            child.end();
        }
    }
}
