//! Linear layers over `csrc/linear.cpp`.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use shardtool::Escaped;
use tch::Tensor;

use super::{Handle, handle, outcome};
use crate::Error;

unsafe extern "C" {
    fn ijepa_linear(
        x: Handle,
        weight: Handle,
        bias: Handle,
        onednn: c_int,
        result: *mut *mut c_void,
    ) -> *mut c_char;
}

/// The environment variable that chooses the library of float32 layers on the CPU: `mkl` or `onednn`.
const LINEAR: &str = "TRAINER_LINEAR";

/// Returns `x` (…, in) times `weight` (out, in) transposed, plus `bias` (out): (…, out).
///
/// In float32, MKL computes it on Intel's CPUs, and oneDNN on other makers': there MKL takes older instructions than
/// the CPU has. Both round as float32 does, but add in different orders.
///
/// # Errors
/// From libtorch: shapes that do not fit, or no memory.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, Error> {
    linear_by(takes_onednn(), x, weight, bias)
}

fn linear_by(onednn: bool, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, Error> {
    let mut result = std::ptr::null_mut();
    // SAFETY: three live tensors and a place to write to. On success that holds a new `at::Tensor`, which nobody else
    // owns, as `from_ptr` wants it; on failure it is not looked at.
    unsafe {
        outcome(ijepa_linear(
            handle(x),
            handle(weight),
            handle(bias),
            c_int::from(onednn),
            &raw mut result,
        ))?;
        Ok(Tensor::from_ptr(result.cast()))
    }
}

/// Tells if float32 layers on this CPU are computed by oneDNN.
pub fn takes_onednn() -> bool {
    static CHOICE: OnceLock<bool> = OnceLock::new();
    *CHOICE.get_or_init(|| match std::env::var(LINEAR).as_deref() {
        Ok("mkl") => false,
        Ok("onednn") => true,
        other => {
            if let Ok(other) = other {
                tracing::warn!("{LINEAR}={}: neither mkl nor onednn", Escaped::new(other));
            }
            vendor().is_some_and(|name| &name != b"GenuineIntel")
        }
    })
}

/// Returns the maker that an x86 CPU names.
fn vendor() -> Option<[u8; 12]> {
    #[cfg(target_arch = "x86_64")]
    {
        let id = std::arch::x86_64::__cpuid(0);
        let parts = [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes);
        parts.as_flattened().try_into().ok()
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn onednns_layer_is_libtorchs_with_all_gradients() {
        tch::manual_seed(1);
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        // Widths beyond 84 are those for which oneDNN leaves the stack; views, and no rows at all.
        for (shape, inner, outer) in [
            (vec![3, 5], 96, 40),
            (vec![7], 200, 96),
            (vec![0, 4], 96, 8),
        ] {
            let wide = [&shape[..], &[2 * inner]].concat();
            let leaves = [
                random(&wide),
                random(&[2 * outer, inner]),
                random(&[2 * outer]),
            ]
            .map(|leaf| leaf.set_requires_grad(true));
            let of = |onednn| {
                let x = leaves[0].narrow(-1, inner, inner);
                let (weight, bias) = (
                    leaves[1].narrow(0, 0, outer),
                    leaves[2].narrow(0, outer, outer),
                );
                let y = linear_by(onednn, &x, &weight, &bias).unwrap();
                let gradients =
                    Tensor::run_backward(&[y.sin().sum(Kind::Float)], &leaves, false, false);
                std::iter::once(y).chain(gradients).collect::<Vec<_>>()
            };
            for (ours, libtorchs) in of(true).iter().zip(of(false)) {
                assert!(ours.allclose(&libtorchs, 1e-5, 1e-4, false), "{shape:?}");
            }
        }
        let (x, weight, bias) = (random(&[2, 3]), random(&[4, 5]), random(&[4]));
        assert!(linear_by(true, &x, &weight, &bias).is_err());
    }
}
