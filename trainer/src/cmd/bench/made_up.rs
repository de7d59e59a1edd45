//! Batches without a loader, so that the step alone is measured.

use anyhow::{Result, ensure};
use loader::masks::{GroupMasks, MaskSampler};
use tch::Device;

use trainer::config::Config;
use trainer::source::{self, Group, GroupSource, Raw};

/// Random bytes as images, with the masks that the loader would draw.
pub struct MadeUp {
    images: Vec<u8>,
    sample_ids: Vec<u64>,
    labels: Vec<i64>,
    flags: Vec<u8>,
    size: usize,
    groups: u64,
    masks: Vec<GroupMasks>,
    device: Device,
}

impl MadeUp {
    /// Batches for any number of steps, under the masks of `steps`, over and over. Masks of one step alone have equal
    /// lengths in all steps.
    pub fn new(config: &Config, steps: std::ops::Range<u64>, device: Device) -> Result<MadeUp> {
        let data = &config.loader.data;
        let (images, crop_size) = (usize::try_from(data.batch_size)?, data.crop_size.at(0));
        let size = crop_size as usize;
        ensure!(images > 0, "data.batch_size: no images, nothing to measure");
        ensure!(!steps.is_empty(), "masks of no step");
        let sampler = MaskSampler::new(&config.loader, crop_size)?;
        let groups = config.loader.global_batch(1) / data.batch_size;
        let masks = steps.flat_map(|step| {
            let sampler = &sampler;
            (0..groups).map(move |group| {
                sampler.draw(
                    step,
                    u32::try_from(group).unwrap_or(0) * images as u32,
                    images,
                )
            })
        });
        // A multiplicative generator: any bytes do, as long as they are not all alike.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let bytes = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        });
        Ok(MadeUp {
            images: bytes.take(images * 3 * size * size).collect(),
            sample_ids: (0..images as u64).collect(),
            labels: vec![0; images],
            flags: vec![0; images],
            size,
            groups,
            masks: masks.collect(),
            device,
        })
    }
}

impl GroupSource for MadeUp {
    fn take(&mut self, step: u64, group: u64) -> Result<Option<Group>, source::Error> {
        fn slices(masks: &[Vec<i64>]) -> Vec<&[i64]> {
            masks.iter().map(Vec::as_slice).collect()
        }
        let number = (step * self.groups + group) as usize % self.masks.len();
        let raw = Raw {
            images: &self.images,
            size: (self.size, self.size),
            context: slices(&self.masks[number].context),
            targets: slices(&self.masks[number].targets),
            sample_ids: &self.sample_ids,
            labels: &self.labels,
            flags: &self.flags,
        };
        Ok(Some(Group::new(&raw, self.device)?))
    }

    fn groups(&self) -> u64 {
        self.groups
    }
}
