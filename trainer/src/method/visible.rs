//! A loss on visible patches: what the predictor says of what it has been shown. An option, off by default.
//!
//! Paper: L. Mur-Labadia et al., "V-JEPA 2.1: Unlocking Dense Features in Video Self-Supervised Learning" (2026), the
//! dense predictive loss; official code: `app/vjepa_2_1/train.py` of facebookresearch/vjepa2 and `masks_dist.py` beside
//! it. There the predictor has a second output layer for these tokens; here the networks stay as they are, and the one
//! layer serves both.

use tch::{Kind, Tensor};

use crate::Error;
use crate::error::During;

/// Shares of the run between which the weight rises from 0 to its full value. The official code has it rise from step
/// 15,000 to step 30,000, whatever the run's length.
const RAMP: [f64; 2] = [0.1, 0.2];

/// Representations of patches.
#[derive(Debug)]
pub struct Patches {
    /// Of the hidden ones, (targets · contexts · B, T, D).
    pub hidden: Tensor,
    /// Of the visible ones, C of each row, where somebody asked for them.
    pub visible: Option<Tensor>,
}

impl Patches {
    /// Returns representations of hidden patches alone.
    pub fn hidden(hidden: Tensor) -> Patches {
        Patches {
            hidden,
            visible: None,
        }
    }
}

/// Returns the share of its full weight that the loss has at a step.
pub fn ramp(step: u64, total_steps: u64) -> f64 {
    let part = step as f64 / total_steps as f64;
    ((part - RAMP[0]) / (RAMP[1] - RAMP[0])).clamp(0.0, 1.0)
}

/// Returns the mean of |prediction - target| / √d over visible patches and dimensions.
///
/// d is the distance of a patch from the nearest one that its row hides, in patches, and 1 where a context overlaps a
/// target. `prediction` has rows (target mask, context mask, image), `target` rows (context mask, image); the grid has
/// `columns` columns.
///
/// # Errors
/// [`Error::Torch`] for tensors of other shapes, [`Error::OutOfMemory`] from the device.
pub fn loss(
    prediction: &Tensor,
    target: &Tensor,
    context: &[Tensor],
    targets: &[Tensor],
    columns: i64,
) -> Result<Tensor, Error> {
    let loss = || -> Result<Tensor, Error> {
        let target = target.f_repeat([targets.len() as i64, 1, 1])?;
        let differences = prediction.f_to_kind(Kind::Float)?.f_sub(&target)?.f_abs()?;
        let means = differences.f_mean_dim([-1i64].as_slice(), false, None)?; // (targets · contexts · B, C)
        Ok(means
            .f_mul(&weights(context, targets, columns)?)?
            .f_mean(None)?)
    };
    loss().during(|| "the loss on visible patches".into())
}

/// Returns 1/√d of the visible patches of each row: (targets · contexts · B, C).
fn weights(context: &[Tensor], targets: &[Tensor], columns: i64) -> Result<Tensor, Error> {
    let places = |mask: &Tensor| -> Result<Tensor, Error> {
        let row = mask.f_floor_divide_scalar(columns)?;
        let column = mask.f_remainder(columns)?;
        Ok(Tensor::f_stack(&[row, column], -1)?.f_to_kind(Kind::Float)?) // (B, n, 2)
    };
    let mut rows = Vec::new();
    for hidden in targets {
        for visible in context {
            // 2: no matrix product, which would round whole numbers.
            let distances = Tensor::f_cdist(&places(visible)?, &places(hidden)?, 2.0, 2)?; // (B, C, T)
            let nearest = distances.f_amin([-1i64].as_slice(), false)?;
            rows.push(nearest.f_clamp_min(1.0)?.f_rsqrt()?);
        }
    }
    Ok(Tensor::f_cat(&rows, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_rises_in_the_second_tenth_of_the_run() {
        let at = |step| ramp(step, 1000);
        assert_eq!([0, 100, 200, 999].map(at), [0.0, 0.0, 1.0, 1.0]);
        assert!((at(125) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn differences_count_by_their_distance_from_what_is_hidden() {
        // On a grid of 4 columns, patches 0 and 7 are √8 and 1 away from the first target, 0 and √10 from the second.
        let mask = |patches: [i64; 2]| Tensor::from_slice(&patches).view([1, 2]);
        let (context, targets) = ([mask([0, 7])], [mask([10, 11]), mask([12, 0])]);
        let target = Tensor::zeros([1, 2, 3], (Kind::Float, tch::Device::Cpu));
        // What is wrong: row, patch.
        for (row, patch, distance) in [
            (0, 0, 8f64.sqrt()),
            (0, 1, 1.0),
            (1, 0, 1.0), // overlapped: as if beside it
            (1, 1, 10f64.sqrt()),
        ] {
            let prediction = Tensor::zeros([2, 2, 3], (Kind::Float, tch::Device::Cpu));
            let _ = prediction.get(row).get(patch).fill_(-5.0);
            let found = loss(&prediction, &target, &context, &targets, 4).unwrap();
            let expected = 5.0 / distance.sqrt() / 4.0;
            assert!(
                (found.double_value(&[]) - expected).abs() < 1e-6,
                "{found}, not {expected}"
            );
        }
    }
}
