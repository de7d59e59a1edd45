//! What either side does not take from the other.

use super::*;
use crate::ring::block::control;
use crate::ring::control::MAGIC;
use crate::ring::geometry::HEADER_LEN;
use crate::sync::Ordering;

#[test]
#[should_panic = "images of (2, 4) pixels in a ring made for 2x3"]
fn larger_images_are_refused_by_the_producing_side() {
    let _ = ring(SMALL).0.claim_for((2, 4), LONG);
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
