//! Rounds of rANS by AVX2: four vectors of eight lanes.

use std::arch::x86_64::*;
use std::array;

use super::decode::Done;
use super::encode::{ROOM, Uncodable};
use super::{LANES, LOWEST, ROUND_BYTES, SCALE_BITS, SLOTS, States};

/// For each set of lanes that take a word, as a mask: where in the next eight words each lane finds its own. Lanes that
/// take none get zero.
static SPREAD: [[u8; 16]; 256] = {
    let mut table = [[0x80; 16]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut word) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask][2 * lane] = 2 * word;
                table[mask][2 * lane + 1] = 2 * word + 1;
                word += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// For each set of lanes that give a word, as a mask: which lanes' words are the last ones of eight.
static GATHER: [[u8; 16]; 256] = {
    let mut table = [[0x80; 16]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut word) = (8, 8);
        while lane > 0 {
            lane -= 1;
            if mask >> lane & 1 == 1 {
                word -= 1;
                table[mask][2 * word] = 2 * lane as u8;
                table[mask][2 * word + 1] = 2 * lane as u8 + 1;
            }
        }
        mask += 1;
    }
    table
};

/// Decodes rounds until there are no more, or fewer than [`ROUND_BYTES`] of words.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) fn decode(
    states: &mut States,
    table: &[u32; SLOTS],
    rounds: &mut [[u8; LANES]],
    words: &[u8],
) -> Done {
    let slot_mask = _mm256_set1_epi32(SLOTS as i32 - 1);
    let byte_mask = _mm256_set1_epi32(0xff);
    let lowest = _mm256_set1_epi32(LOWEST as i32);
    let word_bits = _mm256_set1_epi32(16);
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let (parts, _) = states.0.as_chunks_mut::<8>();
    // SAFETY: reads eight lanes, which each part has.
    let mut x: [__m256i; 4] =
        array::from_fn(|v| unsafe { _mm256_loadu_si256(parts[v].as_ptr().cast()) });
    let mut used = 0;
    let mut done = 0;
    for round in rounds.iter_mut() {
        if words.len() - used < ROUND_BYTES {
            break;
        }
        let entries: [__m256i; 4] = array::from_fn(|v| {
            let slots = _mm256_and_si256(x[v], slot_mask);
            // SAFETY: the slots are masked to the table's length.
            unsafe { _mm256_i32gather_epi32::<4>(table.as_ptr().cast(), slots) }
        });
        for v in 0..4 {
            let frequency = _mm256_srli_epi32::<20>(entries[v]);
            let offset = _mm256_and_si256(_mm256_srli_epi32::<8>(entries[v]), slot_mask);
            let quotient = _mm256_srli_epi32::<{ SCALE_BITS as i32 }>(x[v]);
            let next = _mm256_add_epi32(_mm256_mullo_epi32(frequency, quotient), offset);
            let low = _mm256_cmpgt_epi32(lowest, next);
            let lanes = _mm256_movemask_ps(_mm256_castsi256_ps(low)) as usize;
            // SAFETY: each vector before this one took at most 16 bytes, and `ROUND_BYTES` were there.
            let eight = unsafe { _mm_loadu_si128(words.as_ptr().add(used).cast()) };
            // SAFETY: a mask of eight lanes is less than 256.
            let spread = unsafe { SPREAD.get_unchecked(lanes) };
            // SAFETY: reads the 16 bytes that an element has.
            let spread = unsafe { _mm_loadu_si128(spread.as_ptr().cast()) };
            let own = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(eight, spread));
            let shift = _mm256_and_si256(low, word_bits);
            x[v] = _mm256_or_si256(_mm256_sllv_epi32(next, shift), own);
            used += 2 * lanes.count_ones() as usize;
        }
        let symbols: [__m256i; 4] = array::from_fn(|v| _mm256_and_si256(entries[v], byte_mask));
        // Packing works within halves, so fours of symbols end up as 0 2 4 6 1 3 5 7.
        let packed = _mm256_packus_epi16(
            _mm256_packus_epi32(symbols[0], symbols[1]),
            _mm256_packus_epi32(symbols[2], symbols[3]),
        );
        let packed = _mm256_permutevar8x32_epi32(packed, order);
        // SAFETY: writes 32 bytes, which a round has.
        unsafe { _mm256_storeu_si256(round.as_mut_ptr().cast(), packed) };
        done += 1;
    }
    for v in 0..4 {
        // SAFETY: writes eight lanes, which each part has.
        unsafe { _mm256_storeu_si256(parts[v].as_mut_ptr().cast(), x[v]) };
    }
    Done { rounds: done, used }
}

/// Encodes rounds from the last to the first. Words are written to `words` from `at` downwards; returns where the first
/// one is.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) fn encode(
    states: &mut States,
    table: &[u32; 256],
    rounds: &[[u8; LANES]],
    words: &mut [u8],
    mut at: usize,
) -> Result<usize, Uncodable> {
    assert!(at <= words.len() && at >= ROOM + ROUND_BYTES * rounds.len());
    let frequency_mask = _mm256_set1_epi32(SLOTS as i32 - 1);
    let word_mask = _mm256_set1_epi32(0xffff);
    let word_bits = _mm256_set1_epi32(16);
    let (parts, _) = states.0.as_chunks_mut::<8>();
    // SAFETY: reads eight lanes, which each part has.
    let mut x: [__m256i; 4] =
        array::from_fn(|v| unsafe { _mm256_loadu_si256(parts[v].as_ptr().cast()) });
    let mut least = frequency_mask;
    for round in rounds.iter().rev() {
        let entries: [__m256i; 4] = array::from_fn(|v| {
            // SAFETY: reads 8 of the 32 bytes that a round has, from 8 * v on.
            let eight = unsafe { _mm_loadl_epi64(round.as_ptr().add(8 * v).cast()) };
            // SAFETY: bytes are less than 256, the table's length.
            unsafe {
                _mm256_i32gather_epi32::<4>(table.as_ptr().cast(), _mm256_cvtepu8_epi32(eight))
            }
        });
        let mut frequencies = entries;
        let mut full = entries;
        let mut low_words = entries;
        for v in 0..4 {
            let frequency = _mm256_srli_epi32::<12>(entries[v]);
            least = _mm256_min_epi32(least, frequency);
            frequencies[v] = frequency;
            // A state of this or more would not fit after the symbol. Frequencies are less than 2^12, so it is less
            // than 2^31.
            let limit = _mm256_slli_epi32::<{ 31 - SCALE_BITS as i32 }>(frequency);
            let fits = _mm256_cmpgt_epi32(limit, x[v]);
            full[v] = _mm256_xor_si256(fits, _mm256_set1_epi32(-1));
            low_words[v] = _mm256_and_si256(x[v], word_mask);
            x[v] = _mm256_srlv_epi32(x[v], _mm256_andnot_si256(fits, word_bits));
        }
        for pair in [1, 0] {
            let (a, b) = (2 * pair, 2 * pair + 1);
            let both = _mm256_packus_epi32(low_words[a], low_words[b]);
            let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(both);
            let halves = [
                _mm256_castsi256_si128(both),
                _mm256_extracti128_si256::<1>(both),
            ];
            for (v, half) in [(b, halves[1]), (a, halves[0])] {
                let lanes = _mm256_movemask_ps(_mm256_castsi256_ps(full[v])) as usize;
                // SAFETY: a mask of eight lanes is less than 256, and an element has the 16 bytes that are read.
                let gather =
                    unsafe { _mm_loadu_si128(GATHER.get_unchecked(lanes).as_ptr().cast()) };
                let gathered = _mm_shuffle_epi8(half, gather);
                // SAFETY: writes the 16 bytes before `at`. No lane gives more than one word, so with all rounds done
                // `at` has come down by no more than `ROUND_BYTES` each, and `ROOM` is left.
                unsafe { _mm_storeu_si128(words.as_mut_ptr().add(at - 16).cast(), gathered) };
                at -= 2 * lanes.count_ones() as usize;
            }
        }
        for v in 0..4 {
            let frequency = frequencies[v];
            let start = _mm256_and_si256(entries[v], frequency_mask);
            // The quotient is less than 2^19, the error of a rounded conversion and a rounded division is less than
            // 2^-23 of that: what is left after taking off 1/16 is never too large, and rounds down to the quotient or
            // one less.
            let ratio = _mm256_div_ps(_mm256_cvtepi32_ps(x[v]), _mm256_cvtepi32_ps(frequency));
            let ratio = _mm256_sub_ps(ratio, _mm256_set1_ps(1.0 / 16.0));
            let quotient = _mm256_cvttps_epi32(ratio);
            let rest = _mm256_sub_epi32(x[v], _mm256_mullo_epi32(quotient, frequency));
            let fits = _mm256_cmpgt_epi32(frequency, rest);
            let one_more = _mm256_sub_epi32(_mm256_set1_epi32(SLOTS as i32), frequency);
            let one_more = _mm256_andnot_si256(fits, one_more);
            x[v] = _mm256_add_epi32(
                _mm256_add_epi32(_mm256_slli_epi32::<{ SCALE_BITS as i32 }>(quotient), start),
                _mm256_add_epi32(rest, one_more),
            );
        }
    }
    for v in 0..4 {
        // SAFETY: writes eight lanes, which each part has.
        unsafe { _mm256_storeu_si256(parts[v].as_mut_ptr().cast(), x[v]) };
    }
    let none = _mm256_cmpeq_epi32(least, _mm256_setzero_si256());
    match _mm256_movemask_epi8(none) {
        0 => Ok(at),
        _ => Err(Uncodable),
    }
}
