//! Entropy coding of byte streams by rANS with static tables: how `dct` payloads become small.
//!
//! The codec hands over the streams of one image as *segments*, each with the table that suits it. They are coded as
//! one run, so that its fixed costs are paid once per image. A reader may stop after any segment: what it does not need
//! goes last. [`Encoder`] writes a run, [`Decoder`] reads it segment by segment. Both have vector paths that give the
//! bytes of the scalar definition. Whatever a run says, decoding ends after as many symbols as were asked for and reads
//! nothing outside the run.
//!
//! `FORMAT.md` describes the run, under "Entropy coding".
//!
//! # Why so
//!
//! * 64 lanes: a symbol waits for the one before it in its lane, about 60 cycles for a look-up in memory and a
//!   multiplication. 64 lanes fill that time. 32 do not (1.5 GB/s instead of 2.3 with AVX2, 1.6 instead of 2.6 with
//!   AVX-512) and save only 128 bytes an image.
//! * Words of 16 bits in one row: rows for each lane would need lengths of their own. A symbol takes at most 12 bits,
//!   so never more than one word.
//! * The lower bound 2^15 rather than 2^16 keeps states non-negative as signed numbers, the only ones that AVX2
//!   compares.
//! * Frequencies of 12 bits: with 11, photographs take 1.1 % more, because each of the 256 byte values needs a
//!   frequency of at least one. With 13, they take 0.4 % less, but an entry of a table would not fit the 32 bits that
//!   one look-up gives: it packs symbol, frequency and offset. For that reason no frequency is 4096 either.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod decode;
mod encode;
mod table;
#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use encode::Encoder;
pub use table::{BadFrequencies, DecodeTable, EncodeTable, Frequencies, normalize};

/// Frequencies of a table sum to `1 << SCALE_BITS`.
pub const SCALE_BITS: u32 = 12;

/// How many symbols make a round, each with a state of its own.
pub const LANES: usize = 64;

/// Between symbols a state is at least this, and less than 2^16 times this. Encoding begins, and decoding ends, with
/// it.
const LOWEST: u32 = 1 << 15;

/// How many slots a table has.
const SLOTS: usize = 1 << SCALE_BITS;

/// The most bytes that a round takes from the run: a word for each lane.
const ROUND_BYTES: usize = 2 * LANES;

/// Vectors that encode may write to this many bytes below the first word.
const ROOM: usize = 64;

/// States of all lanes, aligned for the widest vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
struct States([u32; LANES]);

/// How far vectors came: to the end of the segment, or to where fewer than [`ROUND_BYTES`] are left.
#[derive(Debug, Clone, Copy)]
struct Done {
    /// Rounds decoded.
    rounds: usize,
    /// Bytes taken from the run.
    used: usize,
}

/// The bytes are not a run of rANS, or not one of these tables and lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entropy-coded data are damaged")]
pub struct Corrupt;

/// A segment has a symbol with a frequency of 0 in the segment's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a table lacks a symbol of its segment")]
pub struct Uncodable;
