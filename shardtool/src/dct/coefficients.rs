//! What a JPEG file holds once its Huffman coding is undone: quantized DCT coefficients.

use crate::planes::Colour;

/// Coefficients in a block.
pub const BLOCK: usize = 64;

/// An image as quantized DCT coefficients, component by component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coefficients {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// What the components mean; says how many there are.
    pub colour: Colour,
    /// The components, in the colour's order.
    pub components: Vec<Component>,
}

/// A component's blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Horizontal sampling factor, 1 to 4: the component's share of the finest horizontal resolution is this factor
    /// over the largest of any component.
    pub h: u8,
    /// Vertical sampling factor, 1 to 4.
    pub v: u8,
    /// Quantization steps in natural order: `8 * v + u` for vertical frequency `v` and horizontal frequency `u`.
    pub quantization: [u16; BLOCK],
    /// Blocks in a row: enough for the component's samples, without filling up to whole MCUs.
    pub blocks_wide: usize,
    /// Rows of blocks.
    pub blocks_high: usize,
    /// The blocks, row by row, each in natural order.
    pub blocks: Vec<i16>,
}

impl Coefficients {
    /// Makes room for an image to be read into.
    pub fn empty() -> Coefficients {
        Coefficients {
            width: 0,
            height: 0,
            colour: Colour::Gray,
            components: Vec::new(),
        }
    }

    /// Returns the largest sampling factors of any component, horizontal and vertical.
    pub fn sampling(&self) -> (u8, u8) {
        let largest = |factor: fn(&Component) -> u8| self.components.iter().map(factor).max();
        (
            largest(|component| component.h).unwrap_or(1),
            largest(|component| component.v).unwrap_or(1),
        )
    }
}

/// Returns how many blocks cover `length` pixels of a component sampled at `factor` of `largest`: JPEG rounds the
/// samples up, then the blocks.
pub fn blocks_along(length: u32, factor: u8, largest: u8) -> usize {
    let samples = (length as usize * usize::from(factor)).div_ceil(usize::from(largest));
    samples.div_ceil(8)
}
