//! The ring: how ready groups pass from one loader to one trainer rank through shared memory, without a copy.
//!
//! The loader's pipeline uses [`create`], [`Claimer`] and [`Publisher`]; the trainer's [`crate::link::Feed`] uses
//! [`attach`] and [`Consumer`]. Nothing in here maps memory or opens a socket: the ring works in memory lent to it
//! through [`Memory`], so that loom, miri and AddressSanitizer run the very code that ships.
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
//! | header: sequence u64, step u64, group u64, context length u32, target length u32, image height u32, image width u32, zeros | 64 |
//! | sample ids, u64 | 8 B |
//! | labels, i64, -1 = none | 8 B |
//! | flags, bit 0 = replaced a damaged sample, bit 1 = no image here | B |
//! | per context mask: patch numbers, i64, B × context length, room for B × max context | 8 B max context |
//! | per target mask: patch numbers, i64, B × target length, room for B × max target | 8 B max target |
//! | images, u8, B × channels × image height × image width, room for B × channels × height × width, **on a page of their own** | B C H W |
//!
//! A ring may be without masks: its last four dimensions are all 0 then, and so are the lengths in its slots. Where
//! there is no image, its bytes are 0, its sample id is 2^64 - 1 and its label -1.
//!
//! # States of a slot
//!
//! Slots are numbered from 0 without end; slot `n` lies at place `n % slots`. Three counters, each only ever rising,
//! give its state: `released ≤ taken ≤ published ≤ claimed ≤ released + slots`.
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
//! Sleeping loses no wake-up. The sleeper reads the word, looks at the cursors, and sleeps only if the word is
//! unchanged; the other side changes the cursor, then the word, then wakes. If the sleeper saw the new word it saw the
//! new cursor; if not, the kernel refuses to put it to sleep, or wakes it.
//!
//! # When a process dies
//!
//! The ring takes no lock and no side waits without a bound, so a death leaves nothing to repair, only somebody who
//! waits for nothing. Every wait is bounded, and the owner of the connection's socket looks for end-of-file between two
//! waits.
//!
//! * **The consumer dies.** Slots it held are never released. The loader sees end-of-file, drops its two halves and the
//!   mapping; workers that still fill parts hold the memory until they finish; then the kernel frees it.
//! * **The producer dies.** Slots already published stay readable: the trainer's mapping keeps the memory alive. Slots
//!   that were claimed are never published, so half-written bytes are never seen. The trainer reconnects at its step
//!   and gets a new ring.
//! * **A process is stopped, not dead.** The socket stays open; waits time out and the waiting side names the peer.

mod block;
mod consumer;
mod control;
mod error;
mod geometry;
mod producer;
mod slot;
mod wait;

#[cfg(test)]
mod tests;

pub use block::Memory;
pub use consumer::{Consumer, attach};
pub use control::{Control, Waited};
pub use error::Error;
pub use geometry::Geometry;
pub use producer::{Claimer, Publisher, create};
pub use slot::{
    ClaimedSlot, FLAG_ABSENT, FLAG_REPLACED, ImagePart, MaskPart, NO_LABEL, NO_SAMPLE, SlotReader,
};
pub use wait::WaitTimes;

/// The layout and protocol described above. Any change to either raises it.
pub const VERSION: u32 = 3;
