//! What a step sees, by the plan of the run.
//!
//! There are three plans: [`PretrainingSampler`], every epoch shuffled, random crops, masks; [`EvaluationSampler`],
//! every sample once, in order, its centre, without masks; and [`ProbingSampler`], shuffled random crops without masks.
//! [`Sampler`] is one of them, as the pipeline asks it.

mod evaluation;
mod pretraining;
mod probing;
mod subset;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardtool::planes::Area;

use crate::augment::Augmentation;
use crate::config::LoaderConfig;
use crate::error::Error;
use crate::masks::GroupMasks;

pub use evaluation::{EVALUATION_VERSION, EvaluationSampler};
pub use pretraining::{PretrainingSampler, SAMPLING_VERSION};
pub use probing::{PROBING_VERSION, ProbingSampler};
pub use subset::read_samples;

/// The purpose for which samples are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    /// Shuffled, randomly cropped and masked.
    #[default]
    Pretraining,
    /// Each once, in order, its centre, without masks.
    Evaluation,
    /// Shuffled, randomly cropped and mirrored, without masks.
    Probing,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Plan::Pretraining => "pretraining",
            Plan::Evaluation => "evaluation",
            Plan::Probing => "probing",
        })
    }
}

/// The sampler of any plan.
#[derive(Clone, Debug)]
pub enum Sampler {
    /// Of pretraining.
    Pretraining(Arc<PretrainingSampler>),
    /// Of evaluation.
    Evaluation(EvaluationSampler),
    /// Of probing.
    Probing(Arc<ProbingSampler>),
}

/// The part of an image that becomes a crop, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// The part, on the stored grid.
    pub area: Area,
    /// Pixels around it count in its resizing, as where an image is resized before it is cropped.
    pub surround: bool,
    /// It is mirrored left to right.
    pub mirror: bool,
}

impl From<Arc<PretrainingSampler>> for Sampler {
    fn from(sampler: Arc<PretrainingSampler>) -> Sampler {
        Sampler::Pretraining(sampler)
    }
}

impl Sampler {
    /// Makes the sampler of a plan and a configuration over a split of `samples` samples, for `world` ranks.
    ///
    /// # Errors
    /// Those of [`PretrainingSampler::new`], [`EvaluationSampler::new`] and [`ProbingSampler::new`].
    pub fn new(
        plan: Plan,
        config: &LoaderConfig,
        samples: u64,
        world: u64,
    ) -> Result<Sampler, Error> {
        Ok(match plan {
            Plan::Pretraining => {
                let sampler = PretrainingSampler::new(config, samples, config.global_batch(world))?;
                Sampler::Pretraining(Arc::new(sampler))
            }
            Plan::Evaluation => Sampler::Evaluation(EvaluationSampler::new(config, samples)?),
            Plan::Probing => Sampler::Probing(Arc::new(ProbingSampler::new(config, samples)?)),
        })
    }

    /// Returns the steps of an epoch.
    pub fn epoch_len(&self) -> u64 {
        match self {
            Sampler::Pretraining(sampler) => sampler.epoch_len(),
            Sampler::Evaluation(sampler) => sampler.epoch_len(),
            Sampler::Probing(sampler) => sampler.epoch_len(),
        }
    }

    /// Returns the side of a step's crops, in pixels.
    pub fn crop_size(&self, step: u64) -> u32 {
        match self {
            Sampler::Pretraining(sampler) => sampler.crop_size(step),
            Sampler::Evaluation(sampler) => sampler.crop_size(),
            Sampler::Probing(sampler) => sampler.crop_size(),
        }
    }

    /// Returns the step behind the last; pretraining and probing go on without an end.
    pub fn end(&self) -> u64 {
        match self {
            Sampler::Pretraining(_) | Sampler::Probing(_) => u64::MAX,
            Sampler::Evaluation(sampler) => sampler.epoch_len(),
        }
    }

    /// Returns the groups of a step.
    pub fn groups(&self) -> u64 {
        match self {
            Sampler::Pretraining(sampler) => sampler.groups(),
            Sampler::Evaluation(_) | Sampler::Probing(_) => 1,
        }
    }

    /// Returns the sample at a position of a step; none where nothing is to be shown.
    pub fn sample_id(&self, step: u64, position: u64) -> Option<u64> {
        match self {
            Sampler::Pretraining(sampler) => Some(sampler.sample_id(step, position)),
            Sampler::Evaluation(sampler) => sampler.sample_id(step, position),
            Sampler::Probing(sampler) => sampler.sample_id(step, position),
        }
    }

    /// Returns what to take when the sample there, and `attempt` earlier replacements, are damaged; nothing where each
    /// sample counts once.
    pub fn replacement(&self, step: u64, position: u64, attempt: u32) -> Option<u64> {
        match self {
            Sampler::Pretraining(sampler) => Some(sampler.replacement(step, position, attempt)),
            Sampler::Evaluation(_) | Sampler::Probing(_) => None,
        }
    }

    /// Returns the part of an image of `source` pixels that is shown, on its grid of `stored` ones.
    pub fn placement(
        &self,
        step: u64,
        position: u64,
        source: (u32, u32),
        stored: (u32, u32),
    ) -> Placement {
        match self {
            Sampler::Pretraining(sampler) => Placement {
                area: sampler.crop(step, position, source).on_grid(source, stored),
                surround: false,
                mirror: sampler.flip(step, position),
            },
            Sampler::Evaluation(sampler) => Placement {
                area: sampler.area(source, stored),
                surround: true,
                mirror: false,
            },
            Sampler::Probing(sampler) => Placement {
                area: sampler.area(step, position, source, stored),
                surround: false,
                mirror: sampler.flip(step, position),
            },
        }
    }

    /// Returns what is done to the crop's colours and sharpness.
    pub fn augmentation(&self, step: u64, position: u64) -> Augmentation {
        match self {
            Sampler::Pretraining(sampler) => sampler.augmentation(step, position),
            Sampler::Evaluation(_) | Sampler::Probing(_) => Augmentation::default(),
        }
    }

    /// Returns the masks of a group of a step, of which pretraining alone has any.
    pub fn masks(&self, step: u64, group: u64) -> GroupMasks {
        match self {
            Sampler::Pretraining(sampler) => sampler.masks(step, group),
            Sampler::Evaluation(_) | Sampler::Probing(_) => GroupMasks::default(),
        }
    }
}
