//! The feed against a loader that is played by hand, and dies by hand.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::thread;

use super::*;
use crate::link::PROTOCOL;
use crate::link::descriptors::send_with_fd;
use crate::link::frames::encode;
use crate::ring::{Claimer, ImagePart, Publisher};

const GEOMETRY: Geometry = Geometry {
    slots: 2,
    images_per_slot: 1,
    channels: 1,
    height: 2,
    width: 2,
    context_masks: 1,
    target_masks: 1,
    max_context: 2,
    max_target: 2,
};
const PATIENCE: Duration = Duration::from_secs(30);

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        pid: 1,
        plan: crate::sampler::Plan::Pretraining,
        sampling_hash: 2,
        manifest_checksum: 3,
        rank: 0,
        world: 1,
        global_batch: 1,
        first_step: 4,
        end_step: None,
    }
}

fn expected() -> Welcome {
    Welcome {
        protocol: PROTOCOL,
        pid: 4321,
        geometry: GEOMETRY,
        epoch_len: 10,
        samples: 10,
        classes: 0,
        groups: 1,
    }
}

fn connect(endpoint: &Endpoint, patience: Duration) -> Result<Feed, Error> {
    Feed::connect(endpoint, &hello(), &expected(), patience)
}

fn wait() -> Wait<'static> {
    Wait::begin(PATIENCE.into(), Awaited::Answer(None))
}

/// Accepts one hello.
fn accept(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().unwrap();
    let (request, _) = receive::<Request>(&stream, &mut wait()).unwrap().unwrap();
    assert_eq!(request, Request::Hello(hello()));
    stream
}

/// Accepts one hello and answers it with a ring.
fn welcome(listener: &UnixListener) -> (UnixStream, Claimer, Publisher) {
    let stream = accept(listener);
    let (memory, file) = Mapping::create(GEOMETRY.total_len().unwrap()).unwrap();
    let (claimer, publisher) = ring::create(Arc::new(memory), GEOMETRY).unwrap();
    let frame = encode(&Reply::Welcome(expected()));
    assert_eq!(
        send_with_fd(stream.as_fd(), &frame, file.as_fd()).unwrap(),
        frame.len()
    );
    (stream, claimer, publisher)
}

fn publish(claimer: &mut Claimer, publisher: &mut Publisher, step: u64) {
    let (slot, images, masks) = claimer.claim(PATIENCE).unwrap();
    images
        .into_iter()
        .for_each(|image: ImagePart| image.finish(0, None, 0));
    masks.finish(step, 0, &[vec![0]], &[vec![1]]);
    publisher.publish(slot).unwrap();
}

/// Runs `loader` against a feed that connects to it.
fn with_loader<T: Send>(loader: impl FnOnce(UnixListener) -> T + Send, trainer: impl FnOnce(Feed)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loader.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        let loader = scope.spawn(|| loader(listener));
        trainer(connect(&Endpoint::Path(path), PATIENCE).unwrap());
        // What the loader returns is dropped here, after the feed.
        loader.join().unwrap();
    });
}

#[test]
fn a_loader_that_dies_is_reported_after_its_last_slot() {
    with_loader(
        |listener| {
            let (stream, mut claimer, mut publisher) = welcome(&listener);
            publish(&mut claimer, &mut publisher, 4);
            // As a killed process leaves it: the socket ends, the ring says nothing (the publisher lives on).
            drop(stream);
            publisher
        },
        |mut feed| {
            let group = feed.next().unwrap();
            assert_eq!(group.step(), 4);
            feed.release(group);
            let start = Instant::now();
            let error = feed.next().unwrap_err();
            assert!(matches!(error, Error::LoaderDied { pid: 4321 }), "{error}");
            assert!(start.elapsed() < Duration::from_secs(5));
        },
    );
}

#[test]
fn slots_out_of_order_are_refused() {
    with_loader(
        |listener| {
            let (stream, mut claimer, mut publisher) = welcome(&listener);
            publish(&mut claimer, &mut publisher, 4);
            publish(&mut claimer, &mut publisher, 6);
            // Until the feed is dropped.
            assert!(matches!(claimer.claim(PATIENCE), Err(ring::Error::Left)));
            drop(stream);
        },
        |mut feed| {
            let group = feed.next().unwrap();
            let error = feed.next().unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Order {
                        step: 6,
                        expected_step: 5,
                        ..
                    }
                ),
                "{error}"
            );
            drop(group);
        },
    );
}

#[test]
fn a_bounded_wait_ends_without_a_group() {
    with_loader(
        |listener| {
            let (_stream, mut claimer, _publisher) = welcome(&listener);
            let _all = (
                claimer.claim(PATIENCE).unwrap(),
                claimer.claim(PATIENCE).unwrap(),
            );
            assert!(matches!(claimer.claim(PATIENCE), Err(ring::Error::Left)));
        },
        |mut feed| {
            assert!(
                feed.next_within(Duration::from_millis(20))
                    .unwrap()
                    .is_none()
            );
            assert!(feed.waited().1.start >= Duration::from_millis(20));
        },
    );
}

#[test]
fn an_absent_loader_is_named_after_the_patience() {
    let endpoint = Endpoint::Path("/nonexistent/loader.sock".into());
    let error = connect(&endpoint, Duration::from_millis(60)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no loader at /nonexistent/loader.sock"),
        "{error}"
    );
}

/// Returns why no feed could be had, and who was waited for, of a loader that is played by hand.
fn failure<T: Send>(loader: impl FnOnce(UnixListener) -> T + Send, patience: Duration) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loader.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        let loader = scope.spawn(|| loader(listener));
        let error = connect(&Endpoint::Path(path), patience).unwrap_err();
        loader.join().unwrap();
        error
    })
}

#[test]
fn a_loader_that_does_not_answer_is_named() {
    // Nobody accepts: the connection waits in the queue, as with a loader that is stopped.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loader.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let error = connect(&Endpoint::Path(path), Duration::from_millis(200)).unwrap_err();
    let process = format!("(process {}, alive)", std::process::id());
    assert!(
        matches!(error, Error::NoAnswer { .. }) && error.to_string().contains(&process),
        "{error}"
    );
}

#[test]
fn a_full_queue_ends_the_wait_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loader.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = crate::link::socket::connect_now(&path) {
        queue.push(stream);
    }
    let error = connect(&Endpoint::Path(path), Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }), "{error}");
}

#[test]
fn a_welcome_that_drips_ends_with_the_patience() {
    let error = failure(
        |listener| {
            let mut stream = accept(&listener);
            let frame = encode(&Reply::Refused {
                reason: " ".repeat(60_000),
            });
            // Ten minutes of it, each byte well within the patience.
            for byte in frame {
                if std::io::Write::write_all(&mut stream, &[byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        },
        Duration::from_secs(1),
    );
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
}

#[test]
fn a_wait_for_the_welcome_can_be_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loader.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    for endpoint in [path, "/nonexistent/loader.sock".into()] {
        let patience = Patience {
            limit: PATIENCE,
            given_up: &|| true,
        };
        let endpoint = Endpoint::Path(endpoint);
        let error = Feed::connect(&endpoint, &hello(), &expected(), patience).unwrap_err();
        assert!(matches!(error, Error::GivenUp), "{error}");
    }
}

#[test]
fn another_ring_than_expected_is_not_mapped() {
    let error = failure(
        |listener| {
            let stream = accept(&listener);
            // Two hundred gigabytes that nobody has.
            let memory = rustix::fs::memfd_create("ring", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&memory, 200 << 30).unwrap();
            let geometry = Geometry {
                slots: 50_000_000,
                ..GEOMETRY
            };
            let frame = encode(&Reply::Welcome(Welcome {
                geometry,
                ..expected()
            }));
            send_with_fd(stream.as_fd(), &frame, memory.as_fd()).unwrap();
        },
        PATIENCE,
    );
    let text = error.to_string();
    assert!(
        text.contains("50000000") && text.contains("gives 2"),
        "{text}"
    );
}

#[test]
fn a_loader_that_sends_nothing_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loader.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        let loader = scope.spawn(|| welcome(&listener));
        let mut feed = connect(&Endpoint::Path(path), PATIENCE).unwrap();
        feed.patience = Duration::from_millis(300);
        let error = feed.next().unwrap_err();
        assert!(
            matches!(
                error,
                Error::NoGroup {
                    step: 4,
                    group: 0,
                    ..
                }
            ),
            "{error}"
        );
        drop(loader.join().unwrap());
    });
}

#[test]
fn what_a_loader_says_is_cut_and_escaped() {
    let error = failure(
        |listener| {
            let reason = format!("\x1b[2J{}", "é".repeat(20_000));
            let frame = encode(&Reply::Refused { reason });
            std::io::Write::write_all(&mut accept(&listener), &frame).unwrap();
        },
        PATIENCE,
    );
    let text = error.to_string();
    assert!(
        text.contains(r"\u{1b}[2J") && !text.contains('\x1b'),
        "{text}"
    );
    assert!(text.len() < 1100 && text.contains("bytes more"), "{text}");
}
