//! From the symbols of segments to a run.

use super::{EncodeTable, LANES, LOWEST, SCALE_BITS, SLOTS, States};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::simd::Simd;

/// A segment has a symbol with a frequency of 0 in the segment's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a table lacks a symbol of its segment")]
pub struct Uncodable;

/// Vectors may write to this many bytes below the first word.
pub(super) const ROOM: usize = 64;

/// Writes runs; keep one per thread.
#[derive(Debug, Clone)]
pub struct Encoder {
    simd: Simd,
    /// Words of the run being encoded, from the end down: what is decoded first is encoded last.
    words: Vec<u8>,
}

impl Encoder {
    /// Encodes with the best instructions that this machine has, up to `simd`.
    pub fn new(simd: Simd) -> Encoder {
        Encoder {
            simd: simd.min(Simd::best()),
            words: Vec::new(),
        }
    }

    /// Appends the run of these segments to `out`. If one cannot be coded, `out` stays as it is.
    pub fn encode(
        &mut self,
        segments: &[(&EncodeTable, &[u8])],
        out: &mut Vec<u8>,
    ) -> Result<(), Uncodable> {
        // No symbol takes more than a word.
        let symbols: usize = segments.iter().map(|(_, symbols)| symbols.len()).sum();
        let most = ROOM + 2 * symbols;
        if self.words.len() < most {
            self.words.resize(most, 0);
        }
        let mut states = States([LOWEST; LANES]);
        let mut at = self.words.len();
        for (table, symbols) in segments.iter().rev() {
            let (rounds, rest) = symbols.as_chunks::<LANES>();
            at = scalar(&mut states, table, rest, &mut self.words, at)?;
            at = self.rounds(&mut states, table, rounds, at)?;
        }
        out.reserve(size_of::<States>() + self.words.len() - at);
        out.extend(states.0.iter().flat_map(|state| state.to_le_bytes()));
        out.extend_from_slice(&self.words[at..]);
        Ok(())
    }

    fn rounds(
        &mut self,
        states: &mut States,
        table: &EncodeTable,
        rounds: &[[u8; LANES]],
        at: usize,
    ) -> Result<usize, Uncodable> {
        match self.simd {
            // SAFETY: `new` saw to it that the machine has these instructions.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => unsafe {
                avx2::encode(states, &table.symbols, rounds, &mut self.words, at)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => unsafe {
                avx512::encode(states, &table.symbols, rounds, &mut self.words, at)
            },
            _ => scalar(states, table, rounds.as_flattened(), &mut self.words, at),
        }
    }
}

/// The definition: encodes from the last symbol to the first, writes words from `at` downwards, and returns where the
/// first one is.
fn scalar(
    states: &mut States,
    table: &EncodeTable,
    symbols: &[u8],
    words: &mut [u8],
    mut at: usize,
) -> Result<usize, Uncodable> {
    for round in symbols.chunks(LANES).rev() {
        for (state, symbol) in states.0.iter_mut().zip(round).rev() {
            let entry = table.symbols[usize::from(*symbol)];
            let (start, frequency) = (entry % SLOTS as u32, entry >> SCALE_BITS);
            if frequency == 0 {
                return Err(Uncodable);
            }
            // At this or more, the state after the symbol would be 2^31 or more.
            if *state >= frequency << (31 - SCALE_BITS) {
                at -= 2;
                words[at..at + 2].copy_from_slice(&(*state as u16).to_le_bytes());
                *state >>= 16;
            }
            *state = ((*state / frequency) << SCALE_BITS) + *state % frequency + start;
        }
    }
    Ok(at)
}
