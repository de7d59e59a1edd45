//! Memory that this process may still take: the machine's, or less by a control group or by the process's own limit.
//!
//! Linux hands out memory that it has not got and kills somebody when that shows. So whoever is about to take much asks
//! here first ([`check`]), and says with figures what does not fit.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A number of bytes that is shown in the unit that suits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let unit = (self.0.max(1).ilog2() / 10).min(4);
        let value = self.0 as f64 / (1_u64 << (10 * unit)) as f64;
        write!(out, "{value:.1} {}", UNITS[unit as usize])
    }
}

/// What bounds the memory that is available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// What the machine has left, without swap.
    Machine,
    /// The limit of a control group, by its directory.
    Group(PathBuf),
    /// The limit of this process's address space.
    Process,
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Machine => out.write_str("on this machine"),
            Bound::Group(path) => write!(out, "in the control group {}", crate::Escaped::new(path)),
            Bound::Process => out.write_str("under this process's limit (ulimit -v)"),
        }
    }
}

/// Memory that can still be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// How much.
    pub bytes: u64,
    /// What bounds it.
    pub bound: Bound,
}

/// The reason why something is not begun: it would not fit in memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}: {} of memory needed, {} available {}; {cure}",
    Size(*needed), Size(available.bytes), available.bound
)]
pub struct TooLittle {
    /// What would not fit.
    pub what: String,
    /// Bytes that it takes.
    pub needed: u64,
    /// What there is.
    pub available: Available,
    /// What makes it smaller.
    pub cure: &'static str,
}

/// Makes sure that `needed` bytes are available for `what`. Where the system does not say, they are.
///
/// # Errors
/// If there is less, with what makes it smaller: `cure`.
pub fn check(what: &str, needed: u64, cure: &'static str) -> Result<(), TooLittle> {
    match available() {
        Some(available) if available.bytes < needed => Err(TooLittle {
            what: what.to_owned(),
            needed,
            available,
            cure,
        }),
        _ => Ok(()),
    }
}

/// Returns what this process may still take, where the system says so.
pub fn available() -> Option<Available> {
    let machine = machine(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let all = [
        Some((machine, Bound::Machine)),
        group(Path::new("/sys/fs/cgroup"), &groups),
        process().map(|bytes| (bytes, Bound::Process)),
    ];
    let least = all.into_iter().flatten().min_by_key(|(bytes, _)| *bytes);
    least.map(|(bytes, bound)| Available { bytes, bound })
}

/// Returns what the kernel thinks can be had without swapping, from the text of `/proc/meminfo`.
fn machine(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Returns the bytes of this process's memory that are resident, where the system says.
pub fn resident() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    resident.checked_mul(rustix::param::page_size() as u64)
}

/// Returns what this process's own limit leaves of its address space, if it has one.
fn process() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let used: u64 = pages.split(' ').next()?.parse().ok()?;
    Some(limit.saturating_sub(used.saturating_mul(rustix::param::page_size() as u64)))
}

/// How a hierarchy of control groups calls its files.
struct Hierarchy {
    /// Where it is mounted, below `/sys/fs/cgroup`.
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// Lines of `memory.stat` that count what the kernel gives up when memory is short.
    reclaimable: &'static [&'static str],
}

const SECOND: Hierarchy = Hierarchy {
    mount: "",
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: &["inactive_file", "active_file", "slab_reclaimable"],
};
const FIRST: Hierarchy = Hierarchy {
    mount: "memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: &["total_inactive_file", "total_active_file"],
};

/// Returns what the tightest of this process's control groups leaves, by the text of `/proc/self/cgroup`. A group's
/// limit holds for all groups below it, so those above count as well.
fn group(root: &Path, groups: &str) -> Option<(u64, Bound)> {
    let mut least: Option<(u64, PathBuf)> = None;
    for line in groups.lines() {
        // `number:controllers:path`; the second version has number 0 and no controllers.
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let hierarchy = match controllers {
            "" if number == "0" => SECOND,
            list if list.split(',').any(|controller| controller == "memory") => FIRST,
            _ => continue,
        };
        let mount = root.join(hierarchy.mount);
        // Inside a container the path may be the host's: then only the mount itself is there, and is our own group.
        let own = mount.join(path.trim_start_matches('/'));
        let above = own
            .ancestors()
            .take_while(|group| group.starts_with(&mount));
        for group in above {
            if let Some(left) = hierarchy.left(group)
                && least.as_ref().is_none_or(|(bytes, _)| left < *bytes)
            {
                least = Some((left, group.to_owned()));
            }
        }
    }
    least.map(|(bytes, path)| (bytes, Bound::Group(path)))
}

impl Hierarchy {
    /// Returns what the limit of a group leaves, if it has one.
    fn left(&self, group: &Path) -> Option<u64> {
        let number = |name| -> Option<u64> {
            let text = fs::read_to_string(group.join(name)).ok()?;
            text.trim().parse().ok()
        };
        let (limit, usage) = (number(self.limit)?, number(self.usage)?);
        // What was read from files counts as used until somebody needs the room.
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let counts = stat.lines().filter_map(|line| line.split_once(' '));
        let reclaimable: u64 = counts
            .filter(|(name, _)| self.reclaimable.contains(name))
            .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
            .fold(0, u64::saturating_add);
        Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_their_units() {
        for (bytes, text) in [
            (0, "0.0 B"),
            (1023, "1023.0 B"),
            (1536, "1.5 KiB"),
            (256 << 20, "256.0 MiB"),
            (140 << 30, "140.0 GiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    /// Writes a control group's files.
    fn write(group: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(group).unwrap();
        for (name, text) in files {
            fs::write(group.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_tightest_group_of_the_second_version_counts() {
        let root = tempfile::tempdir().unwrap();
        let outer = root.path().join("jobs");
        write(
            &outer,
            &[("memory.max", "1000\n"), ("memory.current", "900\n")],
        );
        let inner = outer.join("mine");
        write(&inner, &[("memory.max", "max\n"), ("memory.current", "10")]);
        let left = group(root.path(), "0::/jobs/mine\n");
        assert_eq!(left, Some((100, Bound::Group(outer.clone()))));
        // The cache of files is no use that counts.
        write(
            &outer,
            &[("memory.stat", "anon 5\ninactive_file 300\nactive_file 50\n")],
        );
        let left = group(root.path(), "0::/jobs/mine\n");
        assert_eq!(left, Some((450, Bound::Group(outer))));
        write(&inner, &[("memory.max", "30\n")]);
        let left = group(root.path(), "0::/jobs/mine\n");
        assert_eq!(left, Some((20, Bound::Group(inner))));
        assert_eq!(group(root.path(), "0::/\n"), None);
    }

    #[test]
    fn the_first_version_and_foreign_paths_are_understood() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("memory.limit_in_bytes", "500"),
            ("memory.usage_in_bytes", "600"),
            ("memory.stat", "cache 1\ntotal_inactive_file 150\n"),
        ];
        let mount = root.path().join("memory");
        write(&mount, &files);
        // As in a container that sees the host's path.
        let groups = "5:cpu,cpuacct:/a\n4:memory:/docker/0123\n0::/docker/0123\n";
        let left = group(root.path(), groups);
        assert_eq!(left, Some((50, Bound::Group(mount))));
    }

    #[test]
    fn what_does_not_fit_is_told_with_figures() {
        check("nothing", 0, "").unwrap();
        let error = check("a ring", u64::MAX, "loader.slots makes it smaller").unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("a ring: 16777216.0 TiB of memory needed, "),
            "{text}"
        );
        assert!(text.ends_with("; loader.slots makes it smaller"), "{text}");
        assert_eq!(
            machine("MemTotal: 9 kB\nMemAvailable:   7 kB\n"),
            Some(7168)
        );
    }
}
