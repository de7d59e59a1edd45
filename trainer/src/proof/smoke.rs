//! Does everything that training needs of a GPU work here? One line each, in minutes: the first thing to run on a
//! machine that has one.
//!
//! A check that fails says why, and the others still run. Those that need no GPU run on a CPU as well, which keeps this
//! program itself tested where there is none. Tolerances stand beside what they are for; timings are told, not judged.

mod data;
mod operators;
mod step;

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow};
use serde::Serialize;
use tch::Device;

use crate::torch::{cuda, shim};

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It works.
    Ok,
    /// It does not.
    Failed,
    /// There is no GPU to check it on.
    Skipped,
}

/// A check.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What was checked.
    pub name: &'static str,
    /// What became of it.
    pub verdict: Verdict,
    /// What was seen, or what went wrong in the words of who noticed.
    pub detail: String,
}

impl std::fmt::Display for Line {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped:",
        };
        write!(out, "{verdict:<8} {:<28} {}", self.name, self.detail)
    }
}

/// Where a check makes sense.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Any,
    Gpu,
}

/// Name, where, and the check: says what it saw.
type Check = (&'static str, Needs, fn(Device) -> Result<String>);

const CHECKS: [Check; 17] = [
    ("device", Needs::Gpu, device),
    ("ring to tensors", Needs::Any, data::tensors),
    ("ring page-locked", Needs::Gpu, data::registration),
    ("copies", Needs::Gpu, data::bandwidth),
    ("copies beside computing", Needs::Gpu, data::overlap),
    ("slots released by events", Needs::Gpu, data::release),
    ("float32 without TF32", Needs::Any, operators::float32),
    ("bfloat16 autocast", Needs::Any, operators::autocast),
    ("flash attention", Needs::Any, operators::attention),
    ("fused AdamW", Needs::Any, operators::adamw),
    ("foreach EMA", Needs::Any, operators::ema),
    ("step in float32, as on a CPU", Needs::Gpu, step::float32),
    ("step in bfloat16", Needs::Any, step::bfloat16),
    ("activation checkpointing", Needs::Any, step::recomputed),
    ("memory it saves", Needs::Gpu, step::memory),
    ("ViT-H/14 step", Needs::Gpu, step::huge),
    ("NCCL, one rank", Needs::Gpu, nccl),
];

/// Runs every check on `device`, which [`crate::torch::device::parse`] has opened, and tells each line as it comes.
pub fn run(device: Device, mut tell: impl FnMut(&Line)) -> Vec<Line> {
    let lines = CHECKS.into_iter().map(|(name, needs, check)| {
        let line = |verdict, detail| Line {
            name,
            verdict,
            detail,
        };
        let line = if needs == Needs::Gpu && !device.is_cuda() {
            line(Verdict::Skipped, "no GPU".to_owned())
        } else {
            match guarded(|| check(device)) {
                Ok(detail) => line(Verdict::Ok, detail),
                Err(error) => line(Verdict::Failed, format!("{error:#}")),
            }
        };
        tell(&line);
        line
    });
    lines.collect()
}

/// Turns a panic, as of an operator of libtorch that fails, into a failure like others.
fn guarded(check: impl FnOnce() -> Result<String>) -> Result<String> {
    catch_unwind(AssertUnwindSafe(check))
        .unwrap_or_else(|panic| Err(anyhow!(shardtool::panics::message(&*panic))))
}

fn device(device: Device) -> Result<String> {
    let Device::Cuda(index) = device else {
        unreachable!("asked for a GPU alone");
    };
    let properties = cuda::properties(index)?;
    let (free, all) = cuda::memory()?;
    let (major, minor) = properties.capability;
    Ok(format!(
        "{}, compute capability {major}.{minor}, {} multiprocessors, {} of {} free; driver for CUDA {}, runtime {}",
        properties.name,
        properties.multiprocessors,
        gib(free as u64),
        gib(all as u64),
        properties.driver,
        properties.runtime
    ))
}

fn nccl(device: Device) -> Result<String> {
    let version = cuda::nccl::version()?;
    let alone = cuda::nccl::Communicator::alone()?;
    let tensor = tch::Tensor::from_slice(&[1f32, -2.0, 3.5]).to_device(device);
    alone.sum(&tensor)?;
    let sum = Vec::<f32>::try_from(&tensor)?;
    anyhow::ensure!(sum == [1.0, -2.0, 3.5], "the sum over one rank is {sum:?}");
    Ok(format!("version {version}"))
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

/// Returns the most memory that tensors had during `body`, above what they had before.
fn peak_of<R>(like: &tch::Tensor, body: impl FnOnce() -> R) -> Result<(R, u64)> {
    let (before, _) = shim::device_memory(like, true)?;
    let result = body();
    let (_, peak) = shim::device_memory(like, false)?;
    Ok((result, peak.saturating_sub(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_gpu_works_on_a_cpu_and_the_rest_is_skipped() {
        let mut told = Vec::new();
        let lines = run(Device::Cpu, |line| told.push(line.to_string()));
        assert_eq!(told.len(), CHECKS.len());
        for (line, (name, needs, _)) in lines.iter().zip(CHECKS) {
            let expected = match needs {
                Needs::Any => Verdict::Ok,
                Needs::Gpu => Verdict::Skipped,
            };
            assert_eq!((line.name, line.verdict), (name, expected), "{line}");
        }
        assert!(told[0].starts_with("skipped: device"), "{}", told[0]);
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_who_noticed() {
        let error = guarded(|| {
            let a = tch::Tensor::from_slice(&[1f32, 2.0]);
            let b = tch::Tensor::from_slice(&[1f32, 2.0, 3.0]);
            Ok(format!("{:?}", a + b))
        });
        let message = error.unwrap_err().to_string();
        assert!(message.contains("must match the size"), "{message}");
    }
}
