//! How fast steps are, and where their time goes: `trainer bench`.
//!
//! What is measured is `Run::step`, the training loop's own step, fed by made-up images under the loader's real masks
//! (`made_up`) or by a real loader. Medians, after a warm-up: the first steps allocate memory and wake threads.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use loader::config::ConfigFile;
use serde::Serialize;
use tch::Device;

use trainer::checkpoint::State;
use trainer::config::Config;
use trainer::distributed::Ranks;
use trainer::source::GroupSource;
use trainer::train::clock::{Clock, Phase, synchronise};
use trainer::train::{Run, StepStats};

/// Steps of an epoch, where there is no data to tell: so many that the schedules hardly move.
const EPOCH_LEN: u64 = 10_000;

/// What to measure, where no configuration file says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// `vit_tiny` … `vit_giant`.
    pub model: String,
    /// Side of a patch, in pixels.
    pub patch: u32,
    /// Side of an image, in pixels.
    pub size: u32,
    /// Images of a step.
    pub batch: u64,
    /// Blocks of the predictor.
    pub predictor_depth: i64,
    /// Width of the predictor.
    pub predictor_dim: i64,
    /// Matrix products in bfloat16.
    pub bfloat16: bool,
}

impl Workload {
    /// Returns a configuration with these sizes, and the official ViT-H/14's masks and schedules.
    pub fn config(&self) -> Result<Config> {
        let Workload {
            model,
            patch,
            size,
            batch,
            predictor_depth,
            predictor_dim,
            bfloat16,
        } = self;
        let text = format!(
            "data: {{batch_size: {batch}, crop_size: {size}}}\n\
             mask: {{patch_size: {patch}}}\n\
             meta: {{model_name: {model}, pred_depth: {predictor_depth}, pred_emb_dim: {predictor_dim}, \
             use_bfloat16: {bfloat16}}}\n\
             optimization: {{ema: [0.996, 1.0], epochs: 300, final_lr: 1.0e-06, final_weight_decay: 0.4, lr: 0.001, \
             start_lr: 0.0002, warmup: 40, weight_decay: 0.04}}\n\
             logging: {{folder: none, write_tag: bench}}\n"
        );
        Ok(Config::from_file(&ConfigFile::parse(
            Path::new("the options"),
            &text,
            &[],
        )?)?)
    }
}

/// Makes a run at step 0, which writes no file.
pub fn start(config: &Config, epoch_len: Option<u64>, device: Device) -> Result<Run> {
    let state = State::new(0, epoch_len.unwrap_or(EPOCH_LEN), config.resolved());
    Ok(Run::new(config, &state, None, device, Ranks::alone())?)
}

/// What some steps in a row showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Steps {
    /// Duration of each, in milliseconds.
    pub step_ms: Vec<f64>,
    /// Duration of each phase of each step, in the order of [`Phase::ALL`].
    pub phase_ms: Vec<[f64; Phase::ALL.len()]>,
    /// Context patches of an image, of each.
    pub context_len: Vec<f64>,
    /// Patches of a target, of each.
    pub target_len: Vec<f64>,
    /// Loss of the last group.
    pub loss: f64,
}

/// Runs `warmup` steps without looking, then `steps` that are timed, as a whole and by phase.
pub fn measure(
    run: &mut Run,
    source: &mut dyn GroupSource,
    warmup: u64,
    steps: u64,
) -> Result<Steps> {
    ensure!(steps > 0, "no steps, nothing to measure");
    let mut found = Steps::default();
    for _ in 0..warmup {
        one(run, source)?;
    }
    run.clock = Clock::on(run.device);
    for _ in 0..steps {
        let (took, stats) = one(run, source)?;
        found.step_ms.push(milliseconds(took));
        found.phase_ms.push(run.clock.spent()?.map(milliseconds));
        let (context, target) = stats.mask_lengths();
        found.context_len.push(context);
        found.target_len.push(target);
        found.loss = *stats.losses.last().context("a step without groups")?;
    }
    run.clock = Clock::off();
    Ok(found)
}

fn one(run: &mut Run, source: &mut dyn GroupSource) -> Result<(Duration, StepStats)> {
    synchronise(run.device);
    let start = Instant::now();
    let stats = run
        .step(source)?
        .context("the source ended before the measurement")?;
    synchronise(run.device);
    run.step += 1;
    Ok((start.elapsed(), stats))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Returns the middle value, or the mean of the two in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    (values[low] + values[high]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::super::made_up::MadeUp;
    use super::super::report::Report;
    use super::*;

    fn workload() -> Workload {
        Workload {
            model: "vit_tiny".to_owned(),
            patch: 8,
            size: 96,
            batch: 3,
            predictor_depth: 1,
            predictor_dim: 48,
            bfloat16: false,
        }
    }

    #[test]
    fn steps_are_those_of_training_and_each_phase_has_its_time() {
        let config = workload().config().unwrap();
        let mut run = start(&config, None, Device::Cpu).unwrap();
        let mut source = MadeUp::new(&config, 0..2, Device::Cpu).unwrap();
        let found = measure(&mut run, &mut source, 1, 2).unwrap();
        assert_eq!(run.step, 3);
        assert!(found.loss > 0.0);
        for (step, phases) in found.step_ms.iter().zip(&found.phase_ms) {
            let sum: f64 = phases.iter().sum();
            assert!(sum <= *step, "{phases:?} of {step}");
            // Nobody waits for made-up images.
            assert!(phases[1..].iter().all(|&ms| ms > 0.0), "{phases:?}");
        }
        let report = Report::new(&config, &run, None, found).unwrap();
        let text = report.to_string();
        assert!(text.starts_with("vit_tiny/8 at 96 px, 3 images"), "{text}");
        assert!(report.peak_memory_bytes.unwrap() > 1 << 20);
    }

    #[test]
    fn masks_of_one_step_have_one_length() {
        let config = workload().config().unwrap();
        let lengths = |steps| {
            let mut source = MadeUp::new(&config, steps, Device::Cpu).unwrap();
            let taken = (0..4).map(|step| {
                let batch = source.take(step, 0).unwrap().unwrap();
                (batch.context[0].size()[1], batch.targets[3].size()[1])
            });
            taken.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(lengths(7..8), 1);
        assert!(lengths(0..4) > 1);
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
