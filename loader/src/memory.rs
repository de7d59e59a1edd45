//! The memory of a ring: an anonymous file, sealed against resizing, mapped by the loader and by one trainer rank.
//!
//! It has no name, so nothing can clash and nothing is left behind: the kernel frees it when the last mapping is gone.
//! It is no part of /dev/shm either, whose size does not matter. Whether there is that much memory is asked first,
//! since Linux would rather kill somebody than say no. Pages are reserved at creation; a machine that is short of
//! memory says so then, and not by a SIGBUS in the middle of a run.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use shardtool::memory::{self, Size, TooLittle};

use crate::ring::Memory;

/// What makes a ring smaller.
const CURE: &str = "loader.slots, data.batch_size and data.crop_size make a ring smaller";

/// The reason why there is no memory for a ring, or not the memory that there should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It does not fit.
    #[error(transparent)]
    TooLittle(#[from] TooLittle),
    /// The system did not give it, although it seemed to be there.
    #[error("the system gives no {} for a ring: {cause}; {CURE}", Size(*len as u64))]
    Reserve {
        /// Bytes asked for.
        len: usize,
        /// The system's answer.
        cause: io::Error,
    },
    /// Another system call failed.
    #[error("{what} of the ring's memory: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
    /// Memory from another process could change its size.
    #[error("the ring's memory has seals {found:?}, expected {SEALS:?}")]
    Seals {
        /// The seals that it has.
        found: SealFlags,
    },
    /// Memory from another process has another size.
    #[error("the ring's memory has {found} bytes, expected {expected}")]
    Length {
        /// Its bytes.
        found: u64,
        /// The bytes of the ring.
        expected: u64,
    },
    /// Memory from another process is there in parts only; the rest would be taken from this process.
    #[error("of the ring's {expected} bytes of memory only {found} are there")]
    Sparse {
        /// The bytes that are there.
        found: u64,
        /// The bytes of the ring.
        expected: u64,
    },
}

impl Error {
    /// Returns a conversion from the system's answer to `what`.
    fn system<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Error {
        move |cause| Error::System {
            what,
            cause: cause.into(),
        }
    }
}

/// Makes sure that there is memory for so many rings of `len` bytes.
///
/// # Errors
/// If there is too little, with figures and what makes a ring smaller.
pub fn check(rings: u64, len: usize) -> Result<(), TooLittle> {
    let what = match rings {
        1 => "a ring".to_owned(),
        _ => format!("{rings} rings of {}", Size(len as u64)),
    };
    memory::check(&what, rings.saturating_mul(len as u64), CURE)
}

/// Both sides rely on these seals: with them no access to the mapping can fall off the end of the file. No seal that
/// allows writing forbids holes; a hole reads as zeros, which the ring's own checks meet as any other nonsense.
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
    pub fn create(len: usize) -> Result<(Mapping, OwnedFd), Error> {
        check(1, len)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file =
            rustix::fs::memfd_create("ijepa-ring", flags).map_err(Error::system("making"))?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len as u64).map_err(|error| {
            Error::Reserve {
                len,
                cause: error.into(),
            }
        })?;
        rustix::fs::fcntl_add_seals(&file, SEALS).map_err(Error::system("sealing"))?;
        Ok((Mapping::map(&file, len)?, file))
    }

    /// Maps memory that another process has made, after checking that it has `len` bytes, all of them there, and always
    /// will.
    ///
    /// # Errors
    /// If it has another size, is not sealed, or cannot be mapped.
    pub fn open(file: OwnedFd, len: usize) -> Result<Mapping, Error> {
        let found =
            rustix::fs::fcntl_get_seals(&file).map_err(Error::system("looking at seals"))?;
        if !found.contains(SEALS) {
            return Err(Error::Seals { found });
        }
        let stat = rustix::fs::fstat(&file).map_err(Error::system("looking at the size"))?;
        let (size, expected) = (stat.st_size as u64, len as u64);
        if size != expected {
            return Err(Error::Length {
                found: size,
                expected,
            });
        }
        // In units of 512 bytes, whatever the size of a page.
        let found = (stat.st_blocks as u64).saturating_mul(512);
        if found < expected {
            return Err(Error::Sparse { found, expected });
        }
        Mapping::map(&file, len)
    }

    fn map(file: &OwnedFd, len: usize) -> Result<Mapping, Error> {
        // Populated, so that neither side takes page faults in its first round through the slots.
        let map = MmapOptions::new()
            .len(len)
            .populate()
            .map_raw(&file.as_fd())
            .map_err(Error::system("mapping"))?;
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

    #[test]
    fn a_ring_that_does_not_fit_is_refused_with_figures() {
        let error = Mapping::create(1 << 50).unwrap_err().to_string();
        assert!(
            error.contains("a ring: 1024.0 TiB of memory needed") && error.contains("loader.slots"),
            "{error}"
        );
        let error = check(8, 1 << 50).unwrap_err().to_string();
        assert!(error.contains("8192.0 TiB"), "{error}");
    }

    #[test]
    fn memory_with_holes_is_refused_before_it_is_filled() {
        let (_ours, file) = Mapping::create(8192).unwrap();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, hole, 0, 4096).unwrap();
        let error = Mapping::open(file, 8192).unwrap_err().to_string();
        assert!(error.contains("8192 bytes of memory only 4096"), "{error}");
    }
}
