//! Pillow's Gaussian blur: three extended box filters along each axis (Gwosdek et al., "Theoretical foundations of
//! Gaussian convolution by extended box filtering", SSVM 2011), in integers of 24 bits of fraction, every pass rounded
//! to bytes.
//!
//! An extended box of radius r + a weighs 2r + 1 pixels alike and the two beside them less. Up to a deviation of 2
//! pixels r is 0 or 1, so a pass is a filter of five taps; pixels beyond an edge count as those at the edge.

use shardtool::simd::Simd;

/// Pixels on either side of the one in the middle.
const REACH: usize = 2;

/// The weights of one pass: of the pixel itself, of its two neighbours, of their two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weights {
    centre: u32,
    near: u32,
    far: u32,
}

impl Weights {
    /// Returns the weights whose third power is nearest to a Gaussian of this deviation. Single and double precision
    /// alternate as the types of Pillow's C code make them.
    ///
    /// # Panics
    /// If the deviation is not above 0, or so large that five taps do not hold its box.
    fn new(sigma: f32) -> Weights {
        const PASSES: f32 = 3.0;
        let variance = sigma * sigma / PASSES;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let excess = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance)
            / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)));
        let radius = whole + excess;
        assert!(
            radius > 0.0 && radius < REACH as f32,
            "a blur of deviation {sigma}"
        );
        let inner = ((1 << 24) as f32 / (radius * 2.0 + 1.0)) as u32;
        let outer = |pixels: u32| ((1 << 24) - pixels * inner) / 2;
        if radius < 1.0 {
            Weights {
                centre: inner,
                near: outer(1),
                far: 0,
            }
        } else {
            Weights {
                centre: inner,
                near: inner,
                far: outer(3),
            }
        }
    }

    /// Returns the weighted mean of five pixels. The weights add up to 2²⁴ at most, so nothing overflows.
    #[inline(always)]
    fn mean(self, [a, b, c, d, e]: [u8; 5]) -> u8 {
        let [a, b, c, d, e] = [a, b, c, d, e].map(u32::from);
        let sum = self.centre * c + self.near * (b + d) + self.far * (a + e);
        ((sum + (1 << 23)) >> 24) as u8
    }
}

/// Blurs planes in place.
#[derive(Debug)]
pub struct Blur {
    simd: Simd,
    /// A plane between two passes.
    other: Vec<u8>,
    /// Two rows with room for the edges, between two passes.
    rows: [Vec<u8>; 2],
}

impl Blur {
    pub(super) fn with(simd: Simd) -> Blur {
        Blur {
            simd,
            other: Vec::new(),
            rows: [Vec::new(), Vec::new()],
        }
    }

    pub(super) fn reserve(&mut self, side: usize) {
        self.other.resize(side * side, 0);
        for row in &mut self.rows {
            row.resize(side + 2 * REACH, 0);
        }
    }

    /// Blurs a plane of `side` × `side`; the deviation is in pixels, above 0 and up to 2.
    pub(super) fn apply(&mut self, sigma: f32, plane: &mut [u8], side: usize) {
        let weights = Weights::new(sigma);
        self.reserve(side);
        let [one, two] = &mut self.rows;
        let other = &mut self.other[..];
        let filter = |from: [&[u8]; 5], to: &mut [u8]| filter(self.simd, weights, from, to);
        for (row, to) in plane.chunks_exact(side).zip(other.chunks_exact_mut(side)) {
            one[REACH..][..side].copy_from_slice(row);
            filter(shifted(one), &mut two[REACH..][..side]);
            filter(shifted(two), &mut one[REACH..][..side]);
            filter(shifted(one), to);
        }
        down(&filter, other, plane, side);
        down(&filter, plane, other, side);
        down(&filter, other, plane, side);
    }
}

/// Returns a row, repeated beyond its edges, as seen from two pixels to the left up to two to the right.
fn shifted(row: &mut [u8]) -> [&[u8]; 5] {
    let side = row.len() - 2 * REACH;
    let (first, last) = (row[REACH], row[REACH + side - 1]);
    row[..REACH].fill(first);
    row[REACH + side..].fill(last);
    std::array::from_fn(|start| &row[start..][..side])
}

/// Makes a pass along the columns.
fn down(filter: &impl Fn([&[u8]; 5], &mut [u8]), from: &[u8], to: &mut [u8], side: usize) {
    for (y, to) in to.chunks_exact_mut(side).enumerate() {
        let row = |shift: usize| {
            let at = (y + shift).saturating_sub(REACH).min(side - 1);
            &from[at * side..][..side]
        };
        filter(std::array::from_fn(row), to);
    }
}

/// Filters five equally long rows into one.
fn filter(simd: Simd, weights: Weights, from: [&[u8]; 5], to: &mut [u8]) {
    #[inline(always)]
    fn body(weights: Weights, [a, b, c, d, e]: [&[u8]; 5], to: &mut [u8]) {
        let pixels = a.iter().zip(b).zip(c).zip(d).zip(e).zip(to);
        for (((((a, b), c), d), e), to) in pixels {
            *to = weights.mean([*a, *b, *c, *d, *e]);
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,fma")]
    fn avx2(weights: Weights, from: [&[u8]; 5], to: &mut [u8]) {
        body(weights, from, to);
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn avx512(weights: Weights, from: [&[u8]; 5], to: &mut [u8]) {
        body(weights, from, to);
    }
    match simd {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Augmenter::with` made sure that the machine has this family.
        Simd::Avx2 => unsafe { avx2(weights, from, to) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Simd::Avx512 => unsafe { avx512(weights, from, to) },
        _ => body(weights, from, to),
    }
}
