//! A linear head beside the training: how well classes can be told from what the target encoder makes of each batch.
//!
//! Each batch is told apart before the head learns from it. Its features are the means over an image's target blocks,
//! detached, brought to mean 0 and deviation 1 over the batch. The head begins at zero, when the run begins or goes on;
//! it is no part of a checkpoint and changes nothing of what the run computes. Only rank 0 has one, for its own groups.
//!
//! So the figure is of target blocks of training crops, and of images that the head saw in epochs before. It shows
//! whether features get better; `trainer eval` says how good they are.

use tch::{Kind, Tensor};

use crate::Error;
use crate::source::Group;

/// Rate of the head's steps; their momentum.
const RATE: f64 = 0.05;
const MOMENTUM: f64 = 0.9;
/// Added to variances.
const EPS: f64 = 1e-5;
/// The largest class of which there is a head.
const MAX_CLASS: i64 = 100_000;

/// A head, and what it got right in the step under way.
#[derive(Debug, Default)]
pub(super) struct Online {
    is_on: bool,
    /// Weights with the bias as the last row, (D + 1, classes), and their velocity.
    head: Option<[Tensor; 2]>,
    /// How many it told, on the device: to read that waits for all that is queued there.
    right: Option<Tensor>,
    images: f64,
}

impl Online {
    /// Makes one that looks at groups, or at none.
    pub(super) fn new(is_on: bool) -> Online {
        Online {
            is_on,
            ..Online::default()
        }
    }

    /// Tells a group's classes apart by its targets (masks · B, T, D), and learns from it. A fault is warned of, and
    /// ends it.
    pub(super) fn see(&mut self, group: &Group, targets: &Tensor) {
        if !self.is_on {
            return;
        }
        if let Err(error) = tch::no_grad(|| self.learn(&group.labels, targets)) {
            tracing::warn!("the head beside the training is given up: {error}");
            *self = Online::default();
        }
    }

    /// Returns the share of the step's images, in per cent, whose class was told; begins the next step.
    pub(super) fn take(&mut self) -> Option<f64> {
        let (right, images) = (self.right.take()?, std::mem::take(&mut self.images));
        f64::try_from(&right)
            .ok()
            .map(|right| 100.0 * right / images)
    }

    fn learn(&mut self, labels: &[i64], targets: &Tensor) -> Result<(), Error> {
        let images = labels.len() as i64;
        let known = |label: &i64| (0..=MAX_CLASS).contains(label);
        let rows = (0..).zip(labels).filter(|(_, label)| known(label));
        let (rows, labels): (Vec<i64>, Vec<i64>) = rows.unzip();
        // With one image there is no deviation.
        let Some(&last) = labels.iter().max().filter(|_| rows.len() > 1) else {
            return Ok(());
        };
        let device = targets.device();
        let (masked, patches, d) = targets.size3()?;
        let features = targets
            .f_to_kind(Kind::Float)?
            .f_view([masked / images, images, patches, d])?
            .f_mean_dim([0i64, 2].as_slice(), false, Kind::Float)?
            .f_index_select(0, &Tensor::f_from_slice(&rows)?.f_to_device(device)?)?; // (B, D)
        let mean = features.f_mean_dim([0i64].as_slice(), true, Kind::Float)?;
        let features = features.f_sub(&mean)?;
        let variance = features
            .f_square()?
            .f_mean_dim([0i64].as_slice(), true, Kind::Float)?;
        // A step that is not finite is passed over, and must leave nothing in the head.
        let features = features
            .f_div(&variance.f_add_scalar(EPS)?.f_sqrt()?)?
            .f_nan_to_num(0.0, 0.0, 0.0)?;
        let ones = Tensor::f_ones([rows.len() as i64, 1], (Kind::Float, device))?;
        let x = Tensor::f_cat(&[features, ones], 1)?; // (B, D + 1)

        let head = self.head_for(last + 1, d + 1, &x)?;
        let [weights, velocity] = head;
        let classes = weights.size()[1];
        let labels = Tensor::f_from_slice(&labels)?.f_to_device(device)?;
        let logits = x.f_matmul(weights)?;
        let told = logits.f_argmax(1, false)?.f_eq_tensor(&labels)?;
        // The slope of the mean cross-entropy.
        let wrong = logits
            .f_softmax(1, Kind::Float)?
            .f_sub(&labels.f_one_hot(classes)?.f_to_kind(Kind::Float)?)?;
        let slope = x
            .f_transpose(0, 1)?
            .f_matmul(&wrong)?
            .f_div_scalar(rows.len() as f64)?;
        *velocity = velocity.f_mul_scalar(MOMENTUM)?.f_add(&slope)?;
        *weights = weights.f_sub(&velocity.f_mul_scalar(RATE)?)?;
        let told = told.f_sum(Kind::Float)?;
        self.right = Some(match self.right.take() {
            Some(right) => right.f_add(&told)?,
            None => told,
        });
        self.images += rows.len() as f64;
        Ok(())
    }

    /// Returns the head, with room for so many classes.
    fn head_for(
        &mut self,
        classes: i64,
        rows: i64,
        like: &Tensor,
    ) -> Result<&mut [Tensor; 2], Error> {
        let zeros = |classes: i64| Tensor::f_zeros([rows, classes], (Kind::Float, like.device()));
        let head = match self.head.take() {
            None => [zeros(classes)?, zeros(classes)?],
            Some(head) if head[0].size()[1] >= classes => head,
            Some([weights, velocity]) => {
                let more = zeros(classes - weights.size()[1])?;
                [
                    Tensor::f_cat(&[&weights, &more], 1)?,
                    Tensor::f_cat(&[&velocity, &more], 1)?,
                ]
            }
        };
        Ok(self.head.insert(head))
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Shows 80 steps of 32 images of five classes, whose targets are `apart` apart, and returns the last shares.
    fn shown(apart: f64, label: impl Fn(i64) -> i64) -> (Option<f64>, Online) {
        tch::manual_seed(4);
        let options = (Kind::Float, Device::Cpu);
        let centres = Tensor::randn([5, 16], options) * apart;
        let mut online = Online::new(true);
        let mut last = None;
        for _ in 0..80 {
            let classes = Tensor::randint(5, [32], (Kind::Int64, Device::Cpu));
            let images = centres.index_select(0, &classes).view([1, 32, 1, 16]);
            let targets = images + Tensor::randn([4, 32, 3, 16], options);
            let labels: Vec<i64> = Vec::<i64>::try_from(&classes).unwrap();
            let labels: Vec<i64> = labels.into_iter().map(&label).collect();
            online.learn(&labels, &targets.view([128, 3, 16])).unwrap();
            last = online.take();
        }
        (last, online)
    }

    #[test]
    fn classes_that_are_apart_are_told_and_others_are_not() {
        assert!(shown(1.0, |class| class).0.unwrap() > 90.0);
        assert!(shown(0.0, |class| class).0.unwrap() < 60.0);
    }

    #[test]
    fn images_without_a_class_are_left_out_and_new_classes_find_room() {
        let (share, mut online) = shown(1.0, |class| if class == 0 { -1 } else { class });
        assert!(share.unwrap() > 90.0);
        assert_eq!(online.head.as_ref().unwrap()[0].size(), [17, 5]);
        let targets = Tensor::randn([8, 3, 16], (Kind::Float, Device::Cpu));
        online.learn(&[9, 0], &targets).unwrap();
        assert_eq!(online.head.as_ref().unwrap()[0].size(), [17, 10]);
        // What is not finite leaves nothing.
        online.learn(&[1, 2], &(&targets * f64::NAN)).unwrap();
        let weights = &online.head.as_ref().unwrap()[0];
        assert!(f64::try_from(weights.abs().max()).unwrap().is_finite());
        // None has a class, or one alone: there is nothing to tell.
        online.take();
        online.learn(&[-1, -1], &targets).unwrap();
        online.learn(&[3, -1], &targets).unwrap();
        assert_eq!(online.take(), None);
    }
}
