//! From the symbols of segments to a run.

use super::{EncodeTable, LANES, LOWEST, ROOM, SCALE_BITS, SLOTS, States, Uncodable};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::simd::Simd;

/// Writes runs; keep one per thread.
#[derive(Debug, Clone)]
pub struct Encoder {
    simd: Simd,
    /// Words of the run being encoded, from the end down: what is decoded first is encoded last.
    words: Vec<u8>,
}

impl Encoder {
    /// Returns an encoder that uses the best instructions of this machine, up to `simd`.
    pub fn new(simd: Simd) -> Encoder {
        Encoder {
            simd: simd.min(Simd::best()),
            words: Vec::new(),
        }
    }

    /// Appends the run of these segments to `out`.
    ///
    /// # Errors
    /// If a segment has a symbol that its table lacks; `out` then stays as it is.
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
            // SAFETY: `new` chose a family that the machine has.
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

/// Encodes symbol by symbol, from the last to the first: the definition. Writes words from `at` downwards and returns
/// where the first one is.
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
