//! Context and target masks: which patches the encoder sees, and which the predictor must fill in.
//!
//! The paper describes them in section 3 and figure 4, with the values in its appendix on pretraining; the released
//! code is `src/masks/multiblock.py`, class `MaskCollator`, of facebookresearch/ijepa.
//!
//! Each image gets `num_pred_masks` target blocks and `num_enc_masks` context blocks at random positions of the patch
//! grid; what the targets cover is taken out of the contexts. All images of a group must yield equally many context
//! patches, so each context is cut to the group's smallest. Two laws ([`MaskLaw`]):
//!
//! * `released` is the law of the released code, in which every published checkpoint was trained. Its quirks are kept:
//!   one number decides both size and shape of a block; sizes depend on the step alone, drawn with the code's own
//!   generator (MT19937 seeded with the step), so that they equal it bit for bit; a block never spans the grid and
//!   never reaches the last row or column; a cut context keeps its first patches, those at the top. Positions follow
//!   the code's law, drawn from our own counter-based generator.
//! * `unbiased` is the paper's text: scale and aspect ratio are independent, a block may lie anywhere, and a cut
//!   context keeps a random subset of its patches. The size is still one draw for all images of a step, as the paper
//!   says it is for the images of one GPU: blocks of equal size stack into one tensor, and drawing it for the step
//!   rather than for the group gives all ranks equal work.
//!
//! Three more laws are those that the paper compares with its own, in `partition`.
//!
//! A context that keeps too few patches is drawn again; after each 20 failures the last target not yet given up may be
//! overlapped. Since every reachable block is larger than `min_keep` ([`MaskSampler::new`] makes sure), that ends.

mod blocks;
mod partition;

use crate::config::{LoaderConfig, MaskLaw};
use crate::error::Error;
use crate::random::{Draws, Purpose, Stream};
pub use blocks::BlockSize;
use blocks::{SizeLimits, SizeSampler};

/// Failed positions of a context block before one more target may be overlapped.
const TRIES_PER_RELAXATION: u32 = 20;

/// The masks of one group of images. A mask is a list of patch numbers, row by row over the grid and ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMasks {
    /// Per context mask: image after image, [`Self::context_len`] patches each.
    pub context: Vec<Vec<i64>>,
    /// Per target mask: image after image, [`Self::target_len`] patches each.
    pub targets: Vec<Vec<i64>>,
    /// Patches of one image in one context mask.
    pub context_len: usize,
    /// Patches of one image in one target mask.
    pub target_len: usize,
    /// Contexts for which targets had to be given up, since 20 positions left too few patches clear of all of them.
    pub relaxed: usize,
}

/// The most patches one mask of one image can hold, whatever the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskLimits {
    /// In a context mask.
    pub context: usize,
    /// In a target mask.
    pub target: usize,
}

/// Draws the masks of any group of any step.
#[derive(Clone, Debug)]
pub struct MaskSampler {
    law: MaskLaw,
    height: usize,
    width: usize,
    min_keep: usize,
    contexts: usize,
    targets: usize,
    allow_overlap: bool,
    sizes: SizeSampler,
    limits: MaskLimits,
    positions: Stream,
    truncations: Vec<Stream>,
}

impl MaskSampler {
    /// Makes the sampler of a configuration for crops of `crop_size` pixels.
    ///
    /// # Errors
    /// If some step could draw a block of no more than `min_keep` patches: no position of it would ever do. The check
    /// is exact: it covers all sizes that can be drawn, not a sample of them.
    pub fn new(config: &LoaderConfig, crop_size: u32) -> Result<MaskSampler, Error> {
        let mask = &config.mask;
        let (height, width) = config.grid(crop_size);
        let seed = config.loader.seed;
        let sizes = SizeSampler::new(config, (height, width));
        let target = sizes.target_limits();
        let context = sizes.context_limits();
        let law = config.loader.mask_law;
        let of_targets = ("target", "mask.pred_mask_scale", &target);
        let of_contexts = ("context", "mask.enc_mask_scale", &context);
        let decisive = match law {
            MaskLaw::Released | MaskLaw::Unbiased => vec![of_targets, of_contexts],
            MaskLaw::Block | MaskLaw::Random => vec![of_targets],
            MaskLaw::Rasterized => vec![("context", "loader.mask_law", &context)],
        };
        for (kind, scale_key, limits) in decisive {
            refuse_endless(kind, scale_key, limits, mask.min_keep, (height, width))?;
        }
        let context_limit = match law {
            MaskLaw::Block | MaskLaw::Random => {
                partition::context_limit(mask, (height, width), &target)?
            }
            _ => context.largest_area,
        };
        Ok(MaskSampler {
            law,
            height,
            width,
            min_keep: mask.min_keep,
            contexts: mask.num_enc_masks,
            targets: mask.num_pred_masks,
            allow_overlap: mask.allow_overlap,
            sizes,
            limits: MaskLimits {
                context: context_limit,
                target: target.largest_area,
            },
            positions: Stream::new(seed, Purpose::BlockPosition, 0),
            truncations: (0..mask.num_enc_masks as u32)
                .map(|n| Stream::new(seed, Purpose::Truncation, n))
                .collect(),
        })
    }

    /// Returns the rows and columns of the patch grid.
    pub fn grid(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Returns the most patches a mask can hold.
    pub fn limits(&self) -> MaskLimits {
        self.limits
    }

    /// Draws the size of the target blocks and of the context block at a step.
    pub fn block_sizes(&self, step: u64) -> (BlockSize, BlockSize) {
        self.sizes.draw(step)
    }

    /// Draws the masks of the `images` positions from `first` of a step's global batch.
    pub fn draw(&self, step: u64, first: u32, images: usize) -> GroupMasks {
        match self.law {
            MaskLaw::Released | MaskLaw::Unbiased => self.draw_blocks(step, first, images),
            MaskLaw::Block | MaskLaw::Random | MaskLaw::Rasterized => {
                self.draw_partition(step, first, images)
            }
        }
    }

    /// Draws target blocks, and context blocks without what those cover.
    fn draw_blocks(&self, step: u64, first: u32, images: usize) -> GroupMasks {
        let (target, context) = self.block_sizes(step);
        let target_len = target.area();
        let mut targets: Vec<Vec<i64>> = (0..self.targets)
            .map(|_| Vec::with_capacity(images * target_len))
            .collect();
        // Contexts before they are cut, image after image, and where each ends.
        let mut whole: Vec<Vec<i64>> = (0..self.contexts)
            .map(|_| Vec::with_capacity(images * context.area()))
            .collect();
        let mut ends: Vec<Vec<usize>> = vec![Vec::with_capacity(images); self.contexts];
        let mut cover = Cover::new(self.height * self.width);
        let mut context_len = usize::MAX;
        let mut relaxed = 0;

        for image in 0..images {
            let mut draws = self.positions.at(step, first + image as u32);
            cover.clear();
            for (number, patches) in targets.iter_mut().enumerate() {
                let block = self.place(target, &mut draws);
                block.for_each_row(self.width, |row| {
                    patches.extend(row.clone().map(|patch| patch as i64));
                    cover.add(row, number);
                });
            }
            for (patches, ends) in whole.iter_mut().zip(&mut ends) {
                let start = patches.len();
                relaxed += usize::from(self.place_context(context, &cover, &mut draws, patches));
                context_len = context_len.min(patches.len() - start);
                ends.push(patches.len());
            }
        }

        let context = whole
            .iter()
            .zip(&ends)
            .zip(&self.truncations)
            .map(|((patches, ends), stream)| {
                let mut cut = Vec::with_capacity(images * context_len);
                let mut start = 0;
                for (image, &end) in ends.iter().enumerate() {
                    let patches = &patches[start..end];
                    if self.law == MaskLaw::Released {
                        cut.extend_from_slice(&patches[..context_len]);
                    } else {
                        keep_some(
                            patches,
                            context_len,
                            &mut stream.at(step, first + image as u32),
                            &mut cut,
                        );
                    }
                    start = end;
                }
                cut
            })
            .collect();
        GroupMasks {
            context,
            targets,
            context_len,
            target_len,
            relaxed,
        }
    }

    /// Appends to `patches` a context block without what the targets cover, at the first position that leaves enough.
    /// Returns whether targets had to be given up for it.
    fn place_context(
        &self,
        size: BlockSize,
        cover: &Cover,
        draws: &mut Draws,
        patches: &mut Vec<i64>,
    ) -> bool {
        let start = patches.len();
        let mut respected = if self.allow_overlap { 0 } else { self.targets };
        let (mut tries, mut is_relaxed) = (0, false);
        loop {
            let block = self.place(size, draws);
            block.for_each_row(self.width, |row| {
                patches.extend(
                    row.filter(|&patch| cover.free_of(patch, respected))
                        .map(|patch| patch as i64),
                );
            });
            if patches.len() - start > self.min_keep {
                return is_relaxed;
            }
            patches.truncate(start);
            tries += 1;
            if tries == TRIES_PER_RELAXATION {
                tries = 0;
                is_relaxed |= respected > 0;
                respected = respected.saturating_sub(1);
            }
        }
    }

    fn place(&self, size: BlockSize, draws: &mut Draws) -> Block {
        // The released code draws below grid - block and so leaves out the last row and column.
        let spare = usize::from(self.law != MaskLaw::Released);
        let top = draws.below((self.height - size.height + spare) as u32) as usize;
        let left = draws.below((self.width - size.width + spare) as u32) as usize;
        Block { top, left, size }
    }
}

fn refuse_endless(
    kind: &'static str,
    scale_key: &'static str,
    limits: &SizeLimits,
    min_keep: usize,
    (grid_height, grid_width): (usize, usize),
) -> Result<(), Error> {
    if limits.smallest.area() > min_keep {
        return Ok(());
    }
    let cure = match limits.smallest.area() {
        0 => format!(
            "no value of min_keep works here: raise the lower bound of {scale_key}, or use a finer grid"
        ),
        area => format!("min_keep {} works", area - 1),
    };
    Err(Error::BlockTooSmall {
        min_keep,
        grid_height,
        grid_width,
        kind,
        scale_key,
        height: limits.smallest.height,
        width: limits.smallest.width,
        share: limits.share_up_to(min_keep),
        cure,
    })
}

/// A block at its place.
struct Block {
    top: usize,
    left: usize,
    size: BlockSize,
}

impl Block {
    fn for_each_row(&self, grid_width: usize, mut visit: impl FnMut(std::ops::Range<usize>)) {
        for row in self.top..self.top + self.size.height {
            let start = row * grid_width + self.left;
            visit(start..start + self.size.width);
        }
    }
}

/// Which targets cover each patch, as far as contexts need to know: the first that does.
struct Cover(Vec<u8>);

impl Cover {
    const NONE: u8 = u8::MAX;

    fn new(patches: usize) -> Cover {
        Cover(vec![Cover::NONE; patches])
    }

    fn clear(&mut self) {
        self.0.fill(Cover::NONE);
    }

    /// Targets are added in ascending order; the configuration allows at most 64.
    fn add(&mut self, patches: std::ops::Range<usize>, target: usize) {
        for cell in &mut self.0[patches] {
            *cell = (*cell).min(target as u8);
        }
    }

    /// Tells if none of the first `targets` targets covers `patch`.
    fn free_of(&self, patch: usize, targets: usize) -> bool {
        usize::from(self.0[patch]) >= targets
    }
}

/// Appends a uniformly random subset of `keep` patches, in their order (selection sampling, Knuth volume 2, 3.4.2 S).
fn keep_some(patches: &[i64], keep: usize, draws: &mut Draws, kept: &mut Vec<i64>) {
    let mut wanted = keep as u32;
    for (index, &patch) in patches.iter().enumerate() {
        if draws.below((patches.len() - index) as u32) < wanted {
            kept.push(patch);
            wanted -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
