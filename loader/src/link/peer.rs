//! The process at the other end, in messages.

use std::fmt;
use std::os::fd::AsFd;

use shardtool::process::Process;

/// A process that is waited for: its number, and what the kernel says about it at the moment of speaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub u32);

impl Peer {
    /// Returns the process that made the other end of a socket: for a named socket, the one that listens there.
    pub(crate) fn of(socket: impl AsFd) -> Option<Peer> {
        let found = rustix::net::sockopt::socket_peercred(socket).ok()?;
        u32::try_from(found.pid.as_raw_nonzero().get())
            .ok()
            .map(Peer)
    }

    /// Returns the state of the process, in a word or a few.
    pub fn state(self) -> &'static str {
        match Process::look(self.0) {
            Some(process) if process.is_stopped() => "stopped",
            Some(process) if process.is_dead() => "dead but not reaped",
            Some(Process { state: 'D', .. }) => "blocked on a device",
            Some(_) => "alive",
            None => "not visible from here",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "process {}, {}", self.0, self.state())
    }
}

#[cfg(all(test, not(miri), not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stopped_process_is_recognised() {
        assert_eq!(Peer(std::process::id()).state(), "alive");
        assert_eq!(Peer(u32::MAX).state(), "not visible from here");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let mut states = (0..2000).map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            Peer(child.id()).state()
        });
        assert!(states.any(|state| state == "stopped"));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
