//! A slot seen from either side: parts that several workers fill at once, and the validated view of the consumer.
//!
//! A claimed slot is cut into owned parts: one [`ImagePart`] per image and one [`MaskPart`]. No two parts overlap, so
//! workers fill them without locks; a part that is dropped instead of finished marks the slot as failed. All reads and
//! writes here are plain: they are ordered by the cursors (see [`super`], SYNC published and SYNC released).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::block::Ring;
use super::error::Error;

/// Bit of a sample's flags: the sample that belonged here was damaged, and another one stands in for it.
pub const FLAG_REPLACED: u8 = 1;
/// Bit of a sample's flags: there is no image in this place.
pub const FLAG_ABSENT: u8 = 2;
/// The sample number where there is no image.
pub const NO_SAMPLE: u64 = u64::MAX;
/// The label of a sample without a class.
pub const NO_LABEL: i64 = -1;

/// The first 64 bytes of a slot. `sequence` is the slot's number since the ring began; the consumer checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct SlotHeader {
    pub(super) sequence: u64,
    pub(super) step: u64,
    pub(super) group: u64,
    pub(super) context_len: u32,
    pub(super) target_len: u32,
    pub(super) height: u32,
    pub(super) width: u32,
}

/// What the parts of one claimed slot share. These atomics are not in the ring: they join threads of one process.
#[derive(Debug)]
struct Progress {
    unfinished: AtomicUsize,
    failed: AtomicBool,
}

/// A slot that is claimed and not yet published.
///
/// It goes back to [`super::Publisher::publish`] when all parts are finished.
#[derive(Debug)]
#[must_use = "a claimed slot that is never published stops the ring"]
pub struct ClaimedSlot {
    pub(super) ring: Arc<Ring>,
    pub(super) sequence: u64,
    progress: Arc<Progress>,
}

/// An image of a claimed slot, with its sample id, label and flags.
#[derive(Debug)]
#[must_use = "a part that is not finished marks its slot as failed"]
pub struct ImagePart {
    ring: Arc<Ring>,
    sequence: u64,
    index: usize,
    /// Bytes of each image of the slot.
    len: usize,
    ticket: Ticket,
}

/// The masks of a claimed slot, with its step and group.
#[derive(Debug)]
#[must_use = "a part that is not finished marks its slot as failed"]
pub struct MaskPart {
    ring: Arc<Ring>,
    sequence: u64,
    /// Height and width of the slot's images.
    size: (usize, usize),
    ticket: Ticket,
}

/// Counts a part as finished, or as failed when it is dropped before.
#[derive(Debug)]
struct Ticket {
    progress: Arc<Progress>,
    finished: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.finished {
            // Relaxed: ordered by the Release below, like the part's bytes.
            self.progress.failed.store(true, Ordering::Relaxed);
        }
        // SYNC part: pairs with the Acquire in `ClaimedSlot::is_complete`; the part's bytes come with the count.
        self.progress.unfinished.fetch_sub(1, Ordering::Release);
    }
}

impl ClaimedSlot {
    /// Cuts slot number `sequence` into its parts, for images of this height and width. The caller has made sure that
    /// the slot is free, and the images no larger than the ring's.
    pub(super) fn new(
        ring: &Arc<Ring>,
        sequence: u64,
        size: (usize, usize),
    ) -> (ClaimedSlot, Vec<ImagePart>, MaskPart) {
        let images = ring.geometry.images_per_slot;
        let len = ring.geometry.channels * size.0 * size.1;
        let progress = Arc::new(Progress {
            unfinished: AtomicUsize::new(images + 1),
            failed: AtomicBool::new(false),
        });
        let ticket = || Ticket {
            progress: progress.clone(),
            finished: false,
        };
        let parts = (0..images)
            .map(|index| ImagePart {
                ring: ring.clone(),
                sequence,
                index,
                len,
                ticket: ticket(),
            })
            .collect();
        let masks = MaskPart {
            ring: ring.clone(),
            sequence,
            size,
            ticket: ticket(),
        };
        (
            ClaimedSlot {
                ring: ring.clone(),
                sequence,
                progress: progress.clone(),
            },
            parts,
            masks,
        )
    }

    /// Tells if every part has been finished or dropped.
    pub fn is_complete(&self) -> bool {
        // SYNC part: pairs with the Release in `Ticket::drop`.
        self.progress.unfinished.load(Ordering::Acquire) == 0
    }

    /// Tells if a part was dropped without being finished (its worker panicked).
    pub fn has_failed(&self) -> bool {
        // Relaxed: final, and visible, once `is_complete` has returned true; before that only a hint.
        self.progress.failed.load(Ordering::Relaxed)
    }

    /// Returns the number of this slot since the ring began.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl ImagePart {
    /// Returns the position of the image in its group.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the image's bytes: planes of rows (CHW).
    pub fn pixels(&mut self) -> &mut [u8] {
        let offset = self.ring.layout.images + self.index * self.len;
        // SAFETY: the slot is claimed and unpublished, so the consumer stays away; this part alone covers image
        // `index`, and `&mut self` makes the borrow exclusive. The slot has room for as many images of the ring's
        // size, and `Claimer::claim_for` lets no larger ones in. Bytes have no invalid values and the memory started
        // zeroed.
        unsafe {
            std::slice::from_raw_parts_mut(self.ring.slot(self.sequence).add(offset), self.len)
        }
    }

    /// Writes the image's record and finishes the part.
    pub fn finish(mut self, sample_id: u64, label: Option<u32>, flags: u8) {
        let layout = &self.ring.layout;
        let slot = self.ring.slot(self.sequence);
        // SAFETY: entry `index` of the three columns belongs to this part, which is claimed and unpublished. The
        // offsets lie inside the slot by `Geometry::layout`, and each column starts on a cache line, so entries are
        // aligned.
        unsafe {
            slot.add(layout.sample_ids)
                .cast::<u64>()
                .add(self.index)
                .write(sample_id);
            slot.add(layout.labels)
                .cast::<i64>()
                .add(self.index)
                .write(label.map_or(NO_LABEL, i64::from));
            slot.add(layout.flags).add(self.index).write(flags);
        }
        self.ticket.finished = true;
    }

    /// Finishes the part without an image.
    pub fn finish_absent(mut self) {
        self.pixels().fill(0);
        self.finish(NO_SAMPLE, None, FLAG_ABSENT);
    }
}

impl MaskPart {
    /// Writes the slot's header and masks and finishes the part.
    ///
    /// A context is `images × context_len` patch numbers, row by row; a target likewise.
    ///
    /// # Panics
    /// If the masks do not fit the ring's geometry: the geometry was made for this sampler.
    pub fn finish(mut self, step: u64, group: u64, contexts: &[Vec<i64>], targets: &[Vec<i64>]) {
        let (geometry, layout) = (self.ring.geometry, self.ring.layout);
        let images = geometry.images_per_slot;
        let patches = |masks: &[Vec<i64>], count: usize, most: usize| -> usize {
            let len = masks.first().map_or(0, |mask| mask.len() / images);
            assert_eq!(masks.len(), count, "as many masks as the ring was made for");
            assert!(
                masks.iter().all(|mask| mask.len() == len * images),
                "masks of equal length"
            );
            let least = count.min(1);
            assert!(
                (least..=most).contains(&len),
                "{len} patches in a ring made for {least} to {most}"
            );
            len
        };
        let context_len = patches(contexts, geometry.context_masks, geometry.max_context);
        let target_len = patches(targets, geometry.target_masks, geometry.max_target);
        let slot = self.ring.slot(self.sequence);
        let header = SlotHeader {
            sequence: self.sequence,
            step,
            group,
            context_len: context_len as u32,
            target_len: target_len as u32,
            height: self.size.0 as u32,
            width: self.size.1 as u32,
        };
        let columns = [
            (contexts, layout.contexts, layout.context_stride),
            (targets, layout.targets, layout.target_stride),
        ];
        // SAFETY: header and masks belong to this part alone, which is claimed and unpublished. The lengths were
        // checked against the geometry above, so every copy ends inside its stride; strides are multiples of a cache
        // line.
        unsafe {
            slot.cast::<SlotHeader>().write(header);
            for (masks, start, stride) in columns {
                for (number, mask) in masks.iter().enumerate() {
                    let place = slot.add(start + number * stride).cast::<i64>();
                    place.copy_from_nonoverlapping(mask.as_ptr(), mask.len());
                }
            }
        }
        self.ticket.finished = true;
    }
}

/// A published slot in the consumer's hands: one whole group.
///
/// Give it back with [`super::Consumer::release`].
///
/// The slices read the shared memory itself. They are sound as long as the producer keeps to the protocol, which this
/// process cannot enforce on another one: a producer that writes into a published slot changes bytes under a `&[u8]`.
/// No length or offset depends on such bytes, because the header was copied and checked when the slot was taken.
#[derive(Debug)]
#[must_use = "a slot that is never released stops the ring"]
pub struct SlotReader {
    pub(super) ring: Arc<Ring>,
    header: SlotHeader,
}

impl SlotReader {
    /// Takes slot `sequence` after the consumer has seen it published, trusting nothing that stands in it.
    pub(super) fn open(ring: &Arc<Ring>, sequence: u64) -> Result<SlotReader, Error> {
        // SAFETY: a slot starts on a page and is longer than its header; any bytes are a valid `SlotHeader`. The slot
        // is published, so the producer does not write to it (see the type's documentation for how far that is
        // enforced).
        let header = unsafe { ring.slot(sequence).cast::<SlotHeader>().read() };
        let limits = &ring.geometry;
        // Without masks their lengths are 0.
        let bounded = |what, found: u32, most: usize| {
            (what, u64::from(found), most.min(1) as u64, most as u64)
        };
        let checks = [
            ("sequence", header.sequence, sequence, sequence),
            bounded("context length", header.context_len, limits.max_context),
            bounded("target length", header.target_len, limits.max_target),
            bounded("image height", header.height, limits.height),
            bounded("image width", header.width, limits.width),
        ];
        for (what, found, low, high) in checks {
            if found < low || found > high {
                return Err(Error::Slot {
                    sequence,
                    what,
                    found,
                    low,
                    high,
                });
            }
        }
        Ok(SlotReader {
            ring: ring.clone(),
            header,
        })
    }

    fn part<T>(&self, offset: usize, len: usize) -> &[T] {
        // SAFETY: the callers below pass offsets from the layout (aligned to a cache line, inside the slot) and lengths
        // bounded by the geometry; `T` is u8, u64 or i64, valid for all bytes. The slot stays ours until it is
        // released, which consumes `self`.
        unsafe {
            std::slice::from_raw_parts(
                self.ring.slot(self.header.sequence).add(offset).cast::<T>(),
                len,
            )
        }
    }

    /// Returns the number of this slot since the ring began.
    pub fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// Returns the global step this group belongs to.
    pub fn step(&self) -> u64 {
        self.header.step
    }

    /// Returns the group's number inside the global batch.
    pub fn group(&self) -> u64 {
        self.header.group
    }

    /// Returns the images in the group.
    pub fn len(&self) -> usize {
        self.ring.geometry.images_per_slot
    }

    /// Returns false: a group has at least one image.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Returns height and width of the images.
    pub fn size(&self) -> (usize, usize) {
        (self.header.height as usize, self.header.width as usize)
    }

    /// Returns all images, one after the other, each as planes of rows (BCHW).
    pub fn images(&self) -> &[u8] {
        let (height, width) = self.size();
        let image_len = self.ring.geometry.channels * height * width;
        self.part(self.ring.layout.images, self.len() * image_len)
    }

    /// Returns the patches in each context mask.
    pub fn context_len(&self) -> usize {
        self.header.context_len as usize
    }

    /// Returns the patches in each target mask.
    pub fn target_len(&self) -> usize {
        self.header.target_len as usize
    }

    /// Returns context mask `number` of all images: images × [`context_len`](Self::context_len), row by row.
    ///
    /// # Panics
    /// If there is no such mask.
    pub fn context(&self, number: usize) -> &[i64] {
        assert!(
            number < self.ring.geometry.context_masks,
            "context mask {number}"
        );
        let layout = &self.ring.layout;
        self.part(
            layout.contexts + number * layout.context_stride,
            self.len() * self.context_len(),
        )
    }

    /// Returns target mask `number` of all images: images × [`target_len`](Self::target_len), row by row.
    ///
    /// # Panics
    /// If there is no such mask.
    pub fn target(&self, number: usize) -> &[i64] {
        assert!(
            number < self.ring.geometry.target_masks,
            "target mask {number}"
        );
        let layout = &self.ring.layout;
        self.part(
            layout.targets + number * layout.target_stride,
            self.len() * self.target_len(),
        )
    }

    /// Returns the class of each image, [`NO_LABEL`] where it has none.
    pub fn labels(&self) -> &[i64] {
        self.part(self.ring.layout.labels, self.len())
    }

    /// Returns the sample number of each image in its split.
    pub fn sample_ids(&self) -> &[u64] {
        self.part(self.ring.layout.sample_ids, self.len())
    }

    /// Returns the flags of each image: see [`FLAG_REPLACED`] and [`FLAG_ABSENT`].
    pub fn flags(&self) -> &[u8] {
        self.part(self.ring.layout.flags, self.len())
    }
}
