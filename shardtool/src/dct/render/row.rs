//! What every path takes: one row of blocks, the scale it is rendered at, and the room that the paths need.

use crate::dct::coefficients::BLOCK;
use crate::dct::idct::FRACTION;

/// Bytes that can be read behind every stream: the vector paths look that far ahead.
pub const SLACK: usize = 128;
/// Most blocks that a path transforms at once. Paths write whole groups, so rows of samples have room for them.
pub const GROUP: usize = 8;

/// Samples that a block becomes, 1 to 8 each way. Coefficients of higher frequencies have no influence, and streams of
/// higher horizontal frequencies are not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Samples from left to right.
    pub columns: usize,
    /// Samples from top to bottom.
    pub rows: usize,
}

impl Scale {
    /// Returns the bytes from one row of samples to the next, for so many columns of blocks.
    pub fn stride(self, blocks: usize) -> usize {
        (blocks.next_multiple_of(GROUP) * self.columns + 64).next_multiple_of(64)
    }
}

/// Dequantization factors, `[u][v]`, with [`FRACTION`] bits of fraction.
pub type Factors = [[i16; 8]; 8];

/// Brings quantization steps into the order of the streams. Those that overflow belong to coefficients that are zero.
pub fn factors(quantization: &[u16; BLOCK]) -> Factors {
    let factor = |u: usize, v: usize| (quantization[8 * v + u] << FRACTION) as i16;
    std::array::from_fn(|u| std::array::from_fn(|v| factor(u, v)))
}

/// A coefficient whose value does not fit a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escape {
    /// Its block, counted from the first wanted one of the row.
    pub block: u32,
    /// Its place in the block, `8 * u + v`.
    pub place: u8,
    /// What to add to its value, in 256ths.
    pub high: i8,
}

/// A row of blocks as the paths take it. Slices begin at the first wanted block.
///
/// The vector paths' unsafe loads and stores rest on these invariants: masks and values of frequencies below
/// `scale.columns` go on for [`SLACK`] bytes behind what the wanted blocks use; `dc` holds at least `blocks`, rounded
/// up to a whole [`GROUP`]; `stride` is [`Scale::stride`] of `blocks`.
pub struct Row<'a> {
    pub masks: [&'a [u8]; 8],
    pub values: [&'a [u8]; 8],
    pub dc: &'a [i16],
    /// Blocks count from the first wanted one, and none is beyond the last.
    pub escapes: &'a [Escape],
    pub factors: &'a Factors,
    pub blocks: usize,
    pub scale: Scale,
    pub stride: usize,
}

/// A block between the two dimensions of its transform, as the vector paths arrange it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Halfway(pub [i16; BLOCK]);
