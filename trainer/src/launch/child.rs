//! A program that runs with a channel to this process.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{self, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use loader::link::send_stream;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};
use shardtool::paths;
use shardtool::process::Process;

use super::Error;
use super::events::Events;
use crate::stop;

/// Time in which a loader may end by itself when its channel is closed.
pub(super) const LEAVE: Duration = Duration::from_secs(5);

/// A program with its arguments, but for the channel.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    variables: Vec<(&'static str, String)>,
    name: String,
    socket: Option<PathBuf>,
}

/// The fate of a child when this process ends, or when its terminal sends a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    /// The kernel asks it to stop, and it gets the terminal's signals as this process does. Those that ask for a stop
    /// wait until it listens, however long it takes to start.
    Asked,
    /// The kernel kills it, and it gets no signal of the terminal.
    Killed,
}

/// A program that is running, with the channel to it. Dropping it closes the channel.
#[derive(Debug)]
pub(super) struct Child {
    process: process::Child,
    channel: UnixStream,
    name: String,
    /// It listens at a named socket, and does not know of the channel.
    is_listening: bool,
}

impl Program {
    /// Returns the program at `path` with a subcommand.
    pub fn new(path: PathBuf, subcommand: &str) -> Program {
        Program {
            path,
            args: vec![subcommand.into()],
            variables: Vec::new(),
            name: format!("the {subcommand} process"),
            socket: None,
        }
    }

    /// Has it listen at a named socket, and not at a channel to this process.
    pub fn listening_at(&mut self, socket: PathBuf) -> &mut Program {
        self.socket = Some(socket);
        self
    }

    /// Sets what it is called in messages.
    pub fn named(&mut self, name: String) -> &mut Program {
        self.name = name;
        self
    }

    /// Sets variables of its environment, beside those of this process.
    pub fn variables(&mut self, variables: Vec<(&'static str, String)>) -> &mut Program {
        self.variables = variables;
        self
    }

    /// Returns the program `name` from the directory of this one, where a build or an installation puts all of them, or
    /// else from `$PATH`.
    ///
    /// # Errors
    /// If the system does not say where this program is.
    pub fn beside_this(name: &str, subcommand: &str) -> io::Result<Program> {
        let path = std::env::current_exe()?.with_file_name(name);
        let path = if path.is_file() { path } else { name.into() };
        Ok(Program::new(path, subcommand))
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(&mut self, args: I) -> &mut Program {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        self.args.extend(args);
        self
    }

    /// Starts it with a channel to this process.
    pub(super) fn start(&self, tie: Tie) -> Result<Child, Error> {
        let (channel, theirs) = pair()?;
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        match &self.socket {
            Some(socket) => command
                .args(["--stay", "--socket"])
                .arg(paths::literal(socket)),
            None => command
                .arg("--socket-fd")
                .arg(theirs.as_raw_fd().to_string()),
        };
        if let Some(variable) = shardtool::program::faulty_variable() {
            command.env_remove(variable);
        }
        if tie == Tie::Killed {
            command.process_group(0);
        }
        let death = match tie {
            Tie::Asked => Signal::TERM,
            Tie::Killed => Signal::KILL,
        };
        let this = getpid();
        let number = theirs.as_raw_fd();
        // SAFETY: between fork and exec only system calls are made, all async-signal-safe, and nothing is allocated.
        // The descriptor is open in the child: `theirs` lives until after the spawn.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(death))?;
                // Had the parent died before that call, no signal would ever come.
                if getppid() != Some(this) {
                    return Err(io::ErrorKind::NotConnected.into());
                }
                // libtorch's store leaves its connections open in whoever is started. An old kernel does not know this.
                let (first, last) = (3, libc::c_uint::MAX);
                let _ = libc::syscall(
                    libc::SYS_close_range,
                    first,
                    last,
                    libc::CLOSE_RANGE_CLOEXEC,
                );
                fcntl_setfd(BorrowedFd::borrow_raw(number), FdFlags::empty())?;
                if tie == Tie::Killed {
                    stop::release();
                }
                Ok(())
            });
        }
        let process = command.spawn().map_err(|cause| Error::Start {
            program: self.path.clone(),
            cause,
        })?;
        let name = self.name.clone();
        Ok(Child {
            process,
            channel,
            name,
            is_listening: self.socket.is_some(),
        })
    }
}

impl Child {
    /// Sends it one end of a connection with the process `peer`; one that is gone already is found by who waits for it.
    pub(super) fn connect(&self, end: UnixStream, peer: u32) {
        let _ = send_stream(self.channel.as_fd(), end.into(), peer);
    }

    /// Returns what it is called in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Tells if a signal or a debugger keeps it from running.
    pub(super) fn is_stopped(&self) -> bool {
        Process::look(self.id()).is_some_and(|process| process.is_stopped())
    }

    /// Returns its process number.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Has its end stand in `events`.
    pub(super) fn watch(&self, events: &Events) -> Result<(), Error> {
        let watched = self.pid().map_or(Ok(()), |pid| events.watch(pid));
        watched.map_err(Error::system("cannot wait for a child process"))
    }

    /// Returns how it ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        let status = self.process.try_wait();
        status.map_err(Error::system("cannot wait for a child process"))
    }

    /// Sends it a signal. It must not have been waited for, so that its number is still its own.
    pub(super) fn signal(&self, signal: Signal) {
        // It may be dead already, and waiting to be waited for.
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, signal);
        }
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Kills it and waits for its end; false if it cannot be killed, as while a disk does not answer it.
    pub(super) fn kill(&mut self) -> bool {
        if self.ends_within(Duration::ZERO) {
            return true; // and its number may be another's by now
        }
        self.signal(Signal::KILL);
        let is_dead = self.ends_within(LEAVE);
        if !is_dead {
            tracing::warn!("{} ({}) cannot be killed", self.name, self.id());
        }
        is_dead
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let since = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if since.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Ends it: by closing its channel, then by force.
    pub(super) fn end(mut self) {
        if self.is_listening {
            self.signal(Signal::TERM);
        }
        // A closed channel is one whose other end reads nothing more; the descriptor itself goes with this child.
        let _ = self.channel.shutdown(Shutdown::Both);
        if !self.ends_within(LEAVE) {
            tracing::warn!("the loader does not end; killing it");
            self.kill();
        }
    }
}

/// Returns the two ends of a connection.
pub(super) fn pair() -> Result<(UnixStream, UnixStream), Error> {
    UnixStream::pair().map_err(Error::system("cannot make a socketpair"))
}

/// Returns the exit code that passes `status` on: 128 + n after signal n.
pub(super) fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => (128 + signal.unwrap_or_default()) as u8,
    }
}

/// Returns `status` in words.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            format!("signal {signal}, {}", stop::name(signal))
        }
        (None, None) => "an unknown status".to_owned(),
    }
}
