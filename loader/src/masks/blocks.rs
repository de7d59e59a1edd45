//! How large blocks are: one draw per step, and exactly which sizes can come up at all.

use rand_mt::Mt;

use crate::config::{LoaderConfig, MaskLaw};
use crate::random::{Purpose, Stream};

/// A block's size in patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl BlockSize {
    /// Returns the patches in the block.
    pub fn area(&self) -> usize {
        self.height * self.width
    }
}

/// What sizes a kind of block can have.
#[derive(Clone, Debug)]
pub(super) struct SizeLimits {
    /// The size of the smallest area.
    pub smallest: BlockSize,
    /// The largest area.
    pub largest_area: usize,
    /// Sizes with the share of steps that draw them, as far as they are enumerated.
    sizes: Vec<(BlockSize, f64)>,
}

impl SizeLimits {
    fn of(sizes: Vec<(BlockSize, f64)>) -> SizeLimits {
        let smallest = sizes
            .iter()
            .map(|(size, _)| *size)
            .min_by_key(BlockSize::area)
            .expect("at least one size");
        let largest_area = sizes
            .iter()
            .map(|(size, _)| size.area())
            .max()
            .expect("at least one size");
        SizeLimits {
            smallest,
            largest_area,
            sizes,
        }
    }

    /// Returns the share of steps whose block has at most `area` patches.
    pub fn share_up_to(&self, area: usize) -> f64 {
        self.sizes
            .iter()
            .filter(|(size, _)| size.area() <= area)
            .map(|(_, share)| share)
            .sum()
    }
}

/// Draws block sizes by one of the laws.
#[derive(Clone, Debug)]
pub(super) struct SizeSampler {
    law: MaskLaw,
    grid: (usize, usize),
    target_scale: [f64; 2],
    context_scale: [f64; 2],
    target_aspect: [f64; 2],
    stream: Stream,
}

/// The context block is square.
const CONTEXT_ASPECT: [f64; 2] = [1.0, 1.0];

/// The released law's uniform numbers are multiples of 2^-24.
const RELEASED_BITS: u32 = 24;
/// Ours are multiples of 2^-53.
const UNBIASED_BITS: u32 = 53;

impl SizeSampler {
    pub fn new(config: &LoaderConfig, grid: (usize, usize)) -> SizeSampler {
        SizeSampler {
            law: config.loader.mask_law,
            grid,
            target_scale: config.mask.pred_mask_scale,
            context_scale: config.mask.enc_mask_scale,
            target_aspect: config.mask.aspect_ratio,
            stream: Stream::new(config.loader.seed, Purpose::BlockSize, 0),
        }
    }

    /// Draws the sizes of the target blocks and of the context block at a step.
    pub fn draw(&self, step: u64) -> (BlockSize, BlockSize) {
        match self.law {
            MaskLaw::Released => {
                // torch's manual_seed keeps the low 32 bits for this generator; torch.rand keeps 24 of each output.
                let mut twister = Mt::new(step as u32);
                let mut uniform = || released_uniform(u64::from(twister.next_u32() & 0x00ff_ffff));
                let target =
                    released(self.grid, uniform(), self.target_scale, self.target_aspect).1;
                let context = released(self.grid, uniform(), self.context_scale, CONTEXT_ASPECT).1;
                (target, context)
            }
            MaskLaw::Rasterized => (self.quarter(), self.quarter()),
            MaskLaw::Unbiased | MaskLaw::Block | MaskLaw::Random => {
                let mut draws = self.stream.at(step, 0);
                let scale = draws.uniform_in(self.target_scale);
                let aspect = draws.uniform_in(self.target_aspect);
                let target = unbiased(self.grid, scale, aspect);
                (
                    target,
                    unbiased(self.grid, draws.uniform_in(self.context_scale), 1.0),
                )
            }
        }
    }

    pub fn target_limits(&self) -> SizeLimits {
        self.limits(self.target_scale, self.target_aspect)
    }

    pub fn context_limits(&self) -> SizeLimits {
        self.limits(self.context_scale, CONTEXT_ASPECT)
    }

    fn limits(&self, scale: [f64; 2], aspect: [f64; 2]) -> SizeLimits {
        match self.law {
            MaskLaw::Released => SizeLimits::of(reachable(RELEASED_BITS, |drawn| {
                released(self.grid, released_uniform(drawn), scale, aspect)
            })),
            MaskLaw::Rasterized => SizeLimits::of(vec![(self.quarter(), 1.0)]),
            MaskLaw::Unbiased | MaskLaw::Block | MaskLaw::Random => {
                unbiased_limits(self.grid, scale, aspect)
            }
        }
    }

    /// Returns a quarter of the grid; of an odd one, the middle row and column are in none.
    fn quarter(&self) -> BlockSize {
        BlockSize {
            height: self.grid.0 / 2,
            width: self.grid.1 / 2,
        }
    }
}

pub(super) fn released_uniform(drawn: u64) -> f64 {
    drawn as f64 * (1.0 / (1u64 << RELEASED_BITS) as f64)
}

/// Returns a block by the released law: one number moves scale and aspect ratio together; the area is truncated to
/// whole patches, the sides are rounded half to even, and a side as long as the grid's is shortened by one. Returns the
/// truncated area too.
pub(super) fn released(
    grid: (usize, usize),
    uniform: f64,
    scale: [f64; 2],
    aspect: [f64; 2],
) -> (u64, BlockSize) {
    let share = scale[0] + uniform * (scale[1] - scale[0]);
    let area = ((grid.0 * grid.1) as f64 * share).trunc();
    let aspect = aspect[0] + uniform * (aspect[1] - aspect[0]);
    let height = (area * aspect).sqrt().round_ties_even() as usize;
    let width = (area / aspect).sqrt().round_ties_even() as usize;
    (
        area as u64,
        BlockSize {
            height: height.min(grid.0 - 1),
            width: width.min(grid.1 - 1),
        },
    )
}

/// Returns a block by the paper's text: of this share of the grid and this height over width, to the nearest whole
/// patches.
fn unbiased(grid: (usize, usize), scale: f64, aspect: f64) -> BlockSize {
    let area = (grid.0 * grid.1) as f64 * scale;
    let height = (area * aspect).sqrt().round_ties_even() as usize;
    let width = (area / aspect).sqrt().round_ties_even() as usize;
    BlockSize {
        height: height.clamp(1, grid.0),
        width: width.clamp(1, grid.1),
    }
}

/// Returns every size that `2^bits` equally likely draws lead to, with its share of them, without trying each draw.
///
/// The law maps a draw to a class and a size such that the class never falls as the draw grows, and within one class
/// the height never falls and the width never rises: all its steps (multiply by or add a constant, square root,
/// rounding) are monotonic in floating point too. So equal sizes within a class are neighbours, and the end of each run
/// is found by bisection.
pub(super) fn reachable(bits: u32, law: impl Fn(u64) -> (u64, BlockSize)) -> Vec<(BlockSize, f64)> {
    let end = 1u64 << bits;
    let mut sizes = Vec::new();
    let mut start = 0;
    while start < end {
        let (class, size) = law(start);
        let class_end = first_unlike(start, end, |drawn| law(drawn).0 == class);
        let run_end = first_unlike(start, class_end, |drawn| law(drawn).1 == size);
        sizes.push((size, (run_end - start) as f64 / end as f64));
        start = run_end;
    }
    sizes
}

/// Returns the first number of `start..end` that `like` denies, or `end`, given that those it accepts come first.
fn first_unlike(start: u64, end: u64, like: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (start, end);
    while low < high {
        let middle = low + (high - low) / 2;
        if like(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Returns the smallest and largest sizes. Neither side falls as the scale grows, so the smallest sizes are those at
/// the lowest scale and the largest those at the highest, each over all aspect ratios. For the share of too small
/// blocks, the scale is stepped through.
fn unbiased_limits(grid: (usize, usize), scale: [f64; 2], aspect: [f64; 2]) -> SizeLimits {
    let at = |share: f64| {
        reachable(UNBIASED_BITS, |drawn| {
            let uniform = drawn as f64 * (1.0 / (1u64 << UNBIASED_BITS) as f64);
            (
                0,
                unbiased(
                    grid,
                    scale[0] + share * (scale[1] - scale[0]),
                    aspect[0] + uniform * (aspect[1] - aspect[0]),
                ),
            )
        })
    };
    let smallest = SizeLimits::of(at(0.0)).smallest;
    let largest_area = SizeLimits::of(at(1.0)).largest_area;
    const STEPS: usize = 256;
    let sizes = (0..STEPS)
        .flat_map(|step| at((step as f64 + 0.5) / STEPS as f64))
        .map(|(size, share)| (size, share / STEPS as f64))
        .collect();
    SizeLimits {
        smallest,
        largest_area,
        sizes,
    }
}
