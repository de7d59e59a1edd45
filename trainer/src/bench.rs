//! How fast steps are, and where their time goes: `trainer bench`.
//!
//! What is measured is `Run::step`, the training loop's own step, fed by made-up images under the loader's real masks
//! ([`MadeUp`]) or by a real loader. Medians, after a warm-up: the first steps allocate memory and wake threads.

pub mod flops;
pub mod machine;
pub mod official;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use loader::config::ConfigFile;
use loader::masks::{GroupMasks, MaskSampler};
use serde::Serialize;
use tch::Device;

use crate::checkpoint::State;
use crate::clock::{Clock, Phase, synchronise};
use crate::config::Config;
use crate::source::{Batch, Raw, Source};
use crate::train::Run;
use machine::Peak;

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
    /// A configuration with these sizes, and the official ViT-H/14's masks and schedules.
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
        Config::from_file(&ConfigFile::parse(Path::new("bench"), &text, &[])?)
    }
}

/// Random bytes as images, with the masks that the loader would draw.
pub struct MadeUp {
    images: Vec<u8>,
    sample_ids: Vec<u64>,
    flags: Vec<u8>,
    size: usize,
    groups: u64,
    masks: Vec<GroupMasks>,
    device: Device,
}

impl MadeUp {
    /// Batches for any number of steps, under the masks of `steps`, over and over. Masks of one step alone have equal
    /// lengths in all steps.
    pub fn new(config: &Config, steps: std::ops::Range<u64>, device: Device) -> Result<MadeUp> {
        let data = &config.loader.data;
        let (images, size) = (usize::try_from(data.batch_size)?, data.crop_size as usize);
        ensure!(images > 0, "data.batch_size: no images, nothing to measure");
        ensure!(!steps.is_empty(), "masks of no step");
        let sampler = MaskSampler::new(&config.loader)?;
        let groups = config.loader.global_batch(1) / data.batch_size;
        let masks = steps.flat_map(|step| {
            let sampler = &sampler;
            (0..groups).map(move |group| {
                sampler.draw(
                    step,
                    u32::try_from(group).unwrap_or(0) * images as u32,
                    images,
                )
            })
        });
        // A multiplicative generator: any bytes do, as long as they are not all alike.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let bytes = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        });
        Ok(MadeUp {
            images: bytes.take(images * 3 * size * size).collect(),
            sample_ids: (0..images as u64).collect(),
            flags: vec![0; images],
            size,
            groups,
            masks: masks.collect(),
            device,
        })
    }
}

impl Source for MadeUp {
    fn take(&mut self, step: u64, group: u64) -> Result<Option<Batch>> {
        fn slices(masks: &[Vec<i64>]) -> Vec<&[i64]> {
            masks.iter().map(Vec::as_slice).collect()
        }
        let number = (step * self.groups + group) as usize % self.masks.len();
        let raw = Raw {
            images: &self.images,
            size: (self.size, self.size),
            context: slices(&self.masks[number].context),
            targets: slices(&self.masks[number].targets),
            sample_ids: &self.sample_ids,
            flags: &self.flags,
        };
        Batch::new(&raw, self.device).map(Some)
    }

    fn groups(&self) -> u64 {
        self.groups
    }
}

/// A run at step 0, which writes no file.
pub fn start(config: &Config, epoch_len: Option<u64>, device: Device) -> Result<Run> {
    let state = State::new(0, epoch_len.unwrap_or(EPOCH_LEN), config.resolved());
    Run::new(config, state, None, device)
}

/// What some steps in a row showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Steps {
    /// Duration of each, in milliseconds.
    pub step_ms: Vec<f64>,
    /// Of each, the duration of each phase, in the order of [`Phase::ALL`].
    pub phase_ms: Vec<[f64; Phase::ALL.len()]>,
    /// Context patches of an image, of each.
    pub context_len: Vec<f64>,
    /// Patches of a target, of each.
    pub target_len: Vec<f64>,
    /// Loss of the last group.
    pub loss: f64,
}

/// Runs `warmup` steps without looking, then `steps` that are timed, as a whole and by phase.
pub fn measure(run: &mut Run, source: &mut dyn Source, warmup: u64, steps: u64) -> Result<Steps> {
    ensure!(steps > 0, "no steps, nothing to measure");
    let mut found = Steps::default();
    for _ in 0..warmup {
        one(run, source, &mut Clock::off())?;
    }
    let mut clock = Clock::on(run.device);
    for _ in 0..steps {
        let (took, seen) = one(run, source, &mut clock)?;
        found.step_ms.push(milliseconds(took));
        found.phase_ms.push(clock.spent().map(milliseconds));
        let (context, target) = seen.mask_lengths();
        found.context_len.push(context);
        found.target_len.push(target);
        found.loss = *seen.losses.last().context("a step without groups")?;
    }
    Ok(found)
}

fn one(
    run: &mut Run,
    source: &mut dyn Source,
    clock: &mut Clock,
) -> Result<(Duration, crate::train::Seen)> {
    synchronise(run.device);
    let start = Instant::now();
    let seen = run
        .step(source, clock)?
        .context("the source ended before the measurement")?;
    synchronise(run.device);
    run.step += 1;
    Ok((start.elapsed(), seen))
}

/// Everything that `trainer bench` says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `vit_tiny` … `vit_giant`.
    pub model: String,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// Side of an image, in pixels.
    pub image_size: i64,
    /// Images of a step.
    pub batch: u64,
    /// Where it was measured.
    pub device: String,
    /// `float32` or `bfloat16`.
    pub dtype: &'static str,
    /// Threads of libtorch on the CPU.
    pub threads: i32,
    /// Context patches of an image, mean.
    pub context_len: f64,
    /// Patches of a target, mean.
    pub target_len: f64,
    /// Duration of a step in milliseconds, median.
    pub step_ms: f64,
    /// Phase and its duration in milliseconds, median.
    pub phases_ms: Vec<(Phase, f64)>,
    /// Images per second, from the median.
    pub images_per_s: f64,
    /// What the method as published needs, per image: multiplications and additions of matrix products.
    pub flops_per_image: f64,
    /// That times images per second.
    pub flops_per_s: f64,
    /// What the machine can do, where that is known.
    pub peak: Option<Peak>,
    /// Share of the peak that is used.
    pub mfu: Option<f64>,
    /// The most memory that this process (on a GPU: its tensors) had, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Everything the medians are of.
    pub each: Steps,
}

impl Report {
    /// Sums up what was measured.
    pub fn new(
        config: &Config,
        run: &Run,
        device: &str,
        peak: Option<Peak>,
        each: Steps,
    ) -> Report {
        let model = run.ijepa.encoder.config();
        let batch = config.loader.global_batch(1);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (context_len, target_len) = (mean(&each.context_len), mean(&each.target_len));
        let masks = flops::Masks {
            contexts: config.loader.mask.num_enc_masks,
            targets: config.loader.mask.num_pred_masks,
            context_len,
            target_len,
        };
        let flops_per_image = flops::per_image(model, masks);
        let step_ms = median(each.step_ms.iter().copied());
        let images_per_s = batch as f64 / step_ms * 1e3;
        let flops_per_s = flops_per_image * images_per_s;
        Report {
            model: config.meta.model_name.clone(),
            patch_size: model.patch_size,
            image_size: model.image_size,
            batch,
            device: device.to_owned(),
            dtype: if run.bfloat16 { "bfloat16" } else { "float32" },
            threads: tch::get_num_threads(),
            context_len,
            target_len,
            step_ms,
            phases_ms: Phase::ALL
                .iter()
                .map(|&phase| {
                    let of_each = each.phase_ms.iter().map(|phases| phases[phase as usize]);
                    (phase, median(of_each))
                })
                .collect(),
            images_per_s,
            flops_per_image,
            flops_per_s,
            mfu: peak.as_ref().map(|peak| flops_per_s / peak.flops_per_s),
            peak,
            peak_memory_bytes: machine::peak_memory(run.device),
            each,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            out,
            "{}/{} at {} px, {} images a step, {}, on {} ({} thread(s)); masks {:.1} {:.1}",
            self.model,
            self.patch_size,
            self.image_size,
            self.batch,
            self.dtype,
            self.device,
            self.threads,
            self.context_len,
            self.target_len
        )?;
        writeln!(out, "{:<10} {:>9} {:>6}", "phase", "ms", "%")?;
        for (phase, ms) in &self.phases_ms {
            let share = 100.0 * ms / self.step_ms;
            writeln!(out, "{:<10} {ms:>9.2} {share:>6.1}", phase.name())?;
        }
        writeln!(out, "{:<10} {:>9.2}", "step", self.step_ms)?;
        write!(
            out,
            "{:.2} images/s, {:.1} GFLOP/s",
            self.images_per_s,
            self.flops_per_s / 1e9
        )?;
        if let (Some(peak), Some(mfu)) = (&self.peak, self.mfu) {
            write!(
                out,
                ", {:.1} % of {:.0} ({})",
                100.0 * mfu,
                peak.flops_per_s / 1e9,
                peak.what
            )?;
        }
        if let Some(bytes) = self.peak_memory_bytes {
            write!(out, ", {:.2} GiB", bytes as f64 / f64::from(1 << 30))?;
        }
        write!(out, "; medians of {} steps", self.each.step_ms.len())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The middle value, or the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    (values[low] + values[high]) / 2.0
}

#[cfg(test)]
mod tests {
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
        let report = Report::new(&config, &run, "cpu", None, found);
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
