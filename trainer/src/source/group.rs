//! A group on its way from shared memory to tensors.

use std::time::Duration;

use exchange::model::{MEAN, STD};
use loader::ring::{FLAG_REPLACED, Geometry, SlotReader};
use tch::{Device, Kind, Tensor};

use crate::Error;

/// A group on the device, of which nothing is in the ring any more.
#[derive(Debug)]
pub struct Group {
    /// Normalised images (B, 3, H, W).
    pub images: Tensor,
    /// Patch numbers (B, n) of each context mask.
    pub context: Vec<Tensor>,
    /// Patch numbers (B, m) of each target mask.
    pub targets: Vec<Tensor>,
    /// Sample number of each image in its split.
    pub sample_ids: Vec<u64>,
    /// Class of each image, [`NO_LABEL`](loader::ring::NO_LABEL) where it has none.
    pub labels: Vec<i64>,
    /// Flags of each image: [`FLAG_REPLACED`] and [`FLAG_ABSENT`](loader::ring::FLAG_ABSENT).
    pub flags: Vec<u8>,
    /// Images that stand in for damaged ones.
    pub replaced: u64,
    /// Time in which the trainer was blocked until the group was there, without the copy.
    pub waited: Duration,
}

/// A group as it lies in memory.
#[derive(Clone, Debug)]
pub struct Raw<'a> {
    /// B images of (3, H, W) bytes.
    pub images: &'a [u8],
    /// Height and width.
    pub size: (usize, usize),
    /// Each context mask of all images, row by row.
    pub context: Vec<&'a [i64]>,
    /// Each target mask.
    pub targets: Vec<&'a [i64]>,
    /// Sample number of each image.
    pub sample_ids: &'a [u64],
    /// Class of each image.
    pub labels: &'a [i64],
    /// Flags of each image.
    pub flags: &'a [u8],
}

impl<'a> Raw<'a> {
    /// Returns what lies in a slot of a ring of these dimensions.
    pub fn of(slot: &'a SlotReader, geometry: &Geometry) -> Raw<'a> {
        Raw {
            images: slot.images(),
            size: slot.size(),
            context: (0..geometry.context_masks)
                .map(|mask| slot.context(mask))
                .collect(),
            targets: (0..geometry.target_masks)
                .map(|mask| slot.target(mask))
                .collect(),
            sample_ids: slot.sample_ids(),
            labels: slot.labels(),
            flags: slot.flags(),
        }
    }

    /// Counts images that stand in for damaged ones.
    pub fn replaced(&self) -> u64 {
        let replaced = self
            .flags
            .iter()
            .filter(|flags| **flags & FLAG_REPLACED != 0);
        replaced.count() as u64
    }
}

/// A function from bytes to what the networks take, by the official operations in their order: over 255, minus the
/// mean, over the deviation, each rounded to float32.
#[derive(Debug)]
pub struct Normaliser {
    full: Tensor, // (1,)
    mean: Tensor, // (1, 3, 1, 1)
    std: Tensor,  // (1, 3, 1, 1)
}

impl Normaliser {
    /// Makes one with its constants on `device`.
    ///
    /// # Errors
    /// Too little memory, above all.
    pub fn new(device: Device) -> Result<Normaliser, Error> {
        let constant = |values: &[f32]| Tensor::f_from_slice(values)?.f_to_device(device);
        let channels = |values| constant(values)?.f_view([1, 3, 1, 1]);
        Ok(Normaliser {
            // A tensor on the device, because a GPU multiplies by the reciprocal of a number, which rounds otherwise.
            full: constant(&[255.0])?,
            mean: channels(&MEAN)?,
            std: channels(&STD)?,
        })
    }

    /// Turns (B, 3, H, W) bytes on the device into a new float32 tensor of that shape.
    ///
    /// # Errors
    /// Too little memory, above all.
    pub fn apply(&self, bytes: &Tensor) -> Result<Tensor, Error> {
        Ok(bytes
            .f_to_kind(Kind::Float)?
            .f_div_(&self.full)?
            .f_sub_(&self.mean)?
            .f_div_(&self.std)?)
    }
}

impl Group {
    /// Copies a group to `device`, once, and normalises it there. Done when it returns.
    ///
    /// # Errors
    /// Too little memory, above all; or a group of another size than it says.
    pub fn new(raw: &Raw<'_>, device: Device) -> Result<Group, Error> {
        let images = raw.sample_ids.len() as i64;
        let (height, width) = (raw.size.0 as i64, raw.size.1 as i64);
        if images == 0 || raw.images.len() as i64 != images * 3 * height * width {
            return Err(Error::GroupSize {
                images: raw.sample_ids.len(),
                size: raw.size,
                bytes: raw.images.len(),
            });
        }
        let masks = |masks: &[&[i64]]| -> Result<Vec<Tensor>, Error> {
            let rows = masks.iter().map(|mask| {
                Ok(Tensor::f_from_slice(mask)?
                    .f_view([images, -1])?
                    .f_to_device(device)?)
            });
            rows.collect()
        };
        // SAFETY: the slice holds exactly these bytes and outlives the tensor, which is read below and dropped in this
        // function; the normaliser makes a tensor of its own.
        let bytes = unsafe {
            let sizes = [images, 3, height, width];
            Tensor::f_from_blob(raw.images.as_ptr(), &sizes, &[], Kind::Uint8, Device::Cpu)?
        };
        Ok(Group {
            images: Normaliser::new(device)?.apply(&bytes.f_to_device(device)?)?,
            context: masks(&raw.context)?,
            targets: masks(&raw.targets)?,
            sample_ids: raw.sample_ids.to_vec(),
            labels: raw.labels.to_vec(),
            flags: raw.flags.to_vec(),
            replaced: raw.replaced(),
            waited: Duration::ZERO,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_normalised_as_torchvision_does() {
        let images: Vec<u8> = (0..2 * 3 * 4).map(|byte| byte * 10).collect();
        let (context, target) = ([0i64, 1, 2, 3], [3i64, 0]);
        let raw = Raw {
            images: &images,
            size: (2, 2),
            context: vec![&context],
            targets: vec![&target, &target],
            sample_ids: &[7, 9],
            labels: &[1, 0],
            flags: &[0, FLAG_REPLACED],
        };
        let batch = Group::new(&raw, Device::Cpu).unwrap();
        assert_eq!(batch.images.size(), [2, 3, 2, 2]);
        let values = Vec::<f32>::try_from(batch.images.flatten(0, -1)).unwrap();
        for (index, value) in values.into_iter().enumerate() {
            let channel = index / 4 % 3;
            assert_eq!(
                value,
                (f32::from(images[index]) / 255.0 - MEAN[channel]) / STD[channel],
                "value {index}"
            );
        }
        assert_eq!(batch.context[0].size(), [2, 2]);
        assert_eq!(
            (batch.targets.len(), batch.targets[1].size()),
            (2, vec![2, 1])
        );
        assert_eq!(
            Vec::<i64>::try_from(batch.context[0].get(1)).unwrap(),
            [2, 3]
        );
        assert_eq!((batch.replaced, &batch.sample_ids[..]), (1, &[7, 9][..]));
    }

    #[test]
    fn a_group_of_another_size_is_refused() {
        let raw = Raw {
            images: &[0; 11],
            size: (2, 2),
            context: vec![],
            targets: vec![],
            sample_ids: &[0],
            labels: &[0],
            flags: &[0],
        };
        assert!(Group::new(&raw, Device::Cpu).is_err());
    }
}
