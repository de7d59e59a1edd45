//! A row of blocks with AVX-512: eight blocks at a time, four in each of two registers.

use std::arch::x86_64::*;

use super::{Escape, GROUP, Halfway, Row};
use crate::dct::idct::{COSINES, FRACTION};

/// Blocks in a register.
const HALF: usize = 4;
/// The first of each block's lanes.
const FIRST_LANES: u32 = 0x0101_0101;

/// Renders one row of blocks: all of it along the horizontal frequencies, then along the vertical ones. `halfway` has room
/// for whole groups.
///
/// # Safety
/// The machine must have [`crate::simd::Simd::Avx512`].
pub(super) unsafe fn row(row: &Row<'_>, halfway: &mut [Halfway], samples: &mut [u8]) {
    assert!(samples.len() >= row.scale.rows * row.stride);
    assert!(halfway.len() >= row.blocks.next_multiple_of(GROUP));
    // SAFETY: the instructions are there, says the caller.
    unsafe {
        match row.scale.columns {
            1 => across::<1>(row, halfway),
            2 => across::<2>(row, halfway),
            3 => across::<3>(row, halfway),
            4 => across::<4>(row, halfway),
            5 => across::<5>(row, halfway),
            6 => across::<6>(row, halfway),
            7 => across::<7>(row, halfway),
            _ => across::<8>(row, halfway),
        }
        match row.scale.rows {
            1 => down::<1>(row, halfway, samples),
            2 => down::<2>(row, halfway, samples),
            3 => down::<3>(row, halfway, samples),
            4 => down::<4>(row, halfway, samples),
            5 => down::<5>(row, halfway, samples),
            6 => down::<6>(row, halfway, samples),
            7 => down::<7>(row, halfway, samples),
            _ => down::<8>(row, halfway, samples),
        }
    }
}

/// For each number of columns, which bytes of two registers of packed rows make up a row of eight blocks' samples. Each
/// block's 16 bytes are a row and the row below.
static GATHER: [[u8; 64]; 8] = {
    let mut gather = [[0; 64]; 8];
    let mut columns = 1;
    while columns <= 8 {
        let mut at = 0;
        while at < GROUP * columns {
            let (block, x) = (at / columns, at % columns);
            gather[columns - 1][at] = (16 * block + x) as u8;
            at += 1;
        }
        columns += 1;
    }
    gather
};

/// Unpacks, dequantizes and transforms along the horizontal frequencies. Groups of blocks are left as two times eight
/// registers, one for each vertical frequency.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn across<const COLUMNS: usize>(row: &Row<'_>, halfway: &mut [Halfway]) {
    let mut values: [*const u8; 8] = row.values.map(<[u8]>::as_ptr);
    let mut escapes = row.escapes;
    for (group, halfway) in halfway.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        let block = GROUP * group;
        if block >= row.blocks {
            break;
        }
        let mut left = [_mm512_setzero_si512(); 8];
        let mut right = [_mm512_setzero_si512(); 8];
        for u in 0..COLUMNS {
            // SAFETY: the row's invariant: a mask for each block of the group and beyond, and slack behind the values
            // of which the group takes at most 64.
            let (masks, packed) = unsafe {
                let masks = row.masks[u]
                    .as_ptr()
                    .add(block)
                    .cast::<u64>()
                    .read_unaligned();
                let packed = _mm512_loadu_si512(values[u].cast());
                values[u] = values[u].add(masks.count_ones() as usize);
                (masks, packed)
            };
            let spread = _mm512_maskz_expand_epi8(masks, packed);
            left[u] = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(spread));
            right[u] = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64::<1>(spread));
        }
        if let Some(escape) = escapes.first()
            && (escape.block as usize) < block + GROUP
        {
            escapes = apply(escapes, block, &mut left);
            escapes = apply(escapes, block + HALF, &mut right);
        }
        let dc = |half| _mm512_castsi128_si512(half);
        // SAFETY: eight DCs, half of them each.
        let (dc_left, dc_right) = unsafe {
            let at = row.dc[block..block + GROUP].as_ptr();
            (
                _mm_loadu_si64(at.cast()),
                _mm_loadu_si64(at.add(HALF).cast()),
            )
        };
        left[0] = _mm512_mask_expand_epi16(left[0], FIRST_LANES, dc(dc_left));
        right[0] = _mm512_mask_expand_epi16(right[0], FIRST_LANES, dc(dc_right));
        for u in 0..COLUMNS {
            // SAFETY: eight factors are 128 bits.
            let factors = unsafe { _mm_loadu_si128(row.factors[u].as_ptr().cast()) };
            let factors = _mm512_broadcast_i32x4(factors);
            left[u] = _mm512_mullo_epi16(left[u], factors);
            right[u] = _mm512_mullo_epi16(right[u], factors);
        }
        let at = halfway.as_mut_ptr().cast::<__m512i>();
        let left = transpose(inverse::<COLUMNS>(left));
        let right = transpose(inverse::<COLUMNS>(right));
        for (v, vector) in left.into_iter().chain(right).enumerate() {
            // SAFETY: eight blocks are sixteen registers.
            unsafe { at.add(v).write(vector) };
        }
    }
}

/// Transforms along the vertical frequencies and stores samples.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn down<const ROWS: usize>(row: &Row<'_>, halfway: &[Halfway], samples: &mut [u8]) {
    let columns = row.scale.columns;
    // SAFETY: 64 bytes each.
    let upper = unsafe { _mm512_loadu_si512(GATHER[columns - 1].as_ptr().cast()) };
    let lower = _mm512_add_epi8(upper, _mm512_set1_epi8(8));
    let shift = _mm512_set1_epi16((1 << (FRACTION - 1)) + (128 << FRACTION));
    let last = |line| _mm512_srai_epi16::<{ FRACTION }>(_mm512_adds_epi16(line, shift));
    for (group, halfway) in halfway.as_chunks::<GROUP>().0.iter().enumerate() {
        let block = GROUP * group;
        if block >= row.blocks {
            break;
        }
        let at = halfway.as_ptr().cast::<__m512i>();
        // SAFETY: eight blocks are sixteen registers.
        let half = |first| std::array::from_fn(|v| unsafe { at.add(first + v).read() });
        let (left, right) = (inverse::<ROWS>(half(0)), inverse::<ROWS>(half(8)));
        for pair in 0..ROWS.div_ceil(2) {
            let y = 2 * pair;
            let pack = |half: &[__m512i; 8]| {
                let below = if y + 1 < ROWS { half[y + 1] } else { half[y] };
                _mm512_packus_epi16(last(half[y]), last(below))
            };
            let (left, right) = (pack(&left), pack(&right));
            // SAFETY: the stride has room for 64 bytes from the last group on. What a store writes beyond its group's
            // samples, the next group's overwrites or nobody reads.
            unsafe {
                let at = samples.as_mut_ptr().add(y * row.stride + block * columns);
                let line = _mm512_permutex2var_epi8(left, upper, right);
                _mm512_storeu_si512(at.cast(), line);
                if y + 1 < ROWS {
                    let line = _mm512_permutex2var_epi8(left, lower, right);
                    _mm512_storeu_si512(at.add(row.stride).cast(), line);
                }
            }
        }
    }
}

/// Adds the high bytes of a register's escapes; returns those of the blocks behind it.
#[cold]
#[target_feature(enable = "avx512f")]
fn apply<'a>(escapes: &'a [Escape], block: usize, vectors: &mut [__m512i; 8]) -> &'a [Escape] {
    let count = escapes.partition_point(|escape| (escape.block as usize) < block + HALF);
    for escape in &escapes[..count] {
        let (u, v) = (
            usize::from(escape.place >> 3),
            usize::from(escape.place & 7),
        );
        let lane = 8 * (escape.block as usize - block) + v;
        let mut lanes = [0i16; 32];
        // SAFETY: 32 16-bit lanes are 512 bits.
        unsafe {
            _mm512_storeu_si512(lanes.as_mut_ptr().cast(), vectors[u]);
            lanes[lane] = lanes[lane].wrapping_add(i16::from(escape.high) << 8);
            vectors[u] = _mm512_loadu_si512(lanes.as_ptr().cast());
        }
    }
    &escapes[count..]
}

/// One dimension of the inverse DCT, lane by lane; see [`crate::dct::idct::inverse`].
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn inverse<const LENGTH: usize>(x: [__m512i; 8]) -> [__m512i; 8] {
    let mut samples = [_mm512_setzero_si512(); 8];
    let weigh = |n: usize, u: usize| {
        _mm512_mulhrs_epi16(x[u], _mm512_set1_epi16(COSINES[LENGTH - 1][n][u]))
    };
    for n in 0..LENGTH.div_ceil(2) {
        let mut even = weigh(n, 0);
        for u in (2..LENGTH).step_by(2) {
            even = _mm512_adds_epi16(even, weigh(n, u));
        }
        if 2 * n + 1 == LENGTH {
            samples[n] = even;
            continue;
        }
        let mut odd = weigh(n, 1);
        for u in (3..LENGTH).step_by(2) {
            odd = _mm512_adds_epi16(odd, weigh(n, u));
        }
        samples[n] = _mm512_adds_epi16(even, odd);
        samples[LENGTH - 1 - n] = _mm512_subs_epi16(even, odd);
    }
    samples
}

/// Swaps rows and columns of each block's 8 × 8 numbers.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn transpose(r: [__m512i; 8]) -> [__m512i; 8] {
    let pair16 = |a, b| (_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
    let pair32 = |a, b| (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let pair64 = |a, b| (_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    let ((a0, a1), (b0, b1)) = (pair16(r[0], r[1]), pair16(r[2], r[3]));
    let ((c0, c1), (d0, d1)) = (pair16(r[4], r[5]), pair16(r[6], r[7]));
    let ((e0, e1), (e2, e3)) = (pair32(a0, b0), pair32(a1, b1));
    let ((f0, f1), (f2, f3)) = (pair32(c0, d0), pair32(c1, d1));
    let ((x0, x1), (x2, x3)) = (pair64(e0, f0), pair64(e1, f1));
    let ((x4, x5), (x6, x7)) = (pair64(e2, f2), pair64(e3, f3));
    [x0, x1, x2, x3, x4, x5, x6, x7]
}
