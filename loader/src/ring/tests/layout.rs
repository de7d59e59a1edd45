//! What lies where: the header, and slots with smaller images, without masks and without an image.

use super::*;
use crate::ring::geometry::HEADER_LEN;

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
