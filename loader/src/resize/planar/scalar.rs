//! The definition of the arithmetic, one sample after the other.

use super::strand::Strand;
use super::taps::Taps;
use shardtool::planes::Colour;

/// Filters a row across: `out` has one value for each output, padding included.
pub fn across(taps: &Taps, row: &[u8], out: &mut [i16]) {
    for (output, (&first, out)) in taps.first.iter().zip(out).enumerate() {
        let samples = &row[first as usize..first as usize + taps.count];
        let weights = taps.weights[output..].iter().step_by(taps.padded);
        let sum: i32 = samples
            .iter()
            .zip(weights)
            .map(|(&sample, &weight)| i32::from(weight) * (i32::from(sample) - 128))
            .sum();
        *out = ((sum + 32) >> 6) as i16;
    }
}

/// Filters down and converts colour: one row of output from the rows that each plane's strand names.
pub fn down(strands: &[Strand<'_>; 3], colour: Colour, out: [&mut [u8]; 3]) {
    let [red, green, blue] = out;
    for at in 0..red.len() {
        let [r, g, b] = match colour {
            Colour::Gray => [value(&strands[0], at); 3],
            Colour::Rgb => [0, 1, 2].map(|plane| value(&strands[plane], at)),
            Colour::YCbCr => convert([0, 1, 2].map(|plane| value(&strands[plane], at))),
        };
        (red[at], green[at], blue[at]) = (byte(r), byte(g), byte(b));
    }
}

/// `a · b`, rounded at 15 bits, ties up; what vector units multiply 16-bit numbers with.
fn scaled(a: i32, b: i32) -> i32 {
    (a * b + (1 << 14)) >> 15
}

fn value(strand: &Strand<'_>, at: usize) -> i32 {
    let taps = (0..strand.count).map(|tap| {
        (
            i32::from(strand.row(tap)[at]),
            i32::from(strand.weight(tap)),
        )
    });
    if strand.short {
        taps.map(|(value, weight)| scaled(value, weight)).sum()
    } else {
        (taps.map(|(value, weight)| value * weight).sum::<i32>() + (1 << 14)) >> 15
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

fn convert([y, cb, cr]: [i32; 3]) -> [i32; 3] {
    [
        y + cr + scaled(cr, i32::from(CR_TO_RED)),
        y - scaled(cb, i32::from(CB_TO_GREEN)) - scaled(cr, i32::from(CR_TO_GREEN)),
        y + cb + scaled(cb, i32::from(CB_TO_BLUE)),
    ]
}

fn byte(value: i32) -> u8 {
    (((value + 64) >> 7) + 128).clamp(0, 255) as u8
}
