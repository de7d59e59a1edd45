//! The consuming side.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::VERSION;
use super::block::{Memory, Ring, check_memory, control};
use super::control::{ENDED, MAGIC, Waited};
use super::error::Error;
use super::geometry::{Geometry, HEADER_LEN};
use super::slot::SlotReader;
use super::wait::wait;
use crate::sync::Ordering;

/// Opens a ring that the producer has created, checking everything that stands in its header.
///
/// # Errors
/// If the memory holds no ring of this version, if the header contradicts itself, or if there is a consumer already.
pub fn attach(memory: Arc<dyn Memory>) -> Result<Consumer, Error> {
    check_memory(&*memory, HEADER_LEN)?;
    let identity = &control(&*memory).identity;
    // SYNC version: pairs with the Release in `create`.
    match identity.version.load(Ordering::Acquire) {
        0 => return Err(Error::NotReady),
        VERSION => {}
        found => return Err(Error::Version { found }),
    }
    // Relaxed, here and below: ordered by the version.
    let found = identity.magic.load(Ordering::Relaxed);
    if found != MAGIC {
        return Err(Error::Magic { found });
    }
    let mut words = [0; 9];
    for (word, field) in words.iter_mut().zip(&identity.geometry) {
        *word = field.load(Ordering::Relaxed) as usize;
    }
    let header_len = u64::from(identity.header_len.load(Ordering::Relaxed));
    let total_len = identity.total_len.load(Ordering::Relaxed);
    let ring = Ring::new(memory, Geometry::from_words(words))?;
    for (what, found, expected) in [
        ("header length", header_len, HEADER_LEN as u64),
        ("total length", total_len, ring.layout.total_len as u64),
    ] {
        if found != expected {
            return Err(Error::Header {
                what,
                found,
                expected,
            });
        }
    }
    // Relaxed: only its atomicity counts, so that one of two consumers is refused.
    if ring.control().consumer.attached.swap(1, Ordering::Relaxed) != 0 {
        return Err(Error::Taken);
    }
    Ok(Consumer {
        ring: Arc::new(ring),
        taken: 0,
        released: 0,
        left: false,
    })
}

/// The consuming side. Dropping it leaves the ring.
#[derive(Debug)]
pub struct Consumer {
    ring: Arc<Ring>,
    taken: u64,
    released: u64,
    left: bool,
}

impl Consumer {
    /// Returns the ring's dimensions.
    pub fn geometry(&self) -> &Geometry {
        &self.ring.geometry
    }

    /// Returns the whole memory of the ring, to be registered with a device.
    ///
    /// Only [`SlotReader`]s say what may be read in it.
    pub fn memory(&self) -> NonNull<[u8]> {
        self.ring.bytes()
    }

    /// Takes the next slot, waiting for it at most `timeout`.
    ///
    /// Slots that were published before the producer ended, failed or died are still delivered.
    ///
    /// # Errors
    /// That the time is over, how the producer ended, or what is wrong with its cursor or the slot.
    pub fn next(&mut self, timeout: Duration) -> Result<SlotReader, Error> {
        let (taken, low, high) = (
            self.taken,
            self.taken,
            self.released + self.ring.geometry.slots as u64,
        );
        let (consumer, producer) = (&self.ring.control().consumer, &self.ring.control().producer);
        wait(
            &producer.word,
            timeout,
            "the loader to publish a slot",
            &consumer.waits,
            taken > 0,
            || {
                // SYNC ended: pairs with the Release in `Publisher::finish`; read first, so that no slot is missed.
                let ended = producer.ended.load(Ordering::Acquire);
                // SYNC published: pairs with the Release in `Publisher::publish`.
                let published = producer.published.load(Ordering::Acquire);
                if published < low || published > high {
                    return Err(Error::Cursor {
                        whose: "producer's",
                        found: published,
                        low,
                        high,
                    });
                }
                match (published > taken, ended) {
                    (true, _) => Ok(Some(())),
                    (false, 0) => Ok(None),
                    (false, ENDED) => Err(Error::Ended),
                    (false, _) => Err(Error::Failed),
                }
            },
        )?;
        let slot = SlotReader::open(&self.ring, taken)?;
        self.taken += 1;
        Ok(slot)
    }

    /// Returns the number of slots that are published and not taken: `next` returns that many without waiting.
    pub fn ready(&self) -> u64 {
        // SYNC published: pairs with the Release in `Publisher::publish`.
        self.ring
            .control()
            .producer
            .published
            .load(Ordering::Acquire)
            .saturating_sub(self.taken)
    }

    /// Gives the oldest taken slot back to the producer.
    ///
    /// # Panics
    /// If `slot` is not the oldest one taken from this ring.
    pub fn release(&mut self, slot: SlotReader) {
        assert!(
            Arc::ptr_eq(&slot.ring, &self.ring),
            "the slot of another ring"
        );
        assert_eq!(
            slot.sequence(),
            self.released,
            "slots are released in order"
        );
        self.released += 1;
        let consumer = &self.ring.control().consumer;
        // SYNC released: pairs with the Acquire in `Claimer::claim`; our reads of the slot end before it.
        consumer.released.store(self.released, Ordering::Release);
        consumer.word.announce();
    }

    /// Says that no further slot will be taken.
    pub fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            let consumer = &self.ring.control().consumer;
            // SYNC left: pairs with the Acquire in `Claimer::claim`.
            consumer.left.store(1, Ordering::Release);
            consumer.word.announce();
        }
    }

    /// Returns how long the two sides of this ring have waited for each other: (producer, consumer).
    pub fn waited(&self) -> (Waited, Waited) {
        self.ring.waited()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.leave();
    }
}
