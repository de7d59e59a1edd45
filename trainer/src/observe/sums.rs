//! Sums over some steps, from which the console's lines and the report take means.

use super::Record;

/// Sums over some steps, for means.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) steps: f64,
    pub(super) skipped: f64,
    pub(super) images: f64,
    pub(super) replaced: u64,
    pub(super) loss: f64,
    pub(super) context: f64,
    pub(super) target: f64,
    pub(super) step_ms: f64,
    pub(super) wait_ms: f64,
    /// Of the steps that have it: the share whose class was told.
    pub(super) online: [f64; 2],
}

impl Sums {
    /// Adds a step.
    pub(super) fn add(&mut self, record: &Record) {
        self.steps += 1.0;
        self.images += record.images as f64;
        self.replaced += record.replaced;
        if record.skipped {
            self.skipped += 1.0;
        } else {
            self.loss += record.loss;
        }
        self.context += record.context_len;
        self.target += record.target_len;
        self.step_ms += record.step_ms;
        self.wait_ms += record.wait_ms;
        if let Some(share) = record.online_top1 {
            self.online[0] += share;
            self.online[1] += 1.0;
        }
    }

    /// Returns images per second of wall time.
    pub(super) fn images_per_s(&self) -> f64 {
        self.images / self.step_ms.max(1e-9) * 1e3
    }

    /// Returns the mean share, in per cent, whose class the head beside the training told; none without one.
    pub(super) fn online_top1(&self) -> Option<f64> {
        let [sum, steps] = self.online;
        (steps > 0.0).then(|| sum / steps)
    }

    /// Returns the percentage of the wall time spent waiting for data.
    pub(super) fn waiting(&self) -> f64 {
        self.wait_ms / self.step_ms.max(1e-9) * 1e2
    }
}
