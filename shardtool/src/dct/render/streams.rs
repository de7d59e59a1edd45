//! One component's decoded streams, and all coefficients that they hold.

use super::escapes::{Cursor, Escapes};
#[cfg(doc)]
use super::row::SLACK;
use crate::dct::coefficients::BLOCK;
use crate::dct::streams::unzigzag;

/// The reason why a component's streams do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A stream of values is shorter than its masks have bits set.
    #[error("fewer values than masks announce for horizontal frequency {frequency}")]
    TooFewValues {
        /// The horizontal frequency of masks and values.
        frequency: usize,
    },
    /// A stream of values is longer than its masks have bits set.
    #[error("more values than masks announce for horizontal frequency {frequency}")]
    TooManyValues {
        /// The horizontal frequency of masks and values.
        frequency: usize,
    },
    /// Escapes name a block behind the last one, or their streams differ in length.
    #[error("escapes beyond the last block")]
    LeftoverEscapes,
}

/// A component's decoded streams, as places in one buffer. [`SLACK`] bytes follow the last.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'a> {
    /// The buffer.
    pub bytes: &'a [u8],
    /// Blocks in a row.
    pub columns: usize,
    /// Rows of blocks.
    pub rows: usize,
    /// Where the DC differences' low and high bytes begin, one each per block.
    pub dc: [usize; 2],
    /// Where the masks of each horizontal frequency begin: a byte per block, in which a bit stands for each vertical
    /// frequency that is not zero.
    pub masks: [usize; 8],
    /// Where the values of each horizontal frequency begin and end: the low bytes of all coefficients that are not
    /// zero.
    pub values: [(usize, usize); 8],
    /// The coefficients beyond a byte.
    pub escapes: Escapes<'a>,
}

impl Streams<'_> {
    /// Returns all coefficients, block by block in natural order.
    ///
    /// # Errors
    /// If the streams do not fit together to the last byte.
    pub fn blocks(&self) -> Result<Vec<i16>, StreamError> {
        let mut escapes = Cursor::new(self.escapes);
        let mut next = self.values;
        let mut above = 0i16;
        let mut blocks = Vec::with_capacity(BLOCK * self.columns * self.rows);
        for number in 0..self.columns * self.rows {
            let mut block = [0i16; BLOCK];
            for (u, (at, end)) in next.iter_mut().enumerate() {
                let mask = self.bytes[self.masks[u] + number];
                for v in (0..8).filter(|v| mask >> v & 1 == 1) {
                    if at == end {
                        return Err(StreamError::TooFewValues { frequency: u });
                    }
                    block[8 * v + u] = i16::from(self.bytes[*at] as i8);
                    *at += 1;
                }
            }
            while let Some((_, place, high)) = escapes.before(number + 1) {
                let (u, v) = (usize::from(place >> 3), usize::from(place & 7));
                block[8 * v + u] = block[8 * v + u].wrapping_add(i16::from(high) << 8);
            }
            let first = number % self.columns == 0;
            let before = if first {
                above
            } else {
                blocks[BLOCK * (number - 1)]
            };
            block[0] = before.wrapping_add(self.difference(number));
            if first {
                above = block[0];
            }
            blocks.extend(block);
        }
        if let Some(u) = next.iter().position(|(at, end)| at != end) {
            return Err(StreamError::TooManyValues { frequency: u });
        }
        if !escapes.is_exhausted() {
            return Err(StreamError::LeftoverEscapes);
        }
        Ok(blocks)
    }

    /// Returns the DC difference of a block.
    pub(super) fn difference(&self, block: usize) -> i16 {
        let byte = |part: usize| self.bytes[self.dc[part] + block];
        unzigzag(u16::from_le_bytes([byte(0), byte(1)]))
    }
}
