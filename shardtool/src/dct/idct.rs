//! The inverse DCT to 1 to 8 samples along a side: its constants and its definition.
//!
//! All arithmetic is 16-bit integer with rounding and saturation laid down step by step, so that every implementation
//! gives the same bytes. [`samples`] is that definition in plain Rust.

/// Fractional bits of dequantized coefficients and of everything up to the last rounding.
pub const FRACTION: u32 = 4;

/// `COSINES[N - 1][n][u]` = round(2^15 · a(u) · cos((2n + 1) u π / 2N)) with a(0) = 1/√8 and a(u) = 1/2: the weight of
/// frequency `u` in sample `n` of `N`. Samples of the second half follow from symmetry.
#[rustfmt::skip]
pub const COSINES: [[[i16; 8]; 4]; 8] = [
    [
        [11585, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ],
    [
        [11585, 11585, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ],
    [
        [11585, 14189, 8192, 0, 0, 0, 0, 0],
        [11585, 0, -16384, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ],
    [
        [11585, 15137, 11585, 6270, 0, 0, 0, 0],
        [11585, 6270, -11585, -15137, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ],
    [
        [11585, 15582, 13255, 9630, 5063, 0, 0, 0],
        [11585, 9630, -5063, -15582, -13255, 0, 0, 0],
        [11585, 0, -16384, 0, 16384, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ],
    [
        [11585, 15826, 14189, 11585, 8192, 4240, 0, 0],
        [11585, 11585, 0, -11585, -16384, -11585, 0, 0],
        [11585, 4240, -14189, -11585, 8192, 15826, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ],
    [
        [11585, 15973, 14761, 12810, 10215, 7109, 3646, 0],
        [11585, 12810, 3646, -7109, -14761, -15973, -10215, 0],
        [11585, 7109, -10215, -15973, -3646, 12810, 14761, 0],
        [11585, 0, -16384, 0, 16384, 0, -16384, 0],
    ],
    [
        [11585, 16069, 15137, 13623, 11585, 9102, 6270, 3196],
        [11585, 13623, 6270, -3196, -11585, -16069, -15137, -9102],
        [11585, 9102, -6270, -16069, -11585, 3196, 15137, 13623],
        [11585, 3196, -15137, -9102, 11585, 13623, -6270, -16069],
    ],
];

/// Returns the rounded high half of a product of two Q15 numbers.
fn scale(sample: i16, weight: i16) -> i16 {
    ((i32::from(sample) * i32::from(weight) + (1 << 14)) >> 15) as i16
}

/// Transforms one dimension: `frequencies.len()` (1 to 8) coefficients become as many samples, in place. Even and odd
/// frequencies are summed apart, in ascending order and with saturation; a sample is their sum, its mirror image their
/// difference.
pub fn inverse(frequencies: &mut [i16]) {
    let length = frequencies.len();
    let mut samples = [0; 8];
    for n in 0..length.div_ceil(2) {
        let weights = &COSINES[length - 1][n];
        let sum = |first: usize| {
            let terms = (first..length).step_by(2);
            terms.fold(0i16, |sum, u| {
                sum.saturating_add(scale(frequencies[u], weights[u]))
            })
        };
        let (even, odd) = (sum(0), sum(1));
        // The second line repeats the first for the middle sample, in which odd frequencies have no share.
        samples[length - 1 - n] = even.saturating_sub(odd);
        samples[n] = even.saturating_add(odd);
    }
    frequencies.copy_from_slice(&samples[..length]);
}

/// Rounds to a byte: takes the fraction off and the level shift on.
pub fn to_byte(sample: i16) -> u8 {
    let half_and_shift = (1 << (FRACTION - 1)) + (128 << FRACTION);
    (sample.saturating_add(half_and_shift) >> FRACTION).clamp(0, 255) as u8
}

/// Transforms a block of dequantized coefficients (`8 * u + v`, [`FRACTION`] fractional bits) to `columns` × `rows`
/// samples, in `samples[y][x]`: first along the horizontal frequencies, then along the vertical ones.
pub fn samples(block: &[i16; 64], columns: usize, rows: usize) -> [[u8; 8]; 8] {
    let mut between = [[0; 8]; 8];
    for v in 0..rows {
        let mut line: [i16; 8] = std::array::from_fn(|u| block[8 * u + v]);
        inverse(&mut line[..columns]);
        (0..columns).for_each(|x| between[x][v] = line[x]);
    }
    let mut samples = [[0; 8]; 8];
    for (x, line) in between.iter_mut().enumerate().take(columns) {
        inverse(&mut line[..rows]);
        (0..rows).for_each(|y| samples[y][x] = to_byte(line[y]));
    }
    samples
}
