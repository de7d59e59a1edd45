//! Who holds a lock, in words, for file systems that know no locks and for messages.

use std::fmt;
use std::fs;

use crate::process::Process;

/// A process that holds something: `process 4711 on node7, started at 123456`.
///
/// The start is the kernel's, in ticks since the machine's: with it, a later process of that number is not mistaken for
/// the holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    process: u32,
    host: String,
    started: u64,
}

impl Holder {
    /// Returns this process.
    pub fn this() -> Holder {
        let process = std::process::id();
        Holder {
            process,
            host: host_name(),
            started: started(process).unwrap_or(0),
        }
    }

    /// Reads what a holder wrote about itself; it may be torn, or something else altogether.
    pub fn parse(text: &str) -> Option<Holder> {
        let rest = text.trim().strip_prefix("process ")?;
        let (process, rest) = rest.split_once(" on ")?;
        let (host, started) = rest.rsplit_once(", started at ")?;
        Some(Holder {
            process: process.parse().ok()?,
            host: host.to_owned(),
            started: started.parse().ok()?,
        })
    }

    /// Tells whether it is another process of this machine that is alive.
    pub fn is_alive_here(&self) -> bool {
        self.host == host_name()
            && self.process != std::process::id()
            && started(self.process) == Some(self.started)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "process {} on {}, started at {}",
            self.process, self.host, self.started
        )
    }
}

/// Returns the name of this machine, empty where it has none.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Returns when a process was started, if it is alive. One that is dead holds nothing, even if it is not collected.
fn started(process: u32) -> Option<u64> {
    let found = Process::look(process).filter(|process| !process.is_dead());
    found.map(|process| process.started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_known_by_what_it_wrote() {
        let this = Holder::this();
        assert_eq!(Holder::parse(&this.to_string()), Some(this.clone()));
        assert!(this.started > 0);
        for text in ["", "process 1", "process x on y, started at 1", "\0\0"] {
            assert_eq!(Holder::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_the_very_process_is_the_holder() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let holder = Holder {
            process: child.id(),
            host: host_name(),
            started: started(child.id()).unwrap(),
        };
        assert!(holder.is_alive_here());
        let later = Holder {
            started: holder.started + 1,
            ..holder.clone()
        };
        assert!(!later.is_alive_here(), "another process of that number");
        child.kill().unwrap();
        while !Process::look(child.id()).unwrap().is_dead() {
            std::thread::yield_now();
        }
        assert!(!holder.is_alive_here(), "though nobody has waited for it");
        child.wait().unwrap();
        assert!(!holder.is_alive_here());
        assert!(!Holder::this().is_alive_here(), "we are not in our way");
    }
}
