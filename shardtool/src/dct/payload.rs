//! The head of a payload: how the image is made up, how long its streams are and how they are coded.
//!
//! Everything in it is checked against the image's size before anything is allocated, so that a hostile payload can
//! ask for no more memory than an image of that size may need.

use super::coefficients::{BLOCK, blocks_along};
use super::detail::Detail;
use super::streams::{GROUPS, STREAMS, order, stream};
use crate::Corrupt;
use crate::planes::Colour;

/// Sampling factors may be as large as this.
const MAX_FACTOR: u8 = 4;

/// How the streams are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entropy {
    /// One zstd frame for each group of streams.
    Zstd,
    /// One rANS run for all of them, with the shard's tables.
    Rans,
}

/// A component's part of the head.
#[derive(Debug, Clone, Copy)]
pub struct ComponentHead {
    /// Horizontal sampling factor.
    pub h: u8,
    /// Vertical sampling factor.
    pub v: u8,
    /// Blocks in a row.
    pub blocks_wide: usize,
    /// Rows of blocks.
    pub blocks_high: usize,
    /// Quantization steps, natural order.
    pub quantization: [u16; BLOCK],
    /// Lengths of the streams.
    pub lengths: [usize; STREAMS],
    /// Tables of the streams, for rANS.
    pub tables: [u8; STREAMS],
    /// How much fine detail it has.
    pub detail: Detail,
}

/// The head of a payload.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// How the streams are coded.
    pub entropy: Entropy,
    /// What the components mean.
    pub colour: Colour,
    /// The components; the first [`Colour::planes`] count.
    components: [ComponentHead; 3],
    /// Lengths of the groups' frames, for zstd.
    pub frames: [usize; GROUPS],
}

impl Head {
    /// Makes a head of these components, one for each of the colour's.
    pub fn new(entropy: Entropy, colour: Colour, components: &[ComponentHead]) -> Head {
        assert_eq!(components.len(), colour.planes(), "components");
        Head {
            entropy,
            colour,
            components: std::array::from_fn(|at| components[at.min(components.len() - 1)]),
            frames: [0; GROUPS],
        }
    }

    /// Returns the components.
    pub fn components(&self) -> &[ComponentHead] {
        &self.components[..self.colour.planes()]
    }

    /// Returns the largest sampling factors.
    pub fn sampling(&self) -> (u8, u8) {
        let components = self.components().iter();
        components.fold((1, 1), |(h, v), component| {
            (h.max(component.h), v.max(component.v))
        })
    }

    /// Returns the streams in their order, as (group, component, stream).
    pub fn order(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let largest = self.sampling().0;
        let shares = self.components.map(|component| (component.h, largest));
        order(shares, self.colour.planes())
    }

    /// Writes the head.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut tables: Vec<&[u16; BLOCK]> = Vec::new();
        let mut picks = Vec::new();
        for component in self.components() {
            let found = tables
                .iter()
                .position(|table| **table == component.quantization);
            picks.push(found.unwrap_or(tables.len()) as u8);
            if found.is_none() {
                tables.push(&component.quantization);
            }
        }
        out.push(match self.entropy {
            Entropy::Zstd => 0,
            Entropy::Rans => 1,
        });
        out.push(match self.colour {
            Colour::Gray => 0,
            Colour::YCbCr => 1,
            Colour::Rgb => 2,
        });
        out.push(tables.len() as u8);
        for (component, pick) in self.components().iter().zip(picks) {
            out.extend([component.h << 4 | component.v, pick]);
            out.extend(component.detail.as_flattened());
            for stream in stored_lengths() {
                out.extend((component.lengths[stream] as u32).to_le_bytes());
            }
            if self.entropy == Entropy::Rans {
                out.extend(component.tables);
            }
        }
        for table in tables {
            let wide = table.iter().any(|&step| step > 255);
            out.push(u8::from(wide));
            match wide {
                true => out.extend(table.iter().flat_map(|step| step.to_le_bytes())),
                false => out.extend(table.iter().map(|&step| step as u8)),
            }
        }
        if self.entropy == Entropy::Zstd {
            out.extend(
                self.frames
                    .iter()
                    .flat_map(|&length| (length as u32).to_le_bytes()),
            );
        }
    }

    /// Reads the head of an image of this size; returns it and what follows.
    ///
    /// # Errors
    /// [`Corrupt::Malformed`] with the rule that the head breaks.
    pub fn parse(payload: &[u8], width: u32, height: u32) -> Result<(Head, &[u8]), Corrupt> {
        let mut rest = payload;
        let entropy = match byte(&mut rest)? {
            0 => Entropy::Zstd,
            1 => Entropy::Rans,
            other => return Err(format!("entropy coding {other}, 0 and 1 are known").into()),
        };
        let colour = match byte(&mut rest)? {
            0 => Colour::Gray,
            1 => Colour::YCbCr,
            2 => Colour::Rgb,
            other => return Err(format!("colour {other}, 0 to 2 are known").into()),
        };
        let tables = usize::from(byte(&mut rest)?);
        if !(1..=colour.planes()).contains(&tables) {
            return Err(format!("{tables} quantization tables").into());
        }
        let mut head = Head {
            entropy,
            colour,
            components: [EMPTY; 3],
            frames: [0; GROUPS],
        };
        let mut picks = [0; 3];
        let count = colour.planes();
        for (component, pick) in head.components[..count].iter_mut().zip(&mut picks) {
            let factors = byte(&mut rest)?;
            (component.h, component.v) = (factors >> 4, factors & 15);
            let possible = 1..=MAX_FACTOR;
            if !possible.contains(&component.h) || !possible.contains(&component.v) {
                return Err(format!("sampling factors {}x{}", component.h, component.v).into());
            }
            *pick = usize::from(byte(&mut rest)?);
            if *pick >= tables {
                return Err(format!("quantization table {pick} of {tables}").into());
            }
            let detail = component.detail.as_flattened_mut();
            detail.copy_from_slice(take(&mut rest, detail.len())?);
            for stream in stored_lengths() {
                component.lengths[stream] = length(&mut rest)?;
            }
            if entropy == Entropy::Rans {
                let tables = take(&mut rest, STREAMS)?;
                component.tables.copy_from_slice(tables);
            }
        }
        let mut quantization = [[0; BLOCK]; 3];
        for table in &mut quantization[..tables] {
            match byte(&mut rest)? {
                0 => {
                    let steps = take(&mut rest, BLOCK)?;
                    *table = std::array::from_fn(|at| u16::from(steps[at]));
                }
                1 => {
                    let steps = take(&mut rest, 2 * BLOCK)?;
                    *table = std::array::from_fn(|at| {
                        u16::from_le_bytes([steps[2 * at], steps[2 * at + 1]])
                    });
                }
                other => {
                    return Err(
                        format!("quantization steps of kind {other}, 0 and 1 are known").into(),
                    );
                }
            }
        }
        if entropy == Entropy::Zstd {
            for frame in &mut head.frames {
                *frame = length(&mut rest)?;
            }
        }
        let largest = head.sampling();
        for (component, pick) in head.components[..count].iter_mut().zip(picks) {
            component.quantization = quantization[pick];
            component.blocks_wide = blocks_along(width, component.h, largest.0);
            component.blocks_high = blocks_along(height, component.v, largest.1);
            component.fill_in_lengths()?;
        }
        Ok((head, rest))
    }
}

const EMPTY: ComponentHead = ComponentHead {
    h: 1,
    v: 1,
    blocks_wide: 0,
    blocks_high: 0,
    quantization: [0; BLOCK],
    lengths: [0; STREAMS],
    tables: [0; STREAMS],
    detail: [[0; 6]; 2],
};

impl ComponentHead {
    /// Checks the lengths that were stored, and adds those that follow from the number of blocks.
    fn fill_in_lengths(&mut self) -> Result<(), Corrupt> {
        let blocks = self.blocks_wide * self.blocks_high;
        let (steps, escapes) = (stream::ESCAPE_STEPS, stream::ESCAPE_PLACES);
        self.lengths[stream::DC_LOW] = blocks;
        self.lengths[stream::DC_HIGH] = blocks;
        self.lengths[stream::ESCAPE_HIGHS] = self.lengths[escapes];
        let mut values = 0;
        for u in 0..8 {
            self.lengths[stream::masks(u)] = blocks;
            let length = self.lengths[stream::values(u)];
            if length > 8 * blocks {
                return Err(format!("{length} values of frequency {u} in {blocks} blocks").into());
            }
            values += length;
        }
        let count = self.lengths[escapes];
        if count > values || self.lengths[steps] > count + blocks / 255 {
            let steps = self.lengths[steps];
            return Err(format!(
                "{count} escapes in {steps} steps, of {values} values in {blocks} blocks"
            )
            .into());
        }
        Ok(())
    }
}

/// Returns the streams whose lengths cannot be told from the number of blocks.
fn stored_lengths() -> impl Iterator<Item = usize> {
    let escapes = [stream::ESCAPE_STEPS, stream::ESCAPE_PLACES];
    escapes.into_iter().chain((0..8).map(stream::values))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Corrupt> {
    let (taken, behind) = rest
        .split_at_checked(length)
        .ok_or("the payload ends in its head")?;
    *rest = behind;
    Ok(taken)
}

fn byte(rest: &mut &[u8]) -> Result<u8, Corrupt> {
    Ok(take(rest, 1)?[0])
}

fn length(rest: &mut &[u8]) -> Result<usize, Corrupt> {
    let bytes = take(rest, 4)?;
    Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize)
}
