//! The arithmetic of `PIXELS.md`, word by word in portable code: what the vector paths are held to.

use shardtool::planes::Colour;

use super::strand::Strand;
use super::taps::{BLOCK, Taps};

/// Filters a row across: `out` has one value for each output, padding included.
pub fn across(taps: &Taps, row: &[u8], out: &mut [i16]) {
    for (output, (&first, out)) in taps.first.iter().zip(out).enumerate() {
        let samples = &row[first as usize..first as usize + taps.count];
        let mut sum = 32;
        for (tap, &sample) in samples.iter().enumerate() {
            let weight = taps.weights[tap * taps.padded + output];
            sum += i32::from(weight) * (i32::from(sample) - 128);
        }
        *out = (sum >> 6) as i16;
    }
}

/// Filters down and converts colour: one row of output from the rows that each plane's strand names.
pub fn down(strands: &[Strand<'_>; 3], colour: Colour, mut out: [&mut [u8]; 3]) {
    for at in (0..out[0].len()).step_by(BLOCK) {
        let first = values(&strands[0], at);
        let pixels = match colour {
            Colour::Gray => [first; 3],
            Colour::Rgb => [first, values(&strands[1], at), values(&strands[2], at)],
            Colour::YCbCr => convert(first, values(&strands[1], at), values(&strands[2], at)),
        };
        for (out, values) in out.iter_mut().zip(pixels) {
            for (out, value) in out[at..].iter_mut().zip(values) {
                *out = byte(value);
            }
        }
    }
}

/// Returns `a · b`, rounded at 15 bits, ties up: the product that vector units give of 16-bit numbers.
fn scaled(a: i32, b: i32) -> i32 {
    (a * b + (1 << 14)) >> 15
}

/// Filters a block of a plane's outputs down, from `at` on. The compiler makes vectors of a block.
fn values(strand: &Strand<'_>, at: usize) -> [i32; BLOCK] {
    let mut sums = [0; BLOCK];
    for tap in 0..strand.count {
        let weight = i32::from(strand.weight(tap));
        for (sum, &value) in sums.iter_mut().zip(&strand.row(tap)[at..at + BLOCK]) {
            *sum += if strand.short {
                scaled(i32::from(value), weight)
            } else {
                i32::from(value) * weight
            };
        }
    }
    if strand.short {
        sums
    } else {
        sums.map(|sum| (sum + (1 << 14)) >> 15)
    }
}

/// Fractions of the JFIF matrix in units of 2⁻¹⁵, rounded to the nearest: 0.402, 0.344136, 0.714136 and 0.772.
pub const CR_TO_RED: i16 = 13173;
/// See [`CR_TO_RED`].
pub const CB_TO_GREEN: i16 = 11277;
/// See [`CR_TO_RED`].
pub const CR_TO_GREEN: i16 = 23401;
/// See [`CR_TO_RED`].
pub const CB_TO_BLUE: i16 = 25297;

/// Converts luma and chroma to red, green and blue.
fn convert(y: [i32; BLOCK], cb: [i32; BLOCK], cr: [i32; BLOCK]) -> [[i32; BLOCK]; 3] {
    let mut pixels = [y; 3];
    for at in 0..BLOCK {
        let (cb, cr) = (cb[at], cr[at]);
        pixels[0][at] += cr + scaled(cr, i32::from(CR_TO_RED));
        pixels[1][at] -= scaled(cb, i32::from(CB_TO_GREEN)) + scaled(cr, i32::from(CR_TO_GREEN));
        pixels[2][at] += cb + scaled(cb, i32::from(CB_TO_BLUE));
    }
    pixels
}

/// Rounds 7 fractional bits away and puts 128 back.
fn byte(value: i32) -> u8 {
    (((value + 64) >> 7) + 128).clamp(0, 255) as u8
}
