//! What options of the method add to a step. With none of them, the official loss stays as it is, bit for bit.

use loader::random::Purpose;
use tch::Tensor;

use super::{Error, Run};
use crate::config::Method;
use crate::method::noise::Noise;
use crate::method::visible::Patches;
use crate::method::{regularizer, visible};
use crate::source::Group;

impl Run {
    /// Returns the random numbers of a group of this step.
    pub(super) fn noise(&self, group: u64) -> Noise {
        Noise {
            seed: self.seed,
            step: self.step,
            group,
        }
    }

    /// Adds to a group's loss what options ask for, in float32; returns the sum, and what was added.
    pub(super) fn add_options(
        &self,
        loss: Tensor,
        group: &Group,
        [h, prediction]: [&Patches; 2],
        z: &Tensor,
        noise: Noise,
    ) -> Result<(Tensor, Option<Tensor>), Error> {
        let options = &self.method;
        let mut terms = Vec::new();
        let mut add = |weight: f64, term: Tensor| {
            terms.push(term.f_mul_scalar(weight)?);
            Ok::<_, crate::Error>(())
        };
        if options.variance_covariance > 0.0 {
            let term = regularizer::variance_covariance(z)?;
            add(options.variance_covariance, term)?;
        }
        if options.normality > 0.0 {
            add(options.normality, regularizer::normality(z, noise)?)?;
        }
        if let (Some(prediction), Some(h)) = (&prediction.visible, &h.visible) {
            let columns = self.ijepa.encoder.config().grid();
            let term = visible::loss(prediction, h, &group.context, &group.targets, columns)?;
            let ramp = visible::ramp(self.step, self.total_steps);
            add(options.visible_loss * ramp, term)?;
        }
        if terms.is_empty() {
            return Ok((loss, None));
        }
        let sum = || {
            let added = Tensor::f_stack(&terms, 0)?.f_sum(None)?;
            Ok::<_, crate::Error>((loss.f_add(&added)?, Some(added)))
        };
        Ok(sum()?)
    }
}

/// Draws the noise in the positions of a group's hidden patches, where there is to be some.
pub(super) fn position_noise(
    options: &Method,
    z: &Tensor,
    group: &Group,
    noise: Noise,
) -> Result<Option<Tensor>, crate::Error> {
    if options.position_noise == 0.0 {
        return Ok(None);
    }
    let (rows, _, d) = z.size3()?;
    let Some(first) = group.targets.first() else {
        return Ok(None); // the predictor will say what is missing
    };
    let size = [group.targets.len() as i64 * rows, first.size2()?.1, d];
    let deviation = options.position_noise;
    Ok(Some(noise.normal(
        Purpose::Positions,
        &size,
        deviation,
        z.device(),
    )?))
}
