//! The official code's step beside ours, on the same device and of the same sizes: `trainer bench --compare-python`.
//!
//! The official code is not part of this repository: a checkout is named, and a Python with PyTorch runs it, one process
//! per variant. What each variant is, and how it is measured, is said in `benches/official/child.py`, which travels
//! inside this program. Ours is this program once more, as `bench --paced`, so that all are measured in processes of
//! their own. They take turns; on a GPU a turn starts and ends its process, so that each variant has all of its memory.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use loader::masks::MaskSampler;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Device;

use super::machine::{self, Peak};
use super::{flops, median};
use crate::config::Config;
use crate::device::Bfloat16;

/// The program that measures a variant of the official code.
const CHILD: &str = include_str!("../../benches/official/child.py");
/// What the child calls its variants (ours is not among them), and what the table calls them. The first is what the
/// others are compared with.
const VARIANTS: [(Option<&str>, &str); 5] = [
    (Some("eager"), "official"),
    (Some("sdpa"), "official + SDPA"),
    (Some("fused"), "official + SDPA, fused AdamW, foreach EMA"),
    (Some("compiled"), "the same + torch.compile"),
    (None, "ours"),
];
/// Longest that a turn of the official code may take, in seconds: the first one of a variant compiles.
const PATIENCE: u32 = 900;
/// Steps among which one with masks of typical lengths is looked for.
const TYPICAL_OF: u64 = 32;
/// Longest reason that stands in the table, in characters.
const REASON: usize = 160;

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

/// All variants, measured.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
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
    /// Threads on the CPU, of each.
    pub threads: i32,
    /// The PyTorch that ran the official code.
    pub pytorch: String,
    /// Context patches of an image.
    pub context_len: usize,
    /// Patches of a target.
    pub target_len: usize,
    /// Turns of each.
    pub rounds: u64,
    /// Timed steps of a turn.
    pub steps: u64,
    /// Whether a turn started and ended its process; otherwise all processes were there throughout.
    pub one_at_a_time: bool,
    /// What the method as published needs, per image: multiplications and additions of matrix products.
    pub flops_per_image: f64,
    /// What the machine can do, where that is known.
    pub peak: Option<Peak>,
    /// The official code first, ours last.
    pub variants: Vec<Variant>,
}

/// What one variant showed.
#[derive(Clone, Debug, Serialize)]
pub struct Variant {
    /// What it is.
    pub name: &'static str,
    /// Why it has no result.
    pub failed: Option<String>,
    /// What the steps come to, without a failure.
    pub result: Option<Summary>,
    /// The most memory that its tensors had on the GPU, or that its process had resident, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Of each round, the duration of each step in milliseconds.
    pub each_ms: Vec<Vec<f64>>,
}

/// What the steps of a variant come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Median duration of a step in milliseconds.
    pub step_ms: f64,
    /// Images per second, from that.
    pub images_per_s: f64,
    /// Share of the machine's peak that the method's arithmetic comes to.
    pub mfu: Option<f64>,
    /// How many times as fast as the official code: the median of the rounds' ratios, so that what slows the machine
    /// for a while slows both.
    pub speedup: Option<f64>,
}

/// What Python says about itself.
#[derive(Deserialize)]
struct Probe {
    torch: String,
    cuda: bool,
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
        how.ijepa.display()
    );
    let batch = config.loader.data.batch_size;
    ensure!(
        config.loader.global_batch(1) == batch,
        "the official code takes one group a step: leave optimization.global_batch out"
    );
    let pytorch = probe(how)?;
    let model = config.model()?;
    let (masks_of, context_len, target_len) = masks(config, how.masks_of)?;
    let bfloat16 = config.meta.use_bfloat16 && Bfloat16::of(how.device).is_used();
    let device = match how.device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    };
    let mask = &config.loader.mask;
    let found = Comparison {
        model: config.meta.model_name.clone(),
        patch_size: model.patch_size,
        image_size: model.image_size,
        batch,
        device: device.clone(),
        dtype: if bfloat16 { "bfloat16" } else { "float32" },
        threads: tch::get_num_threads(),
        pytorch,
        context_len,
        target_len,
        rounds: how.rounds,
        steps: how.steps,
        one_at_a_time: how.device.is_cuda(),
        flops_per_image: flops::per_image(
            &model,
            flops::Masks {
                contexts: mask.num_enc_masks,
                targets: mask.num_pred_masks,
                context_len: context_len as f64,
                target_len: target_len as f64,
            },
        ),
        peak: machine::peak(how.device, bfloat16),
        variants: VARIANTS.map(|(_, name)| Variant::new(name)).into(),
    };
    let work = json!({
        "ijepa": how.ijepa.canonicalize().context("the checkout")?, "device": device, "bfloat16": bfloat16,
        "model": found.model, "patch": model.patch_size, "size": model.image_size, "batch": batch,
        "predictor_depth": model.predictor_depth, "predictor_dim": model.predictor_dim,
        "contexts": mask.num_enc_masks, "targets": mask.num_pred_masks,
        "context_len": context_len, "target_len": target_len,
        "threads": found.threads, "warmup": how.warmup, "steps": how.steps, "patience": PATIENCE,
    });
    let folder = std::env::temp_dir().join(format!("ijepa-official-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let program = folder.join("child.py");
    let entrants = Entrants {
        how,
        work,
        masks_of,
        folder: &folder,
        program: &program,
    };
    let found = fs::write(&program, CHILD)
        .with_context(|| format!("{}", program.display()))
        .map(|()| entrants.take_turns(found));
    // The system clears its temporary directory should this fail.
    let _ = fs::remove_dir_all(&folder);
    found
}

/// The release of Python's PyTorch; fails where Python cannot do what is asked for.
fn probe(how: &How<'_>) -> Result<String> {
    let python = how.python.display();
    let output = python_command(how.python)
        .args(["-c", "import json, numpy, torch; print(json.dumps({'torch': torch.__version__, 'cuda': torch.cuda.is_available()}))"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("--python {python}: cannot be started"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "--python {python}: PyTorch and numpy are needed: {}",
        last_line(&errors).unwrap_or("it says nothing")
    );
    let probe: Probe =
        serde_json::from_slice(&output.stdout).with_context(|| format!("--python {python}"))?;
    ensure!(
        probe.cuda || !how.device.is_cuda(),
        "--python {python}: its PyTorch {} sees no GPU",
        probe.torch
    );
    Ok(probe.torch)
}

/// A Python that finds its own PyTorch: not the libtorch that this program was started with.
fn python_command(python: &OsStr) -> Command {
    let mut command = Command::new(python);
    command.env("PYTHONWARNINGS", "ignore");
    if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
        let others =
            std::env::split_paths(&paths).filter(|path| !path.join("libtorch_cpu.so").exists());
        // They came from such a list, so they can be in one.
        if let Ok(others) = std::env::join_paths(others) {
            command.env("LD_LIBRARY_PATH", others);
        }
    }
    command
}

/// A step, and the patches of its context and target masks: `given`, or the one nearest to the mean of the first ones.
fn masks(config: &Config, given: Option<u64>) -> Result<(u64, usize, usize)> {
    let sampler = MaskSampler::new(&config.loader)?;
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
                let said = variant
                    .each_ms
                    .last()
                    .map(|steps| median(steps.iter().copied()));
                let said = said.map(|ms| format!("{ms:.1} ms per step"));
                eprintln!(
                    "round {} of {}: {}: {}",
                    round + 1,
                    self.how.rounds,
                    variant.name,
                    variant
                        .failed
                        .as_ref()
                        .or(said.as_ref())
                        .map_or("", String::as_str)
                );
            }
        }
        for process in waiting.into_iter().flatten() {
            process.end();
        }
        found.summarise();
        found
    }

    /// One turn of a variant, by the process that waits for it or by a new one.
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

/// A process that measures whenever it is sent a line. Killed when dropped.
struct Process {
    child: Child,
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    log: PathBuf,
}

/// What a turn showed.
struct Answer {
    step_ms: Vec<f64>,
    peak_memory_bytes: Option<u64>,
}

impl Process {
    fn start(mut command: Command, log: PathBuf) -> Result<Process> {
        let errors = File::create(&log).with_context(|| format!("{}", log.display()))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let answers = child.stdout.take().context("its output")?;
        Ok(Process {
            asks: child.stdin.take(),
            answers: BufReader::new(answers),
            child,
            log,
        })
    }

    fn turn(&mut self) -> Result<Answer> {
        // One that has ended already is found out by the missing answer.
        let _ = self.asks.as_mut().map(|pipe| pipe.write_all(b"\n"));
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            return Err(self.reason()?);
        }
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("it answered {line}"))?;
        if let Some(reason) = answer["failed"].as_str() {
            bail!("{}", shortened(reason));
        }
        // Ours has more to tell.
        let steps = answer
            .pointer("/each/step_ms")
            .unwrap_or(&answer["step_ms"]);
        let steps: Vec<f64> = Vec::deserialize(steps).context("its step_ms")?;
        ensure!(!steps.is_empty(), "it timed no step");
        Ok(Answer {
            step_ms: steps,
            peak_memory_bytes: answer["peak_memory_bytes"].as_u64(),
        })
    }

    /// Why it ended without an answer.
    fn reason(&mut self) -> Result<anyhow::Error> {
        let status = self.child.wait()?;
        if status.signal() == Some(libc::SIGALRM) {
            return Ok(anyhow!("no end after {PATIENCE} s"));
        }
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        Ok(match last_line(&log) {
            Some(line) => anyhow!("{status}: {}", shortened(line)),
            None => anyhow!("{status}"),
        })
    }

    /// Lets it end by itself, which frees what processes of its own it has; not for long.
    fn end(mut self) {
        self.asks = None;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) && matches!(self.child.try_wait(), Ok(None))
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; there is nothing left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}

fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(REASON) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

impl Variant {
    fn new(name: &'static str) -> Variant {
        Variant {
            name,
            failed: None,
            result: None,
            peak_memory_bytes: None,
            each_ms: Vec::new(),
        }
    }

    fn add(&mut self, answer: Answer) {
        self.each_ms.push(answer.step_ms);
        self.peak_memory_bytes = self.peak_memory_bytes.max(answer.peak_memory_bytes);
    }

    /// Medians of the rounds, unless one is missing.
    fn medians(&self) -> Option<Vec<f64>> {
        let all = self.failed.is_none() && !self.each_ms.is_empty();
        all.then(|| {
            let rounds = self.each_ms.iter();
            rounds.map(|steps| median(steps.iter().copied())).collect()
        })
    }
}

impl Comparison {
    /// Whether ours and some variant of the official code were measured.
    pub fn is_one(&self) -> bool {
        match self.variants.split_last() {
            Some((ours, theirs)) => {
                ours.result.is_some() && theirs.iter().any(|variant| variant.result.is_some())
            }
            None => false,
        }
    }

    fn summarise(&mut self) {
        let official = self.variants.first().and_then(Variant::medians);
        for variant in &mut self.variants {
            let Some(medians) = variant.medians() else {
                continue;
            };
            let step_ms = median(variant.each_ms.iter().flatten().copied());
            let images_per_s = self.batch as f64 / step_ms * 1e3;
            variant.result = Some(Summary {
                step_ms,
                images_per_s,
                mfu: self
                    .peak
                    .as_ref()
                    .map(|peak| images_per_s * self.flops_per_image / peak.flops_per_s),
                speedup: official.as_ref().map(|official| {
                    let rounds = official.iter().zip(&medians);
                    median(rounds.map(|(official, own)| official / own))
                }),
            });
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{}/{} at {} px, {} images a step, {}, on {} ({} thread(s)); masks {} {}",
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
        writeln!(
            out,
            "{:<42} {:>9} {:>9} {:>7} {:>11} {:>10}",
            "variant", "images/s", "ms/step", "MFU", "peak memory", "× official"
        )?;
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        for variant in &self.variants {
            let Some(result) = variant.result else {
                let reason = variant.failed.as_deref().unwrap_or("not measured");
                writeln!(out, "{:<42} failed: {reason}", variant.name)?;
                continue;
            };
            let memory = variant.peak_memory_bytes;
            writeln!(
                out,
                "{:<42} {:>9.2} {:>9.1} {:>7} {:>11} {:>10}",
                variant.name,
                result.images_per_s,
                result.step_ms,
                or_none(result.mfu.map(|share| format!("{:.1} %", 100.0 * share))),
                or_none(
                    memory.map(|bytes| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30)))
                ),
                or_none(result.speedup.map(|speedup| format!("{speedup:.2}")))
            )?;
        }
        writeln!(
            out,
            "medians of {} round(s) of {} steps, in turns, {}; PyTorch {} runs the official code",
            self.rounds,
            self.steps,
            if self.one_at_a_time {
                "one process at a time"
            } else {
                "each in a process that waits for its turn"
            },
            self.pytorch
        )?;
        write!(
            out,
            "ours includes bringing the images to the device, the official code has them there; memory: {}",
            if self.one_at_a_time {
                "of tensors on the GPU"
            } else {
                "resident"
            }
        )?;
        if let Some(peak) = &self.peak {
            let giga = peak.flops_per_s / 1e9;
            write!(out, "; MFU: of {giga:.0} GFLOP/s ({})", peak.what)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Workload;

    fn comparison(rounds: [(&'static str, &[f64]); 3]) -> Comparison {
        Comparison {
            model: "vit_tiny".to_owned(),
            patch_size: 8,
            image_size: 96,
            batch: 4,
            device: "cpu".to_owned(),
            dtype: "float32",
            threads: 1,
            pytorch: "2.11.0".to_owned(),
            context_len: 20,
            target_len: 10,
            rounds: 2,
            steps: 1,
            one_at_a_time: false,
            flops_per_image: 1e9,
            peak: Some(Peak {
                flops_per_s: 1e12,
                what: "a guess".to_owned(),
            }),
            variants: rounds
                .map(|(name, ms)| Variant {
                    each_ms: ms.iter().map(|&ms| vec![ms]).collect(),
                    ..Variant::new(name)
                })
                .into(),
        }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_a_failure_has_none() {
        // The second round took twice as long for everybody.
        let rounds = [
            ("official", &[10.0, 20.0][..]),
            ("half", &[5.0]),
            ("ours", &[4.0, 10.0]),
        ];
        let mut found = comparison(rounds);
        found.variants[1].failed = Some("out of memory".to_owned());
        found.summarise();
        let ours = found.variants[2].result.unwrap();
        assert_eq!(ours.step_ms, 7.0);
        assert_eq!(ours.speedup, Some(2.25));
        assert_eq!(ours.images_per_s, 4e3 / 7.0);
        assert_eq!(ours.mfu, Some(4e3 / 7.0 * 1e9 / 1e12));
        assert_eq!(found.variants[0].result.unwrap().speedup, Some(1.0));
        assert_eq!(found.variants[1].result, None);
        assert!(found.is_one());
        let text = found.to_string();
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(row("half").ends_with("failed: out of memory"), "{text}");
        assert!(row("ours").ends_with("2.25"), "{text}");
        assert!(row("ours").contains(" 57.1 % "), "{text}");
    }

    #[test]
    fn without_the_official_code_nothing_is_compared() {
        let rounds = [
            ("official", &[][..]),
            ("fused", &[]),
            ("ours", &[4.0, 10.0]),
        ];
        let mut found = comparison(rounds);
        for variant in &mut found.variants[..2] {
            variant.failed = Some("no".to_owned());
        }
        found.summarise();
        assert!(!found.is_one());
        assert_eq!(found.variants[2].result.unwrap().speedup, None);
    }

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

    #[test]
    fn long_reasons_end_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(
            shortened(&"ä".repeat(200)),
            format!("{}…", "ä".repeat(REASON))
        );
    }
}
