//! Measures the signs of collapse beside the training, from what a step computes anyway.
//!
//! Every `trainer.signs_every` steps, and at the last step of the run, a measurement is made of the steps before it:
//! as many as 512 images take, none of them twice. It is a function of those steps alone. A run that goes on in their
//! midst has not seen them all, and leaves this measurement out, as it does where one of them moved nothing or had
//! images of another size. Nothing here changes what the run computes, and no random number is drawn.
//!
//! The images are those of this rank's groups; rank 0 alone measures. Effective rank is RankMe: the exponential of the
//! entropy of the singular values, scaled to a sum of 1 (Garrido et al. 2023). Pooled vectors are taken less their
//! group's mean, and cosines within a group: networks move between steps, and that must not look like different images.

mod measures;

use tch::Tensor;

use super::Run;
use crate::Error;
use crate::observe::Signs;
use crate::source::Group;
use measures::{Network, Positions};

/// Images whose pooled vectors are wanted.
const IMAGES: u64 = 512;

/// Gathers what measurements are of, and makes them.
#[derive(Debug)]
pub(super) struct Gauge {
    /// Steps between two measurements; 0 for none.
    every: u64,
    total_steps: u64,
    window: Window,
}

/// The steps that the next measurement is of, as far as they are done.
#[derive(Debug, Default)]
struct Window {
    /// The step of the measurement.
    at: u64,
    /// The last step of which something is here.
    step: u64,
    steps: u64,
    /// Steps of these that moved the weights.
    moved: u64,
    images: u64,
    /// Target encoder, context encoder and predictor.
    networks: [Network; 3],
    positions: Option<Positions>,
    /// Says that a step had images of another size than the one before.
    is_mixed: bool,
}

/// How far a step moves the weights.
#[derive(Clone, Copy, Debug)]
struct Update {
    norm: f64,
    ratio: f64,
    target_ratio: f64,
}

impl Run {
    /// Shows the gauge what a group gave, (masks · B, n, D) each: targets, representations of the context, predictions.
    pub(super) fn see(&mut self, group: &Group, groups: u64, outputs: [&Tensor; 3]) {
        let patches = self.ijepa.encoder.config().patches();
        let seen = self.gauge.see(self.step, groups, group, patches, outputs);
        self.gauge.unless_broken(seen);
    }

    /// Returns the signs of this step, if it has a measurement: between the step of encoder and predictor, at these
    /// rates, and that of the target encoder.
    pub(super) fn signs(&mut self, lr: f64, weight_decay: f64, momentum: f64) -> Option<Signs> {
        self.gauge.moved();
        if !self.gauge.is_due(self.step) {
            return None;
        }
        let update = || -> Result<Update, Error> {
            let (norm, before) = self.optimizer.last_update(lr, weight_decay)?;
            Ok(Update {
                norm,
                ratio: norm / before,
                target_ratio: self.ijepa.target_update(momentum)?,
            })
        };
        let update = update();
        let signs = update.and_then(|update| self.gauge.measure(self.step, update));
        self.gauge.unless_broken(signs).flatten()
    }
}

impl Gauge {
    /// Makes one that measures every so many steps of a run; never with 0.
    pub(super) fn new(every: u64, total_steps: u64) -> Gauge {
        Gauge {
            every,
            total_steps,
            window: Window::default(),
        }
    }

    /// Returns the first measured step from `step` on, and the number of steps that the measurement is of where each
    /// has so many `images`.
    fn next(&self, step: u64, images: u64) -> Option<(u64, u64)> {
        let start = step.checked_div(self.every)? * self.every;
        let at = (start + self.every).min(self.total_steps.max(step + 1)) - 1;
        Some((at, IMAGES.div_ceil(images.max(1)).min(at - start + 1)))
    }

    /// Tells if there is a measurement at `step`.
    fn is_due(&self, step: u64) -> bool {
        self.next(step, IMAGES).is_some_and(|(at, _)| at == step)
    }

    /// Takes note of a group of `step`, of which this rank has `groups`, where a measurement is of it. `patches` are
    /// those of a whole image.
    fn see(
        &mut self,
        step: u64,
        groups: u64,
        group: &Group,
        patches: i64,
        outputs: [&Tensor; 3],
    ) -> Result<(), Error> {
        let images = group.sample_ids.len() as u64;
        let Some((at, steps)) = self.next(step, groups * images) else {
            return Ok(());
        };
        let window = &mut self.window;
        if step + steps <= at || window.at != at {
            // What is there is of a measurement whose last step moved nothing.
            *window = Window {
                at,
                ..Window::default()
            };
        }
        if step + steps <= at {
            return Ok(());
        }
        if window.steps == 0 || window.step != step {
            window.steps += 1;
            window.step = step;
        }
        window.images += images;
        tch::no_grad(|| {
            for (network, output) in window.networks.iter_mut().zip(outputs) {
                network.add(output, images as i64, step == at)?;
            }
            let [target, _, _] = outputs;
            let positions = match &mut window.positions {
                Some(positions) => positions,
                none => none.insert(Positions::new(patches, target)?),
            };
            match positions.patches() == patches {
                true => positions.add(target, &group.targets)?,
                false => window.is_mixed = true,
            }
            Ok(())
        })
    }

    /// Takes note that the step moves the weights.
    fn moved(&mut self) {
        self.window.moved += u64::from(self.window.steps > 0);
    }

    /// Makes the measurement of `step` of what was seen, and forgets that; `None` where it has not seen all.
    fn measure(&mut self, step: u64, update: Update) -> Result<Option<Signs>, Error> {
        let window = std::mem::take(&mut self.window);
        let images = window.images / window.steps.max(1);
        let wanted = self.next(step, images).map(|(_, steps)| steps);
        let is_whole = wanted == Some(window.steps) && window.moved == window.steps;
        match is_whole && !window.is_mixed {
            true => window.signs(update).map(Some),
            false => Ok(None),
        }
    }

    /// Passes a result on; after a fault nothing is measured any more, and the run goes on.
    fn unless_broken<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result
            .inspect_err(|error| {
                tracing::warn!("no signs of collapse are measured any more: {error}");
                *self = Gauge::new(0, self.total_steps);
            })
            .ok()
    }
}

impl Window {
    /// Returns the signs of steps that are all here.
    fn signs(&self, update: Update) -> Result<Signs, Error> {
        let [target, context, predictor] = &self.networks;
        let width = target.pooled.first().map_or(0, |pooled| pooled.size()[1]);
        let (target, context, predictor) =
            (target.spread()?, context.spread()?, predictor.spread()?);
        let positions = self.positions.as_ref().map(Positions::share).transpose()?;
        Ok(Signs {
            images: self.images as f64,
            width: width as f64,
            target_std: target.std,
            target_rank: target.rank,
            target_cosine: target.cosine,
            target_patch_std: target.patch_std,
            target_patch_rank: target.patch_rank,
            target_position_share: positions.unwrap_or(f64::NAN),
            context_std: context.std,
            context_rank: context.rank,
            context_cosine: context.cosine,
            context_patch_std: context.patch_std,
            context_patch_rank: context.patch_rank,
            predictor_std: predictor.std,
            predictor_rank: predictor.rank,
            predictor_cosine: predictor.cosine,
            predictor_patch_std: predictor.patch_std,
            predictor_patch_rank: predictor.patch_rank,
            update_norm: update.norm,
            update_ratio: update.ratio,
            target_update_ratio: update.target_ratio,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tch::{Device, Kind};

    use super::*;

    const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// A group of two images with one mask of three patches.
    fn group() -> Group {
        let mask = || Tensor::from_slice(&[0i64, 1, 2, 1, 2, 3]).view([2, 3]);
        Group {
            images: Tensor::zeros([2, 3, 4, 4], OPTIONS),
            context: vec![mask()],
            targets: vec![mask()],
            sample_ids: vec![0, 1],
            labels: vec![0; 2],
            flags: vec![0; 2],
            replaced: 0,
            waited: Duration::ZERO,
        }
    }

    /// Goes through steps `first..end`, of which `spoilt` moves nothing; returns the steps with a measurement.
    fn measured(gauge: &mut Gauge, first: u64, end: u64, spoilt: u64) -> Vec<(u64, f64)> {
        let mut found = Vec::new();
        for step in first..end {
            let output = Tensor::arange(24, OPTIONS).view([2, 3, 4]).sin() * (step + 1) as f64;
            let seen = gauge.see(step, 1, &group(), 4, [&output; 3]);
            seen.unwrap();
            if step == spoilt {
                continue;
            }
            gauge.moved();
            let update = Update {
                norm: 1.0,
                ratio: 0.1,
                target_ratio: 0.01,
            };
            if gauge.is_due(step) {
                let signs = gauge.measure(step, update).unwrap();
                found.extend(signs.map(|signs| (step, signs.images)));
            }
        }
        found
    }

    #[test]
    fn a_measurement_is_of_all_of_its_steps_or_is_not_made() {
        let none = u64::MAX;
        let whole = measured(&mut Gauge::new(4, 10), 0, 10, none);
        assert_eq!(whole, [(3, 8.0), (7, 8.0), (9, 4.0)]);
        // Resumed in the midst of the second window.
        assert_eq!(measured(&mut Gauge::new(4, 10), 5, 10, none), [(9, 4.0)]);
        assert_eq!(measured(&mut Gauge::new(4, 10), 4, 10, none), whole[1..]);
        assert_eq!(
            measured(&mut Gauge::new(4, 10), 0, 10, 6),
            [(3, 8.0), (9, 4.0)]
        );
        assert_eq!(
            measured(&mut Gauge::new(4, 10), 0, 10, 7),
            [(3, 8.0), (9, 4.0)]
        );
        assert_eq!(measured(&mut Gauge::new(0, 10), 0, 10, none), []);
        // No more images than are wanted: those of the last 256 steps.
        let many = measured(&mut Gauge::new(300, 300), 0, 300, none);
        assert_eq!(many, [(299, 512.0)]);
    }
}
