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
        sampling_hash: 2,
        manifest_checksum: 3,
        rank: 0,
        world: 1,
        global_batch: 1,
        first_step: 4,
        end_step: None,
    }
}

/// Accepts one hello and answers it with a ring.
fn welcome(listener: &UnixListener) -> (UnixStream, Claimer, Publisher) {
    let (mut stream, _) = listener.accept().unwrap();
    let (request, _) = receive::<Request>(&mut stream).unwrap().unwrap();
    assert_eq!(request, Request::Hello(hello()));
    let (memory, file) = Mapping::create(GEOMETRY.total_len().unwrap()).unwrap();
    let (claimer, publisher) = ring::create(Arc::new(memory), GEOMETRY).unwrap();
    let welcome = Welcome {
        protocol: PROTOCOL,
        pid: 4321,
        geometry: GEOMETRY,
        epoch_len: 10,
        samples: 10,
        classes: 0,
        groups: 1,
    };
    let frame = encode(&Reply::Welcome(welcome));
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
        trainer(Feed::connect(&Endpoint::Path(path), &hello(), PATIENCE).unwrap());
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
    let error = Feed::connect(&endpoint, &hello(), Duration::from_millis(60)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no loader at /nonexistent/loader.sock"),
        "{error}"
    );
}

#[test]
fn a_stopped_process_is_recognised() {
    assert_eq!(process_state(std::process::id()), "alive");
    assert_eq!(process_state(u32::MAX), "not visible from here");
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let state = (0..200).map(|_| {
        thread::sleep(Duration::from_millis(10));
        process_state(child.id())
    });
    assert!(state.take(200).any(|state| state == "stopped"));
    child.kill().unwrap();
    child.wait().unwrap();
}
