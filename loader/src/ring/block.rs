//! The memory of a ring: what it must be, and the header and slots in it.

use std::ptr::NonNull;
use std::sync::Arc;

use super::control::{Control, Waited};
use super::error::Error;
use super::geometry::{Geometry, HEADER_LEN, Layout, PAGE};

/// Memory in which a ring may live, kept alive as long as somebody holds it.
///
/// # Safety
/// [`bytes`](Memory::bytes) always returns the same block, readable and writable, valid until `self` is dropped, never
/// shrinking, and touched by nobody in this process but rings made from it. A new ring's memory is zeroed.
pub unsafe trait Memory: Send + Sync + std::fmt::Debug {
    /// Returns the block.
    fn bytes(&self) -> NonNull<[u8]>;

    /// Returns the header: loom's atomics are not plain words, so under loom the header lives beside the block.
    #[cfg(loom)]
    fn control(&self) -> &Control;
}

/// A header that has been checked, and the memory it stands in.
#[derive(Debug)]
pub(super) struct Ring {
    memory: Arc<dyn Memory>,
    pub(super) geometry: Geometry,
    pub(super) layout: Layout,
}

impl Ring {
    /// Takes memory that is large enough for a ring of these dimensions.
    pub(super) fn new(memory: Arc<dyn Memory>, geometry: Geometry) -> Result<Ring, Error> {
        let layout = geometry.layout()?;
        check_memory(&*memory, layout.total_len)?;
        Ok(Ring {
            memory,
            geometry,
            layout,
        })
    }

    /// Returns the header.
    pub(super) fn control(&self) -> &Control {
        control(&*self.memory)
    }

    /// Returns how long the two sides have waited for each other: (producer, consumer).
    pub(super) fn waited(&self) -> (Waited, Waited) {
        let control = self.control();
        (control.producer.waits.get(), control.consumer.waits.get())
    }

    /// Returns the whole block.
    pub(super) fn bytes(&self) -> NonNull<[u8]> {
        self.memory.bytes()
    }

    /// Returns the start of the place of slot `sequence`.
    pub(super) fn slot(&self, sequence: u64) -> *mut u8 {
        let place = (sequence % self.geometry.slots as u64) as usize;
        // SAFETY: `place` is less than `slots`, so the slot ends inside `total_len`, which `new` compared with the
        // block.
        unsafe {
            self.memory
                .bytes()
                .cast::<u8>()
                .as_ptr()
                .add(HEADER_LEN + place * self.layout.slot_len)
        }
    }
}

/// Refuses memory that is too small or not on a page boundary.
pub(super) fn check_memory(memory: &dyn Memory, needed: usize) -> Result<(), Error> {
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

/// Returns the header of a block that `check_memory` has accepted.
pub(super) fn control(memory: &dyn Memory) -> &Control {
    #[cfg(not(loom))]
    // SAFETY: the block is page-aligned and longer than the header (checked by all callers), lives as long as the
    // borrow, and consists of atomics, for which any bytes are valid and which all processes access as atomics only.
    unsafe {
        memory.bytes().cast::<Control>().as_ref()
    }
    #[cfg(loom)]
    memory.control()
}
