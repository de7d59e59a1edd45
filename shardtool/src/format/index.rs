//! Untrusted header and index, checked: what a shard's first and last bytes say of it.

use zstd::zstd_safe;

use super::labels::{self, Column, Label, LabelType};
use super::{
    Codec, Entry, FIXED_BYTES, HEADER_LENGTH, INDEX_FRAME_ROOM, MAGIC, MAX_CODEC_DATA,
    MAX_INDEX_LENGTH, MAX_LABELS, MAX_PIXELS, MAX_SAMPLES, NO_CLASS, RESERVED_HEADER_FLAGS,
    RESERVED_SAMPLE_FLAGS, VERSION, at, checksum, fits,
};
use crate::Fault;

/// The checked index.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) entries: Vec<Entry>,
    columns: Vec<Column>,
    /// The part of the decompressed index that holds the label columns.
    labels: Vec<u8>,
}

impl Index {
    /// Checks the compressed index of a file with this header, in the order of `FORMAT.md`.
    pub(super) fn parse(header: &Header, compressed: &[u8]) -> Result<Index, Fault> {
        let mut index = header.decompress_index(compressed)?;
        let fixed = FIXED_BYTES as usize * header.samples as usize;
        let entries = parse_entries(&index[..fixed], header)?;
        let columns = labels::parse(&index, fixed, header.label_columns, header.samples)?;
        Ok(Index {
            entries,
            columns,
            labels: index.split_off(fixed),
        })
    }

    /// Returns the names and types of the label columns, in file order.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&str, LabelType)> {
        let columns = self.columns.iter();
        columns.map(|column| (column.name.as_str(), column.kind))
    }

    /// Returns the value of sample `i` in the named label column; none if either is missing.
    pub(super) fn label(&self, i: usize, name: &str) -> Option<Label<'_>> {
        let column = self.columns.iter().find(|column| column.name == name)?;
        column.get(&self.labels, i)
    }
}

/// The header's fields, once they agree with each other and with the file's size.
pub(super) struct Header {
    pub(super) checksum: u64,
    samples: u32,
    label_columns: u32,
    pub(super) codec_data_length: u64,
    codec_data_checksum: u64,
    payload_offset: u64,
    pub(super) index_offset: u64,
    pub(super) index_length: u64,
    index_raw_length: u64,
    index_checksum: u64,
}

impl Header {
    /// Checks the first bytes of a file of this size.
    pub(super) fn parse(bytes: &[u8], size: u64) -> Result<Header, Fault> {
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
        let index_offset = u64_at(bytes, at::INDEX_OFFSET);
        if index_offset < payload_offset {
            return Err(Fault::IndexOffset {
                min: payload_offset,
                got: index_offset,
                offset: at::INDEX_OFFSET as u64,
            });
        }
        let index_length = u64_at(bytes, at::INDEX_LENGTH);
        let index_end = index_offset.saturating_add(index_length);
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
        let header = Header {
            checksum: header_checksum,
            samples,
            label_columns,
            codec_data_length,
            codec_data_checksum: u64_at(bytes, at::CODEC_DATA_CHECKSUM),
            payload_offset,
            index_offset,
            index_length,
            index_raw_length,
            index_checksum: u64_at(bytes, at::INDEX_CHECKSUM),
        };
        // A reader has all of it in memory: the file's size is no bound for that.
        if index_length > index_raw_length + INDEX_FRAME_ROOM {
            let room = index_raw_length + INDEX_FRAME_ROOM;
            let got = format!("{index_length} compressed bytes, at most {room} are possible");
            return Err(header.index_fault(got));
        }
        Ok(header)
    }

    /// Compares the codec data with their checksum.
    pub(super) fn check_codec_data(&self, codec_data: &[u8]) -> Result<(), Fault> {
        let got = match codec_data {
            [] => 0,
            data => checksum(data),
        };
        match differ(got, self.codec_data_checksum) {
            false => Ok(()),
            true => Err(Fault::CodecDataChecksum {
                expected: self.codec_data_checksum,
                got,
                offset: at::CODEC_DATA_CHECKSUM as u64,
            }),
        }
    }

    fn index_fault(&self, got: String) -> Fault {
        Fault::IndexFrame {
            expected: self.index_raw_length,
            got,
            offset: self.index_offset,
        }
    }

    fn decompress_index(&self, frame: &[u8]) -> Result<Vec<u8>, Fault> {
        let got = checksum(frame);
        if differ(got, self.index_checksum) {
            return Err(Fault::IndexChecksum {
                expected: self.index_checksum,
                got,
                offset: self.index_offset,
            });
        }
        let fault = |got: String| self.index_fault(got);
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
pub(super) fn differ(got: u64, expected: u64) -> bool {
    got != expected && !cfg!(fuzzing)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
