//! Promise: a run that goes on and on takes no more memory, descriptors, threads or mappings than at its beginning.
//!
//! `make soak MINUTES=60` goes on for long; without that a minute is part of the tests.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::{Running, Site, child_of, signal};

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident_kb: u64,
    descriptors: usize,
    threads: usize,
    maps: usize,
}

impl Held {
    fn by(process: u32) -> Held {
        let file = |name: &str| {
            let path = format!("/proc/{process}/{name}");
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let entries = |name: &str| {
            fs::read_dir(format!("/proc/{process}/{name}"))
                .unwrap()
                .count()
        };
        let status = file("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Held {
            resident_kb: resident
                .unwrap()
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .unwrap(),
            descriptors: entries("fd"),
            threads: entries("task"),
            maps: file("maps").lines().count(),
        }
    }

    /// Returns the smaller of each: what is held for good, beside what comes and goes.
    fn least(self, other: Held) -> Held {
        Held {
            resident_kb: self.resident_kb.min(other.resident_kb),
            descriptors: self.descriptors.min(other.descriptors),
            threads: self.threads.min(other.threads),
            maps: self.maps.min(other.maps),
        }
    }
}

#[test]
fn a_long_run_holds_no_more_than_a_short_one() {
    let minutes = std::env::var("MINUTES").map_or(1.0, |text| text.parse().expect("MINUTES"));
    let site = Site::new(32);
    let mut arguments = site.launch_arguments("run");
    for set in [
        "optimization.epochs=100000",
        "checkpoint.every_steps=25",
        "trainer.signs_every=25",
    ] {
        arguments.extend(["--set".to_owned(), set.to_owned()]);
    }
    let mut launch = Running::start("trainer", &arguments, &site.path("log"));
    // Checkpoints and measurements were made several times, and the heap has settled, which takes 20 MB.
    site.wait_for_steps("run", 250);
    let children = ["trainer", "loader"].map(|name| child_of(launch.id(), name));
    // The least that is held in the first quarter of the time, and in the last one.
    let mut least = [[None; 2]; 4];
    let (begun, whole) = (Instant::now(), Duration::from_secs_f64(60.0 * minutes));
    while begun.elapsed() < whole {
        let quarter = (4.0 * begun.elapsed().as_secs_f64() / whole.as_secs_f64()) as usize;
        for (least, &child) in least[quarter.min(3)].iter_mut().zip(&children) {
            let now = Held::by(child);
            *least = Some(least.map_or(now, |before: Held| before.least(now)));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let steps = site.losses("run").len();
    signal(launch.id(), Signal::TERM);
    assert_eq!(launch.wait().code(), Some(75), "{}", launch.stderr());
    let [first, _, _, last] = least;
    for ((name, early), late) in ["trainer", "loader"].iter().zip(first).zip(last) {
        let (early, late) = (early.unwrap(), late.unwrap());
        println!(
            "{name}, {steps} steps in {minutes} min: {early:?} in the first quarter, {late:?} in the last"
        );
        assert!(late.descriptors <= early.descriptors, "{name}");
        assert!(late.threads <= early.threads, "{name}");
        assert!(late.maps <= early.maps + 8, "{name}");
        let limit = early.resident_kb + early.resident_kb / 50 + 4096;
        assert!(late.resident_kb <= limit, "{name}");
    }
}
