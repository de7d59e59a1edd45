//! Server and feed in one process, over real sockets.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::*;
use crate::config::Loader;
use crate::link::{self, Endpoint, Feed, Hello, NamedSocket, PROTOCOL, Welcome, send_stream};
use crate::sampler::Plan;
use crate::testing::{Copied, Fixture};

const LONG: Duration = Duration::from_secs(60);
const QUIET: ServeOptions = ServeOptions {
    plan: Plan::Pretraining,
    stay: false,
    statistics: Duration::ZERO,
};

struct Running {
    fixture: Fixture,
    socket: PathBuf,
    thread: JoinHandle<Result<(), super::Error>>,
}

fn start(sets: &[&str]) -> Running {
    let fixture = Fixture::new(sets);
    let socket = fixture.directory.path().join("loader.sock");
    let listener = Listener::Named(NamedSocket::bind(&socket).unwrap());
    let thread = spawn(&fixture, listener, QUIET);
    Running {
        fixture,
        socket,
        thread,
    }
}

fn spawn(
    fixture: &Fixture,
    listener: Listener,
    options: ServeOptions,
) -> JoinHandle<Result<(), super::Error>> {
    let pipeline = Arc::new(Pipeline::start(fixture.source(), 2, &Loader::default()).unwrap());
    let config = fixture.config.clone();
    std::thread::spawn(move || serve(pipeline, config, listener, options))
}

fn hello(fixture: &Fixture) -> Hello {
    Hello {
        protocol: PROTOCOL,
        pid: std::process::id(),
        plan: Plan::Pretraining,
        sampling_hash: fixture.config.sampling_hash(),
        manifest_checksum: fixture.source().dataset().manifest().checksum(),
        rank: 0,
        world: 1,
        global_batch: 8,
        first_step: 0,
        end_step: None,
    }
}

/// Connects as a rank of the fixture's run.
fn connect(fixture: &Fixture, endpoint: &Endpoint, hello: &Hello) -> Result<Feed, link::Error> {
    let source = fixture.source();
    let expected = Welcome::expected(&fixture.config, source.dataset().manifest(), 1).unwrap();
    Feed::connect(endpoint, hello, &expected, LONG)
}

fn at(path: &Path) -> Endpoint {
    Endpoint::Path(path.to_owned())
}

/// Takes and releases `count` groups.
fn take(feed: &mut Feed, count: usize) -> Vec<Copied> {
    (0..count)
        .map(|_| {
            let group = feed.next().unwrap();
            let copy = Copied::of(&group);
            feed.release(group);
            copy
        })
        .collect()
}

#[test]
fn groups_arrive_and_the_loader_ends_with_its_last_consumer() {
    let running = start(&[]);
    let hello = hello(&running.fixture);
    let mut feed = connect(&running.fixture, &at(&running.socket), &hello).unwrap();
    assert_eq!(
        (
            feed.epoch_len(),
            feed.welcome().samples,
            feed.welcome().classes
        ),
        (3, 24, 2)
    );
    let all = take(&mut feed, 10);
    // A second consumer, from a later step and while the first is there, sees the same.
    let later = Hello {
        first_step: 2,
        ..hello
    };
    let mut second = connect(&running.fixture, &at(&running.socket), &later).unwrap();
    assert_eq!(take(&mut second, 6), all[4..]);
    second.goodbye();
    assert!(feed.next().is_ok());
    feed.goodbye();
    running.thread.join().unwrap().unwrap();
    assert!(!running.socket.exists());
}

#[test]
fn a_consumer_that_vanishes_with_slots_in_its_hands_ends_the_loader_too() {
    let running = start(&[]);
    let mut feed = connect(
        &running.fixture,
        &at(&running.socket),
        &hello(&running.fixture),
    )
    .unwrap();
    let held = (feed.next().unwrap(), feed.next().unwrap());
    drop(feed);
    running.thread.join().unwrap().unwrap();
    assert_eq!(held.1.group(), 1, "what was taken stays readable");
}

#[test]
fn refusals_reach_the_trainer_and_cost_the_loader_nothing() {
    let running = start(&[]);
    let good = hello(&running.fixture);
    let refused = |hello: Hello| match connect(&running.fixture, &at(&running.socket), &hello) {
        Err(link::Error::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let reason = refused(Hello {
        sampling_hash: 7,
        ..good.clone()
    });
    let ours = format!("{:016x}", good.sampling_hash);
    assert!(
        reason.contains("0000000000000007") && reason.contains(&ours),
        "{reason}"
    );
    let reason = refused(Hello {
        global_batch: 16,
        ..good.clone()
    });
    assert!(reason.contains("16") && reason.contains('8'), "{reason}");
    let reason = refused(Hello {
        world: 3,
        ..good.clone()
    });
    assert!(
        reason.contains("2 groups") && reason.contains("3 ranks"),
        "{reason}"
    );
    let reason = refused(Hello {
        plan: Plan::Evaluation,
        ..good.clone()
    });
    assert!(
        reason.contains("evaluation") && reason.contains("pretraining"),
        "{reason}"
    );
    // Not even JSON: answered, and no reason to end.
    let mut stranger = StdStream::connect(&running.socket).unwrap();
    io::Write::write_all(&mut stranger, b"\x04\0\0\0what").unwrap();
    let mut answer = Vec::new();
    io::Read::read_to_end(&mut stranger, &mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[4..]).contains("speaks link version 2"));
    let mut feed = connect(&running.fixture, &at(&running.socket), &good).unwrap();
    take(&mut feed, 1);
    feed.goodbye();
    running.thread.join().unwrap().unwrap();
}

#[test]
fn the_end_step_ends_the_feed_with_a_reason() {
    let running = start(&[]);
    let hello = Hello {
        first_step: 1,
        end_step: Some(3),
        ..hello(&running.fixture)
    };
    let mut feed = connect(&running.fixture, &at(&running.socket), &hello).unwrap();
    take(&mut feed, 4);
    let error = feed.next().unwrap_err();
    assert!(
        matches!(&error, link::Error::LoaderClosed { reason } if reason.contains("last step")),
        "{error}"
    );
    feed.goodbye();
    running.thread.join().unwrap().unwrap();
}

#[test]
fn a_launcher_connects_its_children_and_connects_them_again() {
    let fixture = Fixture::new(&[]);
    let hello = hello(&fixture);
    let (to_loader, loaders_end) = StdStream::pair().unwrap();
    let (to_trainer, trainers_end) = StdStream::pair().unwrap();
    let thread = spawn(&fixture, Listener::Inherited(loaders_end.into()), QUIET);
    let endpoint = Endpoint::Inherited(trainers_end.into());
    let again = || {
        let (one, other) = StdStream::pair().unwrap();
        send_stream(to_loader.as_fd(), one.into(), 1).unwrap();
        send_stream(to_trainer.as_fd(), other.into(), 1).unwrap();
        connect(&fixture, &endpoint, &hello).unwrap()
    };
    let mut feed = again();
    let first = take(&mut feed, 2);
    drop(feed);
    // The loader outlives its consumer: the launcher may start another.
    let mut feed = again();
    assert_eq!(take(&mut feed, 2), first);
    drop(to_loader);
    // On a busy machine some groups come before it has noticed.
    let error = (0..100_000)
        .find_map(|_| feed.next().map(|group| feed.release(group)).err())
        .unwrap();
    assert!(
        matches!(&error, link::Error::LoaderClosed { reason } if reason.contains("told to stop")),
        "{error}"
    );
    thread.join().unwrap().unwrap();
    drop(to_trainer);
    assert!(matches!(
        connect(&fixture, &endpoint, &hello),
        Err(link::Error::LauncherDied)
    ));
}

#[test]
fn a_ring_that_fails_ends_a_loader_that_can_be_replaced() {
    let fixture = Fixture::new(&[]);
    let hello = hello(&fixture);
    fixture.damage(0..24);
    let (to_loader, loaders_end) = StdStream::pair().unwrap();
    let (to_trainer, trainers_end) = StdStream::pair().unwrap();
    let thread = spawn(&fixture, Listener::Inherited(loaders_end.into()), QUIET);
    let (one, other) = StdStream::pair().unwrap();
    send_stream(to_loader.as_fd(), one.into(), 1).unwrap();
    send_stream(to_trainer.as_fd(), other.into(), 1).unwrap();
    let endpoint = Endpoint::Inherited(trainers_end.into());
    let mut feed = connect(&fixture, &endpoint, &hello).unwrap();
    let error = feed.next().unwrap_err();
    assert!(
        matches!(&error, link::Error::LoaderClosed { reason } if reason.contains("all damaged")),
        "{error}"
    );
    // Neither the launcher nor the trainer has closed anything.
    let error = thread.join().unwrap().unwrap_err();
    assert!(
        matches!(error, super::Error::RingFailed(_)) && error.is_midway(),
        "{error}"
    );
}

#[test]
fn a_ring_that_fails_costs_a_loader_with_a_name_nothing_else() {
    let running = start(&[]);
    running.fixture.damage(0..24);
    let hello = hello(&running.fixture);
    let mut feed = connect(&running.fixture, &at(&running.socket), &hello).unwrap();
    assert!(feed.next().is_err());
    assert!(!running.thread.is_finished(), "its consumer is still there");
    feed.goodbye();
    running.thread.join().unwrap().unwrap();
}

#[test]
fn silent_connections_make_room_for_others() {
    let running = start(&[]);
    let mut silent: Vec<StdStream> = Vec::new();
    while silent.len() < 3 * SILENT as usize {
        // The queue is short, and emptied in its own time.
        silent.push(StdStream::connect(&running.socket).unwrap());
    }
    // Closed without the refusal that it would have got after its patience.
    let mut answer = Vec::new();
    let ended = io::Read::read_to_end(&mut silent[0], &mut answer);
    assert!(matches!(ended, Ok(0)) && answer.is_empty(), "{answer:?}");
    let hello = hello(&running.fixture);
    let mut feed = connect(&running.fixture, &at(&running.socket), &hello).unwrap();
    take(&mut feed, 1);
    drop(silent);
    feed.goodbye();
    running.thread.join().unwrap().unwrap();
}
