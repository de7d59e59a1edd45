//! What the machine could do at best, and how much memory was needed.

use std::time::Instant;

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use trainer::torch::{cuda, shim};

/// Matrix products per second, at best.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// Floating-point operations per second.
    pub flops_per_s: f64,
    /// Where the number is from.
    pub what: String,
}

/// Dense peaks of NVIDIA's data sheets: part of the device's name, TFLOP/s in bfloat16 and in float32 without tensor
/// cores. The first that fits counts.
const GPUS: [(&str, f64, f64); 14] = [
    ("B200", 2250.0, 75.0),
    ("H200", 989.4, 66.9),
    ("H100 PCIe", 756.4, 51.2),
    ("H100 NVL", 835.5, 60.0),
    ("H100", 989.4, 66.9),
    ("A100", 311.9, 19.5),
    ("L40S", 362.1, 91.6),
    ("L40", 181.1, 90.5),
    ("L4", 121.0, 30.3),
    ("A10", 125.0, 31.2),
    ("A40", 149.7, 37.4),
    ("RTX A6000", 154.8, 38.7),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 3090", 71.0, 35.6),
];

/// Returns the peak of `device`: of a known GPU by its data sheet, of the CPU by a measurement of about a second.
pub fn peak(device: Device, bfloat16: bool) -> Option<Peak> {
    match device {
        Device::Cpu => Some(measured(bfloat16)),
        Device::Cuda(index) => data_sheet(&cuda::properties(index).ok()?.name, bfloat16),
        _ => None,
    }
}

fn data_sheet(name: &str, bfloat16: bool) -> Option<Peak> {
    let (known, half, single) = GPUS.iter().find(|(known, ..)| name.contains(known))?;
    let (tera, what) = if bfloat16 {
        (half, "bfloat16")
    } else {
        (single, "float32 without tensor cores")
    };
    Some(Peak {
        flops_per_s: tera * 1e12,
        what: format!("{known}'s data sheet, {what}"),
    })
}

/// Measures the best of some large square products, with libtorch's present number of threads.
fn measured(bfloat16: bool) -> Peak {
    const SIDE: i64 = 2048;
    const TIMES: usize = 8;
    let kind = if bfloat16 {
        Kind::BFloat16
    } else {
        Kind::Float
    };
    let a = Tensor::ones([SIDE, SIDE], (kind, Device::Cpu));
    let mut product = a.matmul(&a); // wakes threads, makes room
    let seconds = (0..TIMES).map(|_| {
        let start = Instant::now();
        product = tch::no_grad(|| a.matmul(&a));
        start.elapsed().as_secs_f64()
    });
    let best = seconds.fold(f64::INFINITY, f64::min);
    Peak {
        flops_per_s: 2.0 * (SIDE as f64).powi(3) / best,
        what: format!("best of {TIMES} products of {SIDE} × {SIDE} matrices here and now"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_name_wins() {
        let of = |name: &str| data_sheet(name, true).map(|peak| peak.flops_per_s / 1e12);
        assert_eq!(of("NVIDIA H100 PCIe"), Some(756.4));
        assert_eq!(of("NVIDIA H100 80GB HBM3"), Some(989.4));
        assert_eq!(of("NVIDIA L40S"), Some(362.1));
        assert_eq!(of("NVIDIA A100-SXM4-80GB"), Some(311.9));
        assert_eq!(of("Tesla K80"), None);
    }
}
