//! A loader and a trainer as one job: start both, restart a loader that dies, pass signals on, end together.
//!
//! Neither has a name that could clash or be left behind. Each child inherits one end of a socketpair, its channel;
//! connections between the two are made here, one for each loader, and one end of each is sent over either channel.
//! This process keeps neither end, so that both sides see end-of-file when the other dies.
//!
//! Who ends how:
//! * the trainer ends: the loader's channel is closed, which ends it; this process exits with the trainer's code;
//! * the loader dies: another one is started and connected, until it has died too often in a row;
//! * this process gets SIGTERM, SIGUSR1 or SIGINT: the trainer is told, writes its checkpoint and ends with 75, and so
//!   does this process; a second SIGINT ends the trainer at once;
//! * this process is killed: the kernel kills the loader and asks the trainer to write a checkpoint and stop.
//!
//! Every descriptor here closes on exec; only a child's own channel is opened up, in that child alone.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use loader::link::send_stream;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};
use shardtool::{Escaped, exit};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// A loader that lives this long has recovered: earlier deaths no longer count.
const RECOVERED: Duration = Duration::from_secs(60);
/// Deaths in a row after which it is not started again.
const DEATHS: u32 = 5;
/// Pause before the second loader in a row; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a loader may take to end by itself when its channel is closed.
const LEAVE: Duration = Duration::from_secs(5);

/// Why a job could not be started, or not be kept going.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not there, or is none.
    #[error("cannot start {}: {cause}", Escaped::new(program))]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The system refused what supervising needs.
    #[error("{doing}: {cause}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        cause: io::Error,
    },
    /// The loader says that it cannot run, and why.
    #[error("the loader cannot run (exit code 2, see its message above)")]
    LoaderCannotRun {
        /// Another one ran before it.
        was_running: bool,
    },
    /// The loader ends again and again.
    #[error("the loader ended {times} times in a row, the last time with {last}")]
    LoaderKeepsEnding {
        /// How often.
        times: u32,
        /// How it ended last.
        last: String,
    },
}

impl Error {
    fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |cause| Error::System { doing, cause }
    }

    /// Tells whether the job had begun, so that starting it again would go on.
    pub fn is_midway(&self) -> bool {
        match self {
            Error::LoaderKeepsEnding { .. } => true,
            Error::LoaderCannotRun { was_running } => *was_running,
            _ => false,
        }
    }
}

/// A program with its arguments, but for the channel.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
}

impl Program {
    /// `path subcommand`.
    pub fn new(path: PathBuf, subcommand: &str) -> Program {
        Program {
            path,
            args: vec![subcommand.into()],
        }
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(&mut self, args: I) -> &mut Program {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Starts it with a channel to this process; `death` is what the kernel sends it when this process ends.
    fn start(&self, death: Signal, own_group: bool) -> Result<(Child, UnixStream), Error> {
        let (ours, theirs) =
            UnixStream::pair().map_err(Error::system("cannot make a socketpair"))?;
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .arg("--socket-fd")
            .arg(theirs.as_raw_fd().to_string())
            .stdin(Stdio::null());
        if own_group {
            command.process_group(0);
        }
        let launcher = getpid();
        let channel = theirs.as_raw_fd();
        // SAFETY: between fork and exec only system calls are made, all async-signal-safe, and nothing is allocated.
        // The descriptor is open in the child: `theirs` lives until after the spawn.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(death))?;
                // Had the launcher died before that call, no signal would ever come.
                if getppid() != Some(launcher) {
                    return Err(std::io::ErrorKind::NotConnected.into());
                }
                fcntl_setfd(
                    std::os::fd::BorrowedFd::borrow_raw(channel),
                    FdFlags::empty(),
                )?;
                Ok(())
            });
        }
        let child = command.spawn().map_err(|cause| Error::Start {
            program: self.path.clone(),
            cause,
        })?;
        Ok((child, ours))
    }
}

/// The loader and the trainer of one job.
#[derive(Debug)]
pub struct Pair {
    /// What serves.
    pub loader: Program,
    /// What trains.
    pub trainer: Program,
}

/// The loader that is running, and how those before it fared.
struct Loaders<'a> {
    program: &'a Program,
    running: Option<(Child, UnixStream)>,
    started: Instant,
    /// Ends in a row.
    deaths: u32,
    /// Ends in all.
    ends: u32,
}

impl Pair {
    /// Runs both until the trainer ends; returns its exit code, or 128 + n after signal n.
    pub fn run(&self) -> Result<u8, Error> {
        // From here on SIGCHLD wakes the loop below, also for a child that ends at once.
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGCHLD])
            .map_err(Error::system("cannot listen to signals"))?;
        // A loader in a process group of its own does not see the terminal's Ctrl-C: it serves the trainer's last step.
        let (mut trainer, channel) = self.trainer.start(Signal::TERM, false)?;
        let mut loaders = Loaders {
            program: &self.loader,
            running: None,
            started: Instant::now(),
            deaths: 0,
            ends: 0,
        };
        let supervised = supervise(&mut signals, &mut trainer, &channel, &mut loaders);
        if supervised.is_err() {
            // Without a loader the trainer can only write its checkpoint.
            send(&trainer, Signal::TERM);
            let _ = trainer.wait();
        }
        loaders.end();
        supervised
    }
}

fn supervise(
    signals: &mut Signals,
    trainer: &mut Child,
    channel: &UnixStream,
    loaders: &mut Loaders<'_>,
) -> Result<u8, Error> {
    let mut stopping = false;
    loaders.start(channel)?;
    loop {
        for signal in signals.wait() {
            if signal != SIGCHLD {
                // A terminal's Ctrl-C reaches the trainer as well, and a second SIGINT would end it at once: the first
                // one is passed on as a request that may come twice.
                let passed = match signal {
                    SIGINT if !stopping => SIGTERM,
                    other => other,
                };
                stopping = true;
                send(
                    trainer,
                    Signal::from_named_raw(passed).expect("one of those asked for"),
                );
            }
        }
        if let Some(status) = trainer
            .try_wait()
            .map_err(Error::system("cannot wait for the trainer"))?
        {
            return Ok(code(status));
        }
        if let Some(status) = loaders.ended()? {
            if stopping {
                continue;
            }
            // One that ends because the trainer is ending is not missed: give the trainer the moment to end, too.
            std::thread::sleep(loaders.pause(status)?);
            if let Some(status) = trainer
                .try_wait()
                .map_err(Error::system("cannot wait for the trainer"))?
            {
                return Ok(code(status));
            }
            tracing::warn!(
                "the loader ended ({}); starting another one",
                describe(status)
            );
            loaders.start(channel)?;
        }
    }
}

impl Loaders<'_> {
    /// Starts one and connects it with the trainer behind `channel`.
    fn start(&mut self, trainer: &UnixStream) -> Result<(), Error> {
        let (child, channel) = self.program.start(Signal::KILL, true)?;
        let (one, other) = UnixStream::pair().map_err(Error::system("cannot make a socketpair"))?;
        // A child that is gone already is found by the loop, whichever of the two it is.
        let _ = send_stream(channel.as_fd(), one.into());
        let _ = send_stream(trainer.as_fd(), other.into());
        self.running = Some((child, channel));
        self.started = Instant::now();
        Ok(())
    }

    /// The status of the running one, if it has ended.
    fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        let Some((child, _)) = &mut self.running else {
            return Ok(None);
        };
        let status = child
            .try_wait()
            .map_err(Error::system("cannot wait for the loader"))?;
        if status.is_some() {
            self.running = None;
        }
        Ok(status)
    }

    /// How long to wait before the next one, after one that ended with `status`; an error if there should be no next.
    fn pause(&mut self, status: ExitStatus) -> Result<Duration, Error> {
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
    fn end(&mut self) {
        let Some((mut child, channel)) = self.running.take() else {
            return;
        };
        drop(channel);
        let asked = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if asked.elapsed() > LEAVE {
                tracing::warn!("the loader does not end; killing it");
                // Cannot fail in a way that matters: it has not been waited for, so the number is still its own.
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Sends a signal to a child that has not been waited for, so that its number is still its own.
fn send(child: &Child, signal: Signal) {
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        // It may be dead already, and waiting to be waited for.
        let _ = kill_process(pid, signal);
    }
}

fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => (128 + signal.unwrap_or_default()) as u8,
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            format!(
                "signal {signal}, {}",
                signal_hook::low_level::signal_name(signal).unwrap_or("unknown")
            )
        }
        (None, None) => "an unknown status".to_owned(),
    }
}

#[cfg(test)]
mod tests;
