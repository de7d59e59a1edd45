//! What is left when a process of the pair is killed, stopped or told to end: nothing, and the next start needs no
//! clean-up.
//!
//! The loader is the real program; the consumer is this process, or this program again where it has to be killed.

#![cfg(feature = "serve")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use loader::link::{Error, Feed};
use rustix::process::Signal;

use support::process::{PATIENCE, Place, Running, connect, take};

/// One test at a time: each counts the rings that this process has mapped.
static ALONE: Mutex<()> = Mutex::new(());

fn end_of(feed: &mut Feed) -> Error {
    loop {
        match feed.next() {
            Ok(group) => feed.release(group),
            Err(error) => return error,
        }
    }
}

fn rings_mapped(process: &str) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    maps.lines()
        .filter(|line| line.contains("ijepa-ring"))
        .count()
}

#[test]
fn a_killed_loader_is_replaced_without_a_trace() {
    let _alone = ALONE.lock().unwrap_or_else(|poison| poison.into_inner());
    let place = Place::new();
    let mut first = place.start_loader(Stdio::inherit());
    let mut feed = place.connect(0);
    let undisturbed: Vec<_> = (0..8).map(|_| take(&mut feed)).collect();
    first.signal(Signal::KILL);
    let error = end_of(&mut feed);
    assert!(
        matches!(error, Error::LoaderDied { pid } if pid == first.0.id()),
        "{error}"
    );
    assert_eq!(first.wait().signal(), Some(Signal::KILL.as_raw()));
    assert_eq!(rings_mapped("self"), 1);
    drop(feed);
    assert_eq!(rings_mapped("self"), 0);
    // It could not remove its socket; the next one does.
    assert!(place.socket().exists());
    let mut second = place.start_loader(Stdio::inherit());
    let mut feed = place.connect(2);
    let again: Vec<_> = (0..4).map(|_| take(&mut feed)).collect();
    assert_eq!(again, undisturbed[4..]);
    feed.goodbye();
    assert!(second.wait().success());
    assert!(!place.socket().exists());
}

#[test]
fn a_loader_that_is_told_to_stop_says_so_and_cleans_up() {
    let _alone = ALONE.lock().unwrap_or_else(|poison| poison.into_inner());
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let mut loader = place.start_loader(Stdio::inherit());
        let mut feed = place.connect(0);
        take(&mut feed);
        let start = Instant::now();
        loader.signal(signal);
        assert!(loader.wait().success());
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "took {:?}",
            start.elapsed()
        );
        assert!(!place.socket().exists());
        let error = end_of(&mut feed);
        assert!(
            matches!(&error, Error::LoaderClosed { reason } if reason.contains("told to stop")),
            "{error}"
        );
    }
}

#[test]
fn a_stopped_loader_is_waited_for() {
    let _alone = ALONE.lock().unwrap_or_else(|poison| poison.into_inner());
    let place = Place::new();
    let loader = place.start_loader(Stdio::inherit());
    let mut feed = place.connect(0);
    take(&mut feed);
    loader.signal(Signal::STOP);
    // What is in the ring still comes; then nothing does, and that is no death.
    let mut taken = 1;
    while let Some(group) = feed.next_within(Duration::from_millis(300)).unwrap() {
        feed.release(group);
        taken += 1;
        assert!(taken <= 1 + 2 + 1, "a stopped loader goes on");
    }
    loader.signal(Signal::CONT);
    take(&mut feed);
}

/// Not a test of its own: the process that `a_killed_consumer_…` starts and kills.
#[test]
#[ignore = "started by a_killed_consumer_leaves_nothing_behind"]
fn consumer_process() {
    let place = PathBuf::from(std::env::var_os("IJEPA_TEST_PLACE").expect("only as a child"));
    let mut feed = connect(&place.join("config.yaml"), &place.join("loader.sock"), 0);
    take(&mut feed);
    let _held = feed.next().unwrap();
    std::fs::write(place.join("holding"), "").unwrap();
    std::thread::sleep(PATIENCE);
}

#[test]
fn a_killed_consumer_leaves_nothing_behind() {
    let _alone = ALONE.lock().unwrap_or_else(|poison| poison.into_inner());
    let place = Place::new();
    let mut loader = place.start_loader(Stdio::inherit());
    // Keeps the loader alive, so that its memory can be looked at.
    let mut bystander = place.connect(0);
    let mut consumer = Command::new(std::env::current_exe().unwrap());
    consumer
        .args(["--ignored", "--exact", "consumer_process"])
        .env("IJEPA_TEST_PLACE", place.directory.path());
    let mut consumer = Running(
        consumer
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let start = Instant::now();
    while !place.directory.path().join("holding").exists() {
        assert!(
            start.elapsed() < PATIENCE,
            "the consumer does not get going"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let process = loader.0.id().to_string();
    assert_eq!(rings_mapped(&process), 2);
    consumer.signal(Signal::KILL);
    consumer.wait();
    while rings_mapped(&process) > 1 {
        assert!(
            start.elapsed() < PATIENCE,
            "the loader keeps a dead consumer's ring"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    take(&mut bystander);
    drop(bystander);
    assert!(loader.wait().success(), "its last consumer has gone");
    assert!(!place.socket().exists());
}
