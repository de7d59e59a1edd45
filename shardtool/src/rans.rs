//! Entropy coding of byte streams by rANS with static tables: how `dct` payloads become small.
//!
//! The codec hands over the streams of one image as *segments*, each with the table that suits it. They are coded as one
//! run, so that its fixed costs are paid once per image, and a reader may stop after any segment: what it does not need
//! goes last. [`Encoder`] writes a run, [`Decoder`] reads it segment by segment; both have vector paths that give the same
//! bytes as the scalar definition. Whatever a run says, decoding ends after as many symbols as were asked for and reads
//! nothing outside the run.
//!
//! # The run
//!
//! A table gives each byte value `s` a frequency `f[s]`, an integer from 0 to 4095; the 256 of them sum to `M` = 4096
//! = 2^12. `start[s]` is the sum of the frequencies of all smaller values. A frequency of 0 means that the table cannot
//! code this value.
//!
//! ```text
//! run   := state[0] … state[63]   u32 little-endian, each from 2^15 to 2^31 - 1
//!          word*                  u16 little-endian, until the run ends
//! ```
//!
//! There are 64 lanes, each with a state. Symbol `i` of a segment belongs to lane `i mod 64`; every segment begins at lane
//! 0, with the states as the segment before left them. For each symbol, in order, with `x` the state of its lane:
//!
//! 1. `slot = x mod M`; the symbol is the `s` with `start[s] <= slot < start[s] + f[s]`.
//! 2. `x = f[s] * (x div M) + slot - start[s]`.
//! 3. If now `x < 2^15`: take the next word `w` of the run, `x = 2^16 * x + w`.
//!
//! A run that ends where a word is due is damaged. After the last segment every state is 2^15 and no word is left; anything
//! else is damage as well. A reader that stops earlier can check neither.
//!
//! # Why so
//!
//! Lanes are what the processor works on at once. A symbol has to wait for the one before it in its lane, about 60 cycles
//! for a look-up in memory and a multiplication; 64 lanes fill that time, 32 do not (1.5 GB/s instead of 2.3 with AVX2,
//! 1.6 instead of 2.6 with AVX-512), and cost but 128 bytes an image less. Lanes share one row of words, since rows of
//! their own would need lengths of their own. A symbol takes 12 bits or less, so never more than one word of 16 bits.
//! The lower bound 2^15 rather than 2^16 keeps states non-negative as signed numbers, the only ones that AVX2 compares.
//! Twelve bits: with eleven, photographs take 1.1 % more, as each of the 256 byte values should be codable and so has a
//! frequency of at least one; with thirteen, 0.4 % less, but an entry of a table, which packs symbol, frequency and offset,
//! would not fit into the 32 bits that one look-up gives. For the same reason no frequency is 4096.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod decode;
mod encode;
mod table;
#[cfg(test)]
mod tests;

pub use decode::{Corrupt, Decoder};
pub use encode::{Encoder, Uncodable};
pub use table::{BadFrequencies, DecodeTable, EncodeTable, Frequencies, normalize};

/// Frequencies of a table sum to `1 << SCALE_BITS`.
pub const SCALE_BITS: u32 = 12;

/// How many symbols make a round, each with a state of its own.
pub const LANES: usize = 64;

/// Between symbols a state is at least this, and less than 2^16 times this. Encoding begins, and decoding ends, with it.
const LOWEST: u32 = 1 << 15;

/// How many slots a table has.
const SLOTS: usize = 1 << SCALE_BITS;

/// The most bytes that a round takes from the run: a word for each lane.
const ROUND_BYTES: usize = 2 * LANES;

/// One state for each lane, aligned for the widest vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
struct States([u32; LANES]);
