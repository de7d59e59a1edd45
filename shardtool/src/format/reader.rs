//! The validating reader: untrusted bytes become a [`Shard`], or a [`Fault`] that says why not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use zstd::zstd_safe;

use super::labels::{self, Column, Label, LabelType};
use super::{
    Codec, Entry, FIXED_BYTES, HEADER_LENGTH, MAGIC, MAX_CODEC_DATA, MAX_INDEX_LENGTH, MAX_LABELS,
    MAX_PIXELS, MAX_SAMPLES, NO_CLASS, RESERVED_HEADER_FLAGS, RESERVED_SAMPLE_FLAGS, VERSION, at,
    checksum, fits,
};
use crate::dct::tables::Tables;
use crate::{Error, Fault, regular};

/// A shard file, mapped and checked.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    bytes: Mmap,
    index: Index,
    /// What its `dct` payloads share; none if there are none.
    tables: Option<Arc<Tables>>,
}

impl Shard {
    /// Maps a shard and checks everything except its payloads.
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
        // SAFETY: a mapping is sound while nobody changes the file, which no program can promise
        // for another. Shards are written under another name, renamed when complete and never
        // touched again; somebody who truncates one in place nevertheless kills its readers with
        // SIGBUS. Payloads are bytes of which nothing but a checksum and a decoder's own bounds
        // checks is believed, so a change in place can garble pixels but no control flow.
        let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
        let in_shard = |fault| Error::Shard {
            path: path.to_owned(),
            fault,
        };
        let index = Index::parse(&bytes).map_err(in_shard)?;
        Ok(Shard {
            path: path.to_owned(),
            tables: tables(&bytes, sibling).map_err(in_shard)?,
            bytes,
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

    /// Returns the number of samples; at least one.
    #[allow(clippy::len_without_is_empty)] // an empty shard cannot be opened
    pub fn len(&self) -> u32 {
        self.index.entries.len() as u32
    }

    /// Returns the size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Returns the header's checksum. It covers the index's checksum, and the index holds every payload's:
    /// two shards with equal checksums hold equal data.
    pub fn checksum(&self) -> u64 {
        u64_at(&self.bytes, at::HEADER_CHECKSUM)
    }

    /// Returns the bytes that the shard's `dct` payloads share; empty if there are none.
    pub fn codec_data(&self) -> &[u8] {
        codec_data(&self.bytes)
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

    /// Returns the stored bytes of sample `i`; see [`Shard::verify`] for whether they are undamaged.
    pub fn payload(&self, i: u32) -> &[u8] {
        let entry = self.entry(i);
        &self.bytes[entry.offset as usize..][..entry.length as usize]
    }

    /// Tells the kernel that samples will be read in no order: it then fetches what is asked for with
    /// [`Shard::prefetch`], and not the megabytes behind it as well, which cost a random reader many times its own
    /// traffic.
    pub fn expect_random_access(&self) {
        // A hint: without it everything works, more slowly.
        let _ = self.bytes.advise(memmap2::Advice::Random);
    }

    /// Asks the kernel to fetch the payload of sample `i` from disk, and does not wait for it.
    pub fn prefetch(&self, i: u32) {
        let entry = self.entry(i);
        let (offset, length) = (entry.offset as usize, entry.length as usize);
        // A hint: where it fails, the payload is fetched when it is read.
        let _ = self
            .bytes
            .advise_range(memmap2::Advice::WillNeed, offset, length);
    }

    /// Compares the payload of sample `i` with its checksum.
    ///
    /// # Errors
    /// [`Error::Payload`] with both checksums.
    pub fn verify(&self, i: u32) -> Result<(), Error> {
        let entry = self.entry(i);
        let got = checksum(self.payload(i));
        if got == entry.checksum {
            return Ok(());
        }
        Err(Error::Payload {
            path: self.path.clone(),
            sample: i,
            offset: entry.offset,
            expected: entry.checksum,
            got,
        })
    }

    /// Returns the names and types of the label columns, in file order.
    pub fn labels(&self) -> impl Iterator<Item = (&str, LabelType)> {
        let columns = self.index.columns.iter();
        columns.map(|column| (column.name.as_str(), column.kind))
    }

    /// Returns the value of sample `i` in the named label column; none if either is missing.
    pub fn label(&self, i: u32, name: &str) -> Option<Label<'_>> {
        assert!(i < self.len(), "sample {i} of {}", self.len());
        let column = self
            .index
            .columns
            .iter()
            .find(|column| column.name == name)?;
        column.get(&self.index.labels, i as usize)
    }
}

/// Returns the bytes between header and payloads. The header must have been checked.
fn codec_data(bytes: &[u8]) -> &[u8] {
    let length = u64_at(bytes, at::CODEC_DATA_LENGTH) as usize;
    &bytes[HEADER_LENGTH as usize..][..length]
}

/// Reads the tables of a shard whose header has been checked, or takes those of its sibling where they are the same.
fn tables(bytes: &[u8], sibling: Option<&Shard>) -> Result<Option<Arc<Tables>>, Fault> {
    let data = codec_data(bytes);
    if data.is_empty() {
        return Ok(None);
    }
    if let Some(sibling) = sibling.filter(|sibling| codec_data(&sibling.bytes) == data) {
        return Ok(sibling.tables.clone());
    }
    let tables = Tables::parse(data).map_err(|reason| Fault::CodecData {
        reason: reason.to_string(),
        offset: HEADER_LENGTH,
    })?;
    Ok(Some(Arc::new(tables)))
}

/// The checked index.
#[derive(Debug)]
struct Index {
    entries: Vec<Entry>,
    columns: Vec<Column>,
    /// The part of the decompressed index that holds the label columns.
    labels: Vec<u8>,
}

impl Index {
    /// Checks a whole shard file, in the order of `FORMAT.md`.
    fn parse(bytes: &[u8]) -> Result<Index, Fault> {
        let header = Header::parse(bytes)?;
        let mut index = header.decompress_index(bytes)?;
        let fixed = FIXED_BYTES as usize * header.samples as usize;
        let entries = parse_entries(&index[..fixed], &header)?;
        let columns = labels::parse(&index, fixed, header.label_columns, header.samples)?;
        Ok(Index {
            entries,
            columns,
            labels: index.split_off(fixed),
        })
    }
}

/// The header's fields, once they agree with each other and with the file's size.
struct Header {
    samples: u32,
    label_columns: u32,
    payload_offset: u64,
    index_offset: u64,
    index_raw_length: u64,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Header, Fault> {
        let size = bytes.len() as u64;
        if size < HEADER_LENGTH {
            return Err(Fault::TooShort {
                expected: HEADER_LENGTH,
                got: size,
            });
        }
        let magic: [u8; 8] = bytes[..8].try_into().unwrap();
        if magic != MAGIC {
            return Err(Fault::Magic {
                expected: MAGIC,
                got: magic,
            });
        }
        // The version comes before the checksum: a later version may place the checksum elsewhere.
        let version = u32_at(bytes, at::VERSION);
        if version != VERSION {
            return Err(Fault::Version {
                expected: VERSION,
                got: version,
                offset: at::VERSION as u64,
            });
        }
        let header_checksum = u64_at(bytes, at::HEADER_CHECKSUM);
        let got = checksum(&bytes[..at::HEADER_CHECKSUM]);
        if differ(got, header_checksum) {
            return Err(Fault::HeaderChecksum {
                expected: header_checksum,
                got,
                offset: at::HEADER_CHECKSUM as u64,
            });
        }
        let flags = u32_at(bytes, at::FLAGS);
        if flags & RESERVED_HEADER_FLAGS != 0 {
            return Err(Fault::HeaderFlags {
                reserved: RESERVED_HEADER_FLAGS,
                got: flags,
                offset: at::FLAGS as u64,
            });
        }
        let reserved = at::RESERVED..at::HEADER_CHECKSUM;
        if let Some(offset) = reserved.into_iter().find(|&offset| bytes[offset] != 0) {
            return Err(Fault::HeaderReserved {
                got: bytes[offset],
                offset: offset as u64,
            });
        }
        let samples = u32_at(bytes, at::SAMPLE_COUNT);
        if samples == 0 || samples > MAX_SAMPLES {
            return Err(Fault::SampleCount {
                max: MAX_SAMPLES,
                got: samples,
                offset: at::SAMPLE_COUNT as u64,
            });
        }
        let label_columns = u32_at(bytes, at::LABEL_COUNT);
        if label_columns > MAX_LABELS {
            return Err(Fault::LabelCount {
                max: MAX_LABELS,
                got: label_columns,
                offset: at::LABEL_COUNT as u64,
            });
        }
        let codec_data_length = u64_at(bytes, at::CODEC_DATA_LENGTH);
        let max = MAX_CODEC_DATA.min(size - HEADER_LENGTH);
        if codec_data_length > max {
            return Err(Fault::CodecDataLength {
                max,
                got: codec_data_length,
                offset: at::CODEC_DATA_LENGTH as u64,
            });
        }
        let payload_offset = HEADER_LENGTH + codec_data_length;
        let codec_data_checksum = u64_at(bytes, at::CODEC_DATA_CHECKSUM);
        let got = match codec_data(bytes) {
            [] => 0,
            data => checksum(data),
        };
        if differ(got, codec_data_checksum) {
            return Err(Fault::CodecDataChecksum {
                expected: codec_data_checksum,
                got,
                offset: at::CODEC_DATA_CHECKSUM as u64,
            });
        }
        let index_offset = u64_at(bytes, at::INDEX_OFFSET);
        if index_offset < payload_offset {
            return Err(Fault::IndexOffset {
                min: payload_offset,
                got: index_offset,
                offset: at::INDEX_OFFSET as u64,
            });
        }
        let index_end = index_offset.saturating_add(u64_at(bytes, at::INDEX_LENGTH));
        if index_end != size {
            return Err(Fault::FileSize {
                expected: index_end,
                got: size,
            });
        }
        let index_raw_length = u64_at(bytes, at::INDEX_RAW_LENGTH);
        let least = FIXED_BYTES * u64::from(samples);
        if !(least..=MAX_INDEX_LENGTH).contains(&index_raw_length) {
            return Err(Fault::IndexLength {
                min: least,
                max: MAX_INDEX_LENGTH,
                got: index_raw_length,
                offset: at::INDEX_RAW_LENGTH as u64,
            });
        }
        let index_checksum = u64_at(bytes, at::INDEX_CHECKSUM);
        let got = checksum(&bytes[index_offset as usize..]);
        if differ(got, index_checksum) {
            return Err(Fault::IndexChecksum {
                expected: index_checksum,
                got,
                offset: index_offset,
            });
        }
        Ok(Header {
            samples,
            label_columns,
            payload_offset,
            index_offset,
            index_raw_length,
        })
    }

    fn decompress_index(&self, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let frame = &bytes[self.index_offset as usize..];
        let fault = |got: String| Fault::IndexFrame {
            expected: self.index_raw_length,
            got,
            offset: self.index_offset,
        };
        match zstd_safe::find_frame_compressed_size(frame) {
            Ok(length) if length == frame.len() => {}
            Ok(length) => {
                let rest = frame.len() - length;
                return Err(fault(format!("{rest} bytes follow the frame")));
            }
            Err(code) => return Err(fault(zstd_safe::get_error_name(code).to_owned())),
        }
        match zstd_safe::get_frame_content_size(frame) {
            Ok(Some(content)) if content == self.index_raw_length => {}
            Ok(Some(content)) => return Err(fault(format!("its content is {content} bytes"))),
            _ => return Err(fault("it does not record its content size".to_owned())),
        }
        // At most MAX_INDEX_LENGTH, which the header check has made sure of.
        let length = self.index_raw_length as usize;
        let index =
            zstd::bulk::decompress(frame, length).map_err(|error| fault(error.to_string()))?;
        match index.len() == length {
            true => Ok(index),
            false => Err(fault(format!("it gave {} bytes", index.len()))),
        }
    }
}

/// Reads the fixed columns: each holds one field of every sample.
fn parse_entries(fixed: &[u8], header: &Header) -> Result<Vec<Entry>, Fault> {
    let count = header.samples as usize;
    let mut rest = fixed;
    let mut column = |width: usize| {
        let (column, tail) = rest.split_at(width * count);
        rest = tail;
        column
    };
    let offsets = column(8);
    let checksums = column(8);
    let lengths = column(4);
    let stored_widths = column(4);
    let stored_heights = column(4);
    let source_widths = column(4);
    let source_heights = column(4);
    let classes = column(4);
    let flags = column(2);
    let codecs = column(1);
    let orientations = column(1);

    let mut entries = Vec::with_capacity(count);
    let mut end = header.payload_offset;
    for i in 0..count {
        let sample = i as u32;
        let offset = u64_at(offsets, 8 * i);
        if offset != end {
            return Err(Fault::PayloadOffset {
                sample,
                expected: end,
                got: offset,
            });
        }
        let length = u32_at(lengths, 4 * i);
        if length == 0 {
            return Err(Fault::PayloadEmpty { sample, offset });
        }
        // No overflow: at most 2^20 lengths below 2^32.
        end += u64::from(length);

        let size = |which, widths: &[u8], heights: &[u8]| {
            let (width, height) = (u32_at(widths, 4 * i), u32_at(heights, 4 * i));
            match fits(width, height) {
                true => Ok((width, height)),
                false => Err(Fault::Dimensions {
                    sample,
                    which,
                    width,
                    height,
                    max: MAX_PIXELS,
                }),
            }
        };
        let (stored_width, stored_height) = size("stored", stored_widths, stored_heights)?;
        let (source_width, source_height) = size("source", source_widths, source_heights)?;
        let flags = u16::from_le_bytes([flags[2 * i], flags[2 * i + 1]]);
        if flags & RESERVED_SAMPLE_FLAGS != 0 {
            return Err(Fault::SampleFlags {
                sample,
                reserved: RESERVED_SAMPLE_FLAGS,
                got: flags,
            });
        }
        let codec = Codec::from_id(codecs[i]).ok_or(Fault::Codec {
            sample,
            got: codecs[i],
        })?;
        let orientation = orientations[i];
        if !(1..=8).contains(&orientation) {
            return Err(Fault::Orientation {
                sample,
                got: orientation,
            });
        }
        let class = u32_at(classes, 4 * i);
        entries.push(Entry {
            offset,
            checksum: u64_at(checksums, 8 * i),
            length,
            stored_width,
            stored_height,
            source_width,
            source_height,
            class: (class != NO_CLASS).then_some(class),
            codec,
            orientation,
        });
    }
    if end != header.index_offset {
        return Err(Fault::PayloadEnd {
            expected: header.index_offset,
            got: end,
        });
    }
    Ok(entries)
}

/// Tells whether checksums differ. A fuzzer cannot guess them, and shall reach what is behind.
fn differ(got: u64, expected: u64) -> bool {
    got != expected && !cfg!(fuzzing)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
