//! The arithmetic of [`scalar`](super::scalar) with AVX-512: bytes are shuffled across 64 of them, and 32 values are
//! worked on at a time, in their natural order. Where outputs lie too far apart for that, AVX2 filters across.

use std::arch::x86_64::*;

use shardtool::planes::Colour;

use super::scalar::{CB_TO_BLUE, CB_TO_GREEN, CR_TO_GREEN, CR_TO_RED};
use super::strand::Strand;
use super::taps::{BLOCK, SHORT};
use super::windows::{Layout, Windows};

/// Filters two rows across, to two rows one behind the other.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx2")]
pub fn across(windows: &Windows, rows: [&[u8]; 2], out: &mut [i16]) {
    match windows.layout {
        Layout::Wide { pairs: 1 } => wide::<1>(windows, rows, out),
        Layout::Wide { .. } => wide::<2>(windows, rows, out),
        _ => super::avx2::across(windows, rows, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load<T>(table: &[T], at: usize) -> __m512i {
    let bytes = &table[at..at + 64 / size_of::<T>()];
    // SAFETY: the slice is 64 bytes long.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn wide<const PAIRS: usize>(windows: &Windows, rows: [&[u8]; 2], out: &mut [i16]) {
    assert!(
        rows.iter().all(|row| row.len() >= windows.reach),
        "rows shorter than the {} samples that are read",
        windows.reach
    );
    let width = out.len() / 2;
    let (upper, lower) = out.split_at_mut(width);
    let outs = upper.chunks_exact_mut(32).zip(lower.chunks_exact_mut(32));
    let shuffles = windows.shuffles.chunks_exact(64);
    let weights = windows.weights.chunks_exact(64 * PAIRS);
    for ((outs, &base), (shuffles, weights)) in outs.zip(&windows.bases).zip(shuffles.zip(weights))
    {
        let shuffle = load(shuffles, 0);
        let farther = _mm512_add_epi8(shuffle, _mm512_set1_epi8(2));
        for (row, out) in rows.into_iter().zip([outs.0, outs.1]) {
            debug_assert!(base as usize + 64 <= row.len());
            // SAFETY: the row's length was compared with where the last window ends.
            let samples = unsafe { _mm512_loadu_si512(row.as_ptr().add(base as usize).cast()) };
            let samples = _mm512_xor_si512(samples, _mm512_set1_epi8(-128));
            let near = _mm512_permutexvar_epi8(shuffle, samples);
            let mut sum = _mm512_maddubs_epi16(load(weights, 0), near);
            if PAIRS == 2 {
                let far = _mm512_permutexvar_epi8(farther, samples);
                sum = _mm512_add_epi16(sum, _mm512_maddubs_epi16(load(weights, 64), far));
            }
            let out = &mut out[..32];
            // SAFETY: the slice is 64 bytes long.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
        }
    }
}

/// Filters down and converts colour: one row of output from the rows that each plane's strand names.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn down(strands: &[Strand<'_>; 3], colour: Colour, out: [&mut [u8]; 3]) {
    let planes = &strands[..colour.planes()];
    let most = planes.iter().map(|strand| strand.count).max();
    match most.expect("at least one plane") {
        1..=2 => coloured::<2>(strands, colour, out),
        3 => coloured::<3>(strands, colour, out),
        4 => coloured::<4>(strands, colour, out),
        5 => coloured::<5>(strands, colour, out),
        6 => coloured::<6>(strands, colour, out),
        7..=SHORT => coloured::<SHORT>(strands, colour, out),
        _ => coloured::<0>(strands, colour, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn coloured<const TAPS: usize>(strands: &[Strand<'_>; 3], colour: Colour, out: [&mut [u8]; 3]) {
    match colour {
        Colour::Gray => rows::<TAPS, GRAY>(strands, out),
        Colour::YCbCr => rows::<TAPS, YCBCR>(strands, out),
        Colour::Rgb => rows::<TAPS, RGB>(strands, out),
    }
}

// Colours as constants to compile for.
const GRAY: u8 = 0;
const YCBCR: u8 = 1;
const RGB: u8 = 2;

/// A strand with its rows looked up: `TAPS` of them, or any number where that is 0.
#[derive(Clone, Copy)]
struct Column<'a, const TAPS: usize> {
    strand: &'a Strand<'a>,
    rows: [&'a [i16]; TAPS],
    weights: [__m512i; TAPS],
}

impl<'a, const TAPS: usize> Column<'a, TAPS> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn new(strand: &'a Strand<'a>) -> Column<'a, TAPS> {
        let mut column = Column {
            strand,
            rows: [&[]; TAPS],
            weights: [_mm512_setzero_si512(); TAPS],
        };
        for tap in 0..TAPS {
            // Where a strand has fewer taps, its first row is read again, with no weight.
            let exists = tap < strand.count;
            let weight = if exists { strand.weight(tap) } else { 0 };
            column.rows[tap] = strand.row(if exists { tap } else { 0 });
            column.weights[tap] = _mm512_set1_epi16(weight);
        }
        column
    }

    /// 32 values.
    ///
    /// # Safety
    /// `at + 32` is at most the rows' length.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(&self, at: usize) -> __m512i {
        let value = |row: &[i16]| {
            debug_assert!(at + 32 <= row.len());
            // SAFETY: as the caller promises.
            unsafe { _mm512_loadu_si512(row.as_ptr().add(at).cast()) }
        };
        if TAPS > 0 {
            let mut sum = _mm512_mulhrs_epi16(value(self.rows[0]), self.weights[0]);
            for tap in 1..TAPS {
                let part = _mm512_mulhrs_epi16(value(self.rows[tap]), self.weights[tap]);
                sum = _mm512_add_epi16(sum, part);
            }
            return sum;
        }
        let strand = self.strand;
        if strand.short {
            let mut sum = _mm512_setzero_si512();
            for tap in 0..strand.count {
                let weight = _mm512_set1_epi16(strand.weight(tap));
                sum = _mm512_add_epi16(sum, _mm512_mulhrs_epi16(value(strand.row(tap)), weight));
            }
            return sum;
        }
        let mut sums = [_mm512_set1_epi32(1 << 14); 2];
        for tap in (0..strand.count).step_by(2) {
            let upper = value(strand.row(tap));
            let (lower, second) = if tap + 1 < strand.count {
                (value(strand.row(tap + 1)), strand.weight(tap + 1))
            } else {
                (upper, 0)
            };
            let weights = i32::from(strand.weight(tap)) | i32::from(second) << 16;
            let weights = _mm512_set1_epi32(weights);
            let pairs = [
                _mm512_unpacklo_epi16(upper, lower),
                _mm512_unpackhi_epi16(upper, lower),
            ];
            for (sum, pairs) in sums.iter_mut().zip(pairs) {
                *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(pairs, weights));
            }
        }
        _mm512_packs_epi32(
            _mm512_srai_epi32::<15>(sums[0]),
            _mm512_srai_epi32::<15>(sums[1]),
        )
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn rows<const TAPS: usize, const COLOUR: u8>(strands: &[Strand<'_>; 3], out: [&mut [u8]; 3]) {
    let mut columns = [Column::<TAPS>::new(&strands[0]); 3];
    if COLOUR != GRAY {
        columns[1] = Column::new(&strands[1]);
        columns[2] = Column::new(&strands[2]);
    }
    let padded = columns[0].strand.row(0).len();
    assert!(
        columns
            .iter()
            .all(|column| column.strand.row(0).len() == padded)
    );
    let [red, green, blue] = out;
    let side = red.len();
    assert!(
        padded.is_multiple_of(BLOCK) && side <= padded && green.len() == side && blue.len() == side
    );
    for at in (0..padded).step_by(BLOCK) {
        // SAFETY: all rows are `padded` long, a multiple of 32.
        let pixels = unsafe { pixels::<TAPS, COLOUR>(&columns, at) };
        let parts = [
            (&mut *red, bytes(pixels[0])),
            (&mut *green, bytes(pixels[1])),
            (&mut *blue, bytes(pixels[2])),
        ];
        // Of the last block, only the outputs that are there.
        let wanted = (1_u64 << side.saturating_sub(at).min(BLOCK)) - 1;
        for (out, bytes) in parts {
            let out = &mut out[at.min(side)..];
            // SAFETY: the mask keeps to what is left of the row.
            unsafe { _mm256_mask_storeu_epi8(out.as_mut_ptr().cast(), wanted as u32, bytes) };
        }
    }
}

/// Rounds 7 fractional bits away and packs to bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn bytes(values: __m512i) -> __m256i {
    let packed = _mm512_cvtsepi16_epi8(scaled(values, 1 << 8));
    _mm256_xor_si256(packed, _mm256_set1_epi8(-128))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn scaled(value: __m512i, by: i16) -> __m512i {
    _mm512_mulhrs_epi16(value, _mm512_set1_epi16(by))
}

/// 32 pixels, with 7 fractional bits and 128 taken off.
///
/// # Safety
/// `at + 32` is at most the length of the columns' rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pixels<const TAPS: usize, const COLOUR: u8>(
    columns: &[Column<'_, TAPS>; 3],
    at: usize,
) -> [__m512i; 3] {
    // SAFETY: as the caller promises.
    let value = |plane: usize| unsafe { columns[plane].values(at) };
    if COLOUR == GRAY {
        return [value(0); 3];
    }
    let [y, cb, cr] = [value(0), value(1), value(2)];
    if COLOUR == RGB {
        return [y, cb, cr];
    }
    // Saturation changes only what is far outside a byte's range, on the same side of it.
    let red = _mm512_adds_epi16(y, _mm512_adds_epi16(cr, scaled(cr, CR_TO_RED)));
    let green = _mm512_subs_epi16(y, scaled(cb, CB_TO_GREEN));
    let green = _mm512_subs_epi16(green, scaled(cr, CR_TO_GREEN));
    let blue = _mm512_adds_epi16(y, _mm512_adds_epi16(cb, scaled(cb, CB_TO_BLUE)));
    [red, green, blue]
}
