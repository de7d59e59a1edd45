//! Rounds of rANS by AVX-512: four vectors of sixteen lanes.

use std::arch::x86_64::*;
use std::array;

use super::{Done, LANES, LOWEST, ROOM, ROUND_BYTES, SCALE_BITS, SLOTS, States, Uncodable};

/// How many vectors make a round.
const VECTORS: usize = LANES / 16;

/// Decodes rounds until there are no more, or fewer than [`ROUND_BYTES`] of words.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt"
)]
pub(super) fn decode(
    states: &mut States,
    table: &[u32; SLOTS],
    rounds: &mut [[u8; LANES]],
    words: &[u8],
) -> Done {
    let slot_mask = _mm512_set1_epi32(SLOTS as i32 - 1);
    let lowest = _mm512_set1_epi32(LOWEST as i32);
    let mut x = load(states);
    let look_up = |x: __m512i| {
        let slots = _mm512_and_si512(x, slot_mask);
        // SAFETY: the slots are masked to the table's length.
        unsafe { _mm512_i32gather_epi32::<4>(slots, table.as_ptr().cast()) }
    };
    let mut entries: [__m512i; VECTORS] = array::from_fn(|v| look_up(x[v]));
    let mut used = 0;
    let mut done = 0;
    for round in rounds.iter_mut() {
        if words.len() - used < ROUND_BYTES {
            break;
        }
        for v in 0..VECTORS {
            let entry = entries[v];
            let frequency = _mm512_srli_epi32::<20>(entry);
            let offset = _mm512_and_si512(_mm512_srli_epi32::<8>(entry), slot_mask);
            let quotient = _mm512_srli_epi32::<SCALE_BITS>(x[v]);
            let next = _mm512_add_epi32(_mm512_mullo_epi32(frequency, quotient), offset);
            let lanes = _mm512_cmplt_epu32_mask(next, lowest);
            // SAFETY: each vector before this one took at most 32 bytes, and `ROUND_BYTES` were there.
            let sixteen = unsafe { _mm256_loadu_si256(words.as_ptr().add(used).cast()) };
            let own = _mm512_maskz_expand_epi32(lanes, _mm512_cvtepu16_epi32(sixteen));
            x[v] = _mm512_or_si512(_mm512_mask_slli_epi32::<16>(next, lanes, next), own);
            // For the next round, as early as can be: this is what takes longest.
            entries[v] = look_up(x[v]);
            used += 2 * lanes.count_ones() as usize;
            let symbols = _mm512_cvtepi32_epi8(entry);
            // SAFETY: writes 16 of the symbols that a round has, from `16 * v` on.
            unsafe { _mm_storeu_si128(round.as_mut_ptr().add(16 * v).cast(), symbols) };
        }
        done += 1;
    }
    store(states, x);
    Done { rounds: done, used }
}

/// Encodes rounds from the last to the first. Words are written to `words` from `at` downwards; returns where the first
/// one is.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt"
)]
pub(super) fn encode(
    states: &mut States,
    table: &[u32; 256],
    rounds: &[[u8; LANES]],
    words: &mut [u8],
    mut at: usize,
) -> Result<usize, Uncodable> {
    assert!(at <= words.len() && at >= ROOM + ROUND_BYTES * rounds.len());
    const DOWN: i32 = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
    let slot_mask = _mm512_set1_epi32(SLOTS as i32 - 1);
    let mut x = load(states);
    let mut least = slot_mask;
    for round in rounds.iter().rev() {
        for v in (0..VECTORS).rev() {
            // SAFETY: reads 16 of the symbols that a round has, from `16 * v` on.
            let symbols = unsafe { _mm_loadu_si128(round.as_ptr().add(16 * v).cast()) };
            let symbols = _mm512_cvtepu8_epi32(symbols);
            // SAFETY: bytes are less than 256, the table's length.
            let entries = unsafe { _mm512_i32gather_epi32::<4>(symbols, table.as_ptr().cast()) };
            let start = _mm512_and_si512(entries, slot_mask);
            let frequency = _mm512_srli_epi32::<SCALE_BITS>(entries);
            least = _mm512_min_epi32(least, frequency);
            // At this or more, the state after the symbol would be 2^31 or more.
            let limit = _mm512_slli_epi32::<{ 31 - SCALE_BITS }>(frequency);
            let full = _mm512_cmpge_epu32_mask(x[v], limit);
            let low = _mm512_cvtepi32_epi16(x[v]);
            let given = full.count_ones();
            at -= 2 * given as usize;
            // SAFETY: writes to `words` the words that were just counted, at most one for each symbol of all rounds.
            unsafe {
                _mm256_mask_storeu_epi16(
                    words.as_mut_ptr().add(at).cast(),
                    _bzhi_u32(0xffff, given) as u16,
                    _mm256_maskz_compress_epi16(full, low),
                );
            }
            let state = _mm512_mask_srli_epi32::<16>(x[v], full, x[v]);
            // Conversion and division round down by less than 2^-22 together, and the quotient is less than 2^19, so
            // it comes out right or one too small.
            let ratio = _mm512_div_round_ps::<DOWN>(
                _mm512_cvt_roundepi32_ps::<DOWN>(state),
                _mm512_cvt_roundepi32_ps::<DOWN>(frequency),
            );
            let quotient = _mm512_cvttps_epi32(ratio);
            let rest = _mm512_sub_epi32(state, _mm512_mullo_epi32(quotient, frequency));
            let one_more = _mm512_sub_epi32(_mm512_set1_epi32(SLOTS as i32), frequency);
            let small = _mm512_cmpge_epu32_mask(rest, frequency);
            let rest = _mm512_mask_add_epi32(rest, small, rest, one_more);
            let high = _mm512_add_epi32(_mm512_slli_epi32::<SCALE_BITS>(quotient), start);
            x[v] = _mm512_add_epi32(high, rest);
        }
    }
    store(states, x);
    if _mm512_testn_epi32_mask(least, least) == 0 {
        Ok(at)
    } else {
        Err(Uncodable)
    }
}

#[target_feature(enable = "avx512f")]
fn load(states: &States) -> [__m512i; VECTORS] {
    let (parts, _) = states.0.as_chunks::<16>();
    // SAFETY: reads sixteen lanes, which each part has.
    array::from_fn(|v| unsafe { _mm512_loadu_si512(parts[v].as_ptr().cast()) })
}

#[target_feature(enable = "avx512f")]
fn store(states: &mut States, x: [__m512i; VECTORS]) {
    let (parts, _) = states.0.as_chunks_mut::<16>();
    for (part, x) in parts.iter_mut().zip(x) {
        // SAFETY: writes sixteen lanes, which each part has.
        unsafe { _mm512_storeu_si512(part.as_mut_ptr().cast(), x) };
    }
}
