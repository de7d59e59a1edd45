//! The sampler of evaluation: every sample of a split once, in order, its centre, without masks; or those of a list.
//!
//! A step is one group of `data.batch_size` consecutive samples; the places behind the last sample stay empty, and so
//! does the place of a damaged sample: an evaluation shows no image twice. The image is what torchvision's
//! `Resize(loader.eval_resize)` and `CenterCrop(data.crop_size)` make of the source: the shorter side becomes
//! `eval_resize` pixels, by the filter of training (Pillow's antialiased `BILINEAR`, torchvision's default and so that
//! of VISSL's linear probes), and the square in the middle is cut out.

use shardtool::planes::Area;

use super::subset::Subset;
use crate::config::LoaderConfig;
use crate::error::Error;

/// Counts changes of what an evaluation shows. It enters the hash that loader and trainer compare.
pub const EVALUATION_VERSION: u32 = 1;

/// Answers every question about what an evaluation shows.
#[derive(Clone, Debug)]
pub struct EvaluationSampler {
    shown: Subset,
    batch_size: u64,
    resize: u32,
    crop: u32,
}

impl EvaluationSampler {
    /// Makes the sampler of a configuration over a split of `samples` samples.
    ///
    /// # Errors
    /// If the resized image would be smaller than the crop, or there is no sample to show.
    pub fn new(config: &LoaderConfig, samples: u64) -> Result<EvaluationSampler, Error> {
        let batch_size = config.data.batch_size;
        let (resize, crop) = (config.eval_resize(), config.eval_crop());
        if resize < crop {
            let fault = Error::Value {
                key: "loader.eval_resize".to_owned(),
                value: resize.to_string(),
                problem: format!("is less than the {crop} pixels of the crop (data.crop_size)"),
            };
            return Err(config.origin.place(fault));
        }
        Ok(EvaluationSampler {
            shown: Subset::of(config, samples)?,
            batch_size,
            resize,
            crop,
        })
    }

    /// Returns the side of the crops, in pixels.
    pub fn crop_size(&self) -> u32 {
        self.crop
    }

    /// Returns the steps after which every sample has been shown: groups, the last of which may be partial.
    pub fn epoch_len(&self) -> u64 {
        self.shown.len().div_ceil(self.batch_size)
    }

    /// Returns the sample at a position of a step; none behind the last.
    pub fn sample_id(&self, step: u64, position: u64) -> Option<u64> {
        self.shown
            .at(step.checked_mul(self.batch_size)?.checked_add(position)?)
    }

    /// Returns the part of an image that is shown, on its stored grid.
    ///
    /// # Panics
    /// If a side is 0.
    pub fn area(&self, source: (u32, u32), stored: (u32, u32)) -> Area {
        let (width, height) = source;
        assert!(width > 0 && height > 0, "a {width}x{height} image");
        let short = width.min(height);
        // torchvision cuts the longer side's fraction off.
        let resized = |side: u32| u64::from(self.resize) * u64::from(side) / u64::from(short);
        let (left, wide) = along(resized(width), self.crop, stored.0);
        let (top, high) = along(resized(height), self.crop, stored.1);
        Area {
            left,
            top,
            width: wide,
            height: high,
        }
    }
}

/// Returns start and length of the middle `crop` of `resized` pixels, on a grid of `stored` ones.
fn along(resized: u64, crop: u32, stored: u32) -> (f64, f64) {
    let rest = resized - u64::from(crop);
    // Python's round: half a pixel goes to the even side.
    let first = rest / 2 + (rest % 2) * (rest / 2 % 2);
    let scale = f64::from(stored) / resized as f64;
    let start = first as f64 * scale;
    // Rounding must not take the far edge over the image's.
    let length = (f64::from(crop) * scale).min(f64::from(stored) - start);
    (start, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    fn sampler(samples: u64, sets: &[&str]) -> Result<EvaluationSampler, Error> {
        let sets = [&["data.batch_size=16"], sets].concat();
        EvaluationSampler::new(&config(14, &sets).unwrap(), samples)
    }

    #[test]
    fn every_sample_comes_once_and_in_order() {
        for samples in [1, 15, 16, 17, 1000] {
            let sampler = sampler(samples, &[]).unwrap();
            let places =
                (0..sampler.epoch_len()).flat_map(|step| (0..16).map(move |at| (step, at)));
            let seen: Vec<_> = places
                .map(|(step, at)| sampler.sample_id(step, at))
                .collect();
            let (there, empty) = seen.split_at(samples as usize);
            assert!(there.iter().copied().eq((0..samples).map(Some)));
            assert!(empty.len() < 16 && empty.iter().all(Option::is_none));
        }
        assert_eq!(sampler(20, &[]).unwrap().sample_id(u64::MAX, 3), None);
    }

    #[test]
    fn areas_are_torchvisions() {
        // Resize(256) makes 341 x 256 of 500 x 375; CenterCrop(224) begins at round(58.5) = 58 and 16.
        let sampler = sampler(1, &[]).unwrap();
        let area = sampler.area((500, 375), (500, 375));
        let (across, down) = (500.0 / 341.0, 375.0 / 256.0);
        assert_eq!((area.left, area.top), (58.0 * across, 16.0 * down));
        assert_eq!((area.width, area.height), (224.0 * across, 224.0 * down));
        // 59.5 goes to 60, as in Python: 256 x 343 of 300 x 402.
        let tall = sampler.area((300, 402), (300, 402));
        assert_eq!(tall.top, 60.0 * (402.0 / 343.0));
        // Stored at half the size it is the same part of the image.
        let half = sampler.area((500, 375), (250, 188));
        assert_eq!((half.left, half.width), (area.left / 2.0, area.width / 2.0));
    }

    #[test]
    fn areas_lie_inside_the_image() {
        for sets in [
            &["loader.eval_resize=224"][..],
            &["loader.eval_resize=225"],
            &[],
        ] {
            let sampler = sampler(1, sets).unwrap();
            for source in [(1, 1), (1, 5000), (5000, 7), (224, 225), (333, 500)] {
                for stored in [source, (1, 1), (77, 31)] {
                    let area = sampler.area(source, stored);
                    assert!(area.left >= 0.0 && area.top >= 0.0 && area.width > 0.0);
                    assert!(area.left + area.width <= f64::from(stored.0), "{area:?}");
                    assert!(area.top + area.height <= f64::from(stored.1), "{area:?}");
                }
            }
        }
    }

    #[test]
    fn a_crop_larger_than_the_image_is_refused() {
        let error = sampler(9, &["loader.eval_resize=223"]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("loader.eval_resize") && text.contains("224"),
            "{text}"
        );
        assert!(sampler(0, &[]).is_err());
    }
}
