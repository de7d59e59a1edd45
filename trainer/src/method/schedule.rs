//! Learning rate, weight decay and momentum as pure functions of the 0-based step.
//!
//! Paper, appendix A.1; official code: `WarmupCosineSchedule` and `CosineWDSchedule` of `src/utils/schedulers.py`, and
//! `momentum_scheduler` of `src/train.py`. The arithmetic is the official one, operation by operation, so that float64
//! results are equal to the last bit. The official schedulers count before they compute, so step 0 already stands one
//! step into the warm-up.

use std::f64::consts::PI;

use crate::Error;

/// The official keys of `optimization` that make the schedules.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleConfig {
    /// Epochs of the run.
    pub epochs: u64,
    /// Epochs of linear warm-up; a fraction is allowed.
    pub warmup: f64,
    /// Stretches the schedules beyond the run (or cuts them short of it).
    pub ipe_scale: f64,
    /// Learning rate at the start of the warm-up.
    pub start_lr: f64,
    /// Learning rate at its end.
    pub lr: f64,
    /// Learning rate at the end of the schedule.
    pub final_lr: f64,
    /// Weight decay at the start.
    pub weight_decay: f64,
    /// Weight decay at the end of the schedule.
    pub final_weight_decay: f64,
    /// Momentum of the target encoder, first and last.
    pub ema: [f64; 2],
}

/// The schedules of one run.
#[derive(Clone, Debug)]
pub struct Schedule {
    config: ScheduleConfig,
    warmup_steps: f64,
    /// Steps of the weight decay's cosine, warm-up included.
    total_steps: f64,
    /// The momentum's denominator: like `total_steps`, but not cut to a whole number.
    momentum_steps: f64,
}

/// What a step is moved with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Momentum of the target encoder.
    pub momentum: f64,
}

impl Schedule {
    /// Makes the schedules of a run; `steps_per_epoch` is what the loader says: whole global batches in the data set.
    ///
    /// ```
    /// use trainer::method::schedule::{Schedule, ScheduleConfig};
    ///
    /// let published = ScheduleConfig {
    ///     epochs: 300,
    ///     warmup: 40.0,
    ///     ipe_scale: 1.0,
    ///     start_lr: 2e-4,
    ///     lr: 1e-3,
    ///     final_lr: 1e-6,
    ///     weight_decay: 0.04,
    ///     final_weight_decay: 0.4,
    ///     ema: [0.996, 1.0],
    /// };
    /// let rates = Schedule::new(&published, 625)?.at(24_999);
    /// assert_eq!(rates.lr, 1e-3); // the warm-up is over
    /// # Ok::<(), trainer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Schedule`] for settings that give no step.
    pub fn new(config: &ScheduleConfig, steps_per_epoch: u64) -> Result<Self, Error> {
        let ScheduleConfig {
            epochs,
            warmup,
            ipe_scale,
            ..
        } = *config;
        let (ipe, whole_epochs) = (steps_per_epoch as f64, epochs as f64);
        // The order of the products matters to the last bit.
        let total_steps = (ipe_scale * whole_epochs * ipe).trunc();
        let finite = warmup.is_finite() && warmup >= 0.0 && total_steps.is_finite();
        if !finite || total_steps < 1.0 {
            return Err(Error::Schedule {
                epochs,
                steps_per_epoch,
                ipe_scale,
                warmup,
            });
        }
        Ok(Self {
            config: config.clone(),
            warmup_steps: (warmup * ipe).trunc(),
            total_steps,
            momentum_steps: (steps_per_epoch * epochs) as f64 * ipe_scale,
        })
    }

    /// Returns what `step` is moved with.
    pub fn at(&self, step: u64) -> Rates {
        Rates {
            lr: self.lr(step),
            weight_decay: self.weight_decay(step),
            momentum: self.momentum(step),
        }
    }

    /// Returns the learning rate: linear to `lr`, then half a cosine to `final_lr`.
    ///
    /// Beyond the schedule's end the cosine goes on, as it does in the official code (`WarmupCosineSchedule`).
    pub fn lr(&self, step: u64) -> f64 {
        let ScheduleConfig {
            start_lr,
            lr,
            final_lr,
            ..
        } = self.config;
        let step = (step + 1) as f64;
        if step < self.warmup_steps {
            let progress = step / self.warmup_steps.max(1.0);
            return start_lr + progress * (lr - start_lr);
        }
        let progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps).max(1.0);
        (final_lr + (lr - final_lr) * 0.5 * (1.0 + (PI * progress).cos())).max(final_lr)
    }

    /// Returns the weight decay: half a cosine from `weight_decay` to `final_weight_decay`, without warm-up.
    ///
    /// Official code: `CosineWDSchedule`.
    pub fn weight_decay(&self, step: u64) -> f64 {
        let ScheduleConfig {
            weight_decay: first,
            final_weight_decay: last,
            ..
        } = self.config;
        let progress = (step + 1) as f64 / self.total_steps;
        let value = last + (first - last) * 0.5 * (1.0 + (PI * progress).cos());
        if last <= first {
            value.max(last)
        } else {
            value.min(last)
        }
    }

    /// Returns the momentum of the target encoder: linear from `ema[0]` at step 0.
    ///
    /// It holds its last value beyond the schedule's end, where the official code stops with an error
    /// (`momentum_scheduler` of `src/train.py`).
    pub fn momentum(&self, step: u64) -> f64 {
        let [first, last] = self.config.ema;
        let step = (step as f64).min(self.momentum_steps.trunc());
        first + step * (last - first) / self.momentum_steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the schedule of the published ViT-H/14 run.
    fn in1k() -> ScheduleConfig {
        ScheduleConfig {
            epochs: 300,
            warmup: 40.0,
            ipe_scale: 1.0,
            start_lr: 2e-4,
            lr: 1e-3,
            final_lr: 1e-6,
            weight_decay: 0.04,
            final_weight_decay: 0.4,
            ema: [0.996, 1.0],
        }
    }

    /// Returns a schedule of seven steps an epoch, three epochs, half an epoch of warm-up.
    fn short(ipe_scale: f64) -> ScheduleConfig {
        ScheduleConfig {
            epochs: 3,
            warmup: 0.5,
            ipe_scale,
            ..in1k()
        }
    }

    /// Step, learning rate, weight decay and momentum, as Python printed them from the official schedulers (the
    /// momentum generator holding its last value).
    type Row = (u64, f64, f64, f64);

    const IN1K: [Row; 8] = [
        (0, 0.000200032, 0.04000000002526616, 0.996),
        (
            1,
            0.00020006400000000001,
            0.04000000010106475,
            0.9960000213333333,
        ),
        (624, 0.00022, 0.04000986951420782, 0.996013312),
        (24998, 0.000999968, 0.05556059095859783, 0.9965332906666666),
        (24999, 0.001, 0.05556181762433182, 0.996533312),
        (
            25000,
            0.0009999999999066535,
            0.05556304433622944,
            0.9965333333333334,
        ),
        (
            98763,
            0.000572538501483349,
            0.23510408630828564,
            0.998106944,
        ),
        (187499, 1e-06, 0.4, 0.9999999786666667),
    ];

    /// `ipe_scale` 0.9: the schedules end after 18 of 21 steps, and the cosines turn back.
    const SHORT_09: [Row; 7] = [
        (0, 0.00046666666666666666, 0.04273460445780253, 0.996),
        (2, 0.001, 0.06411542731880099, 0.9964232804232804),
        (
            9,
            0.000552711967402193,
            0.2512566719800474,
            0.9979047619047619,
        ),
        (17, 1e-06, 0.4, 0.9995978835978836),
        (
            18,
            1.191527343346406e-05,
            0.3972653955421975,
            0.9998095238095238,
        ),
        (
            20,
            9.63960113097137e-05,
            0.37588457268119896,
            0.9998095238095238,
        ),
        (
            25,
            0.0005527119674021933,
            0.2512566719800474,
            0.9998095238095238,
        ),
    ];

    /// `ipe_scale` 1.25: the run ends before its schedules.
    const SHORT_125: [Row; 6] = [
        (0, 0.00046666666666666666, 0.04131240266235031, 0.996),
        (
            1,
            0.0007333333333333333,
            0.04523047286331061,
            0.9961523809523809,
        ),
        (2, 0.001, 0.05169707631662529, 0.9963047619047619),
        (
            9,
            0.0007885518208963763,
            0.1561711203323436,
            0.9973714285714286,
        ),
        (
            20,
            0.00011303221029314226,
            0.3681370958608582,
            0.9990476190476191,
        ),
        (25, 1e-06, 0.4, 0.9998095238095238),
    ];

    fn check(config: &ScheduleConfig, steps_per_epoch: u64, golden: &[Row]) {
        let schedule = Schedule::new(config, steps_per_epoch).unwrap();
        for &(step, lr, weight_decay, momentum) in golden {
            assert_eq!(schedule.lr(step), lr, "lr at step {step}");
            assert_eq!(
                schedule.weight_decay(step),
                weight_decay,
                "weight decay at step {step}"
            );
            assert_eq!(schedule.momentum(step), momentum, "momentum at step {step}");
        }
    }

    #[test]
    fn official_values_to_the_last_bit() {
        check(&in1k(), 625, &IN1K);
    }

    #[test]
    fn the_formula_goes_on_beyond_the_end() {
        check(&short(0.9), 7, &SHORT_09);
        check(&short(1.25), 7, &SHORT_125);
    }

    #[test]
    fn weight_decay_may_fall() {
        let config = ScheduleConfig {
            weight_decay: 0.4,
            final_weight_decay: 0.04,
            ..short(1.25)
        };
        let schedule = Schedule::new(&config, 7).unwrap();
        assert_eq!(schedule.weight_decay(0), 0.3986875973376497);
        assert_eq!(schedule.weight_decay(30), 0.07186290413914184);
    }

    #[test]
    fn a_run_without_steps_is_refused() {
        for (config, steps) in [
            (in1k(), 0),
            (
                ScheduleConfig {
                    epochs: 0,
                    ..in1k()
                },
                625,
            ),
            (short(f64::NAN), 7),
        ] {
            assert!(matches!(
                Schedule::new(&config, steps),
                Err(Error::Schedule { .. })
            ));
        }
    }
}
