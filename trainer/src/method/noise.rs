//! Random numbers that options of the method draw in a step.
//!
//! They are a function of the seed, the step and the group's number in the whole step: a run that goes on draws what
//! it would have drawn, and so do other ranks that share the groups.

use loader::random::{Purpose, Stream};
use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::error::During;
use crate::torch::shim;

/// The numbers of one group.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// `trainer.seed`.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// The group's number among those of all ranks.
    pub group: u64,
}

impl Noise {
    /// Draws normal numbers of mean 0 for one purpose.
    ///
    /// They are drawn on the CPU whatever the device, so that they are the same everywhere.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] and [`Error::Torch`] from the device.
    pub fn normal(
        self,
        purpose: Purpose,
        size: &[i64],
        deviation: f64,
        device: Device,
    ) -> Result<Tensor, Error> {
        let stream = Stream::new(self.seed, purpose, 0);
        let seed = stream.at(self.step, self.group as u32).bits64();
        let draw = || {
            let numbers = Tensor::f_empty(size, (Kind::Float, device))?;
            shim::normal([&numbers], deviation, seed)?;
            Ok::<_, Error>(numbers)
        };
        draw().during(|| "the random numbers of a group".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_seed_step_group_and_purpose() {
        let one = Noise {
            seed: 1,
            step: 2,
            group: 3,
        };
        let draw = |noise: Noise, purpose| {
            let numbers = noise.normal(purpose, &[100, 100], 0.5, Device::Cpu);
            numbers.unwrap()
        };
        let numbers = draw(one, Purpose::Positions);
        assert!(numbers.equal(&draw(one, Purpose::Positions)));
        for other in [
            draw(Noise { seed: 2, ..one }, Purpose::Positions),
            draw(Noise { step: 3, ..one }, Purpose::Positions),
            draw(Noise { group: 4, ..one }, Purpose::Positions),
            draw(one, Purpose::Directions),
        ] {
            assert!(!numbers.equal(&other));
        }
        let (mean, deviation) = (numbers.mean(None), numbers.std(true));
        assert!(mean.double_value(&[]).abs() < 0.025, "{mean}");
        assert!(
            (deviation.double_value(&[]) - 0.5).abs() < 0.02,
            "{deviation}"
        );
    }
}
