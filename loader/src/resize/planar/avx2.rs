//! The arithmetic of [`scalar`](super::scalar) with AVX2.
//!
//! Between the passes, the lanes (eights) of every 32 outputs lie in the order 0, 2, 1, 3: packing 16-bit values to
//! bytes works on halves of registers and brings them back into the natural one.

use std::arch::x86_64::{
    __m256i as Vector, _mm256_add_epi16 as add, _mm256_add_epi32 as add32,
    _mm256_adds_epi16 as adds, _mm256_loadu_si256 as load, _mm256_madd_epi16 as madd,
    _mm256_mulhrs_epi16 as mulhrs, _mm256_packs_epi32 as narrow, _mm256_set1_epi16 as splat,
    _mm256_set1_epi32 as splat32, _mm256_setzero_si256 as zero, _mm256_subs_epi16 as subs,
    _mm256_unpackhi_epi16 as interleave_high, _mm256_unpacklo_epi16 as interleave_low, *,
};

use shardtool::planes::Colour;

use super::scalar::{CB_TO_BLUE, CB_TO_GREEN, CR_TO_GREEN, CR_TO_RED};
use super::shared::{GRAY, RGB, YCBCR, shared};
use super::strand::Strand;
use super::taps::{BLOCK, SHORT};
use super::windows::{Layout, Windows};

shared!("avx2");

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

/// Loads two windows, one into each half, with samples as distances from 128.
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

/// Loads a whole vector of a table.
#[inline]
#[target_feature(enable = "avx2")]
fn load_from<T>(table: &[T], at: usize) -> __m256i {
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
        let shuffle = load_from(shuffles, 0);
        let farther = _mm256_add_epi8(shuffle, _mm256_set1_epi8(2));
        let (low, high) = (bases[0] as usize, bases[1] as usize);
        for (row, out) in rows.into_iter().zip([outs.0, outs.1]) {
            // SAFETY: `across` compared the row's length with where the last window ends.
            let samples = unsafe { windows_at(row, low, high) };
            let mut sum =
                _mm256_maddubs_epi16(load_from(weights, 0), _mm256_shuffle_epi8(samples, shuffle));
            if PAIRS == 2 {
                let samples = if SHARED {
                    _mm256_shuffle_epi8(samples, farther)
                } else {
                    // SAFETY: as above; the second window is counted in.
                    let samples = unsafe { windows_at(row, low + 2, high + 2) };
                    _mm256_shuffle_epi8(samples, shuffle)
                };
                sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(load_from(weights, 32), samples));
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
                let shuffle = load_from(shuffles, 32 * half);
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
                    _mm256_maddubs_epi16(load_from(weights, 64 * half), near),
                    _mm256_maddubs_epi16(load_from(weights, 64 * half + 32), far),
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
                    let weights = load_from(&windows.wide, (output * windows.dots + window) * 16);
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

/// Returns the sums of four vectors' halves.
#[inline]
#[target_feature(enable = "avx2")]
fn sums_of_four(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d))
}

/// Shifts right by 15 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn shift15(sums: Vector) -> Vector {
    _mm256_srai_epi32::<15>(sums)
}

/// Rounds 7 fractional bits of a block away and stores those of its bytes that `out` has, from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
fn write(out: &mut [u8], at: usize, [near, far]: [Vector; 2]) {
    let rounded = |values| mulhrs(values, splat(1 << 8));
    let bytes = _mm256_packs_epi16(rounded(near), rounded(far));
    let bytes = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    if at + BLOCK <= out.len() {
        store(out, at, bytes);
    } else if at < out.len() {
        let mut block = [0_u8; BLOCK];
        store(&mut block, 0, bytes);
        let left = out.len() - at;
        out[at..].copy_from_slice(&block[..left]);
    }
}

/// Takes a row of packed RGB apart, as far as whole blocks of 32 pixels go. Returns how many pixels that is.
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
