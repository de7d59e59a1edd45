//! A row of blocks with AVX-512: eight blocks at a time, four in each of two registers.

use std::arch::x86_64::{
    __m512i as Vector, _mm512_adds_epi16 as adds, _mm512_loadu_si512 as load,
    _mm512_mulhrs_epi16 as mulhrs, _mm512_set1_epi16 as splat, _mm512_setzero_si512 as zero,
    _mm512_storeu_si512 as store, _mm512_subs_epi16 as subs, *,
};

use super::row::{Escape, GROUP, Halfway, Row};
use super::shared::shared;
use crate::dct::idct::{COSINES, FRACTION};
use crate::dct::transpose::transpose;

shared!("avx512f,avx512bw");
transpose!(
    Vector,
    "avx512f,avx512bw",
    _mm512_unpacklo_epi16 _mm512_unpackhi_epi16
    _mm512_unpacklo_epi32 _mm512_unpackhi_epi32
    _mm512_unpacklo_epi64 _mm512_unpackhi_epi64
);

/// The first of each block's lanes.
const FIRST_LANES: u32 = 0x0101_0101;

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

/// Unpacks, dequantizes and transforms along the horizontal frequencies. Leaves groups of blocks as two times eight
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
            escapes = apply(escapes, block + BLOCKS, &mut right);
        }
        let dc = |half| _mm512_castsi128_si512(half);
        // SAFETY: eight DCs, half of them each.
        let (dc_left, dc_right) = unsafe {
            let at = row.dc[block..block + GROUP].as_ptr();
            (
                _mm_loadu_si64(at.cast()),
                _mm_loadu_si64(at.add(BLOCKS).cast()),
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
