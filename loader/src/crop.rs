//! Random resized crops by torchvision's law, and their place on a stored grid of another size.
//!
//! The official code makes them in `src/transforms.py`, `make_transforms` (facebookresearch/ijepa).
//!
//! The law (`RandomResizedCrop.get_params` with ratio 3/4 to 4/3): up to ten times draw an area and a log-uniform
//! aspect ratio; take the first box that fits, at a uniform position; else the largest central box within the ratio
//! limits. Boxes are whole source pixels. The arithmetic is f64 with `libm`'s exponential and logarithm, so that every
//! machine draws the same box; torchvision draws the ratio in f32, which moves a side by a pixel once in a long while.

use shardtool::planes::Area;

use crate::random::Draws;

/// The largest and smallest width over height of a drawn box.
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
const TRIES: usize = 10;

/// A box of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

/// Draws crop boxes by torchvision's law.
#[derive(Clone, Copy, Debug)]
pub struct CropSampler {
    scale: [f64; 2],
    log_ratio: [f64; 2],
}

impl CropSampler {
    /// Makes the sampler with this range of the crop's share of the image's area.
    pub fn new(scale: [f64; 2]) -> CropSampler {
        CropSampler {
            scale,
            log_ratio: RATIO.map(libm::log),
        }
    }

    /// Draws a box of a `width` × `height` image.
    ///
    /// # Panics
    /// If a side is 0.
    pub fn draw(&self, draws: &mut Draws, source: (u32, u32)) -> CropBox {
        self.draw_counted(draws, source).0
    }

    /// Draws a box, and tells how many tries it took; one more than there are where none succeeded.
    fn draw_counted(&self, draws: &mut Draws, (width, height): (u32, u32)) -> (CropBox, usize) {
        assert!(
            width > 0 && height > 0,
            "a crop of a {width}x{height} image"
        );
        let area = f64::from(width) * f64::from(height);
        for tries in 1..=TRIES {
            let target = area * draws.uniform_in(self.scale);
            let ratio = libm::exp(draws.uniform_in(self.log_ratio));
            let wide = (target * ratio).sqrt().round_ties_even();
            let high = (target / ratio).sqrt().round_ties_even();
            if (1.0..=f64::from(width)).contains(&wide) && (1.0..=f64::from(height)).contains(&high)
            {
                let (wide, high) = (wide as u32, high as u32);
                let top = draws.below(height - high + 1);
                let left = draws.below(width - wide + 1);
                let drawn = CropBox {
                    left,
                    top,
                    width: wide,
                    height: high,
                };
                return (drawn, tries);
            }
        }
        (central(width, height), TRIES + 1)
    }
}

/// Returns what torchvision falls back to: the largest central box whose ratio is within the limits.
fn central(width: u32, height: u32) -> CropBox {
    let ratio = f64::from(width) / f64::from(height);
    let (mut wide, mut high) = (width, height);
    // A side rounded to 0 (a 1-pixel line of extreme length) is more than torchvision could crop; keep one pixel.
    if ratio < RATIO[0] {
        high = ((f64::from(width) / RATIO[0]).round_ties_even() as u32).clamp(1, height);
    } else if ratio > RATIO[1] {
        wide = ((f64::from(height) * RATIO[1]).round_ties_even() as u32).clamp(1, width);
    }
    CropBox {
        left: (width - wide) / 2,
        top: (height - high) / 2,
        width: wide,
        height: high,
    }
}

impl CropBox {
    /// Maps the box to a grid of another size, for images stored smaller than their source: to the
    /// fraction of a pixel, and inside. On an equal grid the numbers are unchanged.
    ///
    /// # Panics
    /// If the box is not inside `source`.
    pub fn on_grid(&self, source: (u32, u32), stored: (u32, u32)) -> Area {
        let (left, width) = along(self.left, self.width, source.0, stored.0);
        let (top, height) = along(self.top, self.height, source.1, stored.1);
        Area {
            left,
            top,
            width,
            height,
        }
    }
}

fn along(first: u32, length: u32, source: u32, stored: u32) -> (f64, f64) {
    let end = u64::from(first) + u64::from(length);
    assert!(
        length > 0 && end <= u64::from(source) && stored > 0,
        "crop {first}+{length} of {source} pixels"
    );
    let edge = |at: f64| at * f64::from(stored) / f64::from(source);
    let start = edge(f64::from(first));
    // Rounding must not take the far edge over the image's.
    let length = (edge(end as f64) - start).min(f64::from(stored) - start);
    (start, length)
}

#[cfg(test)]
mod tests;
