//! What a configuration gives: the ring and the counts that a loader announces, and a trainer expects.
//!
//! Both sides compute them from their own configuration, so that a trainer maps no memory but what it asked for.

use shardtool::Manifest;

use super::error::Error;
use super::messages::{PROTOCOL, Welcome};
use crate::config::LoaderConfig;
use crate::ring::Geometry;
use crate::sampler::{Plan, PretrainingSampler, Sampler};

/// Returns the dimensions of the ring that fits a configuration and its sampler: it has room for the largest crops.
pub fn geometry(config: &LoaderConfig, sampler: &PretrainingSampler) -> Geometry {
    let limits = sampler.mask_limits();
    let side = config.data.crop_size.largest() as usize;
    Geometry {
        slots: config.loader.slots,
        images_per_slot: config.data.batch_size as usize,
        channels: 3,
        height: side,
        width: side,
        context_masks: config.mask.num_enc_masks,
        target_masks: config.mask.num_pred_masks,
        max_context: limits.context,
        max_target: limits.target,
    }
}

impl Sampler {
    /// Returns the dimensions of the ring that fits a configuration.
    pub fn geometry(&self, config: &LoaderConfig) -> Geometry {
        match self {
            Sampler::Pretraining(sampler) => geometry(config, sampler),
            Sampler::Evaluation(_) | Sampler::Probing(_) => Geometry {
                slots: config.loader.slots,
                images_per_slot: config.data.batch_size as usize,
                channels: 3,
                height: config.eval_crop() as usize,
                width: config.eval_crop() as usize,
                context_masks: 0,
                target_masks: 0,
                max_context: 0,
                max_target: 0,
            },
        }
    }
}

impl Welcome {
    /// Returns the welcome of a loader in this process.
    pub(crate) fn of(
        config: &LoaderConfig,
        manifest: &Manifest,
        samples: u64,
        sampler: &Sampler,
    ) -> Welcome {
        Welcome {
            protocol: PROTOCOL,
            pid: std::process::id(),
            geometry: sampler.geometry(config),
            epoch_len: sampler.epoch_len(),
            samples,
            classes: manifest.classes.len() as u64,
            groups: sampler.groups(),
        }
    }

    /// Returns the welcome that a rank of `world` expects of a loader with its own configuration, but for the process.
    ///
    /// # Errors
    /// If the shards lack the split, or do not go with the configuration.
    pub fn expected(
        config: &LoaderConfig,
        manifest: &Manifest,
        world: u32,
    ) -> Result<Welcome, crate::Error> {
        Welcome::expected_for(Plan::Pretraining, config, manifest, world)
    }

    /// Returns what [`expected`](Welcome::expected) does, for a plan.
    ///
    /// # Errors
    /// Those of [`expected`](Welcome::expected).
    pub fn expected_for(
        plan: Plan,
        config: &LoaderConfig,
        manifest: &Manifest,
        world: u32,
    ) -> Result<Welcome, crate::Error> {
        let split = &config.loader.split;
        let found = manifest.split(split).ok_or_else(|| {
            let names: Vec<&str> = manifest.splits.iter().map(|split| &*split.name).collect();
            crate::Error::Value {
                key: "loader.split".to_owned(),
                value: split.clone(),
                problem: format!("is no split of the shards; they have: {}", names.join(", ")),
            }
        })?;
        let sampler = Sampler::new(plan, config, found.samples, world.into())?;
        Ok(Welcome::of(config, manifest, found.samples, &sampler))
    }

    /// Compares what a loader announces with what is expected.
    pub(super) fn check(&self, expected: &Welcome) -> Result<(), Error> {
        let values = |welcome: &Welcome| {
            let ring = welcome.geometry;
            [
                ("slots (loader.slots)", ring.slots as u64),
                (
                    "images per slot (data.batch_size)",
                    ring.images_per_slot as u64,
                ),
                ("colour planes", ring.channels as u64),
                ("rows (data.crop_size)", ring.height as u64),
                ("columns (data.crop_size)", ring.width as u64),
                (
                    "context masks (mask.num_enc_masks)",
                    ring.context_masks as u64,
                ),
                (
                    "target masks (mask.num_pred_masks)",
                    ring.target_masks as u64,
                ),
                ("patches of a context at most", ring.max_context as u64),
                ("patches of a target at most", ring.max_target as u64),
                ("steps of an epoch", welcome.epoch_len),
                ("samples", welcome.samples),
                ("classes", welcome.classes),
                ("groups of a step", welcome.groups),
            ]
        };
        for ((what, found), (_, expected)) in values(self).into_iter().zip(values(expected)) {
            if found != expected {
                return Err(Error::Unexpected {
                    what,
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_welcome_is_compared() {
        let expected = Welcome {
            protocol: PROTOCOL,
            pid: 0,
            geometry: Geometry::from_words([1, 2, 3, 4, 5, 6, 7, 8, 9]),
            epoch_len: 10,
            samples: 11,
            classes: 12,
            groups: 13,
        };
        expected
            .check(&Welcome {
                pid: 7,
                ..expected.clone()
            })
            .unwrap();
        let ring = |at: usize| {
            let mut words = expected.geometry.to_words();
            words[at] = 99;
            let geometry = Geometry::from_words(words);
            Welcome {
                geometry,
                ..expected.clone()
            }
        };
        let counts = [
            Welcome {
                epoch_len: 99,
                ..expected.clone()
            },
            Welcome {
                samples: 99,
                ..expected.clone()
            },
            Welcome {
                classes: 99,
                ..expected.clone()
            },
            Welcome {
                groups: 99,
                ..expected.clone()
            },
        ];
        for (number, welcome) in (0..9).map(ring).chain(counts).enumerate() {
            let error = welcome.check(&expected).unwrap_err().to_string();
            let values = format!("= 99, this program's configuration gives {}", number + 1);
            assert!(error.contains(&values), "{error}");
        }
    }
}
