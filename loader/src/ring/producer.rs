//! The producing side: a half that claims free slots, and a half that publishes filled ones.

use std::sync::Arc;
use std::time::Duration;

use super::VERSION;
use super::block::{Memory, Ring};
use super::control::{ENDED, FAILED, MAGIC};
use super::error::Error;
use super::geometry::{Geometry, HEADER_LEN};
use super::slot::{ClaimedSlot, ImagePart, MaskPart};
use super::wait::{WaitTimes, wait};
use crate::sync::Ordering;

/// Writes the header of a new ring into zeroed memory and returns the two halves of its producing side.
///
/// # Errors
/// If there can be no ring of these dimensions, or not in this memory.
pub fn create(memory: Arc<dyn Memory>, geometry: Geometry) -> Result<(Claimer, Publisher), Error> {
    let ring = Arc::new(Ring::new(memory, geometry)?);
    let identity = &ring.control().identity;
    // Relaxed: all of it is published by the version below.
    identity.magic.store(MAGIC, Ordering::Relaxed);
    identity
        .header_len
        .store(HEADER_LEN as u32, Ordering::Relaxed);
    for (field, value) in identity.geometry.iter().zip(geometry.to_words()) {
        field.store(value as u32, Ordering::Relaxed);
    }
    identity
        .total_len
        .store(ring.layout.total_len as u64, Ordering::Relaxed);
    // SYNC version: pairs with the Acquire in `attach`.
    identity.version.store(VERSION, Ordering::Release);
    Ok((
        Claimer {
            ring: ring.clone(),
            claimed: 0,
        },
        Publisher {
            ring,
            published: 0,
            ended: false,
        },
    ))
}

/// The half of the producing side that takes free slots.
#[derive(Debug)]
pub struct Claimer {
    ring: Arc<Ring>,
    claimed: u64,
}

impl Claimer {
    /// Takes the next free slot for images as large as the ring's: see [`Claimer::claim_for`].
    ///
    /// # Errors
    /// That the time is over, that the consumer has left, or that its cursor is impossible.
    pub fn claim(
        &mut self,
        timeout: Duration,
    ) -> Result<(ClaimedSlot, Vec<ImagePart>, MaskPart), Error> {
        let size = (self.ring.geometry.height, self.ring.geometry.width);
        self.claim_for(size, timeout)
    }

    /// Takes the next free slot for images of height and width `size`, ahead of the publication of earlier ones,
    /// waiting for the consumer at most `timeout`.
    ///
    /// # Errors
    /// That the time is over, that the consumer has left, or that its cursor is impossible.
    ///
    /// # Panics
    /// If the images are empty or larger than the ring's: the geometry was made for this sampler.
    pub fn claim_for(
        &mut self,
        size: (usize, usize),
        timeout: Duration,
    ) -> Result<(ClaimedSlot, Vec<ImagePart>, MaskPart), Error> {
        let (height, width) = (self.ring.geometry.height, self.ring.geometry.width);
        assert!(
            (1..=height).contains(&size.0) && (1..=width).contains(&size.1),
            "images of {size:?} pixels in a ring made for {height}x{width}"
        );
        let (claimed, slots) = (self.claimed, self.ring.geometry.slots as u64);
        let (consumer, producer) = (&self.ring.control().consumer, &self.ring.control().producer);
        // Relaxed: only tells start-up from later.
        let steady = consumer.released.load(Ordering::Relaxed) > 0;
        wait(
            &consumer.word,
            timeout,
            "the consumer to release a slot",
            &producer.waits,
            steady,
            || {
                // SYNC left: pairs with the Release in `Consumer::leave`.
                if consumer.left.load(Ordering::Acquire) != 0 {
                    return Err(Error::Left);
                }
                // SYNC released: pairs with the Release in `Consumer::release`; the consumer has done reading those.
                let released = consumer.released.load(Ordering::Acquire);
                let low = claimed.saturating_sub(slots);
                if released < low || released > claimed {
                    return Err(Error::Cursor {
                        whose: "consumer's",
                        found: released,
                        low,
                        high: claimed,
                    });
                }
                Ok((claimed - released < slots).then_some(()))
            },
        )?;
        self.claimed += 1;
        Ok(ClaimedSlot::new(&self.ring, claimed, size))
    }

    /// Returns a view of this ring's waiting times.
    pub fn wait_times(&self) -> WaitTimes {
        WaitTimes {
            ring: self.ring.clone(),
        }
    }
}

/// The half of the producing side that hands filled slots to the consumer. Dropping it ends the ring as failed.
#[derive(Debug)]
pub struct Publisher {
    ring: Arc<Ring>,
    published: u64,
    ended: bool,
}

impl Publisher {
    /// Hands the oldest claimed slot to the consumer.
    ///
    /// # Errors
    /// If a worker gave up one of its parts.
    ///
    /// # Panics
    /// If `slot` is not the oldest unpublished one of this ring, or is not complete: errors of the caller.
    pub fn publish(&mut self, slot: ClaimedSlot) -> Result<(), Error> {
        assert!(
            Arc::ptr_eq(&slot.ring, &self.ring),
            "the slot of another ring"
        );
        assert_eq!(
            slot.sequence, self.published,
            "slots are published in order"
        );
        assert!(
            slot.is_complete(),
            "slot {} is still being filled",
            slot.sequence
        );
        if slot.has_failed() {
            return Err(Error::Unfinished {
                sequence: slot.sequence,
            });
        }
        self.published += 1;
        let producer = &self.ring.control().producer;
        // SYNC published: pairs with the Acquire in `Consumer::next`; the slot's bytes come with it.
        producer.published.store(self.published, Ordering::Release);
        producer.word.announce();
        Ok(())
    }

    /// Returns the number of slots published.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// Says that no slot will follow; the consumer may still take those that are published.
    pub fn end(&mut self) {
        self.finish(ENDED);
    }

    /// Says that no slot will follow because the producer has failed.
    pub fn fail(&mut self) {
        self.finish(FAILED);
    }

    fn finish(&mut self, how: u32) {
        if !std::mem::replace(&mut self.ended, true) {
            let producer = &self.ring.control().producer;
            // SYNC ended: pairs with the Acquire in `Consumer::next`; the last `published` comes with it.
            producer.ended.store(how, Ordering::Release);
            producer.word.announce();
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.fail();
    }
}
