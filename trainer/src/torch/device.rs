//! Which device to compute on, and how. A CPU is used only when asked for; CUDA asked for and absent is an error.

use tch::Device;

use crate::Error;
use crate::torch::{cuda, shim};

/// Makes sure that `name` is a device of this machine, without opening it.
///
/// # Errors
/// [`Error::Device`] with the cause and the cure.
pub fn check(name: &str) -> Result<(), Error> {
    find(name).map(drop)
}

/// Returns the name of the device that a rank means by `name`: where a node has several, its own GPU by `cuda`.
pub fn of_rank(name: &str, local_rank: u32, local_world: u32) -> String {
    match name == "cuda" && local_world > 1 {
        true => format!("cuda:{local_rank}"),
        false => name.to_owned(),
    }
}

/// Parses `cpu`, `cuda` or `cuda:N`, makes sure that the device is there, and makes it this thread's current one.
///
/// On a GPU, TF32 and cuDNN's attention are off from then on.
///
/// # Errors
/// [`Error::Device`] with the cause and the cure.
pub fn parse(name: &str) -> Result<Device, Error> {
    let Some(index) = find(name)? else {
        return Ok(Device::Cpu);
    };
    let because = |cause: Error, cure: &str| Error::Device {
        device: name.to_owned(),
        reason: format!("{cause}; {cure}"),
    };
    cuda::load_libtorch().map_err(|cause| {
        because(
            cause,
            "`make setup FULL=1` fetches libtorch with its CUDA libraries",
        )
    })?;
    cuda::open(index).map_err(|cause| because(cause, "does another process keep it to itself?"))?;
    if !tch::Cuda::is_available() {
        return Err(Error::Device {
            device: name.to_owned(),
            reason: "CUDA sees it, but libtorch does not: is this a libtorch for CUDA?".to_owned(),
        });
    }
    // Float32 means float32 unless somebody says otherwise; libtorch's own default lets convolutions use TF32.
    shim::allow_tf32(false)?;
    shim::allow_cudnn_attention(false)?;
    Ok(Device::Cuda(index))
}

/// Returns the number of a GPU of this machine, or `None` for the CPU.
fn find(name: &str) -> Result<Option<usize>, Error> {
    let error = |reason: &str| Error::Device {
        device: name.to_string(),
        reason: reason.to_string(),
    };
    let index = match name {
        "cpu" => return Ok(None),
        "cuda" => 0,
        _ => name
            .strip_prefix("cuda:")
            .and_then(|index| index.parse::<usize>().ok())
            .ok_or_else(|| error("expected `cpu` or `cuda:N`"))?,
    };
    if cfg!(not(feature = "cuda")) {
        return Err(error(
            "this trainer was built without CUDA: run `make setup FULL=1`, then build with `--features cuda`",
        ));
    }
    // The driver first: without it no library helps.
    let count = cuda::device_count().map_err(|cause| {
        let cure = "`nvidia-smi` should list a GPU, with a driver for CUDA 13";
        error(&format!("{cause}; {cure}"))
    })?;
    if index >= count {
        return Err(error(&format!(
            "this machine shows {count} GPU(s), counted from 0"
        )));
    }
    Ok(Some(index))
}

/// How a device computes with bfloat16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bfloat16 {
    /// Faster than with float32: a GPU, or a CPU with AMX.
    Fast,
    /// With vector instructions (AVX512-BF16), which some CPUs have at half the rate of those for float32.
    Vector,
    /// With none: libtorch emulates every product, at a fifteenth of the speed of float32.
    Emulated,
}

impl Bfloat16 {
    /// Returns what `device` can do.
    pub fn of(device: Device) -> Bfloat16 {
        if device.is_cuda() {
            return Bfloat16::Fast;
        }
        // What the kernel lets programs use; compilers know no portable question for AMX yet.
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has = |flag: &str| flags.split_ascii_whitespace().any(|found| found == flag);
        if has("amx_bf16") {
            Bfloat16::Fast
        } else if has("avx512_bf16") {
            Bfloat16::Vector
        } else {
            Bfloat16::Emulated
        }
    }

    /// Tells whether a run that asks for bfloat16 gets it.
    pub fn is_used(self) -> bool {
        self != Bfloat16::Emulated
    }

    /// Returns what a user who asks for bfloat16 should know.
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Bfloat16::Fast => None,
            Bfloat16::Vector => Some(
                "this CPU has AVX512-BF16 but no AMX, so bfloat16 may be slower than float32: compare with \
                 --set meta.use_bfloat16=false",
            ),
            Bfloat16::Emulated => Some(
                "this CPU has neither AMX nor AVX512-BF16, so this run is computed in float32; bfloat16 would be many \
                 times slower",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_there() {
        assert_eq!(parse("cpu").unwrap(), Device::Cpu);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn bfloat16_is_where_the_processor_says_so() {
        let cpu = Bfloat16::of(Device::Cpu);
        // AMX comes with the vector instructions, for which there is a question to the processor itself.
        assert_eq!(
            cpu.is_used(),
            std::arch::is_x86_feature_detected!("avx512bf16")
        );
        assert_eq!(cpu.warning().is_some(), cpu != Bfloat16::Fast);
        assert_eq!(Bfloat16::of(Device::Cuda(0)), Bfloat16::Fast);
    }

    #[test]
    fn nonsense_is_refused() {
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            let message = parse(name).unwrap_err().to_string();
            assert!(message.contains("expected `cpu` or `cuda:N`"), "{message}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn cuda_needs_the_feature() {
        let message = parse("cuda:0").unwrap_err().to_string();
        assert!(message.contains("--features cuda"), "{message}");
    }

    #[test]
    #[cfg(feature = "cuda")]
    fn a_gpu_that_is_not_there_is_an_error_with_its_cause() {
        let message = parse("cuda:999").unwrap_err().to_string();
        let without = message.contains("cudaGetDeviceCount: ") && message.contains("nvidia-smi");
        assert!(
            without || message.contains("this machine shows"),
            "{message}"
        );
    }
}
