//! How often a probe is right.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::Error;

/// Shares of the images for which the right class is the first, or among the first five.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// In percent.
    pub top1: f64,
    /// In percent. Of five classes or fewer, all count that anything speaks for.
    pub top5: f64,
}

/// Counts of right answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    first: f64,
    five: f64,
    images: f64,
}

impl Counted {
    /// Counts the answers of images: how much speaks for each class (B, C), and the right ones (B). What does not speak
    /// for a class at all, at or below `least`, does not count for it.
    pub(super) fn add(
        &mut self,
        scores: &Tensor,
        labels: &Tensor,
        least: f64,
    ) -> Result<(), Error> {
        let classes = scores.size()[1];
        let count = |hits: Tensor| -> Result<f64, tch::TchError> {
            f64::try_from(&hits.f_sum(Kind::Float)?)
        };
        let mut add = || -> Result<(), tch::TchError> {
            let (best, found) = scores.f_topk(classes.min(5), 1, true, true)?;
            let right = found.f_eq_tensor(&labels.f_unsqueeze(1)?)?;
            let right = right.f_logical_and(&best.f_gt(least)?)?;
            self.first += count(right.f_select(1, 0)?)?;
            self.five += count(right)?;
            self.images += labels.size()[0] as f64;
            Ok(())
        };
        Ok(add().map_err(crate::Error::from)?)
    }

    pub(super) fn score(&self) -> Score {
        let share = |hits: f64| 100.0 * hits / self.images.max(1.0);
        Score {
            top1: share(self.first),
            top5: share(self.five),
        }
    }
}
