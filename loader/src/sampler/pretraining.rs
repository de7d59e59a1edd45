//! The sampler of pretraining: sample, crop, flip, change of colours and masks of every position of every step.
//!
//! It is a pure function, equal in every process.
//!
//! The global batch of a step is cut into groups of `data.batch_size` consecutive positions; a group shares its block
//! sizes and is truncated as a whole. An epoch is `floor(samples / global batch)` steps: what is left over is not seen
//! in that epoch, and differs from one to the next. Crops, and with them the grid of the masks, have the size that the
//! step's epoch has. Nothing here depends on workers, ranks, timing or history, so there is no state to save: a run
//! resumes by asking for its next step.

use crate::augment::{AugmentSampler, Augmentation};
use crate::config::LoaderConfig;
use crate::crop::{CropBox, CropSampler};
use crate::error::Error;
use crate::masks::{GroupMasks, MaskLimits, MaskSampler};
use crate::order::Order;
use crate::random::{Purpose, Stream};

/// Counts changes of what a configuration draws. Raise it with any change of order, crops or masks: it enters the
/// sampling hash, so that a trainer and a loader of different laws refuse each other.
pub const SAMPLING_VERSION: u32 = 1;

/// Answers every question about what a step of pretraining sees.
#[derive(Clone, Debug)]
pub struct PretrainingSampler {
    seed: u64,
    samples: u64,
    global_batch: u64,
    batch_size: u64,
    epoch_len: u64,
    mirror: bool,
    crop_sampler: CropSampler,
    crops: Stream,
    flips: Stream,
    augment_sampler: AugmentSampler,
    /// In the order of their epochs; the first begins at epoch 0.
    phases: Vec<Phase>,
}

/// The epochs that share a size of crops.
#[derive(Clone, Debug)]
struct Phase {
    first_epoch: u64,
    crop_size: u32,
    masks: MaskSampler,
}

impl PretrainingSampler {
    /// Makes the sampler of a configuration over a split of `samples` samples.
    ///
    /// # Errors
    /// If the global batch is larger than the split or not made of whole groups, or if masks could not be drawn at some
    /// step.
    pub fn new(
        config: &LoaderConfig,
        samples: u64,
        global_batch: u64,
    ) -> Result<PretrainingSampler, Error> {
        PretrainingSampler::make(config, samples, global_batch)
            .map_err(|error| config.origin.place(error))
    }

    fn make(
        config: &LoaderConfig,
        samples: u64,
        global_batch: u64,
    ) -> Result<PretrainingSampler, Error> {
        let batch_size = config.data.batch_size;
        if global_batch == 0 || !global_batch.is_multiple_of(batch_size) {
            return Err(Error::UnevenGroups {
                global_batch,
                batch_size,
            });
        }
        if u32::try_from(global_batch).is_err() {
            return Err(Error::Value {
                key: "optimization.global_batch".to_owned(),
                value: global_batch.to_string(),
                problem: format!("is above {}", u32::MAX),
            });
        }
        if samples < global_batch {
            return Err(Error::TooFewSamples {
                samples,
                global_batch,
            });
        }
        let seed = config.loader.seed;
        let phases = config.data.crop_size.phases().iter();
        let phases = phases.map(|&(first_epoch, crop_size)| {
            Ok(Phase {
                first_epoch,
                crop_size,
                masks: MaskSampler::new(config, crop_size)?,
            })
        });
        Ok(PretrainingSampler {
            seed,
            samples,
            global_batch,
            batch_size,
            epoch_len: samples / global_batch,
            mirror: config.data.use_horizontal_flip,
            crop_sampler: CropSampler::new(config.data.crop_scale),
            crops: Stream::new(seed, Purpose::Crop, 0),
            flips: Stream::new(seed, Purpose::Flip, 0),
            augment_sampler: AugmentSampler::new(&config.data, seed),
            phases: phases.collect::<Result<_, Error>>()?,
        })
    }

    /// Returns the steps in an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.epoch_len
    }

    /// Returns the images in a global batch.
    pub fn global_batch(&self) -> u64 {
        self.global_batch
    }

    /// Returns the groups in a global batch.
    pub fn groups(&self) -> u64 {
        self.global_batch / self.batch_size
    }

    /// Returns the side of a step's crops, in pixels.
    pub fn crop_size(&self, step: u64) -> u32 {
        self.phase(step).crop_size
    }

    /// Returns the rows and columns of a step's patch grid.
    pub fn grid(&self, step: u64) -> (usize, usize) {
        self.phase(step).masks.grid()
    }

    /// Returns the most patches a mask can hold, whatever the step.
    pub fn mask_limits(&self) -> MaskLimits {
        let limits = || self.phases.iter().map(|phase| phase.masks.limits());
        let most = |of: fn(MaskLimits) -> usize| limits().map(of).max();
        MaskLimits {
            context: most(|limits| limits.context).expect("there is a phase"),
            target: most(|limits| limits.target).expect("there is a phase"),
        }
    }

    fn phase(&self, step: u64) -> &Phase {
        let epoch = step / self.epoch_len;
        let phase = self.phases.iter().rfind(|phase| phase.first_epoch <= epoch);
        phase.expect("one begins at epoch 0")
    }

    /// Returns the sample at a position of a step's global batch.
    ///
    /// # Panics
    /// If the position is outside the global batch, here and below.
    pub fn sample_id(&self, step: u64, position: u64) -> u64 {
        let (epoch, step) = (step / self.epoch_len, step % self.epoch_len);
        let index = step * self.global_batch + u64::from(self.checked(position));
        Order::new(self.seed, epoch, self.samples).sample(index)
    }

    /// Returns what to take when the sample there, and `attempt` earlier replacements, are damaged.
    ///
    /// It is any sample of the split, uniformly. Together step and position stand for the epoch and the place in it.
    pub fn replacement(&self, step: u64, position: u64, attempt: u32) -> u64 {
        let stream = Stream::new(self.seed, Purpose::Replacement, attempt);
        stream
            .at(step, self.checked(position))
            .below64(self.samples)
    }

    /// Returns the crop box, in pixels of a source image of this width and height.
    pub fn crop(&self, step: u64, position: u64, source: (u32, u32)) -> CropBox {
        self.crop_sampler
            .draw(&mut self.crops.at(step, self.checked(position)), source)
    }

    /// Tells if the crop is mirrored.
    pub fn flip(&self, step: u64, position: u64) -> bool {
        self.mirror && self.flips.at(step, self.checked(position)).bits32() & 1 == 1
    }

    /// Returns what is done to the crop's colours and sharpness.
    pub fn augmentation(&self, step: u64, position: u64) -> Augmentation {
        self.augment_sampler.draw(step, self.checked(position))
    }

    /// Returns the masks of a group of a step.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn masks(&self, step: u64, group: u64) -> GroupMasks {
        assert!(group < self.groups(), "group {group} of {}", self.groups());
        let first = (group * self.batch_size) as u32;
        let masks = &self.phase(step).masks;
        masks.draw(step, first, self.batch_size as usize)
    }

    fn checked(&self, position: u64) -> u32 {
        assert!(
            position < self.global_batch,
            "position {position} in a global batch of {}",
            self.global_batch
        );
        position as u32
    }
}

#[cfg(test)]
mod tests;
