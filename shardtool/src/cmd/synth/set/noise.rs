//! Value noise: the texture of ground, sky, hills and objects.
//!
//! Rows are the unit of work, because in perspective a row of pixels is a straight walk through the noise at one depth:
//! a lattice cell is hashed once for all the pixels in it. Plain arithmetic only, for the same reason as in `shape`.

/// Mixes three integers into 32 well spread bits (the finalizer of MurmurHash3 over a linear form).
#[inline]
pub fn hash(seed: u32, x: i32, y: i32) -> u32 {
    let mut h = seed ^ (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77);
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Returns the hash as a number in -1..1.
#[inline]
pub fn signed(seed: u32, x: i32, y: i32) -> f32 {
    (hash(seed, x, y) >> 8) as f32 * (2.0 / 16_777_216.0) - 1.0
}

/// Returns `f32::floor` of what fits an `i32`: without SSE4.1, the standard one is a call into libm.
#[inline(always)]
pub fn floor(v: f32) -> f32 {
    let whole = v as i32 as f32;
    if whole > v { whole - 1.0 } else { whole }
}

#[inline(always)]
fn smooth(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

/// Returns smooth noise in -1..1 at a point; features are about one unit wide.
pub fn point(seed: u32, u: f32, v: f32) -> f32 {
    let mut out = [0.0];
    add_row(&mut out, seed, [u, v], 0.0, 1.0);
    out[0]
}

/// Adds smooth noise to a row: pixel `i` gets `amplitude` times the noise at `(start[0] + i·step, start[1])`.
pub fn add_row(row: &mut [f32], seed: u32, start: [f32; 2], step: f32, amplitude: f32) {
    let [u, v] = start;
    let base = floor(v);
    let (below, blend) = (base as i32, smooth(v - base));
    let column = |x: i32| {
        let (a, b) = (
            signed(seed, x, below),
            signed(seed, x, below.wrapping_add(1)),
        );
        a + (b - a) * blend
    };
    let mut cell = i32::MIN;
    let (mut left, mut right) = (0.0, 0.0);
    for (i, out) in row.iter_mut().enumerate() {
        let at = u + step * i as f32;
        let start = floor(at);
        let now = start as i32;
        if now != cell {
            left = if now == cell.wrapping_add(1) {
                right
            } else {
                column(now)
            };
            right = column(now.wrapping_add(1));
            cell = now;
        }
        *out += amplitude * (left + (right - left) * smooth(at - start));
    }
}

/// Several octaves of `add_row`, each twice as fine and `gain` times as strong, starting at `frequency` per unit.
///
/// `footprint` is the size of a pixel in the same units; octaves finer than that are faded out, as a camera would.
pub struct Octaves {
    /// Differs from texture to texture.
    pub seed: u32,
    /// Of the coarsest octave, in features per unit.
    pub frequency: f32,
    /// How many there are.
    pub count: u32,
    /// From one octave to the next.
    pub gain: f32,
    /// How much wider than deep the features are.
    pub stretch: f32,
}

impl Octaves {
    /// Overwrites `row` with noise of about -1..1.
    pub fn fill(&self, row: &mut [f32], start: [f32; 2], step: f32, footprint: f32) {
        row.fill(0.0);
        let (mut frequency, mut amplitude) = (self.frequency, 1.0);
        for octave in 0..self.count {
            let visible = (1.6 - 2.0 * frequency * footprint).clamp(0.0, 1.0);
            if visible <= 0.0 {
                break;
            }
            let along = frequency / self.stretch;
            let seed = self.seed.wrapping_add(octave.wrapping_mul(0x9e37_79b9));
            let start = [start[0] * along, start[1] * frequency];
            add_row(row, seed, start, step * along, amplitude * visible);
            frequency *= 2.03;
            amplitude *= self.gain;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_is_the_standard_one() {
        for v in [-3.0f32, -2.5, -0.1, -0.0, 0.0, 0.9, 1.0, 7.25, 1e6, -1e6] {
            assert_eq!(floor(v), v.floor());
        }
    }

    #[test]
    fn a_row_is_its_points() {
        let mut row = [0.0; 200];
        add_row(&mut row, 7, [-3.3, 5.7], 0.11, 1.0);
        for (i, value) in row.iter().enumerate() {
            assert_eq!(*value, point(7, -3.3 + 0.11 * i as f32, 5.7));
        }
    }

    #[test]
    fn noise_is_smooth_bounded_and_not_constant() {
        let mut row = [0.0; 1000];
        add_row(&mut row, 1, [0.0, 0.5], 0.01, 1.0);
        assert!(row.windows(2).all(|w| (w[0] - w[1]).abs() < 0.05));
        assert!(row.iter().all(|v| v.abs() <= 1.0));
        let (low, high) = row
            .iter()
            .fold((1f32, -1f32), |(l, h), &v| (l.min(v), h.max(v)));
        assert!(high - low > 0.5);
    }

    #[test]
    fn octaves_finer_than_a_pixel_are_left_out() {
        let octaves = Octaves {
            seed: 3,
            frequency: 1.0,
            count: 5,
            gain: 0.5,
            stretch: 1.0,
        };
        let mut row = [0.0; 64];
        octaves.fill(&mut row, [0.0, 0.3], 1.0, 2.0);
        assert!(row.iter().all(|&v| v == 0.0));
        octaves.fill(&mut row, [0.0, 0.3], 0.01, 0.01);
        assert!(row.iter().any(|&v| v != 0.0));
    }
}
