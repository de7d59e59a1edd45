//! The masks with which the paper compares its own, in table 6: whatever is not hidden is seen.
//!
//! Sizes of hidden blocks are drawn once for a step, as those of `unbiased` are, so contexts are equally long and
//! nothing is cut. Positions are drawn for each image.

use super::blocks::SizeLimits;
use super::{GroupMasks, MaskSampler, keep_some};
use crate::config::{Mask, MaskLaw};
use crate::error::Error;

/// The mask that a patch is in.
#[derive(Clone, Copy)]
enum Part {
    Context,
    Target(usize),
    /// In the middle of an odd grid that is cut into quarters.
    None,
}

impl MaskSampler {
    /// Draws the masks of a group by a law that hides some patches and shows the others.
    pub(super) fn draw_partition(&self, step: u64, first: u32, images: usize) -> GroupMasks {
        let mut context = Vec::new();
        let mut targets = vec![Vec::new(); self.targets];
        for image in 0..images {
            for (patch, part) in self
                .parts(step, first + image as u32)
                .into_iter()
                .enumerate()
            {
                match part {
                    Part::Context => context.push(patch as i64),
                    Part::Target(number) => targets[number].push(patch as i64),
                    Part::None => {}
                }
            }
        }
        GroupMasks {
            context_len: context.len() / images.max(1),
            target_len: targets[0].len() / images.max(1),
            context: vec![context],
            targets,
            relaxed: 0,
        }
    }

    /// Draws the mask that each patch of an image is in.
    fn parts(&self, step: u64, position: u32) -> Vec<Part> {
        let (size, _) = self.block_sizes(step);
        let mut draws = self.positions.at(step, position);
        let patches = self.height * self.width;
        let mut parts = vec![Part::Context; patches];
        match self.law {
            MaskLaw::Random => {
                let all: Vec<i64> = (0..patches as i64).collect();
                let mut hidden = Vec::new();
                keep_some(&all, size.area(), &mut draws, &mut hidden);
                for patch in hidden {
                    parts[patch as usize] = Part::Target(0);
                }
            }
            MaskLaw::Rasterized => {
                parts.fill(Part::None);
                let seen = draws.below(4) as usize;
                let hidden = (0..4).filter(|&quarter| quarter != seen);
                let hidden = hidden.zip((0..).map(Part::Target));
                for (quarter, part) in hidden.chain([(seen, Part::Context)]) {
                    let block = super::Block {
                        top: quarter / 2 * (self.height - size.height),
                        left: quarter % 2 * (self.width - size.width),
                        size,
                    };
                    block.for_each_row(self.width, |row| parts[row].fill(part));
                }
            }
            _ => {
                let block = self.place(size, &mut draws);
                block.for_each_row(self.width, |row| parts[row].fill(Part::Target(0)));
            }
        }
        parts
    }
}

/// Returns the most patches that are seen beside a hidden block.
///
/// # Errors
/// If no more than `min_keep` can be left beside the largest.
pub(super) fn context_limit(
    mask: &Mask,
    grid: (usize, usize),
    target: &SizeLimits,
) -> Result<usize, Error> {
    let (patches, [low, high]) = (grid.0 * grid.1, mask.pred_mask_scale);
    let fewest = patches - target.largest_area;
    if fewest > mask.min_keep {
        return Ok(patches - target.smallest.area());
    }
    let problem = format!(
        "leaves as few as {fewest} of {patches} patches to be seen, and more than mask.min_keep {} are wanted",
        mask.min_keep
    );
    Err(Error::Value {
        key: "mask.pred_mask_scale".to_owned(),
        value: format!("[{low}, {high}]"),
        problem,
    })
}
