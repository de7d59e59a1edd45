//! Random changes of a crop's colours and sharpness, by the official code's law (`src/transforms.py`,
//! `make_transforms`, of facebookresearch/ijepa).
//!
//! [`AugmentSampler`] draws what is done to the image at a position of a step; [`Augmenter`] does it, in place, to the
//! planes of a slot. The operations are those of torchvision's `ColorJitter` and `RandomGrayscale` on a PIL image and
//! of Pillow's `GaussianBlur`, in their arithmetic: bytes in, bytes out after every single operation. For the same
//! image and parameters the bytes are Pillow's; the tests hold recorded ones of Pillow.

#[cfg(feature = "serve")]
pub mod blur;
#[cfg(feature = "serve")]
pub mod colour;

#[cfg(feature = "serve")]
use shardtool::simd::Simd;

use crate::config::{Data, MAX_JITTER_STRENGTH};
use crate::random::{Draws, Purpose, Stream};

/// What is done to one crop after it was mirrored, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Augmentation {
    /// Changes of colour, one after the other.
    pub jitter: Option<[Change; 4]>,
    /// The colours are taken away.
    pub grey: bool,
    /// Standard deviation of the blur, in pixels.
    pub blur: Option<f32>,
}

/// A change of colour. A factor of 1 changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Distance from black, as a factor.
    Brightness(f32),
    /// Distance from the image's mean grey, as a factor.
    Contrast(f32),
    /// Distance of each pixel from its own grey, as a factor.
    Saturation(f32),
    /// What is added to the hue, in 256ths of the circle. Even 0 rounds colours to what hue, saturation and value of
    /// eight bits each can say.
    Hue(u8),
}

/// Share of the images that are jittered.
const JITTERED: f64 = 0.8;
/// Share of the images that lose their colours.
const GREY: f64 = 0.2;
/// Share of the images that are blurred.
const BLURRED: f64 = 0.5;
/// Standard deviations of the blur.
const SIGMA: [f64; 2] = [0.1, 2.0];
/// Largest change of brightness, contrast and saturation at strength 1.
const FACTOR: f64 = 0.8;
/// Largest change of hue at strength 1, in circles.
const HUE: f64 = 0.2;

/// At the largest strength the hue takes any value: half a circle to either side.
const _: () = assert!(MAX_JITTER_STRENGTH * HUE == 0.5);

/// Which crops are changed, and how.
#[derive(Clone, Copy, Debug)]
pub struct AugmentSampler {
    /// Strength of the distortion, where there is one.
    strength: Option<f64>,
    blurred: bool,
    colours: Stream,
    blurs: Stream,
}

impl AugmentSampler {
    /// Makes the sampler of a configuration under a seed.
    pub fn new(data: &Data, seed: u64) -> AugmentSampler {
        AugmentSampler {
            strength: data
                .use_color_distortion
                .then_some(data.color_jitter_strength),
            blurred: data.use_gaussian_blur,
            colours: Stream::new(seed, Purpose::Colour, 0),
            blurs: Stream::new(seed, Purpose::Blur, 0),
        }
    }

    /// Draws what is done to the image at a position of a step.
    pub fn draw(&self, step: u64, position: u32) -> Augmentation {
        let mut augmentation = Augmentation::default();
        if let Some(strength) = self.strength {
            let mut draws = self.colours.at(step, position);
            augmentation.grey = draws.uniform() < GREY;
            // At strength 0 torchvision leaves out every change, the rounding to hues included.
            if draws.uniform() < JITTERED && strength > 0.0 {
                augmentation.jitter = Some(jitter(&mut draws, strength));
            }
        }
        if self.blurred {
            let mut draws = self.blurs.at(step, position);
            if draws.uniform() < BLURRED {
                augmentation.blur = Some(draws.uniform_in(SIGMA) as f32);
            }
        }
        augmentation
    }
}

/// Draws four changes in random order.
fn jitter(draws: &mut Draws, strength: f64) -> [Change; 4] {
    let change = FACTOR * strength;
    let factors = [(1.0 - change).max(0.0), 1.0 + change];
    let mut factor = || draws.uniform_in(factors) as f32;
    let (brightness, contrast, saturation) = (factor(), factor(), factor());
    let hue = draws.uniform_in([-HUE * strength, HUE * strength]);
    let mut changes = [
        Change::Brightness(brightness),
        Change::Contrast(contrast),
        Change::Saturation(saturation),
        // Cut towards 0, then around the circle: torchvision goes by 255ths, Pillow's circle has 256 steps.
        Change::Hue((hue * 255.0) as i32 as u8),
    ];
    for last in (1..4).rev() {
        changes.swap(last, draws.below(last as u32 + 1) as usize);
    }
    changes
}

/// Changes images in place; keep one per thread.
#[cfg(feature = "serve")]
#[derive(Debug)]
pub struct Augmenter {
    simd: Simd,
    blur: blur::Blur,
}

#[cfg(feature = "serve")]
impl Augmenter {
    /// Makes an augmenter that uses no wider instructions than these.
    pub fn with(simd: Simd) -> Augmenter {
        let simd = simd.min(Simd::best());
        Augmenter {
            simd,
            blur: blur::Blur::with(simd),
        }
    }

    /// Makes room for images of this side, so that nothing is allocated for one.
    pub fn reserve(&mut self, side: u32) {
        self.blur.reserve(side as usize);
    }

    /// Changes the `planes` of a square image: red, green, blue, each `side` × `side`.
    ///
    /// # Panics
    /// If `planes` has another length.
    pub fn apply(&mut self, augmentation: &Augmentation, planes: &mut [u8], side: u32) {
        let side = side as usize;
        assert_eq!(planes.len(), 3 * side * side, "three planes of {side}²");
        for change in augmentation.jitter.iter().flatten() {
            colour::change(self.simd, *change, planes);
        }
        if augmentation.grey {
            colour::grey(self.simd, planes);
        }
        if let Some(sigma) = augmentation.blur {
            for plane in planes.chunks_exact_mut(side * side) {
                self.blur.apply(sigma, plane, side);
            }
        }
    }
}

#[cfg(test)]
mod tests;
