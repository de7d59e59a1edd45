//! The official code's step beside ours, on the same device and of the same sizes: `trainer bench --compare-python`
//! (feature `compare`).
//!
//! The official code is not part of this repository: a checkout is named, and a Python with PyTorch runs it, one
//! process per variant. What each variant is, and how it is measured, is said in `benches/official/child.py`, which
//! travels inside this program. Ours is this program once more, as `bench --paced`, so that all are measured in
//! processes of their own. They take turns; on a GPU a turn starts and ends its process, so that each variant has all
//! of its memory.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use loader::masks::MaskSampler;
use serde_json::{Value, json};
use shardtool::Escaped;
use tch::Device;

use super::comparison::{Comparison, Variant};
use super::process::{Answer, PATIENCE, Process, probe, python_command};
use crate::cmd::bench::machine;
use crate::cmd::bench::report::Subject;
use crate::cmd::bench::step::median;
use trainer::config::Config;
use trainer::torch::device::Bfloat16;
use trainer::torch::environment;

/// The program that measures a variant of the official code.
const CHILD: &str = include_str!("../../../../benches/official/child.py");
/// What the child calls its variants (ours is not among them), and what the table calls them. The first is what the
/// others are compared with.
const VARIANTS: [(Option<&str>, &str); 5] = [
    (Some("eager"), "official"),
    (Some("sdpa"), "official + SDPA"),
    (Some("fused"), "official + SDPA, fused AdamW, foreach EMA"),
    (Some("compiled"), "the same + torch.compile"),
    (None, "ours"),
];
/// Steps among which one with masks of typical lengths is looked for.
const TYPICAL_OF: u64 = 32;

/// What to compare with, and how.
#[derive(Clone, Debug)]
pub struct How<'a> {
    /// A checkout of facebookresearch/ijepa.
    pub ijepa: &'a Path,
    /// The Python to run it with.
    pub python: &'a OsStr,
    /// Where to compute.
    pub device: Device,
    /// Steps of a turn that are not timed.
    pub warmup: u64,
    /// Steps of a turn that are.
    pub steps: u64,
    /// Turns of each variant.
    pub rounds: u64,
    /// The step whose masks have the lengths that all use; without, one of lengths near the mean.
    pub masks_of: Option<u64>,
    /// Arguments of `trainer bench` that stand for the configuration.
    pub ours: &'a [OsString],
}

/// Measures all variants in turns. One that fails does not keep the others from being measured.
///
/// # Errors
/// No checkout, a Python without PyTorch (or whose PyTorch sees no GPU, where one is asked for), a batch of several
/// groups, masks that cannot be drawn.
pub fn compare(config: &Config, how: &How<'_>) -> Result<Comparison> {
    ensure!(how.rounds > 0, "--rounds 0: at least one is needed");
    ensure!(how.steps > 0, "no steps, nothing to measure");
    ensure!(
        how.ijepa.join("src/models/vision_transformer.py").is_file(),
        "{}: no src/models/vision_transformer.py there; a checkout of facebookresearch/ijepa is needed",
        Escaped::new(how.ijepa)
    );
    let batch = config.loader.data.batch_size;
    ensure!(
        config.loader.global_batch(1) == batch,
        "the official code takes one group a step: leave optimization.global_batch out"
    );
    let pytorch = probe(how.python, how.device)?;
    let model = config.model()?;
    let (masks_of, context_len, target_len) = masks(config, how.masks_of)?;
    let bfloat16 = config.meta.use_bfloat16 && Bfloat16::of(how.device).is_used();
    let subject = Subject::new(
        config,
        how.device,
        bfloat16,
        (context_len as f64, target_len as f64),
        machine::peak(how.device, bfloat16),
    )?;
    let mask = &config.loader.mask;
    let work = json!({
        "ijepa": how.ijepa.canonicalize().context("the checkout")?, "device": subject.device, "bfloat16": bfloat16,
        "model": subject.model, "patch": model.patch_size, "size": model.image_size, "batch": batch,
        "predictor_depth": model.predictor_depth, "predictor_dim": model.predictor_dim,
        "contexts": mask.num_enc_masks, "targets": mask.num_pred_masks,
        "context_len": context_len, "target_len": target_len,
        "threads": subject.threads, "warmup": how.warmup, "steps": how.steps, "patience": PATIENCE,
    });
    let found = Comparison {
        subject,
        pytorch,
        rounds: how.rounds,
        steps: how.steps,
        one_at_a_time: how.device.is_cuda(),
        variants: VARIANTS.map(|(_, name)| Variant::new(name)).into(),
    };
    let folder = std::env::temp_dir().join(format!("ijepa-official-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| Escaped::new(&folder).to_string())?;
    let program = folder.join("child.py");
    let entrants = Entrants {
        how,
        work,
        masks_of,
        folder: &folder,
        program: &program,
    };
    let found = fs::write(&program, CHILD)
        .with_context(|| Escaped::new(&program).to_string())
        .map(|()| entrants.take_turns(found));
    // The system clears its temporary directory should this fail.
    let _ = fs::remove_dir_all(&folder);
    found
}

/// Chooses a step, `given` or the one nearest to the mean of the first: its number, patches of a context, of a target.
fn masks(config: &Config, given: Option<u64>) -> Result<(u64, usize, usize)> {
    let sampler = MaskSampler::new(&config.loader, config.loader.data.crop_size.at(0))?;
    let images = usize::try_from(config.loader.data.batch_size)?;
    ensure!(images > 0, "data.batch_size: no images, nothing to measure");
    let steps = given.map_or(0..TYPICAL_OF, |step| step..step + 1);
    let drawn: Vec<_> = steps
        .map(|step| {
            let masks = sampler.draw(step, 0, images);
            (step, masks.context_len, masks.target_len)
        })
        .collect();
    let mean = |of: fn(&(u64, usize, usize)) -> usize| {
        drawn.iter().map(of).sum::<usize>() as f64 / drawn.len() as f64
    };
    let (context, target) = (mean(|drawn| drawn.1), mean(|drawn| drawn.2));
    let away = |&(_, context_len, target_len): &(u64, usize, usize)| {
        (context_len as f64 - context).abs() + (target_len as f64 - target).abs()
    };
    let nearest = drawn.iter().min_by(|a, b| away(a).total_cmp(&away(b)));
    nearest.copied().context("masks of no step")
}

/// Starts processes and gives each its turns.
struct Entrants<'a> {
    how: &'a How<'a>,
    /// What the child is told, but for the variant.
    work: Value,
    masks_of: u64,
    folder: &'a Path,
    program: &'a Path,
}

impl Entrants<'_> {
    fn take_turns(&self, mut found: Comparison) -> Comparison {
        let mut waiting: Vec<Option<Process>> = VARIANTS.map(|_| None).into();
        for round in 0..self.how.rounds {
            // Backwards every other time, so that nobody always follows the same one.
            let mut order: Vec<usize> = (0..VARIANTS.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for number in order {
                let variant = &mut found.variants[number];
                if variant.failed.is_some() {
                    continue;
                }
                match self.turn(number, &mut waiting[number]) {
                    Ok(answer) => variant.add(answer),
                    Err(error) => variant.failed = Some(format!("{error:#}")),
                }
                // Whoever cuts this short has at least these lines.
                let steps = variant.each_ms.last();
                let said = match (&variant.failed, steps) {
                    (Some(failed), _) => failed.clone(),
                    (None, Some(steps)) => {
                        format!("{:.1} ms per step", median(steps.iter().copied()))
                    }
                    (None, None) => continue,
                };
                let (round, rounds) = (round + 1, self.how.rounds);
                tracing::info!("round {round} of {rounds}: {}: {said}", variant.name);
            }
        }
        for process in waiting.into_iter().flatten() {
            process.end();
        }
        found.summarise();
        found
    }

    /// Gives a variant its turn, by the process that waits for it or by a new one.
    fn turn(&self, number: usize, waiting: &mut Option<Process>) -> Result<Answer> {
        let mut process = match waiting.take() {
            Some(process) => process,
            None => Process::start(
                self.command(VARIANTS[number].0)?,
                self.folder.join(format!("{number}.log")),
            )?,
        };
        let answer = process.turn()?;
        if self.how.device.is_cuda() {
            process.end();
        } else {
            *waiting = Some(process);
        }
        Ok(answer)
    }

    fn command(&self, variant: Option<&str>) -> Result<Command> {
        let how = self.how;
        let threads = tch::get_num_threads().to_string();
        let mut command = if let Some(variant) = variant {
            let mut work = self.work.clone();
            work["variant"] = json!(variant);
            let mut command = python_command(how.python);
            command.arg(self.program).arg(work.to_string());
            environment::as_by_itself(&mut command);
            command
        } else {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("bench").args(how.ours);
            for (name, value) in [
                ("--masks-of", self.masks_of),
                ("--warmup", how.warmup),
                ("--steps", how.steps),
            ] {
                command.arg(name).arg(value.to_string());
            }
            let device = self.work["device"].as_str().unwrap_or("cpu");
            command.args(["--threads", &threads, "--device", device]);
            command.args(["--json", "--paced"]);
            command
        };
        command.env("OMP_NUM_THREADS", threads);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::bench::step::Workload;

    #[test]
    fn the_typical_step_is_the_one_nearest_to_the_mean() {
        let workload = Workload {
            model: "vit_tiny".to_owned(),
            patch: 8,
            size: 96,
            batch: 3,
            predictor_depth: 1,
            predictor_dim: 48,
            bfloat16: false,
        };
        let config = workload.config().unwrap();
        let all: Vec<_> = (0..TYPICAL_OF)
            .map(|step| masks(&config, Some(step)).unwrap())
            .collect();
        let (step, context, target) = masks(&config, None).unwrap();
        assert_eq!(all[step as usize], (step, context, target));
        let mean = all.iter().map(|drawn| drawn.1).sum::<usize>() as f64 / all.len() as f64;
        let off: Vec<f64> = all
            .iter()
            .map(|drawn| (drawn.1 as f64 - mean).abs())
            .collect();
        let nearer = off
            .iter()
            .filter(|&&off| off < (context as f64 - mean).abs());
        assert!(nearer.count() < all.len() / 4, "{context} of {mean}");
    }
}
