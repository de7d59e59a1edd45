//! Taps across, laid out for byte shuffles.
//!
//! Eight neighbouring outputs, a *lane*, read neighbouring samples, so one 16-byte load and a shuffle bring every
//! output its samples. Which shuffle pays depends on how far apart the outputs lie.

use super::taps::{BLOCK, Taps, WEIGHT_BITS};

/// Outputs in a lane.
const LANE: usize = 8;
/// Bytes in a window.
const WINDOW: usize = 16;
/// Weights of short lists are multiples of 2⁻⁸, so that they fit into bytes.
const BYTE_SHIFT: u32 = WEIGHT_BITS - 8;

/// How taps are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// A window brings two taps to each of 8 outputs; there are `pairs` of them, each 2 samples further right. Where
    /// `shared`, the first window holds them all.
    Pairs {
        /// One or two.
        pairs: usize,
        /// True if one load is enough.
        shared: bool,
    },
    /// A window of 64 bytes brings all taps to each of 32 outputs.
    Wide {
        /// Pairs of taps, one or two.
        pairs: usize,
    },
    /// A window brings four taps to each of 4 outputs; a second one, 4 samples further right, the other four. Where
    /// `shared`, the first window holds them all.
    Quads {
        /// True if one load is enough.
        shared: bool,
    },
    /// A window brings 16 taps to one output; there are this many, each 16 samples further right.
    #[default]
    Dots,
}

/// The layout and its tables.
#[derive(Default)]
pub struct Windows {
    /// Which tables are in use, and how.
    pub layout: Layout,
    /// Where each window begins: one per lane for pairs, two for quads, eight for dots, one per four lanes if wide.
    pub bases: Vec<u32>,
    /// The shuffle of each window, 16 bytes; none for dots.
    pub shuffles: Vec<u8>,
    /// Byte weights in the order they are used: two lanes make a vector.
    pub weights: Vec<u8>,
    /// Weights of dots, for each output as many as its windows have samples.
    pub wide: Vec<i16>,
    /// Windows that an output's dots need.
    pub dots: usize,
    /// Samples that a row must have for every load to lie inside.
    pub reach: usize,
}

impl Windows {
    /// Lays out taps. `order` says which lane of four comes where, because packing instructions mix them. `wide` says
    /// that bytes can be shuffled across 64 of them; the order must then be the natural one.
    pub fn prepare(&mut self, taps: &Taps, order: [usize; 4], wide: bool) {
        let tried = match taps.count {
            1..=4 => (wide && self.wide_pairs(taps)) || self.lane_pairs(taps, order),
            5..=8 => self.quads(taps, order),
            _ => false,
        };
        if !tried {
            self.dots(taps, order);
        }
        let windows = match self.layout {
            Layout::Pairs { pairs, .. } => 2 * (pairs - 1) + WINDOW,
            Layout::Wide { .. } => 2 * BLOCK,
            Layout::Quads { .. } => 4 + WINDOW,
            Layout::Dots => self.dots * WINDOW,
        };
        let last = self.bases.iter().max().expect("at least one lane");
        self.reach = *last as usize + windows;
    }

    /// Lays out pairs of taps for windows of a lane each; returns `false` where outputs lie too far apart.
    fn lane_pairs(&mut self, taps: &Taps, order: [usize; 4]) -> bool {
        let widest = self.pairs::<LANE, 2>(taps, order);
        let pairs = taps.count.div_ceil(2);
        let shared = widest + 2 * pairs <= WINDOW;
        self.layout = Layout::Pairs { pairs, shared };
        widest + 2 <= WINDOW
    }

    /// Lays out pairs of taps for windows of four lanes each; returns `false` where outputs lie too far apart.
    fn wide_pairs(&mut self, taps: &Taps) -> bool {
        let widest = self.pairs::<BLOCK, 1>(taps, [0, 1, 2, 3]);
        let pairs = taps.count.div_ceil(2);
        self.layout = Layout::Wide { pairs };
        widest + 2 * pairs <= 2 * BLOCK
    }

    /// Makes tables of pairs for windows of `LANE` outputs, of which vectors hold `LANES`. Returns how far apart the
    /// outputs of a window begin at most. Where that is beyond what shuffles can express, the tables are wrong.
    fn pairs<const LANE: usize, const LANES: usize>(
        &mut self,
        taps: &Taps,
        order: [usize; 4],
    ) -> usize {
        let pairs = taps.count.div_ceil(2);
        self.bases.resize(taps.padded / LANE, 0);
        self.shuffles.resize(taps.padded * 2, 0);
        self.weights.resize(taps.padded * 2 * pairs, 0);
        let mut widest = 0;
        let lanes = self.shuffles.chunks_exact_mut(2 * LANE);
        for (slot, (base, shuffles)) in self.bases.iter_mut().zip(lanes).enumerate() {
            let slot_of = if LANES == 1 { slot } else { lane(slot, order) };
            let start = slot_of * LANE;
            let mut firsts = [0; LANE];
            firsts.copy_from_slice(&taps.first[start..start + LANE]);
            // The window's part of its vector.
            let vector = 2 * LANE * LANES;
            let weights_at = slot / LANES * (vector * pairs) + slot % LANES * (2 * LANE);
            for pair in 0..pairs {
                let at = weights_at + pair * vector;
                let weights = &mut self.weights[at..at + 2 * LANE];
                let row = 2 * pair * taps.padded + start;
                let even = &taps.weights[row..row + LANE];
                if 2 * pair + 1 < taps.count {
                    let row = row + taps.padded;
                    let odd = &taps.weights[row..row + LANE];
                    for output in 0..LANE {
                        weights[2 * output] = (even[output] >> BYTE_SHIFT) as u8;
                        weights[2 * output + 1] = (odd[output] >> BYTE_SHIFT) as u8;
                    }
                } else {
                    for output in 0..LANE {
                        weights[2 * output] = (even[output] >> BYTE_SHIFT) as u8;
                        weights[2 * output + 1] = 0;
                    }
                }
            }
            let mut second = [1; LANE];
            for tap in 0..taps.count {
                let row = tap * taps.padded + start;
                for (output, &weight) in taps.weights[row..row + LANE].iter().enumerate() {
                    // A weight of one does not fit a byte: the sample is taken twice, by half. The other taps weigh 0.
                    if weight == 1 << WEIGHT_BITS {
                        firsts[output] += tap as u32;
                        second[output] = 0;
                        let at = weights_at + 2 * output;
                        self.weights[at..at + 2].fill(128);
                    }
                }
            }
            *base = *firsts.iter().min().expect("a lane of them");
            let mut farthest = 0;
            for output in 0..LANE {
                let offset = firsts[output] - *base;
                farthest = farthest.max(offset);
                shuffles[2 * output] = offset as u8;
                shuffles[2 * output + 1] = (offset + second[output]) as u8;
            }
            widest = widest.max(farthest as usize);
        }
        widest
    }

    /// Lays out taps by fours; returns `false` where outputs lie too far apart or a weight does not fit a byte.
    fn quads(&mut self, taps: &Taps, order: [usize; 4]) -> bool {
        const HALF: usize = LANE / 2;
        self.bases.resize(taps.padded / HALF, 0);
        self.shuffles.resize(taps.padded * 4, 0);
        self.weights.resize(taps.padded * 8, 0);
        let mut widest = 0;
        for slot in 0..taps.padded / LANE {
            for half in 0..2 {
                let start = lane(slot, order) * LANE + half * HALF;
                let firsts = &taps.first[start..start + HALF];
                let base = *firsts.iter().min().expect("four of them");
                // A vector holds the same half of two lanes.
                let window = slot / 2 * 4 + half * 2 + slot % 2;
                self.bases[window] = base;
                for (output, first) in firsts.iter().enumerate() {
                    let offset = (first - base) as usize;
                    widest = widest.max(offset);
                    if offset + 4 > WINDOW {
                        return false;
                    }
                    for tap in 0..8 {
                        let weight = if tap < taps.count {
                            taps.weights[tap * taps.padded + start + output] >> BYTE_SHIFT
                        } else {
                            0
                        };
                        if weight > 255 {
                            return false;
                        }
                        let vector = slot / 2 * 4 + half * 2 + tap / 4;
                        let at = vector * 2 * WINDOW + slot % 2 * WINDOW + output * 4 + tap % 4;
                        self.weights[at] = weight as u8;
                        if tap < 4 {
                            self.shuffles[window * WINDOW + output * 4 + tap] =
                                (offset + tap) as u8;
                        }
                    }
                }
            }
        }
        self.layout = Layout::Quads {
            shared: widest + 8 <= WINDOW,
        };
        true
    }

    /// Lays out taps by sixteens, one output at a time: the layout for every distance.
    fn dots(&mut self, taps: &Taps, order: [usize; 4]) {
        self.layout = Layout::Dots;
        self.dots = taps.count.div_ceil(WINDOW);
        let pitch = self.dots * WINDOW;
        self.bases.resize(taps.padded, 0);
        self.wide.resize(taps.padded * pitch, 0);
        for (at, (base, wide)) in self
            .bases
            .iter_mut()
            .zip(self.wide.chunks_exact_mut(pitch))
            .enumerate()
        {
            let output = lane(at / LANE, order) * LANE + at % LANE;
            *base = taps.first[output];
            for (tap, wide) in wide.iter_mut().enumerate() {
                *wide = if tap < taps.count {
                    taps.weights[tap * taps.padded + output]
                } else {
                    0
                };
            }
        }
    }
}

/// Returns which lane of outputs lies in a slot.
fn lane(slot: usize, order: [usize; 4]) -> usize {
    const LANES: usize = BLOCK / LANE;
    slot / LANES * LANES + order[slot % LANES]
}
