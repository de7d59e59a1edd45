//! Which samples make an output along one axis, and with what weights: "Taps" in `PIXELS.md`.

use shardtool::simd::Simd;

/// Lists of up to this many taps are short: quick arithmetic is exact enough for them.
pub const SHORT: usize = 8;

/// Bits after the binary point of every weight.
pub const WEIGHT_BITS: u32 = 14;

/// Outputs are padded to a multiple of this, for loops without tails.
pub const BLOCK: usize = 32;

/// Outputs worked on together, so that the compiler can use vectors.
const GROUP: usize = 8;

/// The wanted stretch of an axis, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    /// Where the stretch begins, in samples.
    pub start: f64,
    /// How long it is.
    pub length: f64,
    /// How many samples there are on the axis.
    pub samples: usize,
    /// Start and length of the stretch that may be looked at: that of the outputs, or a longer one around it.
    pub seen: (f64, f64),
    /// How many outputs the stretch becomes.
    pub side: usize,
    /// True if the outputs are wanted in reverse order.
    pub reversed: bool,
    /// Steps to one that weights of short lists are rounded to.
    pub steps: u32,
}

impl Axis {
    /// Returns a row's axis: where lists are short, weights across fit into bytes.
    pub fn across(start: f64, length: f64, samples: usize, side: usize, mirror: bool) -> Axis {
        Axis {
            start,
            length,
            samples,
            seen: (start, length),
            side,
            reversed: mirror,
            steps: 1 << 8,
        }
    }

    /// Returns a column's axis.
    pub fn down(start: f64, length: f64, samples: usize, side: usize) -> Axis {
        Axis {
            start,
            length,
            samples,
            seen: (start, length),
            side,
            reversed: false,
            steps: 1 << WEIGHT_BITS,
        }
    }

    /// Lets outputs look at `length` samples from `start` on.
    pub fn seeing(self, start: f64, length: f64) -> Axis {
        Axis {
            seen: (start, length),
            ..self
        }
    }
}

/// Every output's first sample and the weights from there on.
#[derive(Default)]
pub struct Taps {
    /// Taps of every output; some may weigh nothing.
    pub count: usize,
    /// Outputs, padded with repetitions of the last to a multiple of [`BLOCK`].
    pub padded: usize,
    /// First sample of each output; this and the `count - 1` behind it exist.
    pub first: Vec<u32>,
    /// First tap of every output, then the second tap of every output and so on, in units of 2⁻¹⁴.
    pub weights: Vec<i16>,
}

impl Taps {
    /// Tells if the taps are few enough for the quick arithmetic.
    pub fn short(&self) -> bool {
        self.count <= SHORT
    }

    /// Computes the taps of an axis.
    pub fn prepare(&mut self, axis: &Axis, simd: Simd) {
        let scale = axis.length / axis.side as f64;
        let reach = scale.max(1.0);
        let (seen, seen_length) = axis.seen;
        let low = seen.floor().min(axis.samples as f64 - 1.0);
        let high = (seen + seen_length)
            .ceil()
            .clamp(low + 1.0, axis.samples as f64);
        let count = (2.0 * reach).ceil().min(high - low);
        self.count = count as usize;
        self.padded = axis.side.next_multiple_of(BLOCK);
        self.first.resize(self.padded, 0);
        self.weights.resize(self.padded * self.count, 0);
        let law = Law {
            start: axis.start,
            scale,
            reach,
            least: low,
            most: high - count,
            last: axis.side - 1,
            reversed: axis.reversed,
            unit: if self.short() {
                axis.steps as f64
            } else {
                f64::from(1 << WEIGHT_BITS)
            },
        };
        match simd {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the resizer made sure that the machine has this family.
            Simd::Avx2 | Simd::Avx512 => unsafe { fill_avx2(self, &law) },
            _ => fill(self, &law),
        }
    }
}

/// What all outputs of an axis have in common.
struct Law {
    start: f64,
    scale: f64,
    reach: f64,
    /// Bounds of an output's first sample.
    least: f64,
    most: f64,
    last: usize,
    reversed: bool,
    /// Steps to one.
    unit: f64,
}

/// Does what `fill` does, compiled for wider registers: no operation differs, so neither does the outcome.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_avx2(taps: &mut Taps, law: &Law) {
    fill(taps, law);
}

/// Fills in first samples and weights.
#[inline(always)]
fn fill(taps: &mut Taps, law: &Law) {
    // The low bits of a small number's sum with this are the number, rounded to the nearest integer, ties to even.
    const ROUND: f64 = (3_u64 << 51) as f64;

    let inverse = 1.0 / law.reach;
    let shift = WEIGHT_BITS - (law.unit as u32).ilog2();
    let (count, padded) = (taps.count, taps.padded);
    for (group, firsts) in taps.first.chunks_exact_mut(GROUP).enumerate() {
        let mut distance = [0.0; GROUP];
        for lane in 0..GROUP {
            let at = (group * GROUP + lane).min(law.last);
            let at = if law.reversed { law.last - at } else { at };
            let centre = law.start + (at as f64 + 0.5) * law.scale;
            let first = (centre - law.reach + 0.5)
                .floor()
                .max(law.least)
                .min(law.most);
            firsts[lane] = first as u32;
            distance[lane] = first + 0.5 - centre;
        }
        let raw = |lane: usize, tap: usize| {
            (1.0 - (distance[lane] + tap as f64).abs() * inverse).max(0.0)
        };
        let mut total = [0.0; GROUP];
        for tap in 0..count {
            for (lane, total) in total.iter_mut().enumerate() {
                *total += raw(lane, tap);
            }
        }
        let factor = total.map(|total| law.unit / total);
        let mut sum = [0.0; GROUP];
        let mut before = [ROUND.to_bits(); GROUP];
        for tap in 0..count {
            let start = tap * padded + group * GROUP;
            let weights = &mut taps.weights[start..start + GROUP];
            for lane in 0..GROUP {
                sum[lane] += raw(lane, tap);
                let upto = (sum[lane] * factor[lane] + ROUND).to_bits();
                weights[lane] = (upto.wrapping_sub(before[lane]) << shift) as i16;
                before[lane] = upto;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn axis(start: f64, length: f64, samples: usize, side: usize) -> Axis {
        Axis {
            start,
            length,
            samples,
            seen: (start, length),
            side,
            reversed: false,
            steps: 256,
        }
    }

    fn taps(axis: &Axis) -> Taps {
        let mut taps = Taps::default();
        taps.prepare(axis, Simd::Scalar);
        taps
    }

    #[test]
    fn equal_sizes_take_one_sample_each() {
        let taps = taps(&axis(3.0, 8.0, 20, 8));
        assert_eq!(taps.count, 2);
        assert_eq!(taps.first[..8], [3, 4, 5, 6, 7, 8, 9, 9]);
        assert_eq!(taps.weights[..7], [1 << 14; 7]);
        assert_eq!(
            [taps.weights[7], taps.weights[taps.padded + 7]],
            [0, 1 << 14]
        );
    }

    #[test]
    fn halving_weighs_one_three_three_one() {
        let taps = taps(&axis(0.0, 16.0, 16, 8));
        assert_eq!(taps.count, 4);
        let third: Vec<i16> = (0..4)
            .map(|tap| taps.weights[tap * taps.padded + 2])
            .collect();
        assert_eq!(third, [2048, 6144, 6144, 2048]);
        assert_eq!(taps.first[2], 3);
    }

    proptest! {
        /// Whatever the geometry: all samples exist, no weight is negative, and they sum to one.
        #[test]
        fn weights_are_a_partition_of_one(
            samples in 1_usize..3000,
            side in 1_usize..300,
            from in 0.0..1.0_f64,
            part in 1e-9..1.0_f64,
            reversed: bool,
        ) {
            let start = from * (samples - 1) as f64;
            let length = (samples as f64 - start) * part;
            let axis = Axis { reversed, ..axis(start, length, samples, side) };
            let mut seen = Vec::new();
            for &simd in Simd::available() {
                let mut taps = Taps::default();
                taps.prepare(&axis, simd);
                for output in 0..taps.padded {
                    prop_assert!(taps.first[output] as usize + taps.count <= samples);
                    let weights = taps.weights[output..].iter().step_by(taps.padded);
                    prop_assert!(weights.clone().all(|&weight| weight >= 0));
                    prop_assert_eq!(weights.map(|&weight| i32::from(weight)).sum::<i32>(), 1 << 14);
                }
                seen.push((taps.first, taps.weights));
            }
            prop_assert!(seen.iter().all(|taps| *taps == seen[0]));
        }
    }
}
