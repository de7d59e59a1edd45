//! A process of this machine, as the kernel describes it in `/proc/ID/stat`.

use std::fs;

/// What the kernel says of a process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Name of its program, cut by the kernel after 15 bytes; any bytes may stand in it.
    pub name: String,
    /// Letter of its state: `R`, `S`, `D`, `T`, `t`, `Z` or `X`, and a few of newer kernels.
    pub state: char,
    /// Number of its parent.
    pub parent: u32,
    /// When it was started, in ticks since the machine's start: a later process of its number has another one.
    pub started: u64,
}

impl Process {
    /// Looks at the process with this number; `None` if there is none to be seen.
    pub fn look(id: u32) -> Option<Process> {
        Process::parse(&fs::read(format!("/proc/{id}/stat")).ok()?)
    }

    /// Reads `id (name) state parent …`. A name may hold spaces, brackets and lines; no field after it does.
    fn parse(stat: &[u8]) -> Option<Process> {
        let begin = stat.iter().position(|&byte| byte == b'(')?;
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let name = String::from_utf8_lossy(stat.get(begin + 1..end)?).into_owned();
        let mut fields = std::str::from_utf8(&stat[end + 1..])
            .ok()?
            .split_ascii_whitespace();
        Some(Process {
            name,
            state: fields.next()?.parse().ok()?,
            parent: fields.next()?.parse().ok()?,
            // Field 22, counted from 1.
            started: fields.nth(17)?.parse().ok()?,
        })
    }

    /// Tells if a signal or a debugger keeps it from running.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Tells if it has ended and only waits to be collected: in a container that may be for ever.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[test]
    fn any_name_is_passed_over() {
        let rest = "S 7 1 1 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 4711 22 33";
        for name in ["sleep", "a b", ") Z 1 (", "))", "two\nlines", ""] {
            let found = Process::parse(format!("12 ({name}) {rest}\n").as_bytes()).unwrap();
            let expected = Process {
                name: name.to_owned(),
                state: 'S',
                parent: 7,
                started: 4711,
            };
            assert_eq!(found, expected);
        }
        let foreign = [b"12 (\xff\xfe) ".as_slice(), rest.as_bytes()].concat();
        assert_eq!(Process::parse(&foreign).unwrap().started, 4711);
        for torn in [
            "",
            "12 (sleep",
            ")(",
            "12 (sleep) S 7",
            "12 (sleep) S x 1 1",
        ] {
            assert_eq!(Process::parse(torn.as_bytes()), None, "{torn:?}");
        }
    }

    #[test]
    fn a_child_is_seen_to_stop_and_die() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let id = child.id();
        let until = |condition: fn(&Process) -> bool| {
            // A minute, for a machine that is busy.
            let looks = (0..6000).map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                Process::look(id)
            });
            looks.flatten().find(condition).expect("it comes to that")
        };
        let alive = Process::look(id).unwrap();
        assert_eq!(alive.parent, std::process::id());
        assert!(!alive.is_stopped() && !alive.is_dead());
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        assert_eq!(until(Process::is_stopped).started, alive.started);
        child.kill().unwrap();
        assert_eq!(until(Process::is_dead).started, alive.started);
        child.wait().unwrap();
        assert_eq!(Process::look(id), None);
    }
}
