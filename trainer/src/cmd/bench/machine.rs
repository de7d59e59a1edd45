//! What the machine could do at best, and how much memory was needed.

use std::time::Instant;

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use trainer::plan::gpu::Gpu;
use trainer::torch::{cuda, shim};

/// Matrix products per second, at best.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// Floating-point operations per second.
    pub flops_per_s: f64,
    /// Where the number is from.
    pub what: String,
}

/// Returns the peak of `device`: of a known GPU by its data sheet, of the CPU by a measurement of about a second.
pub fn peak(device: Device, bfloat16: bool) -> Option<Peak> {
    match device {
        Device::Cpu => Some(measured(bfloat16)),
        Device::Cuda(index) => data_sheet(&cuda::properties(index).ok()?.name, bfloat16),
        _ => None,
    }
}

fn data_sheet(name: &str, bfloat16: bool) -> Option<Peak> {
    let gpu = Gpu::of(name)?;
    let what = match gpu.bfloat16_tflops {
        Some(_) if bfloat16 => "bfloat16",
        _ => "float32 without tensor cores",
    };
    Some(Peak {
        flops_per_s: gpu.peak(bfloat16),
        what: format!("{}'s data sheet, {what}", gpu.name),
    })
}

/// Measures the best of some large linear layers, with libtorch's present number of threads.
fn measured(bfloat16: bool) -> Peak {
    const SIDE: i64 = 2048;
    const TIMES: usize = 8;
    let kind = if bfloat16 {
        Kind::BFloat16
    } else {
        Kind::Float
    };
    let a = Tensor::ones([SIDE, SIDE], (kind, Device::Cpu));
    let bias = Tensor::zeros([SIDE], (kind, Device::Cpu));
    // The first one wakes threads and makes room.
    let seconds = (0..=TIMES).map(|_| {
        let start = Instant::now();
        let layer = tch::no_grad(|| shim::linear(&a, &a, &bias));
        layer.map_or(f64::INFINITY, |_| start.elapsed().as_secs_f64())
    });
    let best = seconds.skip(1).fold(f64::INFINITY, f64::min);
    let library = match bfloat16 || shim::takes_onednn() {
        true => "oneDNN",
        false => "MKL",
    };
    Peak {
        flops_per_s: 2.0 * (SIDE as f64).powi(3) / best,
        what: format!(
            "best of {TIMES} products of {SIDE} × {SIDE} matrices by {library} here and now"
        ),
    }
}

/// Returns the most memory that this process had resident, in bytes; on a GPU, that its tensors had.
pub fn peak_memory(device: Device) -> Option<u64> {
    if device.is_cuda() {
        let like = Tensor::zeros([1], (Kind::Float, device));
        return Some(shim::device_memory(&like, false).ok()?.1);
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
