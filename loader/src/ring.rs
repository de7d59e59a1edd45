//! The ring: how ready groups pass from one loader to one trainer rank through shared memory, without a copy.
//!
//! The loader's pipeline uses [`create`], [`Claimer`] and [`Publisher`]; the trainer's [`crate::link::Feed`] uses
//! [`attach`] and [`Consumer`]. Nothing in here maps memory or opens a socket: the ring works in memory lent to it through
//! [`Memory`], so that loom, miri and AddressSanitizer run the very code that ships.
//!
//! # Memory layout
//!
//! All numbers are little-endian (the ring never leaves the machine). Words not listed are zero and ignored.
//!
//! | offset | bytes | field | written by |
//! |---|---|---|---|
//! | 0 | 8 | magic `IJEPRING` | producer, once |
//! | 8 | 4 | `version`: 0 = not ready | producer, once, **last** |
//! | 12 | 4 | length of this header, 4096 | producer, once |
//! | 16 | 9 × 4 | slots, images per slot, channels, height, width, context masks, target masks, max context, max target | producer, once |
//! | 56 | 8 | length of the whole memory | producer, once |
//! | 128 | 8 | `published`: slots published since the beginning | [`Publisher`] |
//! | 136 | 4 | `published` word: events on this line (futex) | [`Publisher`] |
//! | 140 | 4 | `ended`: 1 = no slot will follow, 2 = the producer failed | [`Publisher`] |
//! | 192 | 8 | ns that the producer waited for room before the first release | [`Claimer`] |
//! | 200 | 8 | ns that it waited for room since | [`Claimer`] |
//! | 208 | 8 | waits for room | [`Claimer`] |
//! | 256 | 8 | `released`: slots given back since the beginning | [`Consumer`] |
//! | 264 | 4 | `released` word: events on this line (futex) | [`Consumer`] |
//! | 268 | 4 | `left`: 1 = the consumer takes no more slots | [`Consumer`] |
//! | 272 | 4 | `attached`: 1 once a consumer has opened the ring | [`attach`] |
//! | 320 | 8 | ns that the consumer waited for its first slot | [`Consumer`] |
//! | 328 | 8 | ns that it waited for slots since | [`Consumer`] |
//! | 336 | 8 | waits for a slot | [`Consumer`] |
//! | 4096 | slots × slot length | the slots, each a multiple of 4096 | see below |
//!
//! The parts of a slot start on 64-byte boundaries, in this order, with `B` images per slot:
//!
//! | part | bytes |
//! |---|---|
//! | header: sequence u64, step u64, group u64, context length u32, target length u32, zeros | 64 |
//! | sample ids, u64 | 8 B |
//! | labels, i64, -1 = none | 8 B |
//! | flags, bit 0 = replaced a damaged sample | B |
//! | per context mask: patch numbers, i64, B × context length, room for B × max context | 8 B max context |
//! | per target mask: patch numbers, i64, B × target length, room for B × max target | 8 B max target |
//! | images, u8, B × channels × height × width, **on a page of their own** | B C H W |
//!
//! # States of a slot
//!
//! Slots are numbered from 0 without end; slot `n` lies at place `n % slots`. Three counters, each only ever rising, give
//! its state: `released ≤ taken ≤ published ≤ claimed ≤ released + slots`.
//!
//! ```text
//!         claim               publish              next               release
//!  free ────────▶ claimed ──────────────▶ ready ─────────▶ taken ────────────────▶ free (as n + slots)
//!                n < claimed           n < published     n < taken            n < released
//! ```
//!
//! `claimed` and `taken` are private to one side. Several slots may be claimed, and several taken, at the same time;
//! publishing and releasing go strictly in order.
//!
//! # Who may write
//!
//! * Every field of the header has the single writer of the table. `&mut self` on [`Claimer`], [`Publisher`] and
//!   [`Consumer`], and one of each per ring, make that a matter of types; `attached` refuses a second consumer.
//! * A claimed slot belongs to the producer: cut into [`ImagePart`]s and a [`MaskPart`], each owned by one worker.
//! * A ready or free slot is written by nobody. The consumer never writes to a slot.
//!
//! # Synchronizing pairs
//!
//! | name | Release | Acquire | carries |
//! |---|---|---|---|
//! | version | end of [`create`] | [`attach`] | the header |
//! | part | a part is finished | [`ClaimedSlot::is_complete`] | the part's bytes, between threads of the producer |
//! | published | [`Publisher::publish`] | [`Consumer::next`] | the slot's bytes |
//! | ended | [`Publisher::end`], [`Publisher::fail`] | [`Consumer::next`] | the last value of `published` |
//! | released | [`Consumer::release`] | [`Claimer::claim`] | the end of all reads of the slot |
//! | left | [`Consumer::leave`] | [`Claimer::claim`] | nothing: a flag |
//! | word | after any of the last four | before looking for it | "look again" |
//!
//! Sleeping loses no wake-up: the sleeper reads the word, looks at the cursors, and sleeps only if the word is unchanged; the
//! other side changes the cursor, then the word, then wakes. If the sleeper saw the new word it saw the new cursor; if not,
//! the kernel refuses to put it to sleep, or wakes it.
//!
//! # When a process dies
//!
//! The ring takes no lock and no side waits without a bound, so a death leaves nothing to repair, only somebody waiting in vain. Every
//! wait is bounded and the owner of the connection's socket looks for end-of-file between two waits.
//!
//! * **The consumer dies.** Slots it held are never released. The loader sees end-of-file, drops its two halves and the
//!   mapping; workers that still fill parts hold the memory until they finish; then the kernel frees it.
//! * **The producer dies.** Slots already published stay readable: the trainer's mapping keeps the memory alive. Slots
//!   that were claimed are never published, so half-written bytes are never seen. The trainer reconnects at its step and
//!   gets a new ring.
//! * **A process is stopped, not dead.** The socket stays open; waits time out and the waiting side names the peer.

mod control;
mod error;
mod geometry;
mod slot;

#[cfg(test)]
mod tests;

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::WaitCounters;
pub use control::{Control, Waited};
pub use error::Error;
pub use geometry::Geometry;
use geometry::{Layout, PAGE};
pub use slot::{ClaimedSlot, FLAG_REPLACED, ImagePart, MaskPart, NO_LABEL, SlotReader};

use crate::sync::{Ordering, Word};

/// The layout and protocol described above. Any change to either raises it.
pub const VERSION: u32 = 1;
const MAGIC: u64 = u64::from_le_bytes(*b"IJEPRING");
/// Bytes before the first slot: one page, so that slots start on pages.
const HEADER_LEN: usize = PAGE;

/// Memory in which a ring may live, kept alive as long as somebody holds it.
///
/// # Safety
/// [`bytes`](Memory::bytes) always returns the same block, readable and writable, valid until `self` is dropped, never
/// shrinking, and touched by nobody in this process but rings made from it. A new ring's memory is zeroed.
pub unsafe trait Memory: Send + Sync + std::fmt::Debug {
    /// The block.
    fn bytes(&self) -> NonNull<[u8]>;

    /// Loom's atomics are not plain words, so under loom the header lives beside the block.
    #[cfg(loom)]
    fn control(&self) -> &Control;
}

const ENDED: u32 = 1;
const FAILED: u32 = 2;

/// A header that has been checked, and the memory it stands in.
#[derive(Debug)]
struct Ring {
    memory: Arc<dyn Memory>,
    geometry: Geometry,
    layout: Layout,
}

impl Ring {
    fn new(memory: Arc<dyn Memory>, geometry: Geometry) -> Result<Ring, Error> {
        let layout = geometry.layout()?;
        check_memory(&*memory, layout.total_len)?;
        Ok(Ring {
            memory,
            geometry,
            layout,
        })
    }

    fn control(&self) -> &Control {
        control(&*self.memory)
    }

    fn waited(&self) -> (Waited, Waited) {
        let control = self.control();
        (control.producer.waits.get(), control.consumer.waits.get())
    }

    /// Start of the place of slot `sequence`.
    fn slot(&self, sequence: u64) -> *mut u8 {
        let place = (sequence % self.geometry.slots as u64) as usize;
        // SAFETY: `place` is less than `slots`, so the slot ends inside `total_len`, which `new` compared with the block.
        unsafe {
            self.memory
                .bytes()
                .cast::<u8>()
                .as_ptr()
                .add(HEADER_LEN + place * self.layout.slot_len)
        }
    }
}

fn check_memory(memory: &dyn Memory, needed: usize) -> Result<(), Error> {
    let (found, address) = (
        memory.bytes().len(),
        memory.bytes().cast::<u8>().as_ptr().addr(),
    );
    if found < needed || !address.is_multiple_of(PAGE) {
        return Err(Error::Memory {
            needed,
            found,
            address,
        });
    }
    Ok(())
}

/// The header of a block that `check_memory` has accepted.
fn control(memory: &dyn Memory) -> &Control {
    #[cfg(not(loom))]
    // SAFETY: the block is page-aligned and longer than the header (checked by all callers), lives as long as the borrow,
    // and consists of atomics, for which any bytes are valid and which all processes access as atomics only.
    unsafe {
        memory.bytes().cast::<Control>().as_ref()
    }
    #[cfg(loom)]
    memory.control()
}

/// Writes the header of a new ring into zeroed memory and returns the two halves of its producing side.
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

/// Opens a ring that the producer has created, checking everything that stands in its header.
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

/// Repeats `look` until it finds something or `timeout` is over, sleeping on `word` in between; counts the waiting.
fn wait<T>(
    word: &Word,
    timeout: Duration,
    awaited: &'static str,
    counters: &WaitCounters,
    steady: bool,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let mut start = None;
    let outcome = loop {
        let seen = word.observe();
        match look() {
            Ok(None) => {}
            Ok(Some(found)) => break Ok(found),
            Err(error) => break Err(error),
        }
        let waited = start.get_or_insert_with(Instant::now).elapsed();
        if waited >= timeout {
            break Err(Error::TimedOut {
                awaited,
                waited: timeout,
            });
        }
        word.sleep(seen, timeout - waited);
    };
    if let Some(start) = start {
        counters.add(start.elapsed(), steady);
        if outcome.is_ok() {
            counters.count();
        }
    }
    outcome
}

/// The half of the producing side that takes free slots.
#[derive(Debug)]
pub struct Claimer {
    ring: Arc<Ring>,
    claimed: u64,
}

impl Claimer {
    /// Takes the next free slot, ahead of the publication of earlier ones, waiting for the consumer at most `timeout`.
    pub fn claim(
        &mut self,
        timeout: Duration,
    ) -> Result<(ClaimedSlot, Vec<ImagePart>, MaskPart), Error> {
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
                // SYNC released: pairs with the Release in `Consumer::release`; the consumer has done reading those slots.
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
        Ok(ClaimedSlot::new(&self.ring, claimed))
    }

    /// A view of this ring's waiting times.
    pub fn wait_times(&self) -> WaitTimes {
        WaitTimes {
            ring: self.ring.clone(),
        }
    }
}

/// Shows how long the two sides of a ring have waited for each other, to threads that take no part in it.
#[derive(Debug)]
pub struct WaitTimes {
    ring: Arc<Ring>,
}

impl WaitTimes {
    /// Waiting so far of the producer (for room) and of the consumer (for slots). A wait counts when it ends or times out.
    pub fn waited(&self) -> (Waited, Waited) {
        self.ring.waited()
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
    /// # Panics
    /// If `slot` is not the oldest unpublished one of this ring, or is not complete: both would be errors of the caller.
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

    /// Slots published so far.
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

/// The consuming side. Dropping it leaves the ring.
#[derive(Debug)]
pub struct Consumer {
    ring: Arc<Ring>,
    taken: u64,
    released: u64,
    left: bool,
}

impl Consumer {
    /// The ring's dimensions.
    pub fn geometry(&self) -> &Geometry {
        &self.ring.geometry
    }

    /// The whole memory of the ring, to be registered with a device. Only [`SlotReader`]s say what may be read in it.
    pub fn memory(&self) -> NonNull<[u8]> {
        self.ring.memory.bytes()
    }

    /// Takes the next slot, waiting for it at most `timeout`. Slots that were published before the producer ended, failed
    /// or died are still delivered.
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

    /// Slots that are published and not taken: `next` returns that many without waiting.
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

    /// How long the two sides of this ring have waited for each other: (producer, consumer).
    pub fn waited(&self) -> (Waited, Waited) {
        self.ring.waited()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.leave();
    }
}
