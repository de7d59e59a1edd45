//! The protocol on heap memory. These tests run as they are, under miri and under AddressSanitizer; `model` runs the
//! same code under loom.

#[cfg(not(loom))]
mod hand_over;
#[cfg(not(loom))]
mod layout;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod refusals;

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

/// Fills a claimed slot with values that follow from its number alone.
#[cfg(not(loom))]
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
