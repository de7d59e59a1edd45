//! One shard file: constants, [`ShardWriter`] and the validating reader [`Shard`].
//!
//! This is the code's half of `FORMAT.md`; nothing else knows the layout. Invariant: a `Shard`
//! that was opened has been checked completely except for its payloads, which carry a checksum
//! each; every offset, dimension, codec and text it hands out is in bounds.

mod index;
mod labels;
mod reader;
mod writer;

pub use labels::{Label, LabelType};
pub use reader::Shard;
pub use writer::{NewSample, ShardWriter, Written};

/// First eight bytes of a shard. The first is not ASCII, so that no text file begins like this.
pub const MAGIC: [u8; 8] = *b"\x89IJSHARD";
/// The format version written and read.
pub const VERSION: u32 = 1;
/// Length of the header in bytes; payloads begin behind it.
pub const HEADER_LENGTH: u64 = 96;
/// Most samples in one shard.
pub const MAX_SAMPLES: u32 = 1 << 20;
/// Most label columns in one shard.
pub const MAX_LABELS: u32 = 256;
/// Longest decompressed index: bounds what a hostile header can make a reader allocate.
pub const MAX_INDEX_LENGTH: u64 = 1 << 28;
/// How much longer than its content the compressed index may be.
pub const INDEX_FRAME_ROOM: u64 = 1 << 20;
/// Longest codec data.
pub const MAX_CODEC_DATA: u64 = 1 << 20;
/// Largest width or height: the most that JPEG can express.
pub const MAX_SIDE: u32 = 65_535;
/// Most pixels in an image: the size beyond which Pillow refuses to open one.
pub const MAX_PIXELS: u64 = 178_956_970;
/// Name of the label column that holds the path of the source file.
pub const PATH_COLUMN: &str = "path";

/// Bits of the header flags that must be zero; the others are ignored.
const RESERVED_HEADER_FLAGS: u32 = 0x0000_ffff;
/// Bits of a sample's flags that must be zero; the others are ignored.
const RESERVED_SAMPLE_FLAGS: u16 = 0x00ff;
/// On-disk class of an unlabelled sample.
const NO_CLASS: u32 = u32::MAX;
/// Bytes that the fixed columns take for each sample.
const FIXED_BYTES: u64 = 44;

/// Offsets of the header's fields.
mod at {
    pub const VERSION: usize = 8;
    pub const FLAGS: usize = 12;
    pub const SAMPLE_COUNT: usize = 16;
    pub const LABEL_COUNT: usize = 20;
    pub const CODEC_DATA_LENGTH: usize = 24;
    pub const INDEX_OFFSET: usize = 32;
    pub const INDEX_LENGTH: usize = 40;
    pub const INDEX_RAW_LENGTH: usize = 48;
    pub const INDEX_CHECKSUM: usize = 56;
    pub const CODEC_DATA_CHECKSUM: usize = 64;
    pub const RESERVED: usize = 72;
    pub const HEADER_CHECKSUM: usize = 88;
}

/// How a payload is coded.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Codec {
    /// The bytes of a JPEG file, unchanged.
    Jpeg = 1,
    /// Packed RGB8 rows in one zstd frame.
    Raw = 2,
    /// Quantized DCT coefficients.
    Dct = 3,
}

impl Codec {
    /// All codecs.
    pub const ALL: [Codec; 3] = [Codec::Jpeg, Codec::Raw, Codec::Dct];

    /// Returns the codec of an on-disk number.
    pub fn from_id(id: u8) -> Option<Codec> {
        Codec::ALL.into_iter().find(|&codec| codec as u8 == id)
    }

    /// Returns the on-disk numbers and names of all codecs, for messages.
    pub(crate) fn known() -> String {
        let codecs = Codec::ALL.map(|codec| format!("{} ({codec})", codec as u8));
        codecs.join(", ")
    }

    /// Returns the name used in `dataset.json` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Jpeg => "jpeg",
            Codec::Raw => "raw",
            Codec::Dct => "dct",
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What the index says about one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where the payload begins in the shard file.
    pub offset: u64,
    /// xxh3-64 of the payload.
    pub checksum: u64,
    /// Length of the payload in bytes.
    pub length: u32,
    /// Width in pixels of the image that the payload decodes to.
    pub stored_width: u32,
    /// Height in pixels of the image that the payload decodes to.
    pub stored_height: u32,
    /// Width of the source image; crops are drawn on this grid.
    pub source_width: u32,
    /// Height of the source image.
    pub source_height: u32,
    /// Class number, an index into the manifest's class list; none if unlabelled.
    pub class: Option<u32>,
    /// How the payload is coded.
    pub codec: Codec,
    /// EXIF orientation of the source, 1 to 8. A note: it is not applied to the pixels.
    pub orientation: u8,
}

/// Tells whether the format can hold an image of this size.
pub fn fits(width: u32, height: u32) -> bool {
    let sides = 1..=MAX_SIDE;
    sides.contains(&width)
        && sides.contains(&height)
        && u64::from(width) * u64::from(height) <= MAX_PIXELS
}

/// Returns the format's checksum: xxh3-64 with seed 0.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests;
