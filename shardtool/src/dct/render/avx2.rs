//! A row of blocks with AVX2: two blocks at a time, one in each half of a register.

use std::arch::x86_64::{
    __m256i as Vector, _mm256_adds_epi16 as adds, _mm256_loadu_si256 as load,
    _mm256_mulhrs_epi16 as mulhrs, _mm256_set1_epi16 as splat, _mm256_setzero_si256 as zero,
    _mm256_storeu_si256 as store, _mm256_subs_epi16 as subs, *,
};

use super::row::{Escape, GROUP, Halfway, Row};
use super::shared::shared;
use crate::dct::idct::{COSINES, FRACTION};
use crate::dct::transpose::transpose;

shared!("avx2");
transpose!(
    Vector,
    "avx2",
    _mm256_unpacklo_epi16 _mm256_unpackhi_epi16
    _mm256_unpacklo_epi32 _mm256_unpackhi_epi32
    _mm256_unpacklo_epi64 _mm256_unpackhi_epi64
);

/// Counts set bits, eight bytes at a time.
#[target_feature(enable = "popcnt")]
pub(super) fn ones(masks: &[u8]) -> usize {
    super::count_ones(masks)
}

/// Where the values of a mask's bits lie: for each bit the number of bits below it. For a bit that is not set it is
/// 128, which makes a shuffle give 0.
static PLACES: [u64; 256] = {
    let mut places = [0; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut bytes = [128; 8];
        let (mut bit, mut place) = (0, 0);
        while bit < 8 {
            if mask >> bit & 1 == 1 {
                bytes[bit] = place;
                place += 1;
            }
            bit += 1;
        }
        places[mask] = u64::from_le_bytes(bytes);
        mask += 1;
    }
    places
};

/// Unpacks, dequantizes and transforms along the horizontal frequencies. Leaves pairs of blocks as eight registers, one
/// for each vertical frequency.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn across<const COLUMNS: usize>(row: &Row<'_>, halfway: &mut [Halfway]) {
    let mut values: [*const u8; 8] = row.values.map(<[u8]>::as_ptr);
    let mut escapes = row.escapes;
    for (pair, halfway) in halfway.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let block = 2 * pair;
        if block >= row.blocks {
            break;
        }
        let mut vectors = [_mm256_setzero_si256(); 8];
        for (u, vector) in vectors.iter_mut().enumerate().take(COLUMNS) {
            // SAFETY: the row's invariant: a mask for each block of the group and beyond, and slack behind the values
            // of which the group takes at most 16.
            *vector = unsafe {
                let masks = row.masks[u]
                    .as_ptr()
                    .add(block)
                    .cast::<u16>()
                    .read_unaligned();
                let first = PLACES[usize::from(masks & 255)];
                let second = PLACES[usize::from(masks >> 8)];
                let ahead = (masks & 255).count_ones();
                let places = _mm_set_epi64x(
                    (second + 0x0101_0101_0101_0101 * u64::from(ahead)) as i64,
                    first as i64,
                );
                let packed = _mm_loadu_si128(values[u].cast());
                values[u] = values[u].add(masks.count_ones() as usize);
                _mm256_cvtepi8_epi16(_mm_shuffle_epi8(packed, places))
            };
        }
        if let Some(escape) = escapes.first()
            && (escape.block as usize) < block + 2
        {
            escapes = apply(escapes, block, &mut vectors);
        }
        let dc = |at: usize| _mm_cvtsi32_si128(i32::from(row.dc[block + at]));
        let dc = _mm256_set_m128i(dc(1), dc(0));
        vectors[0] = _mm256_blend_epi16::<1>(vectors[0], dc);
        for (vector, factors) in vectors.iter_mut().zip(row.factors).take(COLUMNS) {
            // SAFETY: eight factors are 128 bits.
            let factors = unsafe { _mm_loadu_si128(factors.as_ptr().cast()) };
            *vector = _mm256_mullo_epi16(*vector, _mm256_broadcastsi128_si256(factors));
        }
        let at = halfway.as_mut_ptr().cast::<__m256i>();
        for (v, vector) in transpose(inverse::<COLUMNS>(vectors))
            .into_iter()
            .enumerate()
        {
            // SAFETY: two blocks are eight registers.
            unsafe { at.add(v).write(vector) };
        }
    }
}

/// Transforms along the vertical frequencies and stores samples.
#[target_feature(enable = "avx2")]
fn down<const ROWS: usize>(row: &Row<'_>, halfway: &[Halfway], samples: &mut [u8]) {
    let columns = row.scale.columns;
    let shift = _mm256_set1_epi16((1 << (FRACTION - 1)) + (128 << FRACTION));
    let last = |line| _mm256_srai_epi16::<{ FRACTION as i32 }>(_mm256_adds_epi16(line, shift));
    for (pair, halfway) in halfway.as_chunks::<2>().0.iter().enumerate() {
        let block = 2 * pair;
        if block >= row.blocks {
            break;
        }
        let at = halfway.as_ptr().cast::<__m256i>();
        // SAFETY: two blocks are eight registers.
        let lines = inverse::<ROWS>(std::array::from_fn(|v| unsafe { at.add(v).read() }));
        for pair in 0..ROWS.div_ceil(2) {
            let y = 2 * pair;
            let below = if y + 1 < ROWS { lines[y + 1] } else { lines[y] };
            let bytes = _mm256_packus_epi16(last(lines[y]), last(below));
            let (left, right) = (
                _mm256_castsi256_si128(bytes),
                _mm256_extracti128_si256::<1>(bytes),
            );
            // SAFETY: the stride has room for eight bytes from the last block of the group on. What a store writes
            // beyond its block's samples, the next block's overwrites or nobody reads.
            unsafe {
                let at = samples.as_mut_ptr().add(y * row.stride + block * columns);
                _mm_storel_epi64(at.cast(), left);
                _mm_storel_epi64(at.add(columns).cast(), right);
                if y + 1 < ROWS {
                    let at = at.add(row.stride);
                    _mm_storeh_pd(at.cast(), _mm_castsi128_pd(left));
                    _mm_storeh_pd(at.add(columns).cast(), _mm_castsi128_pd(right));
                }
            }
        }
    }
}
