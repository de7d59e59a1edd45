//! oneDNN's linear layer over `csrc/linear.cpp`.

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use super::{Handle, handle, outcome};
use crate::Error;

unsafe extern "C" {
    fn ijepa_linear(
        x: Handle,
        weight: Handle,
        bias: Handle,
        gelu: c_int,
        to: Handle,
        result: *mut *mut c_void,
    ) -> *mut c_char;
    fn ijepa_has_onednn() -> c_int;
}

/// What a linear layer by oneDNN does in the same pass.
#[derive(Clone, Copy, Debug)]
pub enum After<'a> {
    /// Nothing more; gradients can be asked for.
    Nothing,
    /// The exact GELU. Without gradients.
    Gelu,
    /// The sum with this tensor, of the result's shape. Without gradients.
    Add(&'a Tensor),
}

/// `x` (…, n) times `weight` (m, n) transposed, plus `bias` (m), by oneDNN: on a CPU, in float32. Faster than libtorch's
/// BLAS for narrow layers, for the bias costs no pass of its own; rounded like it.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    after: After<'_>,
) -> Result<Tensor, Error> {
    let (gelu, to) = match after {
        After::Nothing => (0, std::ptr::null()),
        After::Gelu => (1, std::ptr::null()),
        After::Add(to) => (0, handle(to)),
    };
    let mut result = std::ptr::null_mut();
    // SAFETY: three or four live tensors and a place to write to. On success that holds a new `at::Tensor`, which nobody
    // else owns, as `from_ptr` wants it; on failure it is not looked at.
    unsafe {
        outcome(ijepa_linear(
            handle(x),
            handle(weight),
            handle(bias),
            gelu,
            to,
            &mut result,
        ))?;
        Ok(Tensor::from_ptr(result.cast()))
    }
}

/// Whether this libtorch has what [`linear`] needs, and this thread computes in float32 (no autocast on the CPU).
pub fn has_onednn() -> bool {
    // SAFETY: it takes nothing and reads settings of libtorch.
    unsafe { ijepa_has_onednn() != 0 }
}
