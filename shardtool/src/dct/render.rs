//! From a component's streams to samples: unpack, dequantize and transform just the blocks that are wanted.
//!
//! The scalar path is the definition; the vector paths give the same bytes, several blocks at a time.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod shared;
#[cfg(test)]
mod tests;

use super::coefficients::BLOCK;
use super::idct::FRACTION;
use super::streams::unzigzag;
use crate::simd::Simd;

/// Bytes that can be read behind every stream: the vector paths look that far ahead.
pub const SLACK: usize = 128;
/// Most blocks that a path transforms at once. It writes whole groups, so rows of samples have room for them.
const GROUP: usize = 8;

/// A coefficient whose value does not fit a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Escape {
    /// Its block, counted from the first wanted one of the row.
    block: u32,
    /// Its place in the block, `8 * u + v`.
    place: u8,
    /// What to add to its value, in 256ths.
    high: i8,
}

/// The coefficients beyond a byte, in the order of their blocks.
#[derive(Debug, Clone, Copy)]
pub struct Escapes<'a> {
    /// Distances from block to block.
    pub steps: &'a [u8],
    /// Places in the blocks, one for each escape.
    pub places: &'a [u8],
    /// High bytes, one for each escape.
    pub highs: &'a [u8],
}

/// One component's streams, decoded, as places in one buffer. [`SLACK`] bytes follow the last.
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
    /// Where the values of each horizontal frequency begin and end: the low bytes of all coefficients that are not zero.
    pub values: [(usize, usize); 8],
    /// The coefficients beyond a byte.
    pub escapes: Escapes<'a>,
}

impl Streams<'_> {
    /// All coefficients, block by block in natural order. Streams must fit together to the last byte.
    pub fn blocks(&self) -> Result<Vec<i16>, String> {
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
                        return Err(missing_values(u));
                    }
                    block[8 * v + u] = i16::from(self.bytes[*at] as i8);
                    *at += 1;
                }
            }
            while let Some((_, place, high)) = escapes.before(number + 1) {
                let (u, v) = (usize::from(place >> 3), usize::from(place & 7));
                block[8 * v + u] = block[8 * v + u].wrapping_add(i16::from(high) << 8);
            }
            let before = match number % self.columns {
                0 => above,
                _ => blocks[BLOCK * (number - 1)],
            };
            block[0] = before.wrapping_add(self.difference(number));
            if number % self.columns == 0 {
                above = block[0];
            }
            blocks.extend(block);
        }
        if let Some(u) = next.iter().position(|(at, end)| at != end) {
            return Err(format!(
                "more values than masks announce for horizontal frequency {u}"
            ));
        }
        if !escapes.is_exhausted() {
            return Err("escapes beyond the last block".to_owned());
        }
        Ok(blocks)
    }

    /// The DC difference of a block.
    fn difference(&self, block: usize) -> i16 {
        let byte = |part: usize| self.bytes[self.dc[part] + block];
        unzigzag(u16::from_le_bytes([byte(0), byte(1)]))
    }
}

fn missing_values(u: usize) -> String {
    format!("fewer values than masks announce for horizontal frequency {u}")
}

/// The blocks that are wanted; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First column of blocks.
    pub left: usize,
    /// First row of blocks.
    pub top: usize,
    /// Columns of blocks.
    pub columns: usize,
    /// Rows of blocks.
    pub rows: usize,
}

/// Samples that a block becomes, 1 to 8 each way. Coefficients of frequencies beyond have no influence, and the streams
/// of horizontal frequencies beyond are not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Samples from left to right.
    pub columns: usize,
    /// Samples from top to bottom.
    pub rows: usize,
}

impl Scale {
    /// Bytes from one row of samples to the next, for so many columns of blocks.
    pub fn stride(self, blocks: usize) -> usize {
        (blocks.next_multiple_of(GROUP) * self.columns + 64).next_multiple_of(64)
    }
}

/// Dequantization factors, `[u][v]`, with [`FRACTION`] bits of fraction.
pub type Factors = [[i16; 8]; 8];

/// Brings quantization steps into the order of the streams. Steps that overflow belong to coefficients that are all zero.
pub fn factors(quantization: &[u16; BLOCK]) -> Factors {
    let factor = |u: usize, v: usize| (quantization[8 * v + u] << FRACTION) as i16;
    std::array::from_fn(|u| std::array::from_fn(|v| factor(u, v)))
}

/// One row of blocks, as the paths take it. Slices begin at the first wanted block.
///
/// Invariant, on which the vector paths' unsafe loads and stores rest: masks and values of frequencies below
/// `scale.columns` go on for [`SLACK`] bytes behind what the wanted blocks use, `dc` holds at least `blocks` rounded up to
/// a whole [`GROUP`], and `samples` at least `scale.rows` rows of `stride`, which is [`Scale::stride`] of `blocks`.
struct Row<'a> {
    masks: [&'a [u8]; 8],
    values: [&'a [u8]; 8],
    dc: &'a [i16],
    /// Blocks count from the first wanted one, and none is beyond the last.
    escapes: &'a [Escape],
    factors: &'a Factors,
    blocks: usize,
    scale: Scale,
    stride: usize,
}

/// A block between the two dimensions of its transform, as the vector paths arrange it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Halfway([i16; BLOCK]);

/// Renders components; keep one per thread.
#[derive(Debug)]
pub struct Renderer {
    simd: Simd,
    dc: Vec<i16>,
    escapes: Vec<Escape>,
    halfway: Vec<Halfway>,
}

impl Renderer {
    /// A renderer with empty buffers. Takes a narrower family if this machine does not have the one asked for.
    pub fn new(simd: Simd) -> Renderer {
        Renderer {
            simd: simd.min(Simd::best()),
            dc: Vec::new(),
            escapes: Vec::new(),
            halfway: Vec::new(),
        }
    }

    /// Makes room for components of at most so many columns of blocks.
    pub fn reserve(&mut self, columns: usize) {
        let groups = columns.next_multiple_of(GROUP);
        self.dc.reserve(groups);
        self.halfway.reserve(groups);
        // As many as coefficients, as every payload has it that an encoder wrote.
        self.escapes.reserve(BLOCK * columns);
    }

    /// Renders a window of a component into `samples`, whose rows are [`Scale::stride`] apart. An error says that there
    /// are fewer values than masks announce.
    ///
    /// # Panics
    /// If streams lie outside their buffer, the window outside the component, or `samples` is too short.
    pub fn render(
        &mut self,
        streams: &Streams<'_>,
        factors: &Factors,
        window: Window,
        scale: Scale,
        samples: &mut [u8],
    ) -> Result<(), String> {
        let bytes = streams.bytes;
        let wide = streams.columns;
        let (first, end) = (window.top * wide, (window.top + window.rows) * wide);
        let frequencies = scale.columns;
        assert!(
            (1..=8).contains(&scale.columns) && (1..=8).contains(&scale.rows),
            "{scale:?}"
        );
        assert!(
            window.columns > 0
                && window.left + window.columns <= wide
                && window.top + window.rows <= streams.rows,
            "{window:?} in {wide}x{} blocks",
            streams.rows
        );
        for u in 0..frequencies {
            let last = (streams.masks[u] + end).max(streams.values[u].1);
            assert!(last + SLACK <= bytes.len(), "no slack behind frequency {u}");
        }
        let stride = scale.stride(window.columns);
        let groups = window.columns.next_multiple_of(GROUP);
        if self.halfway.len() < groups {
            self.halfway.resize(groups, Halfway([0; BLOCK]));
        }
        let band = stride * scale.rows;
        let samples = &mut samples[..band * window.rows];

        // The first column of DCs is a chain of its own from the top.
        let mut above = 0i16;
        for row in 0..window.top {
            above = above.wrapping_add(streams.difference(row * wide));
        }
        let mut escapes = Cursor::new(streams.escapes);
        let mut starts: [usize; 8] = std::array::from_fn(|u| streams.values[u].0);
        for u in 0..frequencies {
            starts[u] += ones(&bytes[streams.masks[u]..][..first], self.simd);
        }

        for (row, samples) in (window.top..).zip(samples.chunks_exact_mut(band)) {
            let begin = row * wide;
            above = self.row_of_dc(streams, begin, above, &window);
            self.row_of_escapes(&mut escapes, begin, &window);
            let mut masks = [&bytes[..0]; 8];
            let mut values = [&bytes[..0]; 8];
            for u in 0..frequencies {
                let all = &bytes[streams.masks[u] + begin..];
                let before = ones(&all[..window.left], self.simd);
                let rest = ones(&all[window.left..wide], self.simd);
                if starts[u] + before + rest > streams.values[u].1 {
                    return Err(missing_values(u));
                }
                masks[u] = &all[window.left..];
                values[u] = &bytes[starts[u] + before..];
                starts[u] += before + rest;
            }
            let row = Row {
                masks,
                values,
                dc: &self.dc,
                escapes: &self.escapes,
                factors,
                blocks: window.columns,
                scale,
                stride,
            };
            match self.simd {
                Simd::Scalar => scalar::row(&row, samples),
                // SAFETY: `new` made sure of the instructions, the code above of the row's invariant.
                #[cfg(target_arch = "x86_64")]
                Simd::Avx2 => unsafe { avx2::row(&row, &mut self.halfway, samples) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Simd::Avx512 => unsafe { avx512::row(&row, &mut self.halfway, samples) },
                #[cfg(not(target_arch = "x86_64"))]
                _ => unreachable!("no such family on this machine"),
            }
        }
        Ok(())
    }

    /// Sums up the DC coefficients of a row from its first column on, and keeps those of the window. Returns the first.
    fn row_of_dc(
        &mut self,
        streams: &Streams<'_>,
        begin: usize,
        above: i16,
        window: &Window,
    ) -> i16 {
        let end = window.left + window.columns;
        let part = |part: usize| &streams.bytes[streams.dc[part] + begin..][..end];
        self.dc.clear();
        self.dc.extend(
            part(0)
                .iter()
                .zip(part(1))
                .map(|(&low, &high)| unzigzag(u16::from_le_bytes([low, high]))),
        );
        let mut dc = above;
        for difference in &mut self.dc {
            dc = dc.wrapping_add(*difference);
            *difference = dc;
        }
        let first = self.dc[0];
        self.dc.copy_within(window.left.., 0);
        self.dc.truncate(window.columns);
        self.dc.resize(window.columns.next_multiple_of(GROUP), 0);
        first
    }

    /// Keeps the escapes of the row that begins with block `begin`, as far as they lie in the window.
    fn row_of_escapes(&mut self, escapes: &mut Cursor<'_>, begin: usize, window: &Window) {
        let first = begin + window.left;
        self.escapes.clear();
        while let Some((block, place, high)) = escapes.before(first + window.columns) {
            if block >= first {
                self.escapes.push(Escape {
                    block: (block - first) as u32,
                    place,
                    high,
                });
            }
        }
    }
}

/// Walks through escapes.
struct Cursor<'a> {
    rest: Escapes<'a>,
    /// The next escape's block, if there is one.
    block: Option<usize>,
}

impl<'a> Cursor<'a> {
    fn new(rest: Escapes<'a>) -> Cursor<'a> {
        let mut cursor = Cursor {
            rest,
            block: Some(0),
        };
        cursor.step();
        cursor
    }

    /// The next escape as block, place and high byte, if its block is before `end`.
    fn before(&mut self, end: usize) -> Option<(usize, u8, i8)> {
        let block = self.block.filter(|&block| block < end)?;
        let (place, places) = self.rest.places.split_first()?;
        let (high, highs) = self.rest.highs.split_first()?;
        (self.rest.places, self.rest.highs) = (places, highs);
        self.step();
        Some((block, place & 63, *high as i8))
    }

    /// Whether nothing is left over.
    fn is_exhausted(&self) -> bool {
        self.rest.steps.is_empty() && self.block.is_none() && self.rest.places.is_empty()
    }

    fn step(&mut self) {
        let length = self.rest.steps.iter().position(|&step| step < 255);
        self.block = self.block.zip(length).map(|(block, length)| {
            let (steps, rest) = self.rest.steps.split_at(length + 1);
            self.rest.steps = rest;
            block + 255 * length + usize::from(steps[length])
        });
    }
}

/// Bits set in `masks`.
fn ones(masks: &[u8], simd: Simd) -> usize {
    match simd {
        Simd::Scalar => count_ones(masks),
        // SAFETY: `Renderer::new` made sure of the instructions.
        #[cfg(target_arch = "x86_64")]
        _ => unsafe { avx2::ones(masks) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => count_ones(masks),
    }
}

#[inline(always)]
fn count_ones(masks: &[u8]) -> usize {
    let (words, rest) = masks.as_chunks::<8>();
    let whole: u32 = words
        .iter()
        .map(|word| u64::from_le_bytes(*word).count_ones())
        .sum();
    let part: u32 = rest.iter().map(|mask| mask.count_ones()).sum();
    (whole + part) as usize
}
