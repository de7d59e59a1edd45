//! From a run back to the symbols of its segments.

use super::{Corrupt, DecodeTable, Done, LANES, LOWEST, ROUND_BYTES, SCALE_BITS, SLOTS, States};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::simd::Simd;

/// Reads a run segment by segment.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    simd: Simd,
    states: States,
    words: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Begins a run with the best instructions that this machine has, up to `simd`.
    ///
    /// # Errors
    /// If the run is too short for the states, has half a word, or a state is out of range.
    pub fn new(simd: Simd, run: &'a [u8]) -> Result<Decoder<'a>, Corrupt> {
        let (first, words) = run.split_at_checked(4 * LANES).ok_or(Corrupt)?;
        let (chunks, _) = first.as_chunks::<4>();
        let states = std::array::from_fn(|lane| u32::from_le_bytes(chunks[lane]));
        let in_range = |state: &u32| (LOWEST..LOWEST << 16).contains(state);
        if !states.iter().all(in_range) || words.len() % 2 != 0 {
            return Err(Corrupt);
        }
        Ok(Decoder {
            simd: simd.min(Simd::best()),
            states: States(states),
            words,
        })
    }

    /// Fills `out` with the next segment, which was coded with this table and has this length.
    ///
    /// # Errors
    /// If the run ends within the segment. What `out` and further segments then hold means nothing.
    pub fn next(&mut self, table: &DecodeTable, out: &mut [u8]) -> Result<(), Corrupt> {
        let out = match self.simd {
            Simd::Scalar => out,
            _ => self.whole_rounds(table, out)?,
        };
        self.scalar(table, out)
    }

    /// Checks that a run ended where its last segment did. Readers that leave segments out cannot check this.
    ///
    /// # Errors
    /// If words are left over, or a state is not what encoding began with.
    pub fn finish(self) -> Result<(), Corrupt> {
        if self.words.is_empty() && self.states.0 == [LOWEST; LANES] {
            Ok(())
        } else {
            Err(Corrupt)
        }
    }

    /// Returns the states, and how many bytes are left.
    #[cfg(test)]
    pub(super) fn place(&self) -> (States, usize) {
        (self.states, self.words.len())
    }

    /// Decodes symbol by symbol: the definition.
    fn scalar(&mut self, table: &DecodeTable, out: &mut [u8]) -> Result<(), Corrupt> {
        for round in out.chunks_mut(LANES) {
            for (state, symbol) in self.states.0.iter_mut().zip(round) {
                let entry = table.slots[*state as usize % SLOTS];
                *symbol = entry as u8;
                // States are less than 2^31, so the quotient is less than 2^19, and the offset is less than the
                // frequency: the result is less than 2^31 again. It is at least 8, as a quotient is.
                *state = (entry >> 20) * (*state >> SCALE_BITS) + (entry >> 8) % SLOTS as u32;
                if *state < LOWEST {
                    let (word, rest) = self.words.split_first_chunk::<2>().ok_or(Corrupt)?;
                    *state = *state << 16 | u32::from(u16::from_le_bytes(*word));
                    self.words = rest;
                }
            }
        }
        Ok(())
    }

    /// Decodes the whole rounds by vectors and returns what is left to fill.
    fn whole_rounds<'b>(
        &mut self,
        table: &DecodeTable,
        out: &'b mut [u8],
    ) -> Result<&'b mut [u8], Corrupt> {
        let (rounds, rest) = out.as_chunks_mut::<LANES>();
        let done = self.rounds(table, rounds, self.words);
        self.words = &self.words[done.used..];
        let rounds = &mut rounds[done.rounds..];
        if !rounds.is_empty() {
            // Vectors read the most words that a round can need. So the run's last words are read from a copy with as
            // many zeros behind it. A round that needs one of the zeros has come to the end of the run too early.
            let mut copy = [0; 2 * ROUND_BYTES];
            copy[..self.words.len()].copy_from_slice(self.words);
            let done = self.rounds(table, rounds, &copy);
            if done.rounds < rounds.len() {
                return Err(Corrupt);
            }
            self.words = self.words.get(done.used..).ok_or(Corrupt)?;
        }
        Ok(rest)
    }

    fn rounds(&mut self, table: &DecodeTable, rounds: &mut [[u8; LANES]], words: &[u8]) -> Done {
        match self.simd {
            // SAFETY: `new` chose a family that the machine has.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => unsafe { avx2::decode(&mut self.states, &table.slots, rounds, words) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => unsafe {
                avx512::decode(&mut self.states, &table.slots, rounds, words)
            },
            _ => unreachable!("there are no vectors"),
        }
    }
}
