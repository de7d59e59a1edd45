//! The arithmetic of [`scalar`](super::scalar) with AVX-512: bytes are shuffled across 64 of them, and 32 values are
//! worked on at a time, in their natural order. Where outputs lie too far apart for that, AVX2 filters across.

use std::arch::x86_64::{
    __m512i as Vector, _mm512_add_epi16 as add, _mm512_add_epi32 as add32,
    _mm512_adds_epi16 as adds, _mm512_loadu_si512 as load, _mm512_madd_epi16 as madd,
    _mm512_mulhrs_epi16 as mulhrs, _mm512_packs_epi32 as narrow, _mm512_set1_epi16 as splat,
    _mm512_set1_epi32 as splat32, _mm512_setzero_si512 as zero, _mm512_subs_epi16 as subs,
    _mm512_unpackhi_epi16 as interleave_high, _mm512_unpacklo_epi16 as interleave_low, *,
};

use shardtool::planes::Colour;

use super::scalar::{CB_TO_BLUE, CB_TO_GREEN, CR_TO_GREEN, CR_TO_RED};
use super::shared::{GRAY, RGB, YCBCR, shared};
use super::strand::Strand;
use super::taps::{BLOCK, SHORT};
use super::windows::{Layout, Windows};

shared!("avx512f,avx512bw,avx512vl");

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
fn load_from<T>(table: &[T], at: usize) -> __m512i {
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
        let shuffle = load_from(shuffles, 0);
        let farther = _mm512_add_epi8(shuffle, _mm512_set1_epi8(2));
        for (row, out) in rows.into_iter().zip([outs.0, outs.1]) {
            debug_assert!(base as usize + 64 <= row.len());
            // SAFETY: the row's length was compared with where the last window ends.
            let samples = unsafe { _mm512_loadu_si512(row.as_ptr().add(base as usize).cast()) };
            let samples = _mm512_xor_si512(samples, _mm512_set1_epi8(-128));
            let near = _mm512_permutexvar_epi8(shuffle, samples);
            let mut sum = _mm512_maddubs_epi16(load_from(weights, 0), near);
            if PAIRS == 2 {
                let far = _mm512_permutexvar_epi8(farther, samples);
                sum = _mm512_add_epi16(sum, _mm512_maddubs_epi16(load_from(weights, 64), far));
            }
            let out = &mut out[..32];
            // SAFETY: the slice is 64 bytes long.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
        }
    }
}

/// Shifts right by 15 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn shift15(sums: Vector) -> Vector {
    _mm512_srai_epi32::<15>(sums)
}

/// Rounds 7 fractional bits of a block away and stores those of its bytes that `out` has, from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn write(out: &mut [u8], at: usize, [values]: [Vector; 1]) {
    let bytes = _mm512_cvtsepi16_epi8(mulhrs(values, splat(1 << 8)));
    let bytes = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    let at = at.min(out.len());
    let out = &mut out[at..];
    let wanted = (1_u64 << out.len().min(BLOCK)) - 1;
    // SAFETY: the mask keeps to what is left of the row.
    unsafe { _mm256_mask_storeu_epi8(out.as_mut_ptr().cast(), wanted as u32, bytes) };
}
