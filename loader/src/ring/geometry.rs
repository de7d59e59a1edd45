//! How large a ring is and where the parts of a slot lie. Both sides compute offsets from these numbers only.

use serde::{Deserialize, Serialize};

use super::error::Error;

/// Images start on a page, so that the consumer may register and copy them as whole pages.
pub(super) const PAGE: usize = 4096;
/// Bytes before the first slot: one page, so that slots start on pages.
pub(super) const HEADER_LEN: usize = PAGE;
/// Every part of a slot starts on a cache line of its own: two workers never write to the same line.
const LINE: usize = 64;
/// Bytes of the slot's own header (see the table in [`super`]).
pub(super) const SLOT_HEADER_LEN: usize = 64;

/// The dimensions of a ring. A slot holds one group: `images_per_slot` images and their masks. Without masks, the last
/// four are all 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geometry {
    /// Slots in the ring.
    pub slots: usize,
    /// Images in a slot: the group size, `data.batch_size`.
    pub images_per_slot: usize,
    /// Colour planes of an image.
    pub channels: usize,
    /// The most rows an image may have.
    pub height: usize,
    /// The most columns an image may have.
    pub width: usize,
    /// Context masks per image.
    pub context_masks: usize,
    /// Target masks per image.
    pub target_masks: usize,
    /// The most patches a context mask may have.
    pub max_context: usize,
    /// The most patches a target mask may have.
    pub max_target: usize,
}

/// Byte offsets of a slot's parts from the start of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) sample_ids: usize,
    pub(super) labels: usize,
    pub(super) flags: usize,
    pub(super) contexts: usize,
    /// From one context mask to the next.
    pub(super) context_stride: usize,
    pub(super) targets: usize,
    pub(super) target_stride: usize,
    pub(super) images: usize,
    pub(super) slot_len: usize,
    pub(super) total_len: usize,
}

impl Geometry {
    /// Returns the dimensions in the order in which the ring's header holds them.
    pub(crate) fn to_words(self) -> [usize; 9] {
        [
            self.slots,
            self.images_per_slot,
            self.channels,
            self.height,
            self.width,
            self.context_masks,
            self.target_masks,
            self.max_context,
            self.max_target,
        ]
    }

    pub(crate) fn from_words(words: [usize; 9]) -> Geometry {
        let [
            slots,
            images_per_slot,
            channels,
            height,
            width,
            context_masks,
            target_masks,
            max_context,
            max_target,
        ] = words;
        Geometry {
            slots,
            images_per_slot,
            channels,
            height,
            width,
            context_masks,
            target_masks,
            max_context,
            max_target,
        }
    }

    /// Returns the bytes of memory that a ring of these dimensions takes.
    ///
    /// # Errors
    /// Why there can be no such ring.
    pub fn total_len(&self) -> Result<usize, Error> {
        Ok(self.layout()?.total_len)
    }

    /// Computes every offset with checked arithmetic: the numbers may come from another process.
    pub(super) fn layout(&self) -> Result<Layout, Error> {
        let names = [
            "slots",
            "images_per_slot",
            "channels",
            "height",
            "width",
            "context_masks",
            "target_masks",
            "max_context",
            "max_target",
        ];
        let words = self.to_words();
        // All of a ring's masks or none.
        let needed = match words[5..] {
            [0, 0, 0, 0] => 5,
            _ => 9,
        };
        for (at, (name, value)) in names.into_iter().zip(words).enumerate() {
            if (value == 0 && at < needed) || u32::try_from(value).is_err() {
                return Err(Error::Geometry { what: name, value });
            }
        }
        self.checked_layout().ok_or(Error::Geometry {
            what: "images_per_slot",
            value: self.images_per_slot,
        })
    }

    fn checked_layout(&self) -> Option<Layout> {
        let images = self.images_per_slot;
        let mask = |patches: usize| {
            images
                .checked_mul(patches)?
                .checked_mul(size_of::<i64>())?
                .checked_next_multiple_of(LINE)
        };
        let after =
            |offset: usize, len: usize| offset.checked_add(len)?.checked_next_multiple_of(LINE);

        let sample_ids = SLOT_HEADER_LEN;
        let labels = after(sample_ids, images.checked_mul(size_of::<u64>())?)?;
        let flags = after(labels, images.checked_mul(size_of::<i64>())?)?;
        let contexts = after(flags, images)?;
        let context_stride = mask(self.max_context)?;
        let targets = after(contexts, context_stride.checked_mul(self.context_masks)?)?;
        let target_stride = mask(self.max_target)?;
        let small = after(targets, target_stride.checked_mul(self.target_masks)?)?;
        let image_part = small.checked_next_multiple_of(PAGE)?;
        let image_len = self
            .channels
            .checked_mul(self.height)?
            .checked_mul(self.width)?;
        let slot_len = image_part
            .checked_add(image_len.checked_mul(images)?)?
            .checked_next_multiple_of(PAGE)?;
        let total_len = slot_len.checked_mul(self.slots)?.checked_add(HEADER_LEN)?;
        isize::try_from(total_len).ok()?;
        Some(Layout {
            sample_ids,
            labels,
            flags,
            contexts,
            context_stride,
            targets,
            target_stride,
            images: image_part,
            slot_len,
            total_len,
        })
    }
}
