//! Random numbers by counter: every draw is a pure function of (seed, purpose, attempt, step, position, index).
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). It has no
//! state to save or to share, so any worker can draw for any image of any step, in any order, and two purposes never
//! see the same numbers. A [`Stream`] fixes (seed, purpose, attempt) by deriving a key with one Philox block; within it
//! the 128-bit counter holds step (64 bits), position (32) and the index of the block of four words (32).
//!
//! The numbers are a contract: checkpoints resume on them, and the tests freeze them.

/// What a draw is for. The numbers are part of the contract: never reuse or renumber one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Round keys of an epoch's permutation.
    Order = 1,
    /// The crop box.
    Crop = 2,
    /// The mirroring of a crop.
    Flip = 3,
    /// Block sizes of the `unbiased` masks; those of the `released` law come from the official generator.
    BlockSize = 4,
    /// Block positions.
    BlockPosition = 5,
    /// Which patches of a context survive truncation, in the `unbiased` law.
    Truncation = 6,
    /// The sample that replaces a damaged one.
    Replacement = 7,
    /// Changes of a crop's colours.
    Colour = 8,
    /// Blur of a crop.
    Blur = 9,
    /// The trainer's stochastic positions of hidden patches.
    Positions = 10,
    /// The trainer's directions in which features are compared with a normal distribution.
    Directions = 11,
}

/// All draws of one purpose under one seed.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// Makes the stream of `purpose` under `seed`; `attempt` tells apart repeated tries, as for replacements.
    pub fn new(seed: u64, purpose: Purpose, attempt: u32) -> Stream {
        let block = philox([purpose as u32, attempt, 0, 0], halves(seed));
        Stream {
            key: [block[0], block[1]],
        }
    }

    /// Returns the draws that belong to one position of one step.
    pub fn at(&self, step: u64, position: u32) -> Draws {
        let [low, high] = halves(step);
        Draws {
            key: self.key,
            counter: [0, position, low, high],
            block: [0; 4],
            used: 4,
        }
    }
}

/// A sequence of draws, in order.
#[derive(Clone, Debug)]
pub struct Draws {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Draws {
    /// Returns the next 32 random bits.
    pub fn bits32(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.counter, self.key);
            // Wrapping would take 16 billion draws for one image.
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Returns the next 64 random bits, low half first.
    pub fn bits64(&mut self) -> u64 {
        let low = u64::from(self.bits32());
        low | u64::from(self.bits32()) << 32
    }

    /// Returns a uniform number in [0, 1), a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.bits64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Returns a uniform number in [low, high), rounded to the nearest f64.
    pub fn uniform_in(&mut self, [low, high]: [f64; 2]) -> f64 {
        low + self.uniform() * (high - low)
    }

    /// Returns a uniform integer below `bound`, without bias (Lemire 2019: multiply, reject the few that would tilt
    /// it).
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "no integer lies below 0");
        let mut product = u64::from(self.bits32()) * u64::from(bound);
        if (product as u32) < bound {
            let tilt = bound.wrapping_neg() % bound;
            while (product as u32) < tilt {
                product = u64::from(self.bits32()) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }

    /// Returns a uniform 64-bit integer below `bound`, as [`below`](Draws::below) does for 32 bits.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below64(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no integer lies below 0");
        let mut product = u128::from(self.bits64()) * u128::from(bound);
        if (product as u64) < bound {
            let tilt = bound.wrapping_neg() % bound;
            while (product as u64) < tilt {
                product = u128::from(self.bits64()) * u128::from(bound);
            }
        }
        (product >> 64) as u64
    }
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// Returns a block of Philox4x32 with ten rounds: a keyed bijection of 128 bits.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for round in 0..10 {
        if round > 0 {
            key = [
                key[0].wrapping_add(KEY_STEPS[0]),
                key[1].wrapping_add(KEY_STEPS[1]),
            ];
        }
        let [low0, high0] = halves(u64::from(MULTIPLIERS[0]) * u64::from(counter[0]));
        let [low1, high1] = halves(u64::from(MULTIPLIERS[1]) * u64::from(counter[2]));
        counter = [
            high1 ^ counter[1] ^ key[0],
            low1,
            high0 ^ counter[3] ^ key[1],
            low0,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with the Random123 library (file kat_vectors, philox4x32 10).
    #[test]
    fn philox_matches_the_published_answers() {
        let cases: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, answer) in cases {
            assert_eq!(philox(counter, key), answer);
        }
    }

    #[test]
    fn draws_depend_on_every_part_of_the_key() {
        let first = |seed, purpose, attempt, step, position| {
            Stream::new(seed, purpose, attempt)
                .at(step, position)
                .bits64()
        };
        let base = first(1, Purpose::Crop, 0, 2, 3);
        assert_eq!(base, first(1, Purpose::Crop, 0, 2, 3));
        let others = [
            first(2, Purpose::Crop, 0, 2, 3),
            first(1 << 32, Purpose::Crop, 0, 2, 3),
            first(1, Purpose::Flip, 0, 2, 3),
            first(1, Purpose::Crop, 1, 2, 3),
            first(1, Purpose::Crop, 0, 3, 3),
            first(1, Purpose::Crop, 0, 2 | 1 << 32, 3),
            first(1, Purpose::Crop, 0, 2, 4),
        ];
        assert!(!others.contains(&base));
    }

    #[test]
    fn uniform_numbers_fill_the_unit_interval_evenly() {
        let mut draws = Stream::new(5, Purpose::Crop, 0).at(0, 0);
        let mut cells = [0u32; 64];
        const DRAWS: usize = 640_000;
        for _ in 0..DRAWS {
            let value = draws.uniform();
            assert!((0.0..1.0).contains(&value));
            cells[(value * 64.0) as usize] += 1;
        }
        assert!(chi_square(&cells, DRAWS) < 120.0); // 63 degrees of freedom: 0.0002 lies beyond 113
    }

    #[test]
    fn bounded_integers_are_even_also_near_the_worst_bound() {
        // Just above 2^31 nearly half of the raw draws must be rejected; without that the low half would be doubled.
        let bound = (1u32 << 31) + (1 << 30);
        let mut draws = Stream::new(5, Purpose::Order, 0).at(0, 0);
        let mut cells = [0u32; 3];
        for _ in 0..300_000 {
            cells[(draws.below(bound) >> 30) as usize] += 1;
        }
        assert!(chi_square(&cells, 300_000) < 18.0, "{cells:?}");
        let mut cells = [0u32; 7];
        for _ in 0..70_000 {
            cells[draws.below64(7) as usize] += 1;
        }
        assert!(chi_square(&cells, 70_000) < 30.0, "{cells:?}");
        assert_eq!(draws.below(1), 0);
    }

    #[test]
    fn the_streams_are_frozen() {
        let mut draws =
            Stream::new(0x0123_4567_89ab_cdef, Purpose::BlockPosition, 2).at(1 << 40, 77);
        let seen = [draws.bits64(), draws.bits64(), draws.bits64()];
        assert_eq!(
            seen,
            [
                0x61f9_d7c8_62d7_3f2f,
                0xf311_5452_8fce_1df2,
                0xcc01_c8c6_8489_a1ff
            ],
            "{seen:#x?}"
        );
        assert_eq!((draws.below(1000), draws.below64(1000)), (253, 437));
    }

    fn chi_square(cells: &[u32], draws: usize) -> f64 {
        let expected = draws as f64 / cells.len() as f64;
        cells
            .iter()
            .map(|&seen| (f64::from(seen) - expected).powi(2) / expected)
            .sum()
    }
}
