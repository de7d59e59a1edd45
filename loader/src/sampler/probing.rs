//! The sampler of probing: the samples of a split shuffled each epoch, random crops, mirrored or not, without masks.
//!
//! It is what heads learn from that are trained on features of changing crops, as the linear probes of VISSL and the
//! attentive ones of V-JEPA are. A step is one group of `data.batch_size` samples, and an epoch has as many as there
//! are whole ones. Crops are drawn from `data.crop_scale` by torchvision's law ([`crate::crop`]), half of them are
//! mirrored, and all draws are those of `loader.seed`. The place of a damaged sample stays empty.

use shardtool::planes::Area;

use super::subset::Subset;
use crate::config::LoaderConfig;
use crate::crop::CropSampler;
use crate::error::Error;
use crate::order::Order;
use crate::random::{Purpose, Stream};

/// Counts changes of what probing draws. It enters the hash that loader and trainer compare.
pub const PROBING_VERSION: u32 = 1;

/// Answers every question about what a step of probing sees.
#[derive(Clone, Debug)]
pub struct ProbingSampler {
    shown: Subset,
    seed: u64,
    batch_size: u64,
    crop: u32,
    crop_sampler: CropSampler,
    crops: Stream,
    flips: Stream,
}

impl ProbingSampler {
    /// Makes the sampler of a configuration over a split of `samples` samples.
    ///
    /// # Errors
    /// If there are fewer samples than a group has, or the list of those to show names others.
    pub fn new(config: &LoaderConfig, samples: u64) -> Result<ProbingSampler, Error> {
        let shown = Subset::of(config, samples)?;
        let batch_size = config.data.batch_size;
        if shown.len() < batch_size {
            return Err(Error::TooFewSamples {
                samples: shown.len(),
                global_batch: batch_size,
            });
        }
        let seed = config.loader.seed;
        Ok(ProbingSampler {
            shown,
            seed,
            batch_size,
            crop: config.eval_crop(),
            crop_sampler: CropSampler::new(config.data.crop_scale),
            crops: Stream::new(seed, Purpose::Crop, 0),
            flips: Stream::new(seed, Purpose::Flip, 0),
        })
    }

    /// Returns the side of the crops, in pixels.
    pub fn crop_size(&self) -> u32 {
        self.crop
    }

    /// Returns the steps in an epoch.
    pub fn epoch_len(&self) -> u64 {
        self.shown.len() / self.batch_size
    }

    /// Returns the sample at a position of a step.
    pub fn sample_id(&self, step: u64, position: u64) -> Option<u64> {
        let (epoch, step) = (step / self.epoch_len(), step % self.epoch_len());
        let index = step * self.batch_size + position;
        let order = Order::new(self.seed, epoch, self.shown.len());
        self.shown.at(order.sample(index))
    }

    /// Returns the part of an image that is shown, on its stored grid.
    ///
    /// # Panics
    /// If a side is 0, or the position is beyond 2^32.
    pub fn area(&self, step: u64, position: u64, source: (u32, u32), stored: (u32, u32)) -> Area {
        let mut draws = self.crops.at(step, narrow(position));
        let crop = self.crop_sampler.draw(&mut draws, source);
        crop.on_grid(source, stored)
    }

    /// Tells if the crop is mirrored.
    ///
    /// # Panics
    /// If the position is beyond 2^32.
    pub fn flip(&self, step: u64, position: u64) -> bool {
        self.flips.at(step, narrow(position)).bits32() & 1 == 1
    }
}

fn narrow(position: u64) -> u32 {
    u32::try_from(position).expect("a group has fewer images")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::config;

    fn sampler(only: Option<&[u64]>, samples: u64) -> Result<ProbingSampler, Error> {
        let mut config = config(14, &["data.batch_size=4", "data.crop_scale=[0.08,1.0]"]).unwrap();
        config.only = only.map(Into::into);
        ProbingSampler::new(&config, samples)
    }

    #[test]
    fn each_epoch_shows_the_listed_samples_once_in_another_order_and_other_crops() {
        let only = [1, 4, 5, 7, 8, 11, 12, 19];
        let sampler = sampler(Some(&only), 20).unwrap();
        assert_eq!(sampler.epoch_len(), 2);
        let epoch = |epoch: u64| -> Vec<u64> {
            let places = (0..2).flat_map(|step| (0..4).map(move |at| (2 * epoch + step, at)));
            places
                .map(|(step, at)| sampler.sample_id(step, at).unwrap())
                .collect()
        };
        for number in 0..3 {
            let seen: BTreeSet<u64> = epoch(number).into_iter().collect();
            assert!(seen.into_iter().eq(only), "epoch {number}");
        }
        assert!(epoch(0) != epoch(1) || epoch(1) != epoch(2));
        let areas = (0..50).map(|step| sampler.area(step, 0, (500, 375), (500, 375)));
        let shares: Vec<f64> = areas
            .map(|area| area.width * area.height / (500.0 * 375.0))
            .collect();
        let (least, most) = shares
            .iter()
            .fold((1.0f64, 0.0f64), |(a, b), s| (a.min(*s), b.max(*s)));
        assert!(least > 0.07 && least < 0.3 && most > 0.7, "{shares:?}");
        let mirrored = (0..200).filter(|&step| sampler.flip(step, 1)).count();
        assert!((60..140).contains(&mirrored), "{mirrored}");
    }

    #[test]
    fn fewer_samples_than_a_group_are_refused() {
        assert!(sampler(None, 3).is_err() && sampler(None, 4).is_ok());
        assert!(sampler(Some(&[0, 1, 2]), 100).is_err());
    }
}
