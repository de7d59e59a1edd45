//! The linear probes of [`super`] on features of random crops, which are computed each time that an image comes.
//!
//! The batch norm is PyTorch's then: in training it takes the batch's own mean and variance, and keeps running ones,
//! with momentum 0.1, for the images that are counted.

use tch::{Kind, Tensor};

use super::{Heads, Settings, cosine};
use crate::evaluate::learner::{Learner, in_bfloat16};
use crate::evaluate::{Error, Features, Pooling};

/// Share of a batch in the running moments.
const MOMENTUM: f64 = 0.1;

/// The heads of a grid, on a frozen encoder.
pub struct Augmented<'a> {
    features: &'a Features,
    layers: usize,
    pooling: Pooling,
    /// Images that are computed at once.
    at_once: i64,
    bfloat16: bool,
    heads: Heads,
    /// Running mean and variance (1, D).
    running: (Tensor, Tensor),
}

impl<'a> Augmented<'a> {
    /// Makes heads for what `pooling` keeps of the last `layers` blocks. Images are computed `at_once`.
    ///
    /// # Errors
    /// [`Error::Compute`] where there is no room.
    pub fn new(
        features: &'a Features,
        (layers, pooling): (usize, Pooling),
        classes: i64,
        settings: &Settings,
        at_once: i64,
        bfloat16: bool,
    ) -> Result<Augmented<'a>, Error> {
        let device = features.device();
        let width = features.encoder().config().embed_dim * layers as i64 * pooling.parts();
        let options = (Kind::Float, device);
        let running = || -> Result<(Tensor, Tensor), crate::Error> {
            Ok((
                Tensor::f_zeros([1, width], options)?,
                Tensor::f_ones([1, width], options)?,
            ))
        };
        Ok(Augmented {
            features,
            layers,
            pooling,
            at_once,
            bfloat16,
            heads: Heads::with_moments(running()?, classes, settings, device)?,
            running: running()?,
        })
    }

    /// Returns the features of normalised images: (B, D).
    fn pooled(&self, images: &Tensor) -> Result<Tensor, crate::Error> {
        let pieces = images.f_split(self.at_once, 0)?;
        let pooled = pieces.iter().map(|images| {
            in_bfloat16(self.bfloat16, images, || {
                self.features
                    .pooled_layers(images, self.layers, self.pooling)
            })
        });
        Ok(Tensor::f_cat(&pooled.collect::<Result<Vec<_>, _>>()?, 0)?)
    }
}

impl Learner for Augmented<'_> {
    fn learn(&mut self, images: &Tensor, labels: &Tensor, done: f64) -> Result<(), crate::Error> {
        let x = self.pooled(images)?;
        let mean = x.f_mean_dim([0i64].as_slice(), true, Kind::Float)?;
        let variance =
            x.f_sub(&mean)?
                .f_square()?
                .f_mean_dim([0i64].as_slice(), true, Kind::Float)?;
        self.heads.set_moments(&mean, &variance)?;
        self.heads
            .learn(&self.heads.normalised(&x)?, labels, cosine(done))?;
        // The running variance is that of which a batch is a sample.
        let images = x.size()[0] as f64;
        let unbiased = variance.f_mul_scalar(images / (images - 1.0).max(1.0))?;
        let _ = self.running.0.f_lerp_(&mean, MOMENTUM)?;
        let _ = self.running.1.f_lerp_(&unbiased, MOMENTUM)?;
        self.heads.set_moments(&self.running.0, &self.running.1)
    }

    fn told(&self, images: &Tensor) -> Result<Tensor, crate::Error> {
        self.heads
            .logits(&self.heads.normalised(&self.pooled(images)?)?)
    }
}

#[cfg(test)]
mod tests {
    use tch::nn::{self, ModuleT};

    use super::super::tests::settings;
    use super::*;
    use crate::evaluate::features::tests::features;
    use crate::evaluate::learner::tests::{spots, taught};

    #[test]
    fn heads_learn_and_a_rate_of_nothing_does_not() {
        let features = features();
        let settings = Settings {
            lrs: vec![0.0, 0.1],
            weight_decays: vec![0.0],
            ..settings()
        };
        let kind = (1, Pooling::Mean);
        let mut probe = Augmented::new(&features, kind, 2, &settings, 5, false).unwrap();
        let [still, good] = taught(&mut probe, 60)[..] else {
            panic!("two rates are two heads");
        };
        assert!(
            good > Some(95.0) && still == Some(50.0),
            "{still:?} {good:?}"
        );
    }

    #[test]
    fn the_running_moments_are_those_of_pytorchs_batch_norm() {
        let features = features();
        let kind = (1, Pooling::Mean);
        let mut probe = Augmented::new(&features, kind, 2, &settings(), 16, false).unwrap();
        let (source, classes) = spots(3);
        let vars = nn::VarStore::new(tch::Device::Cpu);
        let width = probe.running.0.size()[1];
        let config = nn::BatchNormConfig {
            affine: false,
            eps: 1e-6,
            ..Default::default()
        };
        let norm = nn::batch_norm1d(vars.root(), width, config);
        for (group, classes) in source.0.iter().zip(classes.chunks(16)) {
            let labels = Tensor::from_slice(classes);
            let _ = norm.forward_t(&probe.pooled(&group.images).unwrap(), true);
            probe.learn(&group.images, &labels, 0.0).unwrap();
        }
        let x = probe.pooled(&source.0[0].images).unwrap();
        let ours = probe.heads.normalised(&x).unwrap();
        assert!(ours.allclose(&norm.forward_t(&x, false), 1e-4, 1e-4, false));
    }
}
