//! How slots go from one side to the other and back.

use std::thread;

use super::*;

#[test]
fn slots_arrive_whole_and_in_order() {
    let (mut claimer, mut publisher, mut consumer, _) = ring(SMALL);
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..rounds {
                let (slot, images, masks) = claimer.claim(LONG).unwrap();
                fill(&slot, images, masks);
                publisher.publish(slot).unwrap();
            }
            publisher.end();
        });
        for number in 0..rounds {
            let slot = consumer.next(LONG).unwrap();
            check(&slot, number);
            consumer.release(slot);
        }
        assert!(matches!(consumer.next(LONG), Err(Error::Ended)));
    });
}

#[test]
fn workers_share_a_slot_and_several_slots_are_held() {
    let (mut claimer, mut publisher, mut consumer, _) = ring(SMALL);
    let (first, first_images, first_masks) = claimer.claim(LONG).unwrap();
    let (second, second_images, second_masks) = claimer.claim(LONG).unwrap();
    assert!(
        matches!(claimer.claim(Duration::ZERO), Err(Error::TimedOut { .. })),
        "both slots are claimed"
    );
    // The later slot is filled first; the earlier one is still published first.
    fill(&second, second_images, second_masks);
    assert!(second.is_complete() && !first.is_complete());
    thread::scope(|scope| {
        for mut part in first_images {
            scope.spawn(move || {
                let index = part.index() as u64;
                part.pixels().fill(index as u8);
                part.finish(index, (index == 0).then_some(7), index as u8);
            });
        }
        let patches = |count: i64| (0..count).collect::<Vec<_>>();
        first_masks.finish(0, 0, &[patches(6)], &[patches(4), patches(4)]);
    });
    assert!(first.is_complete());
    publisher.publish(first).unwrap();
    publisher.publish(second).unwrap();
    let (a, b) = (consumer.next(LONG).unwrap(), consumer.next(LONG).unwrap());
    check(&a, 0);
    check(&b, 1);
    assert!(matches!(
        consumer.next(Duration::from_millis(1)),
        Err(Error::TimedOut { .. })
    ));
    consumer.release(a);
    assert_eq!(claimer.claim(LONG).unwrap().0.sequence(), 2);
    consumer.release(b);
}

#[test]
#[should_panic(expected = "slots are released in order")]
fn releasing_out_of_order_panics() {
    let (mut claimer, mut publisher, mut consumer, _) = ring(SMALL);
    for _ in 0..2 {
        let (slot, images, masks) = claimer.claim(LONG).unwrap();
        fill(&slot, images, masks);
        publisher.publish(slot).unwrap();
    }
    let (_first, second) = (consumer.next(LONG).unwrap(), consumer.next(LONG).unwrap());
    consumer.release(second);
}

#[test]
fn a_dropped_part_is_never_published() {
    let (mut claimer, mut publisher, mut consumer, _) = ring(SMALL);
    let (slot, images, masks) = claimer.claim(LONG).unwrap();
    drop(images);
    masks.finish(0, 0, &[vec![0; 6]], &[vec![0; 4], vec![0; 4]]);
    assert!(matches!(
        publisher.publish(slot),
        Err(Error::Unfinished { sequence: 0 })
    ));
    drop(publisher);
    assert!(matches!(consumer.next(LONG), Err(Error::Failed)));
}

#[test]
fn a_consumer_that_leaves_wakes_the_producer() {
    let (mut claimer, _publisher, consumer, _) = ring(SMALL);
    let _held = (claimer.claim(LONG).unwrap(), claimer.claim(LONG).unwrap());
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(5));
            drop(consumer);
        });
        assert!(matches!(claimer.claim(LONG), Err(Error::Left)));
    });
    assert!(claimer.wait_times().waited().0.start >= Duration::from_millis(1));
}
