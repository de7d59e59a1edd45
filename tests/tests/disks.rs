//! Promise: what a file system lacks keeps nothing from running, what it loses is written again, and what a run has
//! done is on the disk before anything ends it.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use tests::{Faults, Running, Site, child_of, run_ok, signal};

/// Returns the arguments of a run with one more override for each of `sets`.
fn launch(site: &Site, run: &str, sets: &[&str]) -> Vec<String> {
    let mut arguments = site.launch_arguments(run);
    for set in sets {
        arguments.extend(["--set".to_owned(), (*set).to_owned()]);
    }
    arguments
}

fn checkpoint(site: &Site, run: &str, step: usize) -> PathBuf {
    PathBuf::from(site.path(&format!(
        "{run}/checkpoints/test-step{step:08}/checkpoint.json"
    )))
}

#[test]
fn a_file_system_without_synchronised_directories_and_locks_is_used_as_it_is() {
    let Some(faults) = Faults::build() else {
        return;
    };
    let site = Site::new(16);
    let root = site.root().to_str().expect("UTF-8").to_owned();
    for (number, (sync, lock)) in [
        ("syncdir:EINVAL", "flock:ENOSYS"),
        ("syncdir:EOPNOTSUPP", "flock:ENOLCK"),
        ("opendir:EACCES", "flock:EBADF"),
    ]
    .into_iter()
    .enumerate()
    {
        // A directory that cannot be opened cannot be listed either: only for what nobody lists.
        let place = if sync.starts_with("opendir") {
            ".tmp-test"
        } else {
            &root
        };
        let rules = [format!("{sync}:{place}"), format!("{lock}:{root}")];
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let run = format!("run{number}");
        let arguments = launch(&site, &run, &["optimization.epochs=1"]);
        let mut running = Running::start_command(
            faults.command("trainer", &arguments, &rules),
            &site.path("launch.log"),
        );
        running.wait_ok();
        let said = running.stderr();
        assert!(checkpoint(&site, &run, 4).is_file(), "{said}");
        for warning in ["cannot synchronise", "has no locks"] {
            assert_eq!(said.matches(warning).count(), 1, "{rules:?}: {said}");
        }

        let out = site.path(&format!("shards{number}"));
        let build = ["build", &site.path("images"), "--out", &out].map(String::from);
        // Nor can the finished directory be renamed.
        let rules = [&rules[..], &["rename:EXDEV:.building$"]].concat();
        let output = faults
            .command("shardtool", &build, &rules)
            .output()
            .expect("shardtool runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches("has no locks").count(), 1, "{said}");
        run_ok("shardtool", &["verify", &out]);
        let left = fs::read_dir(&out).expect("a data set").flatten();
        let names: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert!(!names.contains(&"builder.lock".into()), "{names:?}");
    }
}

#[test]
fn without_locks_a_second_trainer_of_this_machine_is_refused() {
    let Some(faults) = Faults::build() else {
        return;
    };
    let site = Site::new(32);
    let rules = [&format!("flock:ENOSYS:{}", site.path("run"))[..]];
    let arguments = launch(&site, "run", &["optimization.epochs=100000"]);
    let start = |log: &str| {
        Running::start_command(
            faults.command("trainer", &arguments, &rules),
            &site.path(log),
        )
    };
    let first = start("first.log");
    site.wait_for_steps("run", 1);
    let mut second = start("second.log");
    assert_eq!(second.wait().code(), Some(2), "{}", second.stderr());
    let said = second.stderr();
    assert!(
        said.contains("in use by another trainer (process"),
        "{said}"
    );
    // Killed, it is in nobody's way.
    signal(child_of(first.id(), "trainer"), Signal::KILL);
    drop(first);
    let mut third = start("third.log");
    signal_after_steps(&site, &third, "run");
    assert_eq!(third.wait().code(), Some(75), "{}", third.stderr());
}

/// Asks a run to stop once it has done a step more.
fn signal_after_steps(site: &Site, running: &Running, run: &str) {
    let before = site.losses(run).len();
    tests::wait_until("the run to be cut or to go on", || {
        site.losses(run).len() != before
    });
    signal(running.id(), Signal::TERM);
}

#[test]
fn a_failing_disk_is_no_missing_feature() {
    let Some(faults) = Faults::build() else {
        return;
    };
    let site = Site::new(16);
    for rule in [
        "fsync:EIO:checkpoints/",
        "syncdir:EIO:checkpoints/",
        "rename:EPERM:checkpoints/",
    ] {
        let arguments = launch(&site, "run", &["optimization.epochs=1"]);
        let mut running = Running::start_command(
            faults.command("trainer", &arguments, &[rule]),
            &site.path("launch.log"),
        );
        assert_eq!(
            running.wait().code(),
            Some(74),
            "{rule}: {}",
            running.stderr()
        );
        let said = running.stderr();
        assert!(said.contains("3 checkpoints failed in a row"), "{said}");
        assert!(!checkpoint(&site, "run", 4).exists(), "{rule}");
    }
    // With a disk that works the same command goes on.
    Running::start(
        "trainer",
        &launch(&site, "run", &["optimization.epochs=1"]),
        &site.path("again.log"),
    )
    .wait_ok();
    assert!(checkpoint(&site, "run", 4).is_file());
}

#[test]
fn rows_that_no_disk_takes_end_nothing() {
    let Some(faults) = Faults::build() else {
        return;
    };
    let site = Site::new(16);
    // Full after some rows, and with room again after a few failures: no row is missing.
    let arguments = launch(&site, "run", &["optimization.epochs=3"]);
    let rules = ["write:ENOSPC:_r0.csv:150:3", "write:EIO:_r0.jsonl:900:2"];
    let mut running = Running::start_command(
        faults.command("trainer", &arguments, &rules),
        &site.path("launch.log"),
    );
    running.wait_ok();
    assert_eq!(site.exact_losses("run").len(), 12, "{}", running.stderr());
    assert_eq!(site.losses("run").len(), 12, "{}", running.stderr());
    // Never again with room: the run comes to its end, and says what is missing.
    let arguments = launch(&site, "other", &["optimization.epochs=3"]);
    let rules = ["write:EROFS:_r0.csv:150", "write:EROFS:_r0.jsonl:900"];
    let mut running = Running::start_command(
        faults.command("trainer", &arguments, &rules),
        &site.path("launch.log"),
    );
    running.wait_ok();
    let said = running.stderr();
    assert!(checkpoint(&site, "other", 12).is_file(), "{said}");
    assert_eq!(said.matches("a row cannot be written").count(), 2, "{said}");
    assert_eq!(said.matches("could not be written").count(), 2, "{said}");
}

#[test]
fn a_run_directory_that_is_moved_or_deleted_costs_no_step() {
    let site = Site::new(32);
    let whole = launch(&site, "whole", &[]);
    Running::start("trainer", &whole, &site.path("whole.log")).wait_ok();
    for is_moved in [true, false] {
        let run = if is_moved { "moved" } else { "deleted" };
        let arguments = launch(&site, run, &["optimization.epochs=3"]);
        let mut running = Running::start("trainer", &arguments, &site.path("launch.log"));
        site.wait_for_steps(run, 3);
        if is_moved {
            fs::rename(site.path(run), site.path("elsewhere")).expect("it is moved");
        } else {
            while fs::remove_dir_all(site.path(run)).is_err() {} // it is being written to
        }
        signal(child_of(running.id(), "trainer"), Signal::TERM);
        let code = running.wait().code();
        let said = running.stderr();
        // It may have come to its end before the signal did.
        assert!(code == Some(75) || code == Some(0), "{code:?}: {said}");
        assert!(said.contains("moved or deleted in mid-run"), "{said}");
        let done = site.exact_losses(run).len();
        assert!(
            done >= 3 && checkpoint(&site, run, done).is_file(),
            "{done} steps: {said}"
        );
        let mut again = Running::start("trainer", &arguments, &site.path("again.log"));
        again.wait_ok();
        assert_eq!(
            site.exact_losses(run),
            site.exact_losses("whole"),
            "{}",
            again.stderr()
        );
        assert_eq!(site.losses(run), site.losses("whole"));
    }
}

#[test]
fn a_process_without_descriptors_still_writes_its_checkpoint() {
    let site = Site::new(32);
    let arguments = launch(
        &site,
        "run",
        &["optimization.epochs=100000", "checkpoint.min_minutes=1000"],
    );
    let mut running = Running::start("trainer", &arguments, &site.path("launch.log"));
    site.wait_for_steps("run", 2);
    let trainer = child_of(running.id(), "trainer");
    let open = fs::read_dir(format!("/proc/{trainer}/fd"))
        .expect("it is alive")
        .flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
    // Just above the highest in use; whatever is free below stays free, as in any process.
    let limit = Rlimit {
        current: Some(numbers.max().expect("some are open") + 1),
        ..getrlimit(Resource::Nofile)
    };
    let id = Pid::from_raw(trainer as i32);
    prlimit(id, Resource::Nofile, limit).expect("the limit is set");
    signal(running.id(), Signal::TERM);
    assert_eq!(running.wait().code(), Some(75), "{}", running.stderr());
    let done = site.exact_losses("run").len();
    assert!(
        checkpoint(&site, "run", done).is_file(),
        "{}",
        running.stderr()
    );
}
