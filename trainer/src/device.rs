//! Which device to compute on. A CPU is used only when asked for; CUDA asked for and absent is an error.

use tch::Device;

use crate::Error;

/// Parses `cpu`, `cuda` or `cuda:N` and makes sure that the device is there.
pub fn parse(name: &str) -> Result<Device, Error> {
    let error = |reason: &str| Error::Device {
        device: name.to_string(),
        reason: reason.to_string(),
    };
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
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
    if !tch::Cuda::is_available() {
        return Err(error(
            "no usable NVIDIA GPU: `nvidia-smi` should list one, with a driver for CUDA 13",
        ));
    }
    match tch::Cuda::device_count() {
        count if (index as i64) < count => Ok(Device::Cuda(index)),
        count => Err(error(&format!(
            "this machine shows {count} GPU(s), counted from 0"
        ))),
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
}
