//! The protocol on heap memory. These tests run as they are, under miri and under AddressSanitizer; `model` runs the
//! same code under loom.

use std::alloc::{Layout as AllocLayout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::geometry::PAGE;
use super::*;

/// Page-aligned zeroed memory of this process.
#[derive(Debug)]
struct Heap {
    bytes: NonNull<[u8]>,
    #[cfg(loom)]
    control: Control,
}

impl Heap {
    fn new(len: usize) -> Arc<Heap> {
        let layout = AllocLayout::from_size_align(len, PAGE).unwrap();
        // SAFETY: the layout is not empty.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        Arc::new(Heap {
            bytes: NonNull::slice_from_raw_parts(start, len),
            #[cfg(loom)]
            control: Control::default(),
        })
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let layout = AllocLayout::from_size_align(self.bytes.len(), PAGE).unwrap();
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.bytes.cast::<u8>().as_ptr(), layout) }
    }
}

// SAFETY: the block is owned, never moved, and reached through rings only.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}
// SAFETY: the block is zeroed, page-aligned and lives until the drop.
unsafe impl Memory for Heap {
    fn bytes(&self) -> NonNull<[u8]> {
        self.bytes
    }

    #[cfg(loom)]
    fn control(&self) -> &Control {
        &self.control
    }
}

const SMALL: Geometry = Geometry {
    slots: 2,
    images_per_slot: 2,
    channels: 1,
    height: 2,
    width: 3,
    context_masks: 1,
    target_masks: 2,
    max_context: 4,
    max_target: 3,
};

fn ring(geometry: Geometry) -> (Claimer, Publisher, Consumer, Arc<Heap>) {
    let heap = Heap::new(geometry.total_len().unwrap());
    let (claimer, publisher) = create(heap.clone(), geometry).unwrap();
    let consumer = attach(heap.clone()).unwrap();
    (claimer, publisher, consumer, heap)
}

#[cfg(not(loom))]
/// Fills a claimed slot with values that follow from its number alone.
fn fill(slot: &ClaimedSlot, images: Vec<ImagePart>, masks: MaskPart) {
    let number = slot.sequence();
    for mut part in images {
        let index = part.index() as u64;
        part.pixels().fill((number * 2 + index) as u8);
        part.finish(number * 100 + index, (index == 0).then_some(7), index as u8);
    }
    let patches = |count: usize| {
        (0..count as i64)
            .map(|patch| patch + number as i64)
            .collect::<Vec<_>>()
    };
    masks.finish(
        number / 2,
        number % 2,
        &[patches(2 * 3)],
        &[patches(2 * 2), patches(2 * 2)],
    );
}

#[cfg(not(loom))]
fn check(slot: &SlotReader, number: u64) {
    assert_eq!(
        (slot.sequence(), slot.step(), slot.group()),
        (number, number / 2, number % 2)
    );
    let images: Vec<u8> = (0..12).map(|byte| (number * 2 + byte / 6) as u8).collect();
    assert_eq!(slot.images(), images);
    let patches = |count: i64| (number as i64..number as i64 + count).collect::<Vec<_>>();
    assert_eq!((slot.context_len(), slot.target_len()), (3, 2));
    assert_eq!(slot.context(0), patches(6));
    assert_eq!(
        (slot.target(0), slot.target(1)),
        (&patches(4)[..], &patches(4)[..])
    );
    assert_eq!(slot.sample_ids(), [number * 100, number * 100 + 1]);
    assert_eq!(
        (slot.labels(), slot.flags()),
        (&[7, NO_LABEL][..], &[0, 1][..])
    );
}

/// No test waits that long, unless a wake-up is lost. Under loom time-outs do not exist.
const LONG: Duration = Duration::from_secs(60);

#[cfg(not(loom))]
mod plain {
    use std::thread;

    use super::*;
    use crate::ring::block::control;
    use crate::ring::control::MAGIC;
    use crate::ring::geometry::HEADER_LEN;
    use crate::sync::Ordering;

    #[test]
    fn header_layout_is_golden() {
        let (mut claimer, mut publisher, mut consumer, heap) = ring(SMALL);
        let (slot, images, masks) = claimer.claim(LONG).unwrap();
        fill(&slot, images, masks);
        publisher.publish(slot).unwrap();
        let slot = consumer.next(LONG).unwrap();
        consumer.release(slot);
        publisher.end();
        consumer.leave();
        let word = |offset: usize| {
            // SAFETY: inside the block, aligned, and no thread is running.
            unsafe {
                heap.bytes
                    .cast::<u8>()
                    .as_ptr()
                    .add(offset)
                    .cast::<u32>()
                    .read()
            }
        };
        let expected: [(usize, &[u32]); 7] = [
            (0, &[0x5045_4a49, 0x474e_4952, VERSION, 4096]),
            (16, &[2, 2, 1, 2, 3, 1, 2, 4, 3, 0]),
            (56, &[4096 + 2 * 8192, 0]),
            (128, &[1, 0, 2, 1]),
            (256, &[1, 0, 2, 1, 1]),
            // The slot: sequence, step, group, lengths, size; sample ids.
            (4096, &[0, 0, 0, 0, 0, 0, 3, 2, 2, 3, 0, 0]),
            (4096 + 64, &[0, 0, 1, 0]),
        ];
        for (offset, words) in expected {
            for (index, expected) in words.iter().enumerate() {
                assert_eq!(
                    word(offset + 4 * index),
                    *expected,
                    "word {index} of the field at {offset}"
                );
            }
        }
        assert_eq!(std::mem::offset_of!(Control, producer.waits), 192);
        assert_eq!(std::mem::offset_of!(Control, consumer.waits), 320);
        assert!(size_of::<Control>() <= HEADER_LEN);
        // Image part on a page of its own; first pixel of the second image.
        assert_eq!(word(4096 + 4096 + 4), 0x0101_0000);
    }

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
    fn a_slot_may_hold_smaller_images_than_the_ring_has_room_for() {
        let (mut claimer, mut publisher, mut consumer, _) = ring(SMALL);
        for (number, size) in [(2, 3), (1, 3), (2, 2), (1, 1), (2, 3)]
            .into_iter()
            .enumerate()
        {
            let (slot, images, masks) = claimer.claim_for(size, LONG).unwrap();
            fill(&slot, images, masks);
            publisher.publish(slot).unwrap();
            let slot = consumer.next(LONG).unwrap();
            let len = size.0 * size.1;
            let images: Vec<u8> = (0..2 * len)
                .map(|byte| (number * 2 + byte / len) as u8)
                .collect();
            assert_eq!((slot.size(), slot.images()), (size, &images[..]));
            consumer.release(slot);
        }
    }

    #[test]
    #[should_panic = "images of (2, 4) pixels in a ring made for 2x3"]
    fn larger_images_are_refused_by_the_producing_side() {
        let _ = ring(SMALL).0.claim_for((2, 4), LONG);
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

    #[test]
    fn a_confused_producer_is_refused() {
        let (mut claimer, mut publisher, mut consumer, heap) = ring(SMALL);
        let (slot, images, masks) = claimer.claim(LONG).unwrap();
        fill(&slot, images, masks);
        publisher.publish(slot).unwrap();
        let poke = |offset: usize, value: u32| {
            // SAFETY: inside the block, aligned, and no other thread is running.
            unsafe {
                heap.bytes
                    .cast::<u8>()
                    .as_ptr()
                    .add(offset)
                    .cast::<u32>()
                    .write(value)
            }
        };
        for (number, (field, most)) in [
            ("context length", 4),
            ("target length", 3),
            ("image height", 2),
            ("image width", 3),
        ]
        .into_iter()
        .enumerate()
        {
            let at = HEADER_LEN + 24 + 4 * number;
            for bad in [0, most + 1, u32::MAX] {
                poke(at, bad);
                let error = consumer.next(LONG).unwrap_err();
                assert!(
                    matches!(error, Error::Slot { what, .. } if what == field),
                    "{error}"
                );
            }
            poke(at, most);
        }
        poke(HEADER_LEN, 9);
        assert!(matches!(
            consumer.next(LONG),
            Err(Error::Slot {
                what: "sequence",
                found: 9,
                ..
            })
        ));
        control(&*heap)
            .producer
            .published
            .store(3, Ordering::Release);
        let error = consumer.next(LONG).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Cursor {
                    found: 3,
                    low: 0,
                    high: 2,
                    ..
                }
            ),
            "{error}"
        );
        control(&*heap)
            .consumer
            .released
            .store(2, Ordering::Release);
        assert!(matches!(
            claimer.claim(LONG),
            Err(Error::Cursor {
                found: 2,
                high: 1,
                ..
            })
        ));
    }

    #[test]
    fn a_ring_may_be_without_masks_and_a_place_without_an_image() {
        let bare = Geometry::from_words([2, 2, 1, 2, 3, 0, 0, 0, 0]);
        let (mut claimer, mut publisher, mut consumer, heap) = ring(bare);
        for step in 0..3 {
            let (slot, images, masks) = claimer.claim(LONG).unwrap();
            for mut part in images {
                part.pixels().fill(9);
                match (step, part.index()) {
                    (2, 1) => part.finish_absent(),
                    (_, at) => part.finish(7 + at as u64, Some(3), 0),
                }
            }
            masks.finish(step, 0, &[], &[]);
            publisher.publish(slot).unwrap();
            let slot = consumer.next(LONG).unwrap();
            assert_eq!((slot.context_len(), slot.target_len()), (0, 0));
            let last = step == 2;
            assert_eq!(slot.flags(), [0, if last { FLAG_ABSENT } else { 0 }]);
            assert_eq!(slot.sample_ids(), [7, if last { NO_SAMPLE } else { 8 }]);
            assert_eq!(slot.labels(), [3, if last { NO_LABEL } else { 3 }]);
            assert_eq!(slot.images()[..6], [9; 6]);
            assert_eq!(slot.images()[6..], [if last { 0 } else { 9 }; 6]);
            consumer.release(slot);
        }
        // All masks or none, and lengths only where there are masks.
        for half in [5, 6, 7, 8] {
            let mut words = bare.to_words();
            words[half] = 1;
            let error = Geometry::from_words(words).total_len().unwrap_err();
            assert!(matches!(error, Error::Geometry { value: 0, .. }), "{error}");
        }
        let (slot, images, masks) = claimer.claim(LONG).unwrap();
        images.into_iter().for_each(ImagePart::finish_absent);
        masks.finish(3, 0, &[], &[]);
        publisher.publish(slot).unwrap();
        // The fourth slot is the ring's second.
        let header = HEADER_LEN + bare.layout().unwrap().slot_len;
        // SAFETY: inside the block, aligned, and no thread is running.
        unsafe {
            let length = heap.bytes.cast::<u8>().as_ptr().add(header + 24);
            length.cast::<u32>().write(1);
        }
        let error = consumer.next(LONG).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Slot {
                    found: 1,
                    high: 0,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let len = SMALL.total_len().unwrap();
        let heap = Heap::new(len);
        let refusal = |memory: &Arc<Heap>| attach(memory.clone()).unwrap_err();
        assert!(matches!(refusal(&heap), Error::NotReady));
        let _producer = create(heap.clone(), SMALL).unwrap();
        let identity = &control(&*heap).identity;
        identity.version.store(9, Ordering::Release);
        assert_eq!(
            refusal(&heap).to_string(),
            "the ring has version 9, this program speaks version 3"
        );
        identity.version.store(VERSION, Ordering::Release);
        identity.magic.store(1, Ordering::Relaxed);
        assert!(matches!(refusal(&heap), Error::Magic { found: 1 }));
        identity.magic.store(MAGIC, Ordering::Relaxed);
        identity.total_len.store(1, Ordering::Relaxed);
        assert!(matches!(
            refusal(&heap),
            Error::Header {
                what: "total length",
                found: 1,
                ..
            }
        ));
        identity.total_len.store(len as u64, Ordering::Relaxed);
        identity.geometry[0].store(3, Ordering::Relaxed);
        assert!(
            matches!(refusal(&heap), Error::Memory { .. }),
            "more slots than memory"
        );
        identity.geometry[0].store(0, Ordering::Relaxed);
        assert!(matches!(
            refusal(&heap),
            Error::Geometry {
                what: "slots",
                value: 0
            }
        ));
        for field in &identity.geometry {
            field.store(u32::MAX, Ordering::Relaxed);
        }
        assert!(
            matches!(refusal(&heap), Error::Geometry { .. }),
            "offsets that overflow"
        );
        for (field, value) in identity.geometry.iter().zip(SMALL.to_words()) {
            field.store(value as u32, Ordering::Relaxed);
        }
        let _consumer = attach(heap.clone()).unwrap();
        assert!(matches!(refusal(&heap), Error::Taken));
    }
}

/// Every interleaving of two slots' worth of places. Pixels are plain memory that loom cannot watch, so each place has
/// a loom cell beside it, touched exactly when the shipping code touches the slot: a missing Release or Acquire becomes
/// a reported race, a lost wake-up a reported deadlock.
#[cfg(loom)]
mod model {
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

    fn produce(
        claimer: &mut Claimer,
        publisher: &mut Publisher,
        watch: &Watch,
    ) -> Result<(), Error> {
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
}
