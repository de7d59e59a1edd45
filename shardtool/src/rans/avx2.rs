//! Rounds of rANS by AVX2: eight vectors of eight lanes.

use std::arch::x86_64::*;

use super::{Done, LANES, LOWEST, ROOM, ROUND_BYTES, SCALE_BITS, SLOTS, States, Uncodable};

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

/// How many fours of vectors make a round. Four at a time leave registers free.
const FOURS: usize = LANES / 32;

/// States, or what is looked up for them, of one of the [`FOURS`].
type Four = [__m256i; 4];

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
    let mut fours = load(states);
    let mut looked_up = fours;
    for (entries, x) in looked_up.iter_mut().zip(&fours) {
        look_up(table, x, entries);
    }
    let mut used = 0;
    let mut done = 0;
    for round in rounds.iter_mut() {
        if words.len() - used < ROUND_BYTES {
            break;
        }
        let (parts, _) = round.as_chunks_mut::<32>();
        for ((entries, x), part) in looked_up.iter_mut().zip(&mut fours).zip(parts) {
            let mut symbols = *entries;
            for ((symbol, x), entry) in symbols.iter_mut().zip(x.iter_mut()).zip(*entries) {
                *symbol = _mm256_and_si256(entry, byte_mask);
                let frequency = _mm256_srli_epi32::<20>(entry);
                let offset = _mm256_and_si256(_mm256_srli_epi32::<8>(entry), slot_mask);
                let quotient = _mm256_srli_epi32::<{ SCALE_BITS as i32 }>(*x);
                let next = _mm256_add_epi32(_mm256_mullo_epi32(frequency, quotient), offset);
                let low = _mm256_cmpgt_epi32(lowest, next);
                let lanes = _mm256_movemask_ps(_mm256_castsi256_ps(low)) as usize;
                // SAFETY: each vector before this one took at most 16 bytes, and `ROUND_BYTES` were there.
                let eight = unsafe { _mm_loadu_si128(words.as_ptr().add(used).cast()) };
                // SAFETY: a mask of eight lanes is less than 256, and an element has the 16 bytes that are read.
                let spread =
                    unsafe { _mm_loadu_si128(SPREAD.get_unchecked(lanes).as_ptr().cast()) };
                let own = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(eight, spread));
                let shift = _mm256_and_si256(low, word_bits);
                *x = _mm256_or_si256(_mm256_sllv_epi32(next, shift), own);
                used += 2 * lanes.count_ones() as usize;
            }
            // Packing works within halves, so fours of symbols end up as 0 2 4 6 1 3 5 7.
            let packed = _mm256_packus_epi16(
                _mm256_packus_epi32(symbols[0], symbols[1]),
                _mm256_packus_epi32(symbols[2], symbols[3]),
            );
            let packed = _mm256_permutevar8x32_epi32(packed, order);
            // SAFETY: writes the 32 bytes that a part has.
            unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), packed) };
            // Already for the next round: the other lanes have their turn while these entries are fetched.
            look_up(table, x, entries);
        }
        done += 1;
    }
    store(states, fours);
    Done { rounds: done, used }
}

/// Gathers the table's entries for the slots that four vectors of states are at.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(table: &[u32; SLOTS], x: &Four, entries: &mut Four) {
    let slot_mask = _mm256_set1_epi32(SLOTS as i32 - 1);
    for (entry, x) in entries.iter_mut().zip(x) {
        let slots = _mm256_and_si256(*x, slot_mask);
        // SAFETY: the slots are masked to the table's length.
        *entry = unsafe { _mm256_i32gather_epi32::<4>(table.as_ptr().cast(), slots) };
    }
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
    let slot_mask = _mm256_set1_epi32(SLOTS as i32 - 1);
    let word_bits = _mm256_set1_epi32(16);
    // In each half, the lower words of four lanes.
    let low_words = _mm256_setr_epi64x(0x0d0c_0908_0504_0100, -1, 0x0d0c_0908_0504_0100, -1);
    let mut fours = load(states);
    let mut least = slot_mask;
    for round in rounds.iter().rev() {
        let (parts, _) = round.as_chunks::<32>();
        for (x, part) in fours.iter_mut().zip(parts).rev() {
            let (mut starts, mut frequencies) = (*x, *x);
            for v in (0..4).rev() {
                // SAFETY: reads 8 of the 32 symbols that a part has, from `8 * v` on.
                let symbols = unsafe { _mm_loadl_epi64(part.as_ptr().add(8 * v).cast()) };
                let symbols = _mm256_cvtepu8_epi32(symbols);
                // SAFETY: bytes are less than 256, the table's length.
                let entry = unsafe { _mm256_i32gather_epi32::<4>(table.as_ptr().cast(), symbols) };
                let frequency = _mm256_srli_epi32::<{ SCALE_BITS as i32 }>(entry);
                starts[v] = _mm256_and_si256(entry, slot_mask);
                frequencies[v] = frequency;
                least = _mm256_min_epi32(least, frequency);
                // At this or more, the state after the symbol would be 2^31 or more. Frequencies are less than 2^12, so
                // it is less than 2^31 itself.
                let limit = _mm256_slli_epi32::<{ 31 - SCALE_BITS as i32 }>(frequency);
                let fits = _mm256_cmpgt_epi32(limit, x[v]);
                let lanes = !_mm256_movemask_ps(_mm256_castsi256_ps(fits)) as usize & 0xff;
                let low = _mm256_shuffle_epi8(x[v], low_words);
                let low = _mm256_permute4x64_epi64::<0b10_00>(low);
                // SAFETY: a mask of eight lanes is less than 256, and an element has the 16 bytes that are read.
                let gather =
                    unsafe { _mm_loadu_si128(GATHER.get_unchecked(lanes).as_ptr().cast()) };
                let given = _mm_shuffle_epi8(_mm256_castsi256_si128(low), gather);
                // SAFETY: writes the 16 bytes before `at`. No symbol gives more than one word, so with all rounds done
                // `at` has come down by no more than `ROUND_BYTES` each, and `ROOM` is left.
                unsafe { _mm_storeu_si128(words.as_mut_ptr().add(at - 16).cast(), given) };
                at -= 2 * lanes.count_ones() as usize;
                x[v] = _mm256_srlv_epi32(x[v], _mm256_andnot_si256(fits, word_bits));
            }
            for ((x, start), frequency) in x.iter_mut().zip(starts).zip(frequencies) {
                // The quotient is less than 2^19, and a rounded conversion and a rounded division are off by less than
                // 2^-22 of that: with 1/16 taken off, the ratio is never too large, and it is cut to the quotient or
                // one less.
                let ratio = _mm256_div_ps(_mm256_cvtepi32_ps(*x), _mm256_cvtepi32_ps(frequency));
                let ratio = _mm256_sub_ps(ratio, _mm256_set1_ps(1.0 / 16.0));
                let quotient = _mm256_cvttps_epi32(ratio);
                let rest = _mm256_sub_epi32(*x, _mm256_mullo_epi32(quotient, frequency));
                let right = _mm256_cmpgt_epi32(frequency, rest);
                let one_more = _mm256_sub_epi32(_mm256_set1_epi32(SLOTS as i32), frequency);
                *x = _mm256_add_epi32(
                    _mm256_add_epi32(_mm256_slli_epi32::<{ SCALE_BITS as i32 }>(quotient), start),
                    _mm256_add_epi32(rest, _mm256_andnot_si256(right, one_more)),
                );
            }
        }
    }
    store(states, fours);
    let lacking = _mm256_cmpeq_epi32(least, _mm256_setzero_si256());
    if _mm256_movemask_epi8(lacking) == 0 {
        Ok(at)
    } else {
        Err(Uncodable)
    }
}

#[target_feature(enable = "avx2")]
fn load(states: &States) -> [Four; FOURS] {
    let mut fours = [[_mm256_setzero_si256(); 4]; FOURS];
    let (parts, _) = states.0.as_chunks::<8>();
    for (x, part) in fours.as_flattened_mut().iter_mut().zip(parts) {
        // SAFETY: reads the eight lanes that a part has.
        *x = unsafe { _mm256_loadu_si256(part.as_ptr().cast()) };
    }
    fours
}

#[target_feature(enable = "avx2")]
fn store(states: &mut States, fours: [Four; FOURS]) {
    let (parts, _) = states.0.as_chunks_mut::<8>();
    for (x, part) in fours.as_flattened().iter().zip(parts) {
        // SAFETY: writes the eight lanes that a part has.
        unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), *x) };
    }
}
