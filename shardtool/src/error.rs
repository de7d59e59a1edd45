//! Everything that can be wrong with a dataset, said in full.
//!
//! [`Error`] names the file; [`Fault`] is one violated sentence of `FORMAT.md` inside a shard,
//! with what was expected, what was found and where. A message holds its cause's, so that it is
//! complete when printed alone; causes are therefore no `source` of the error, which programs that
//! print the whole chain would say twice.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Corrupt, Escaped};

/// The reason why a dataset could not be read, written or decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {cause}", Escaped::new(path))]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What was being done, as a verb phrase: "open", "create", "write".
        action: &'static str,
        /// The system's reason.
        cause: io::Error,
    },
    /// A shard file violates the format.
    #[error("{}: {fault}", Escaped::new(path))]
    Shard {
        /// The shard file.
        path: PathBuf,
        /// The violated sentence.
        fault: Fault,
    },
    /// The system does not give the bytes of a payload: a bad sector, a file that was cut short or is gone. One sample
    /// is lost, not the shard.
    #[error(
        "{path}: sample {sample} at offset {offset}: cannot be read: {cause}",
        path = Escaped::new(path)
    )]
    Unreadable {
        /// The shard file.
        path: PathBuf,
        /// Number of the sample inside the shard.
        sample: u32,
        /// Offset of the payload in the file.
        offset: u64,
        /// The system's reason.
        cause: io::Error,
    },
    /// A payload is not the bytes its checksum was taken of. One sample is lost, not the shard.
    #[error(
        "{path}: sample {sample} at offset {offset}: payload checksum is {got:016x}, the index says {expected:016x}",
        path = Escaped::new(path)
    )]
    Payload {
        /// The shard file.
        path: PathBuf,
        /// Number of the sample inside the shard.
        sample: u32,
        /// Offset of the payload in the file.
        offset: u64,
        /// Checksum in the index.
        expected: u64,
        /// Checksum of the bytes found.
        got: u64,
    },
    /// A payload does not decode to the image its entry describes.
    #[error("{}: sample {sample} at offset {offset}: {cause}", Escaped::new(path))]
    Decode {
        /// The shard file.
        path: PathBuf,
        /// Number of the sample inside the shard.
        sample: u32,
        /// Offset of the payload in the file.
        offset: u64,
        /// Why not.
        cause: Corrupt,
    },
    /// `dataset.json` is not JSON, or not of the specified shape.
    #[error("{}: {cause}", Escaped::new(path))]
    Json {
        /// The manifest.
        path: PathBuf,
        /// Line, column and reason.
        cause: serde_json::Error,
    },
    /// A value in `dataset.json` violates the format.
    #[error("{}: {key} is {got}, expected {expected}", Escaped::new(path))]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Path of the key, such as `splits[0].name`.
        key: String,
        /// What the format asks for.
        expected: String,
        /// What stands there.
        got: String,
    },
    /// A shard is not the one `dataset.json` lists: replaced, cut short, or of another build.
    #[error(
        "{}: {what} is {got}, dataset.json says {expected}",
        Escaped::new(path)
    )]
    Mismatch {
        /// The shard file.
        path: PathBuf,
        /// The property that differs.
        what: &'static str,
        /// The manifest's value.
        expected: String,
        /// The shard's value.
        got: String,
    },
    /// A sample has a class that `dataset.json` does not list.
    #[error(
        "{}: sample {sample}: class is {got}, dataset.json lists {classes} classes",
        Escaped::new(path)
    )]
    Class {
        /// The shard file.
        path: PathBuf,
        /// Number of the sample inside the shard.
        sample: u32,
        /// Number of classes in the manifest.
        classes: usize,
        /// The class found.
        got: u32,
    },
    /// A writer was given a sample that the format cannot hold.
    #[error("{}: sample {sample} cannot be written: {reason}", Escaped::new(path))]
    Unwritable {
        /// The shard being written.
        path: PathBuf,
        /// Number of the sample inside the shard.
        sample: u32,
        /// The limit it exceeds.
        reason: String,
    },
}

impl Error {
    /// Returns a closure for `map_err` that adds the file and the action to a system error.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |cause| Error::Io {
            path,
            action,
            cause,
        }
    }
}

/// A violated sentence of the shard format. Offsets of header fields are in the file, offsets of
/// index fields in the decompressed index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // `expected`, `got`, `offset`, `sample` and `column` say what they are
pub enum Fault {
    /// The file is shorter than a header.
    #[error("file is {got} bytes long, shorter than the {expected}-byte header")]
    TooShort { expected: u64, got: u64 },
    /// The first eight bytes are not the magic number. Zeros mean that its writer did not finish.
    #[error("not a shard: magic at offset 0 is {got:02x?}, expected {expected:02x?}")]
    Magic { expected: [u8; 8], got: [u8; 8] },
    /// The version is not one this reader knows.
    #[error(
        "format version at offset {offset} is {got}, this program reads {expected}; rebuild the dataset or use a program of its version"
    )]
    Version {
        expected: u32,
        got: u32,
        offset: u64,
    },
    /// The header is not the bytes its checksum was taken of.
    #[error(
        "header checksum at offset {offset} is {expected:016x}, the header's bytes give {got:016x}"
    )]
    HeaderChecksum {
        expected: u64,
        got: u64,
        offset: u64,
    },
    /// A reserved bit of the header flags is set.
    #[error(
        "header flags at offset {offset} are {got:#010x}, reserved bits {reserved:#010x} must be zero"
    )]
    HeaderFlags {
        reserved: u32,
        got: u32,
        offset: u64,
    },
    /// A reserved byte of the header is not zero.
    #[error("reserved header byte at offset {offset} is {got:#04x}, expected zero")]
    HeaderReserved { got: u8, offset: u64 },
    /// The number of samples is zero or above the limit.
    #[error("sample count at offset {offset} is {got}, expected 1 to {max}")]
    SampleCount { max: u32, got: u32, offset: u64 },
    /// The number of label columns is above the limit.
    #[error("label column count at offset {offset} is {got}, expected at most {max}")]
    LabelCount { max: u32, got: u32, offset: u64 },
    /// The codec data is longer than it may be, or than the file.
    #[error("codec data length at offset {offset} is {got}, expected at most {max}")]
    CodecDataLength { max: u64, got: u64, offset: u64 },
    /// The codec data are not the bytes their checksum was taken of.
    #[error(
        "codec data checksum at offset {offset} is {expected:016x}, the data's bytes give {got:016x}"
    )]
    CodecDataChecksum {
        expected: u64,
        got: u64,
        offset: u64,
    },
    /// The codec data hold no tables.
    #[error("codec data at offset {offset}: {reason}")]
    CodecData { reason: String, offset: u64 },
    /// The index does not lie behind the header.
    #[error("index offset at offset {offset} is {got}, payloads begin at {min}")]
    IndexOffset { min: u64, got: u64, offset: u64 },
    /// Header, payloads and index do not add up to the file's size.
    #[error(
        "index ends at {expected} by the header, the file at {got}: cut short, or followed by foreign bytes"
    )]
    FileSize { expected: u64, got: u64 },
    /// The compressed index is not the bytes its checksum was taken of.
    #[error(
        "index checksum at offset {offset} is {expected:016x}, the index's bytes give {got:016x}"
    )]
    IndexChecksum {
        expected: u64,
        got: u64,
        offset: u64,
    },
    /// The declared size of the index cannot hold the samples, or is above the limit.
    #[error("decompressed index length at offset {offset} is {got}, expected {min} to {max}")]
    IndexLength {
        min: u64,
        max: u64,
        got: u64,
        offset: u64,
    },
    /// The index is not one zstd frame of the declared content size.
    #[error("index at offset {offset} is not one zstd frame of {expected} bytes content: {got}")]
    IndexFrame {
        expected: u64,
        got: String,
        offset: u64,
    },
    /// A payload does not begin where the one before it ends.
    #[error(
        "sample {sample}: payload offset is {got}, expected {expected}: payloads overlap or leave a hole"
    )]
    PayloadOffset {
        sample: u32,
        expected: u64,
        got: u64,
    },
    /// A payload is empty.
    #[error("sample {sample}: payload at offset {offset} has length 0, expected at least 1")]
    PayloadEmpty { sample: u32, offset: u64 },
    /// The payloads do not end where the index begins.
    #[error("payloads end at {got}, the index begins at {expected}")]
    PayloadEnd { expected: u64, got: u64 },
    /// An image side is zero or an image is larger than the limit.
    #[error(
        "sample {sample}: {which} size is {width}x{height}, expected sides of 1 to 65535 and at most {max} pixels"
    )]
    Dimensions {
        sample: u32,
        which: &'static str,
        width: u32,
        height: u32,
        max: u64,
    },
    /// A reserved flag of a sample is set.
    #[error("sample {sample}: flags are {got:#06x}, reserved bits {reserved:#06x} must be zero")]
    SampleFlags {
        sample: u32,
        reserved: u16,
        got: u16,
    },
    /// A codec this reader does not know.
    #[error(
        "sample {sample}: codec is {got}, this program knows {}",
        crate::Codec::known()
    )]
    Codec { sample: u32, got: u8 },
    /// Not one of EXIF's eight orientations.
    #[error("sample {sample}: orientation is {got}, expected 1 to 8")]
    Orientation { sample: u32, got: u8 },
    /// A label column reaches beyond the index.
    #[error("label column {column} at index byte {offset} needs {expected} bytes, {got} are left")]
    LabelEnd {
        column: u32,
        expected: u64,
        got: u64,
        offset: u64,
    },
    /// A label column type this reader does not know.
    #[error(
        "label column {column}: type at index byte {offset} is {got}, expected 1 (int64), 2 (float64) or 3 (utf8)"
    )]
    LabelType { column: u32, got: u8, offset: u64 },
    /// A reserved field of a label column is not zero.
    #[error(
        "label column {column}: reserved field at index byte {offset} is {got:#06x}, expected zero"
    )]
    LabelReserved { column: u32, got: u16, offset: u64 },
    /// A label column's name is empty, not UTF-8, or used twice.
    #[error(
        "label column {column}: name at index byte {offset} is {got:?}, expected distinct, non-empty UTF-8"
    )]
    LabelName {
        column: u32,
        got: String,
        offset: u64,
    },
    /// A label column's data has not the length its type and the sample count ask for.
    #[error(
        "label column {column}: data at index byte {offset} is {got} bytes long, expected {expected}"
    )]
    LabelLength {
        column: u32,
        expected: u64,
        got: u64,
        offset: u64,
    },
    /// A text of a utf8 column ends before it begins, beyond the column, or inside a character.
    #[error(
        "label column {column}: text of sample {sample} ends at byte {got} of the column's text, expected a character boundary from {min} to {max}"
    )]
    LabelText {
        column: u32,
        sample: u32,
        min: u32,
        max: u32,
        got: u32,
    },
    /// A utf8 column is not UTF-8.
    #[error("label column {column}: text at index byte {offset} is not UTF-8")]
    LabelUtf8 { column: u32, offset: u64 },
    /// Bytes are left over behind the last label column.
    #[error("label columns end at index byte {expected}, the index at {got}")]
    IndexEnd { expected: u64, got: u64 },
}
