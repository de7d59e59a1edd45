//! What can go wrong with a ring.

use std::time::Duration;

use super::VERSION;
use super::control::MAGIC;
use crate::span::Span;

/// Everything that can go wrong with a ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A dimension is zero, or so large that offsets would overflow.
    #[error("a ring cannot have {what} = {value}")]
    Geometry {
        /// The offending dimension.
        what: &'static str,
        /// Its value.
        value: usize,
    },
    /// The memory is smaller than the ring, or not aligned to a page.
    #[error(
        "the ring needs {needed} bytes on a page boundary, the memory has {found} at {address:#x}"
    )]
    Memory {
        /// Bytes that the ring takes.
        needed: usize,
        /// Bytes that there are.
        found: usize,
        /// Where the memory starts.
        address: usize,
    },
    /// The memory does not hold a ring.
    #[error("not a ring: the memory starts with {found:#018x}, a ring with {MAGIC:#018x}")]
    Magic {
        /// The first eight bytes.
        found: u64,
    },
    /// The producer has not finished the header.
    #[error("the ring is not ready: its version is still zero")]
    NotReady,
    /// The two programs were built from different sources.
    #[error("the ring has version {found}, this program speaks version {VERSION}")]
    Version {
        /// Version in the memory.
        found: u32,
    },
    /// The header contradicts itself.
    #[error("the ring's header says {what} = {found}, expected {expected}")]
    Header {
        /// The field.
        what: &'static str,
        /// What it says.
        found: u64,
        /// What follows from the rest of the header.
        expected: u64,
    },
    /// A consumer is attached already.
    #[error("the ring already has a consumer")]
    Taken,
    /// A cursor written by the other side is impossible.
    #[error("the {whose} cursor is {found}, which must lie in {low}..={high}")]
    Cursor {
        /// Which side wrote it.
        whose: &'static str,
        /// Its value.
        found: u64,
        /// The least possible value.
        low: u64,
        /// The largest possible value.
        high: u64,
    },
    /// A published slot contradicts the ring's geometry.
    #[error("slot {sequence} says {what} = {found}, which must lie in {low}..={high}")]
    Slot {
        /// Number of the slot.
        sequence: u64,
        /// The field.
        what: &'static str,
        /// What it says.
        found: u64,
        /// The least valid value.
        low: u64,
        /// The largest valid value.
        high: u64,
    },
    /// A worker gave up one of the slot's parts unfinished.
    #[error("slot {sequence} was not filled: a worker failed")]
    Unfinished {
        /// Number of the slot.
        sequence: u64,
    },
    /// Nothing happened within the bound of a wait.
    #[error("waited {} for {awaited}", Span(*waited))]
    TimedOut {
        /// Whose move it is.
        awaited: &'static str,
        /// The bound.
        waited: Duration,
    },
    /// The producer has published its last slot and all of them are taken.
    #[error("the loader has ended the ring")]
    Ended,
    /// The producer gave up.
    #[error("the loader has failed")]
    Failed,
    /// The consumer takes no more slots.
    #[error("the consumer has left the ring")]
    Left,
}
