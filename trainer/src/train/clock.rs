//! Where the time of a training step goes.
//!
//! The training loop does each phase through a [`Clock`]. In a run the clock is off and costs nothing; `trainer bench`
//! turns it on. On a GPU work is queued, so the clock queues a mark at the end of each phase and asks afterwards when
//! they were passed: the device is never waited for, and idling counts for the phase that it waited for.

use std::time::{Duration, Instant};

use serde::Serialize;
use tch::Device;

use crate::Error;
use crate::torch::cuda::{Event, Stream};

/// The parts of a step, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Blocked until a group was ready.
    Wait,
    /// From the slot to the device, and normalisation.
    Copy,
    /// The target encoder.
    Target,
    /// Context encoder, predictor and loss.
    Predict,
    /// Their gradients.
    Backward,
    /// AdamW.
    Optimizer,
    /// The target encoder follows.
    Ema,
}

impl Phase {
    /// All phases, in the order of a step.
    pub const ALL: [Phase; 7] = [
        Phase::Wait,
        Phase::Copy,
        Phase::Target,
        Phase::Predict,
        Phase::Backward,
        Phase::Optimizer,
        Phase::Ema,
    ];

    /// Returns the name, as heads of columns have it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Wait => "wait",
            Phase::Copy => "copy",
            Phase::Target => "target",
            Phase::Predict => "predict",
            Phase::Backward => "backward",
            Phase::Optimizer => "optimizer",
            Phase::Ema => "ema",
        }
    }
}

/// Sums up the time of each phase of a step, over all of its groups.
#[derive(Debug)]
pub struct Clock {
    /// None: the clock is off.
    device: Option<Device>,
    last: Instant,
    spent: Spent,
    /// On a GPU: what happened since the start, in order.
    marks: Vec<Mark>,
    /// The first mark that could not be made or read.
    fault: Option<Error>,
}

type Spent = [Duration; Phase::ALL.len()];

#[derive(Debug)]
enum Mark {
    Start(Event),
    End(Phase, Event),
    Transfer(Phase, Phase, Duration),
}

impl Clock {
    /// Makes a clock that measures nothing and costs nothing.
    pub fn off() -> Clock {
        Clock {
            device: None,
            last: Instant::now(),
            spent: Default::default(),
            marks: Vec::new(),
            fault: None,
        }
    }

    /// Makes a clock that measures work on `device`, a GPU's on the stream that libtorch computes on.
    pub fn on(device: Device) -> Clock {
        Clock {
            device: Some(device),
            ..Clock::off()
        }
    }

    /// Begins a step: what was measured before is forgotten.
    pub fn start(&mut self) {
        match self.device {
            None => {}
            Some(Device::Cuda(_)) => {
                self.marks.clear();
                self.mark(Mark::Start);
            }
            Some(_) => {
                self.spent = Default::default();
                self.last = Instant::now();
            }
        }
    }

    /// Does `work`, which belongs to `phase`, as does whatever has passed since the last phase.
    pub fn phase<T>(&mut self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let outcome = work();
        self.lap(phase);
        outcome
    }

    /// Ends a phase: what has passed since the last end belongs to it.
    fn lap(&mut self, phase: Phase) {
        match self.device {
            None => {}
            Some(Device::Cuda(_)) => self.mark(|event| Mark::End(phase, event)),
            Some(_) => {
                let now = Instant::now();
                self.spent[phase as usize] += now - self.last;
                self.last = now;
            }
        }
    }

    /// Moves `share` of the time of `from` to `to`, which it belongs to.
    pub fn transfer(&mut self, from: Phase, to: Phase, share: Duration) {
        match self.device {
            None => {}
            Some(Device::Cuda(_)) => self.marks.push(Mark::Transfer(from, to, share)),
            Some(_) => transfer(&mut self.spent, from, to, share),
        }
    }

    /// Puts a mark at the end of what is queued on the GPU.
    fn mark(&mut self, mark: impl FnOnce(Event) -> Mark) {
        let event =
            Event::timed().and_then(|event| event.record(&Stream::compute()).map(|()| event));
        match event {
            Ok(event) => self.marks.push(mark(event)),
            Err(error) => drop(self.fault.get_or_insert(error)),
        }
    }

    /// Returns the time of each phase since the start, in the order of [`Phase::ALL`]. Waits for a GPU to pass the last
    /// mark.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn spent(&mut self) -> Result<Spent, Error> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let mut spent = self.spent;
        let mut last: Option<&Event> = None;
        for mark in &self.marks {
            match mark {
                Mark::Start(event) => last = Some(event),
                Mark::End(phase, event) => {
                    event.synchronize()?;
                    if let Some(last) = last.replace(event) {
                        let ms = event.ms_since(last)?;
                        spent[*phase as usize] += Duration::from_secs_f64(ms.max(0.0) / 1e3);
                    }
                }
                Mark::Transfer(from, to, share) => transfer(&mut spent, *from, *to, *share),
            }
        }
        Ok(spent)
    }
}

fn transfer(spent: &mut Spent, from: Phase, to: Phase, share: Duration) {
    let share = share.min(spent[from as usize]);
    spent[from as usize] -= share;
    spent[to as usize] += share;
}

/// Waits until everything queued on the device is done.
pub fn synchronise(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_belongs_to_the_phase_that_ends() {
        let mut clock = Clock::on(Device::Cpu);
        clock.start();
        std::thread::sleep(Duration::from_millis(20));
        clock.lap(Phase::Copy);
        clock.lap(Phase::Target);
        clock.transfer(Phase::Copy, Phase::Wait, Duration::from_millis(15));
        let spent = clock.spent().unwrap();
        assert_eq!(spent[Phase::Wait as usize], Duration::from_millis(15));
        assert!(spent[Phase::Copy as usize] >= Duration::from_millis(5));
        // No phase is given what another one had.
        clock.transfer(Phase::Target, Phase::Ema, Duration::from_secs(60));
        let sum = |spent: [Duration; 7]| spent.iter().sum::<Duration>();
        assert_eq!(sum(clock.spent().unwrap()), sum(spent));
        clock.start();
        assert_eq!(clock.spent().unwrap(), <[Duration; 7]>::default());
    }

    #[test]
    fn a_clock_that_is_off_measures_nothing() {
        let mut clock = Clock::off();
        clock.start();
        std::thread::sleep(Duration::from_millis(1));
        clock.lap(Phase::Ema);
        assert_eq!(clock.spent().unwrap(), <[Duration; 7]>::default());
    }
}
