//! From a component's streams to samples: unpack, dequantize and transform just the blocks that are wanted.
//!
//! The scalar path is the definition; the vector paths give the same bytes, several blocks at a time.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod escapes;
mod row;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod shared;
mod streams;
#[cfg(test)]
mod tests;

pub use escapes::Escapes;
pub use row::{Factors, SLACK, Scale, factors};
pub use streams::{StreamError, Streams};

use super::coefficients::BLOCK;
use super::streams::unzigzag;
use crate::simd::Simd;
use escapes::Cursor;
use row::{Escape, GROUP, Halfway, Row};

/// The blocks to render; at least one.
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

/// Renders components; keep one per thread.
#[derive(Debug)]
pub struct Renderer {
    simd: Simd,
    dc: Vec<i16>,
    escapes: Vec<Escape>,
    halfway: Vec<Halfway>,
}

impl Renderer {
    /// Returns a renderer with empty buffers. It takes a narrower family if the machine does not have `simd`.
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
        // Encoders write at most one escape for each coefficient.
        self.escapes.reserve(BLOCK * columns);
    }

    /// Renders a window of a component into `samples`, whose rows are [`Scale::stride`] apart.
    ///
    /// # Errors
    /// If there are fewer values than masks announce.
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
    ) -> Result<(), StreamError> {
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
                    return Err(StreamError::TooFewValues { frequency: u });
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
                // SAFETY: `new` chose a family that the machine has; the code above made the row's invariants true.
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

    /// Sums up a row's DC coefficients from its first column on, and keeps those of the window. Returns the first.
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

    /// Keeps the escapes that lie in the window, of the row that begins with block `begin`.
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

/// Counts the bits set in `masks`.
fn ones(masks: &[u8], simd: Simd) -> usize {
    match simd {
        Simd::Scalar => count_ones(masks),
        // SAFETY: `Renderer::new` chose a family that the machine has.
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
