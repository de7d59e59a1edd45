//! What a measurement comes to.

use std::fmt;

use anyhow::Result;
use serde::Serialize;
use tch::Device;

use super::machine::{self, Peak};
use super::step::{Steps, median};
use trainer::config::Config;
use trainer::plan::flops;
use trainer::train::Run;
use trainer::train::clock::Phase;

/// What was measured, and where.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    /// `vit_tiny` … `vit_giant`.
    pub model: String,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// Side of an image, in pixels.
    pub image_size: i64,
    /// Images of a step.
    pub batch: u64,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// `float32` or `bfloat16`.
    pub dtype: &'static str,
    /// Threads of libtorch on the CPU.
    pub threads: i32,
    /// Context patches of an image, mean.
    pub context_len: f64,
    /// Patches of a target, mean.
    pub target_len: f64,
    /// What the method as published needs, per image: multiplications and additions of matrix products.
    pub flops_per_image: f64,
    /// What the machine can do, where that is known.
    pub peak: Option<Peak>,
}

impl Subject {
    /// Describes steps of this configuration, with masks of these lengths (context, target).
    pub fn new(
        config: &Config,
        device: Device,
        bfloat16: bool,
        (context_len, target_len): (f64, f64),
        peak: Option<Peak>,
    ) -> Result<Subject> {
        let model = config.model()?;
        let mask = &config.loader.mask;
        let masks = flops::Masks {
            contexts: mask.num_enc_masks,
            targets: mask.num_pred_masks,
            context_len,
            target_len,
        };
        Ok(Subject {
            model: config.meta.model_name.clone(),
            patch_size: model.patch_size,
            image_size: model.image_size,
            batch: config.loader.global_batch(1),
            device: match device {
                Device::Cuda(index) => format!("cuda:{index}"),
                _ => "cpu".to_owned(),
            },
            dtype: if bfloat16 { "bfloat16" } else { "float32" },
            threads: tch::get_num_threads(),
            context_len,
            target_len,
            flops_per_image: flops::per_image(&model, masks),
            peak,
        })
    }

    /// Returns the share of the machine's peak that the method's arithmetic comes to.
    pub fn mfu(&self, images_per_s: f64) -> Option<f64> {
        let peak = self.peak.as_ref()?;
        Some(images_per_s * self.flops_per_image / peak.flops_per_s)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
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
        )
    }
}

/// Everything that `trainer bench` says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was measured, and where.
    #[serde(flatten)]
    pub subject: Subject,
    /// Duration of a step in milliseconds, median.
    pub step_ms: f64,
    /// Phase and its duration in milliseconds, median.
    pub phases_ms: Vec<(Phase, f64)>,
    /// Images per second, from the median.
    pub images_per_s: f64,
    /// The method's arithmetic per image times images per second.
    pub flops_per_s: f64,
    /// Share of the peak that is used.
    pub mfu: Option<f64>,
    /// The most memory that this process (on a GPU: its tensors) had, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Everything the medians are of.
    pub each: Steps,
}

impl Report {
    /// Sums up what was measured.
    pub fn new(config: &Config, run: &Run, peak: Option<Peak>, each: Steps) -> Result<Report> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let lengths = (mean(&each.context_len), mean(&each.target_len));
        let subject = Subject::new(config, run.device, run.bfloat16, lengths, peak)?;
        let step_ms = median(each.step_ms.iter().copied());
        let images_per_s = subject.batch as f64 / step_ms * 1e3;
        Ok(Report {
            flops_per_s: subject.flops_per_image * images_per_s,
            mfu: subject.mfu(images_per_s),
            subject,
            step_ms,
            phases_ms: Phase::ALL
                .iter()
                .map(|&phase| {
                    let of_each = each.phase_ms.iter().map(|phases| phases[phase as usize]);
                    (phase, median(of_each))
                })
                .collect(),
            images_per_s,
            peak_memory_bytes: machine::peak_memory(run.device),
            each,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.subject)?;
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
        if let (Some(peak), Some(mfu)) = (&self.subject.peak, self.mfu) {
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
