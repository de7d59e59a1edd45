//! What can go wrong with a copy of shards.

use std::io;
use std::path::PathBuf;

use shardtool::Escaped;
use shardtool::memory::Size;

use crate::private_dir;

/// The reason why there are no shards to read, or no copy of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration names no shards, or no place for their copy.
    #[error(transparent)]
    Config(#[from] crate::Error),
    /// The copy's directory is not this user's.
    #[error("{cause}; set loader.local_dir to a place of your own")]
    Directory {
        /// What is wrong with it.
        cause: private_dir::Error,
    },
    /// The copy's place is too small.
    #[error(
        "{}: {} free, but the copy of {} needs {} more; set loader.local_dir to a larger place, or meta.copy_data to \
         false",
        Escaped::new(path), Size(*free), Escaped::new(original), Size(*needed)
    )]
    NoSpace {
        /// The copy's directory.
        path: PathBuf,
        /// The data set.
        original: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are still to be copied.
        needed: u64,
    },
    /// A system call failed.
    #[error("{}: {what}: {cause}", Escaped::new(path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
    /// Other processes cannot be kept away while shards are copied.
    #[error("{cause}")]
    Lock {
        /// Why.
        cause: shardtool::disk::LockError,
    },
    /// A file of the data set cannot be copied.
    #[error(
        "{}: cannot copy {}: {cause}",
        Escaped::new(path),
        Escaped::new(original)
    )]
    Copy {
        /// The copy.
        path: PathBuf,
        /// What was to be copied.
        original: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// A manifest or a shard is damaged.
    #[error(transparent)]
    Shards(#[from] shardtool::Error),
    /// A shard is not the one that the manifest lists.
    #[error(
        "{}: {found} {what}, but the manifest says {expected}",
        Escaped::new(path)
    )]
    OtherShard {
        /// The shard.
        path: PathBuf,
        /// What was compared.
        what: &'static str,
        /// The number found.
        found: u64,
        /// The manifest's number.
        expected: u64,
    },
    /// A shard has another checksum than the manifest lists.
    #[error(
        "{}: checksum {found:016x}, but the manifest says {expected:016x}",
        Escaped::new(path)
    )]
    Checksum {
        /// The shard.
        path: PathBuf,
        /// The checksum found.
        found: u64,
        /// The manifest's checksum.
        expected: u64,
    },
    /// A copied shard is damaged, and its original is not.
    #[error("{}: the copy differs from its source: {damage}", Escaped::new(path))]
    Differs {
        /// The copy.
        path: PathBuf,
        /// The damage found.
        damage: shardtool::Error,
    },
}
