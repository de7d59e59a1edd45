//! Every interleaving of two slots' worth of places. Pixels are plain memory that loom cannot watch, so each place has
//! a loom cell beside it, touched exactly when the shipping code touches the slot: a missing Release or Acquire becomes
//! a reported race, a lost wake-up a reported deadlock.

use loom::cell::UnsafeCell;
use loom::thread;

use super::*;

const TINY: Geometry = Geometry {
    images_per_slot: 1,
    target_masks: 1,
    ..SMALL
};

struct Watch([UnsafeCell<u64>; 2]);
// SAFETY: that the cells are not touched by two threads at once is what loom checks.
unsafe impl Sync for Watch {}
// SAFETY: as above.
unsafe impl Send for Watch {}

fn watch() -> Arc<Watch> {
    Arc::new(Watch([UnsafeCell::new(0), UnsafeCell::new(0)]))
}

fn produce(claimer: &mut Claimer, publisher: &mut Publisher, watch: &Watch) -> Result<(), Error> {
    let (slot, images, masks) = claimer.claim(LONG)?;
    let number = slot.sequence();
    // SAFETY: loom checks.
    watch.0[number as usize % 2].with_mut(|cell| unsafe { *cell = number });
    for mut part in images {
        part.pixels().fill(number as u8);
        part.finish(number, None, 0);
    }
    masks.finish(number, 0, &[vec![number as i64]], &[vec![number as i64]]);
    publisher.publish(slot)
}

fn take(consumer: &mut Consumer, watch: &Watch, number: u64) -> SlotReader {
    let slot = consumer.next(LONG).unwrap();
    assert_eq!((slot.sequence(), slot.step()), (number, number));
    assert_eq!(slot.images(), [number as u8; 6]);
    // SAFETY: loom checks.
    watch.0[number as usize % 2].with(|cell| assert_eq!(unsafe { *cell }, number));
    slot
}

/// Runs all executions with at most two involuntary switches. A third takes a hundred times as long.
fn check_all(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

/// Runs producer and consumer of `slots` slots; at capacity 2, three of them wrap and fill, and the consumer finds
/// it empty.
fn hand_off(slots: u64) {
    check_all(move || {
        let (mut claimer, mut publisher, mut consumer, _) = ring(TINY);
        let cells = watch();
        let producer = {
            let cells = cells.clone();
            thread::spawn(move || {
                for _ in 0..slots {
                    produce(&mut claimer, &mut publisher, &cells).unwrap();
                }
                publisher.end();
            })
        };
        for number in 0..slots {
            let slot = take(&mut consumer, &cells, number);
            consumer.release(slot);
        }
        assert!(matches!(consumer.next(LONG), Err(Error::Ended)));
        producer.join().unwrap();
    });
}

#[test]
fn one_slot() {
    hand_off(1);
}

#[test]
fn full_and_wrapped() {
    hand_off(3);
}

#[test]
fn consumer_holds_two() {
    check_all(|| {
        let (mut claimer, mut publisher, mut consumer, _) = ring(TINY);
        let cells = watch();
        let producer = {
            let cells = cells.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    produce(&mut claimer, &mut publisher, &cells).unwrap();
                }
            })
        };
        let first = take(&mut consumer, &cells, 0);
        let second = take(&mut consumer, &cells, 1);
        consumer.release(first);
        consumer.release(second);
        let third = take(&mut consumer, &cells, 2);
        consumer.release(third);
        producer.join().unwrap();
        // The producer's half was dropped without an end.
        assert!(matches!(consumer.next(LONG), Err(Error::Failed)));
    });
}

#[test]
fn consumer_leaves_a_full_ring() {
    check_all(|| {
        let (mut claimer, mut publisher, mut consumer, _) = ring(TINY);
        let cells = watch();
        let producer = {
            let cells = cells.clone();
            thread::spawn(move || {
                loop {
                    match produce(&mut claimer, &mut publisher, &cells) {
                        Ok(()) => {}
                        Err(Error::Left) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                publisher.published()
            })
        };
        let slot = take(&mut consumer, &cells, 0);
        consumer.release(slot);
        drop(consumer);
        assert!((1..=3).contains(&producer.join().unwrap()));
    });
}
