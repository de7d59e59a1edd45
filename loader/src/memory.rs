//! The memory of a ring: an anonymous file, sealed against resizing, mapped by the loader and by one trainer rank.
//!
//! It has no name, so nothing can clash and nothing is left behind: the kernel frees it when the last mapping is gone.
//! It is no part of /dev/shm either, whose size does not matter. Pages are reserved at creation; a machine that is
//! short of memory says so then, and not by a SIGBUS in the middle of a run.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

use crate::ring::Memory;

/// Both sides rely on these seals: with them no access to the mapping can fall off the end of the file.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// A shared mapping of a sealed anonymous file.
#[derive(Debug)]
pub struct Mapping {
    map: MmapRaw,
}

impl Mapping {
    /// Makes `len` bytes of fresh zeroed memory, all pages present. The descriptor is for the other process.
    ///
    /// # Errors
    /// If the system has not that much memory.
    pub fn create(len: usize) -> io::Result<(Mapping, OwnedFd)> {
        let file = rustix::fs::memfd_create(
            "ijepa-ring",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        Ok((Mapping::map(&file, len)?, file))
    }

    /// Maps memory that another process has made, after checking that it has `len` bytes and always will.
    ///
    /// # Errors
    /// If it has another size, is not sealed, or cannot be mapped.
    pub fn open(file: OwnedFd, len: usize) -> io::Result<Mapping> {
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        if !seals.contains(SEALS) {
            return Err(io::Error::other(format!(
                "the ring's memory has seals {seals:?}, expected {SEALS:?}"
            )));
        }
        let found = rustix::fs::fstat(&file)?.st_size;
        if found != len as i64 {
            return Err(io::Error::other(format!(
                "the ring's memory has {found} bytes, expected {len}"
            )));
        }
        Mapping::map(&file, len)
    }

    fn map(file: &OwnedFd, len: usize) -> io::Result<Mapping> {
        // Populated, so that neither side takes page faults in its first round through the slots.
        let map = MmapOptions::new()
            .len(len)
            .populate()
            .map_raw(&file.as_fd())?;
        // Fewer TLB misses where the machine allows large pages for shared memory; most do not, and that is no error.
        let _ = map.advise(memmap2::Advice::HugePage);
        // A child that the trainer forks (a data set tool, a debugger) does not inherit the ring.
        let _ = map.advise(memmap2::Advice::DontFork);
        Ok(Mapping { map })
    }
}

// SAFETY: the mapping stays where it is until it is dropped; the seals (set in `create`, checked in `open`) keep the
// file from shrinking under it. Only rings are made from it in this process; what the other process does is their
// protocol.
unsafe impl Memory for Mapping {
    fn bytes(&self) -> NonNull<[u8]> {
        let start = NonNull::new(self.map.as_mut_ptr()).expect("a mapping is not at address zero");
        NonNull::slice_from_raw_parts(start, self.map.len())
    }

    #[cfg(loom)]
    fn control(&self) -> &crate::ring::Control {
        unreachable!("loom models run on heap memory")
    }
}

#[cfg(all(test, not(miri), not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_share_their_bytes() {
        let (ours, file) = Mapping::create(8192).unwrap();
        let theirs = Mapping::open(file, 8192).unwrap();
        // SAFETY: inside both mappings; no other thread knows them.
        unsafe {
            assert_eq!(*theirs.map.as_ptr().add(5000), 0);
            *ours.map.as_mut_ptr().add(5000) = 7;
            assert_eq!(*theirs.map.as_ptr().add(5000), 7);
        }
    }

    #[test]
    fn wrong_sizes_and_missing_seals_are_refused() {
        let (_ours, file) = Mapping::create(8192).unwrap();
        assert!(rustix::fs::ftruncate(&file, 4096).is_err(), "sealed");
        let error = Mapping::open(file, 12288).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the ring's memory has 8192 bytes, expected 12288"
        );
        let unsealed = rustix::fs::memfd_create("unsealed", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&unsealed, 8192).unwrap();
        assert!(
            Mapping::open(unsealed, 8192)
                .unwrap_err()
                .to_string()
                .contains("seals")
        );
    }
}
