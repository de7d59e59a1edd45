//! The validating reader: untrusted bytes become a [`Shard`], or a [`Fault`] that says why not.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};

use super::index::{Header, Index, differ};
use super::labels::{Label, LabelType};
use super::{Entry, HEADER_LENGTH, checksum};
use crate::dct::tables::Tables;
use crate::{Error, Fault, regular};

/// A shard file, open and checked.
///
/// It is read, not mapped: a page of a map that cannot be had any more ends the process by SIGBUS, be it for a bad
/// sector, a network file system that has lost the file, or somebody who cut the file short. A read that fails says
/// why. The bytes that were checked are also the bytes that are decoded, whatever becomes of the file meanwhile.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: File,
    bytes: u64,
    checksum: u64,
    codec_data: Vec<u8>,
    index: Index,
    /// What its `dct` payloads share; none if there are none.
    tables: Option<Arc<Tables>>,
}

impl Shard {
    /// Opens a shard and checks everything except its payloads.
    ///
    /// # Errors
    /// What the system says, or [`Error::Shard`] with the sentence of the format that the file violates.
    pub fn open(path: &Path) -> Result<Shard, Error> {
        Shard::open_beside(path, None)
    }

    /// Opens a shard of a dataset of which another is open: tables that both have are kept once, which is good
    /// for memory and for the caches of those who decode from both by turns.
    ///
    /// # Errors
    /// Those of [`Shard::open`].
    pub fn open_beside(path: &Path, sibling: Option<&Shard>) -> Result<Shard, Error> {
        let file = regular::open(path).map_err(Error::io(path, "open"))?;
        let bytes = file.metadata().map_err(Error::io(path, "open"))?.len();
        let read = |offset: u64, length: u64| {
            let mut bytes = vec![0; length as usize];
            read_exact(&file, &mut bytes, offset).map_err(Error::io(path, "read"))?;
            Ok(bytes)
        };
        let in_shard = |fault| Error::Shard {
            path: path.to_owned(),
            fault,
        };
        let head = read(0, bytes.min(HEADER_LENGTH))?;
        let header = Header::parse(&head, bytes).map_err(in_shard)?;
        let codec_data = read(HEADER_LENGTH, header.codec_data_length)?;
        header.check_codec_data(&codec_data).map_err(in_shard)?;
        let compressed = read(header.index_offset, header.index_length)?;
        let index = Index::parse(&header, &compressed).map_err(in_shard)?;
        Ok(Shard {
            path: path.to_owned(),
            tables: tables(&codec_data, sibling).map_err(in_shard)?,
            file,
            bytes,
            checksum: header.checksum,
            codec_data,
            index,
        })
    }

    /// Returns what the shard's `dct` payloads share; none if it has no codec data.
    pub fn tables(&self) -> Option<&Tables> {
        self.tables.as_deref()
    }

    /// Returns the file this shard was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells if its path still leads to the file that is open, and not to another, or to none.
    pub fn is_at_its_path(&self) -> bool {
        let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let open = self.file.metadata().map(id);
        let named = fs::metadata(&self.path).map(id);
        open.is_ok_and(|open| named.is_ok_and(|named| named == open))
    }

    /// Returns the number of samples; at least one.
    #[allow(clippy::len_without_is_empty)] // an empty shard cannot be opened
    pub fn len(&self) -> u32 {
        self.index.entries.len() as u32
    }

    /// Returns the size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the header's checksum. It covers the index's checksum, and the index holds every payload's:
    /// two shards with equal checksums hold equal data.
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Returns the bytes that the shard's `dct` payloads share; empty if there are none.
    pub fn codec_data(&self) -> &[u8] {
        &self.codec_data
    }

    /// Returns what the index says about sample `i`.
    ///
    /// # Panics
    /// If there is none.
    pub fn entry(&self, i: u32) -> &Entry {
        &self.index.entries[i as usize]
    }

    /// Returns all entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.index.entries
    }

    /// Reads the payload of sample `i` into the front of `buffer`, which grows where it has to, and compares it with
    /// its checksum.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if the system does not give the bytes, [`Error::Payload`] if they are damaged.
    pub fn read<'b>(&self, i: u32, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Error> {
        let entry = self.entry(i);
        let length = entry.length as usize;
        if buffer.len() < length {
            // Grown, never cut: cutting would clear the difference again for each longer payload.
            buffer.resize(length, 0);
        }
        let payload = &mut buffer[..length];
        read_exact(&self.file, payload, entry.offset).map_err(|cause| Error::Unreadable {
            path: self.path.clone(),
            sample: i,
            offset: entry.offset,
            cause,
        })?;
        let got = checksum(payload);
        if !differ(got, entry.checksum) {
            return Ok(payload);
        }
        Err(Error::Payload {
            path: self.path.clone(),
            sample: i,
            offset: entry.offset,
            expected: entry.checksum,
            got,
        })
    }

    /// Reads the payload of sample `i` into memory of its own; see [`Shard::read`].
    ///
    /// # Errors
    /// Those of [`Shard::read`].
    pub fn payload(&self, i: u32) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.read(i, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads bytes of the file as they are, whether or not they are damaged.
    #[cfg(feature = "build")]
    pub(crate) fn raw<'b>(
        &self,
        range: std::ops::Range<u64>,
        buffer: &'b mut Vec<u8>,
    ) -> io::Result<&'b [u8]> {
        buffer.resize((range.end - range.start) as usize, 0);
        read_exact(&self.file, buffer, range.start)?;
        Ok(buffer)
    }

    /// Tells the kernel that samples will be read in no order: it then fetches what is asked for, and not the megabytes
    /// behind it as well, which cost a random reader many times its own traffic.
    pub fn expect_random_access(&self) {
        // A hint: without it everything works, more slowly.
        let _ = fadvise(&self.file, 0, None, Advice::Random);
    }

    /// Asks the kernel to fetch the payload of sample `i` from disk, and does not wait for it.
    pub fn prefetch(&self, i: u32) {
        let entry = self.entry(i);
        let length = std::num::NonZeroU64::new(entry.length.into());
        // A hint: where it fails, the payload is fetched when it is read.
        let _ = fadvise(&self.file, entry.offset, length, Advice::WillNeed);
    }

    /// Returns the names and types of the label columns, in file order.
    pub fn labels(&self) -> impl Iterator<Item = (&str, LabelType)> {
        self.index.labels()
    }

    /// Returns the value of sample `i` in the named label column; none if either is missing.
    ///
    /// # Panics
    /// If there is no such sample.
    pub fn label(&self, i: u32, name: &str) -> Option<Label<'_>> {
        assert!(i < self.len(), "sample {i} of {}", self.len());
        self.index.label(i as usize, name)
    }
}

/// Reads all of `bytes` from `offset` on.
fn read_exact(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(bytes, offset)
        .map_err(|cause| match cause.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file was cut short since it was opened",
            ),
            _ => cause,
        })
}

/// Reads the tables of a shard from its codec data, or takes those of its sibling where they are the same.
fn tables(codec_data: &[u8], sibling: Option<&Shard>) -> Result<Option<Arc<Tables>>, Fault> {
    if codec_data.is_empty() {
        return Ok(None);
    }
    if let Some(sibling) = sibling.filter(|sibling| sibling.codec_data == codec_data) {
        return Ok(sibling.tables.clone());
    }
    let tables = Tables::parse(codec_data).map_err(|reason| Fault::CodecData {
        reason: reason.to_string(),
        offset: HEADER_LENGTH,
    })?;
    Ok(Some(Arc::new(tables)))
}
