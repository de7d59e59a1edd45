//! The arithmetic of [`scalar`](super::scalar) with AVX2.
//!
//! Between the passes, the lanes (eights) of every 32 outputs lie in the order 0, 2, 1, 3: packing 16-bit values to
//! bytes works on halves of registers and brings them back into the natural one.

use std::arch::x86_64::*;

use shardtool::planes::Colour;

use super::scalar::{CB_TO_BLUE, CB_TO_GREEN, CR_TO_GREEN, CR_TO_RED};
use super::strand::Strand;
use super::taps::{BLOCK, SHORT};
use super::windows::{Layout, Windows};

/// Where the lanes of 32 outputs come from.
pub const LANE_ORDER: [usize; 4] = [0, 2, 1, 3];

/// Filters two rows across, to two rows one behind the other.
#[target_feature(enable = "avx2")]
pub fn across(windows: &Windows, rows: [&[u8]; 2], out: &mut [i16]) {
    assert!(
        rows.iter().all(|row| row.len() >= windows.reach),
        "rows shorter than the {} samples that are read",
        windows.reach
    );
    match windows.layout {
        Layout::Pairs { pairs: 1, .. } => pairs::<1, true>(windows, rows, out),
        Layout::Pairs { shared: true, .. } => pairs::<2, true>(windows, rows, out),
        Layout::Pairs { .. } => pairs::<2, false>(windows, rows, out),
        Layout::Wide { .. } => unreachable!("laid out for wider vectors"),
        Layout::Quads { shared: true } => quads::<true>(windows, rows, out),
        Layout::Quads { .. } => quads::<false>(windows, rows, out),
        Layout::Dots => dots(windows, rows, out),
    }
}

/// Two windows, one in each half, with samples as distances from 128.
///
/// # Safety
/// Both windows lie inside `row`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn windows_at(row: &[u8], low: usize, high: usize) -> __m256i {
    debug_assert!(low.max(high) + 16 <= row.len());
    // SAFETY: as the caller promises.
    let both = unsafe {
        _mm256_inserti128_si256::<1>(
            _mm256_castsi128_si256(_mm_loadu_si128(row.as_ptr().add(low).cast())),
            _mm_loadu_si128(row.as_ptr().add(high).cast()),
        )
    };
    _mm256_xor_si256(both, _mm256_set1_epi8(-128))
}

/// A whole vector of a table.
#[inline]
#[target_feature(enable = "avx2")]
fn load<T>(table: &[T], at: usize) -> __m256i {
    let bytes = &table[at..at + 32 / size_of::<T>()];
    // SAFETY: the slice is 32 bytes long.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store<T>(out: &mut [T], at: usize, value: __m256i) {
    let bytes = &mut out[at..at + 32 / size_of::<T>()];
    // SAFETY: the slice is 32 bytes long.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), value) }
}

#[target_feature(enable = "avx2")]
fn pairs<const PAIRS: usize, const SHARED: bool>(
    windows: &Windows,
    rows: [&[u8]; 2],
    out: &mut [i16],
) {
    let width = out.len() / 2;
    let (upper, lower) = out.split_at_mut(width);
    let outs = upper.chunks_exact_mut(16).zip(lower.chunks_exact_mut(16));
    let bases = windows.bases.chunks_exact(2);
    let shuffles = windows.shuffles.chunks_exact(32);
    let weights = windows.weights.chunks_exact(32 * PAIRS);
    for ((outs, bases), (shuffles, weights)) in outs.zip(bases).zip(shuffles.zip(weights)) {
        let shuffle = load(shuffles, 0);
        let farther = _mm256_add_epi8(shuffle, _mm256_set1_epi8(2));
        let (low, high) = (bases[0] as usize, bases[1] as usize);
        for (row, out) in rows.into_iter().zip([outs.0, outs.1]) {
            // SAFETY: `across` compared the row's length with where the last window ends.
            let samples = unsafe { windows_at(row, low, high) };
            let mut sum =
                _mm256_maddubs_epi16(load(weights, 0), _mm256_shuffle_epi8(samples, shuffle));
            if PAIRS == 2 {
                let samples = if SHARED {
                    _mm256_shuffle_epi8(samples, farther)
                } else {
                    // SAFETY: as above; the second window is counted in.
                    let samples = unsafe { windows_at(row, low + 2, high + 2) };
                    _mm256_shuffle_epi8(samples, shuffle)
                };
                sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(load(weights, 32), samples));
            }
            store(out, 0, sum);
        }
    }
}

#[target_feature(enable = "avx2")]
fn quads<const SHARED: bool>(windows: &Windows, rows: [&[u8]; 2], out: &mut [i16]) {
    let width = out.len() / 2;
    let (upper, lower) = out.split_at_mut(width);
    let outs = upper.chunks_exact_mut(16).zip(lower.chunks_exact_mut(16));
    let bases = windows.bases.chunks_exact(4);
    let shuffles = windows.shuffles.chunks_exact(64);
    let weights = windows.weights.chunks_exact(128);
    for ((outs, bases), (shuffles, weights)) in outs.zip(bases).zip(shuffles.zip(weights)) {
        for (row, out) in rows.into_iter().zip([outs.0, outs.1]) {
            let mut halves = [_mm256_setzero_si256(); 2];
            for (half, sum) in halves.iter_mut().enumerate() {
                let (low, high) = (bases[2 * half] as usize, bases[2 * half + 1] as usize);
                let shuffle = load(shuffles, 32 * half);
                // SAFETY: `across` compared the row's length with where the last window ends.
                let samples = unsafe { windows_at(row, low, high) };
                let near = _mm256_shuffle_epi8(samples, shuffle);
                let far = if SHARED {
                    let farther = _mm256_add_epi8(shuffle, _mm256_set1_epi8(4));
                    _mm256_shuffle_epi8(samples, farther)
                } else {
                    // SAFETY: as above; the second window is counted in.
                    let samples = unsafe { windows_at(row, low + 4, high + 4) };
                    _mm256_shuffle_epi8(samples, shuffle)
                };
                *sum = _mm256_add_epi16(
                    _mm256_maddubs_epi16(load(weights, 64 * half), near),
                    _mm256_maddubs_epi16(load(weights, 64 * half + 32), far),
                );
            }
            store(out, 0, _mm256_hadd_epi16(halves[0], halves[1]));
        }
    }
}

#[target_feature(enable = "avx2")]
fn dots(windows: &Windows, rows: [&[u8]; 2], out: &mut [i16]) {
    let width = out.len() / 2;
    // Weights sum to 2^14, so samples need no centring one by one.
    let bias = _mm256_set1_epi32(32 - (128 << 14));
    for lane in 0..width / 8 {
        for (row, out) in rows.into_iter().zip(out.chunks_exact_mut(width)) {
            let mut sums = [_mm256_setzero_si256(); 8];
            for (output, sum) in sums.iter_mut().enumerate() {
                let output = 8 * lane + output;
                let base = windows.bases[output] as usize;
                for window in 0..windows.dots {
                    let samples = &row[base + 16 * window..][..16];
                    // SAFETY: the slice is 16 bytes long.
                    let samples = unsafe { _mm_loadu_si128(samples.as_ptr().cast()) };
                    let weights = load(&windows.wide, (output * windows.dots + window) * 16);
                    let products = _mm256_madd_epi16(_mm256_cvtepu8_epi16(samples), weights);
                    *sum = _mm256_add_epi32(*sum, products);
                }
            }
            let fours = [
                sums_of_four(sums[0], sums[1], sums[2], sums[3]),
                sums_of_four(sums[4], sums[5], sums[6], sums[7]),
            ];
            let sums = _mm256_add_epi32(
                _mm256_permute2x128_si256::<0x20>(fours[0], fours[1]),
                _mm256_permute2x128_si256::<0x31>(fours[0], fours[1]),
            );
            let values = _mm256_srai_epi32::<6>(_mm256_add_epi32(sums, bias));
            let packed = _mm_packs_epi32(
                _mm256_castsi256_si128(values),
                _mm256_extracti128_si256::<1>(values),
            );
            let out = &mut out[8 * lane..8 * lane + 8];
            // SAFETY: the slice is 16 bytes long.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), packed) };
        }
    }
}

/// Sums of four vectors' halves.
#[inline]
#[target_feature(enable = "avx2")]
fn sums_of_four(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d))
}

/// Filters down and converts colour: one row of output from the rows that each plane's strand names.
#[target_feature(enable = "avx2")]
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

#[target_feature(enable = "avx2")]
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
    weights: [__m256i; TAPS],
}

impl<'a, const TAPS: usize> Column<'a, TAPS> {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(strand: &'a Strand<'a>) -> Column<'a, TAPS> {
        let mut column = Column {
            strand,
            rows: [&[]; TAPS],
            weights: [_mm256_setzero_si256(); TAPS],
        };
        for tap in 0..TAPS {
            // Where a strand has fewer taps, its first row is read again, with no weight.
            let exists = tap < strand.count;
            let weight = if exists { strand.weight(tap) } else { 0 };
            column.rows[tap] = strand.row(if exists { tap } else { 0 });
            column.weights[tap] = _mm256_set1_epi16(weight);
        }
        column
    }

    /// 16 values.
    ///
    /// # Safety
    /// `at + 16` is at most the rows' length.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn values(&self, at: usize) -> __m256i {
        let value = |row: &[i16]| {
            debug_assert!(at + 16 <= row.len());
            // SAFETY: as the caller promises.
            unsafe { _mm256_loadu_si256(row.as_ptr().add(at).cast()) }
        };
        if TAPS > 0 {
            let mut sum = _mm256_mulhrs_epi16(value(self.rows[0]), self.weights[0]);
            for tap in 1..TAPS {
                let part = _mm256_mulhrs_epi16(value(self.rows[tap]), self.weights[tap]);
                sum = _mm256_add_epi16(sum, part);
            }
            return sum;
        }
        let strand = self.strand;
        if strand.short {
            let mut sum = _mm256_setzero_si256();
            for tap in 0..strand.count {
                let weight = _mm256_set1_epi16(strand.weight(tap));
                sum = _mm256_add_epi16(sum, _mm256_mulhrs_epi16(value(strand.row(tap)), weight));
            }
            return sum;
        }
        let mut sums = [_mm256_set1_epi32(1 << 14); 2];
        for tap in (0..strand.count).step_by(2) {
            let upper = value(strand.row(tap));
            let (lower, second) = if tap + 1 < strand.count {
                (value(strand.row(tap + 1)), strand.weight(tap + 1))
            } else {
                (upper, 0)
            };
            let weights = i32::from(strand.weight(tap)) | i32::from(second) << 16;
            let weights = _mm256_set1_epi32(weights);
            let pairs = [
                _mm256_unpacklo_epi16(upper, lower),
                _mm256_unpackhi_epi16(upper, lower),
            ];
            for (sum, pairs) in sums.iter_mut().zip(pairs) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, weights));
            }
        }
        _mm256_packs_epi32(
            _mm256_srai_epi32::<15>(sums[0]),
            _mm256_srai_epi32::<15>(sums[1]),
        )
    }
}

#[target_feature(enable = "avx2")]
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
        let (near, far) = unsafe {
            (
                pixels::<TAPS, COLOUR>(&columns, at),
                pixels::<TAPS, COLOUR>(&columns, at + 16),
            )
        };
        let parts = [
            (&mut *red, bytes(near[0], far[0])),
            (&mut *green, bytes(near[1], far[1])),
            (&mut *blue, bytes(near[2], far[2])),
        ];
        for (out, bytes) in parts {
            if at + BLOCK <= side {
                store(out, at, bytes);
            } else if at < side {
                let mut block = [0_u8; BLOCK];
                store(&mut block, 0, bytes);
                out[at..].copy_from_slice(&block[..side - at]);
            }
        }
    }
}

/// Rounds 7 fractional bits away and packs to bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes(near: __m256i, far: __m256i) -> __m256i {
    let packed = _mm256_packs_epi16(scaled(near, 1 << 8), scaled(far, 1 << 8));
    _mm256_xor_si256(packed, _mm256_set1_epi8(-128))
}

#[inline]
#[target_feature(enable = "avx2")]
fn scaled(value: __m256i, by: i16) -> __m256i {
    _mm256_mulhrs_epi16(value, _mm256_set1_epi16(by))
}

/// 16 pixels, with 7 fractional bits and 128 taken off.
///
/// # Safety
/// `at + 16` is at most the length of the columns' rows.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn pixels<const TAPS: usize, const COLOUR: u8>(
    columns: &[Column<'_, TAPS>; 3],
    at: usize,
) -> [__m256i; 3] {
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
    let red = _mm256_adds_epi16(y, _mm256_adds_epi16(cr, scaled(cr, CR_TO_RED)));
    let green = _mm256_subs_epi16(y, scaled(cb, CB_TO_GREEN));
    let green = _mm256_subs_epi16(green, scaled(cr, CR_TO_GREEN));
    let blue = _mm256_adds_epi16(y, _mm256_adds_epi16(cb, scaled(cb, CB_TO_BLUE)));
    [red, green, blue]
}

/// Takes a row of packed RGB apart, as far as whole blocks of 32 pixels go; returns how many pixels that were.
#[target_feature(enable = "avx2")]
pub fn split(packed: &[u8], mut planes: [&mut [u8]; 3]) -> usize {
    let blocks = packed.chunks_exact(96);
    let done = blocks.len() * 32;
    for (block, pixels) in blocks.enumerate() {
        let part = |at: usize| {
            let (low, high) = (&pixels[at..at + 16], &pixels[at + 48..at + 64]);
            // SAFETY: both slices are 16 bytes long.
            unsafe {
                _mm256_inserti128_si256::<1>(
                    _mm256_castsi128_si256(_mm_loadu_si128(low.as_ptr().cast())),
                    _mm_loadu_si128(high.as_ptr().cast()),
                )
            }
        };
        let parts = [part(0), part(16), part(32)];
        for (channel, plane) in planes.iter_mut().enumerate() {
            let mut joined = _mm256_setzero_si256();
            for (at, &part) in parts.iter().enumerate() {
                let shuffle = &SPLIT[channel][at];
                let shuffle = _mm256_broadcastsi128_si256(
                    // SAFETY: the shuffle is 16 bytes long.
                    unsafe { _mm_loadu_si128(shuffle.as_ptr().cast()) },
                );
                joined = _mm256_or_si256(joined, _mm256_shuffle_epi8(part, shuffle));
            }
            store(plane, 32 * block, joined);
        }
    }
    done
}

/// Where the bytes of 16 pixels of a channel lie in each third of their 48 bytes; 128 where in another one.
const SPLIT: [[[u8; 16]; 3]; 3] = {
    let mut tables = [[[128; 16]; 3]; 3];
    let mut channel = 0;
    while channel < 3 {
        let mut pixel = 0;
        while pixel < 16 {
            let at = 3 * pixel + channel;
            tables[channel][at / 16][pixel] = (at % 16) as u8;
            pixel += 1;
        }
        channel += 1;
    }
    tables
};
