//! How much fine detail a component has, and how coarsely it may therefore be decoded.
//!
//! Scaled decoding leaves out the highest frequencies, and treats those just below them a little differently from a
//! filter on all samples. Both matter where there is much of them: in fur, quilts and fences. So a payload says how
//! much there is, and a reader goes finer where the difference would show.

#[cfg(feature = "build")]
use super::coefficients::{BLOCK, Component};
use crate::planes::Resolution;

/// For n = 1 to 6, by how many half-decibels the mean energy of the coefficients of frequency n and higher lies below
/// 255²: of horizontal frequencies, then of vertical ones.
pub type Detail = [[u8; 6]; 2];

/// The error that scaled decoding may add along one axis, in half-decibels below 255².
const ALLOWED: f64 = 2.0 * 46.0;

/// Returns the samples that eight stored ones become along an axis on which the area extends over `extent` stored ones.
pub fn samples(resolution: Resolution, extent: f64, detail: &[u8; 6]) -> usize {
    let Resolution::Fit { side, margin } = resolution else {
        return 8;
    };
    let side = f64::from(side);
    let fine_enough = |samples: &usize| {
        let ratio = extent * *samples as f64 / (8.0 * side);
        // By how much the error lies below the energy from two frequencies under the first missing one on: a line
        // through measurements on photographs, which scatter around it by 2.4 dB.
        let below = 2.0 * (12.7 + 20.0 * (ratio - 1.0)).min(19.0);
        ratio >= margin && f64::from(detail[samples.saturating_sub(3)]) + below >= ALLOWED
    };
    (1..8).find(fine_enough).unwrap_or(8)
}

/// Measures a component.
#[cfg(feature = "build")]
pub fn measure(component: &Component) -> Detail {
    let blocks = component.blocks.as_chunks::<BLOCK>().0;
    #[cfg(target_arch = "x86_64")]
    let squares = match crate::simd::Simd::best() {
        crate::simd::Simd::Scalar => squares(blocks),
        // SAFETY: the machine has the instructions.
        _ => unsafe { squares_avx2(blocks) },
    };
    #[cfg(not(target_arch = "x86_64"))]
    let squares = squares(blocks);
    let energy = |at: usize| {
        f64::from(squares[at]) * f64::from(component.quantization[at]).powi(2)
            / component.blocks.len() as f64
    };
    let level = |n: usize, frequency: fn(usize) -> usize| {
        let above = (0..BLOCK).filter(|&at| frequency(at) >= n);
        let energy: f64 = above.map(energy).sum();
        (20.0 * libm::log10(255.0 * 255.0 / energy))
            .clamp(0.0, 255.0)
            .round() as u8
    };
    [
        std::array::from_fn(|n| level(n + 1, |at| at % 8)),
        std::array::from_fn(|n| level(n + 1, |at| at / 8)),
    ]
}

/// Returns the sum of each coefficient's squares. Each place has a sum of its own, so that wide registers add in the
/// same order.
#[cfg(feature = "build")]
#[inline(always)]
fn squares(blocks: &[[i16; BLOCK]]) -> [f32; BLOCK] {
    let mut squares = [0.0; BLOCK];
    for block in blocks {
        for (square, &coefficient) in squares.iter_mut().zip(block) {
            *square += f32::from(coefficient) * f32::from(coefficient);
        }
    }
    squares
}

#[cfg(all(feature = "build", target_arch = "x86_64"))]
#[target_feature(enable = "avx2")]
fn squares_avx2(blocks: &[[i16; BLOCK]]) -> [f32; BLOCK] {
    squares(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planes::Colour;

    fn fit(margin: f64) -> Resolution {
        Resolution::Fit { side: 100, margin }
    }

    #[test]
    fn smooth_images_are_as_coarse_as_the_margin_allows() {
        let smooth = [255; 6];
        for (extent, margin, expected) in [
            (100.0, 1.0, 8),
            (99.0, 1.0, 8),
            (160.0, 1.0, 5),
            (160.0, 1.01, 6),
            (800.0, 1.0, 1),
            (801.0, 2.0, 2),
            (400.0, 1.2, 3),
        ] {
            assert_eq!(
                samples(fit(margin), extent, &smooth),
                expected,
                "{extent} {margin}"
            );
        }
        assert_eq!(samples(Resolution::Full, 5000.0, &smooth), 8);
    }

    #[test]
    fn detail_makes_them_finer() {
        let mut detail = [255; 6];
        assert_eq!(samples(fit(1.2), 200.0, &detail), 5);
        // Frequencies from 3 on at 25 dB are too much for five samples, and no matter for six.
        (detail[0], detail[1], detail[2]) = (50, 50, 50);
        assert_eq!(samples(fit(1.2), 200.0, &detail), 6);
        assert_eq!(samples(fit(1.2), 200.0, &[0; 6]), 8);
    }

    #[cfg(feature = "build")]
    #[test]
    fn energy_is_measured_where_it_is() {
        let mut image = crate::dct::coefficients::Coefficients::empty();
        image.colour = Colour::Gray;
        let mut blocks = vec![0i16; 2 * BLOCK];
        blocks[5] = 10; // u = 5, v = 0
        blocks[64 + 8 * 3] = -20; // u = 0, v = 3
        let component = Component {
            h: 1,
            v: 1,
            quantization: [2; BLOCK],
            blocks_wide: 2,
            blocks_high: 1,
            blocks,
        };
        // 400 and 1600 over 128 pixels.
        let below = |energy: f64| (20.0 * (65025.0 / energy).log10()).round() as u8;
        let (across, down) = (below(400.0 / 128.0), below(1600.0 / 128.0));
        let [horizontal, vertical] = measure(&component);
        assert_eq!(horizontal, [across, across, across, across, across, 255]);
        assert_eq!(vertical, [down, down, down, 255, 255, 255]);
    }
}
