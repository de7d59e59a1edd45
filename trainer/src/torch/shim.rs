//! Functions over `csrc/`: what the trainer needs of libtorch and tch does not bind.
//!
//! The only unsafe code of the model's side. Tensors cross as the `at::Tensor*` that tch holds; libtorch checks types,
//! devices and shapes itself and answers with a message, never with an exception across the border.

mod device;
pub mod distributed;
mod linear;
mod recompute;

pub use device::{Attention, allow_cudnn_attention, allow_tf32, device_memory};
pub use linear::{linear, takes_onednn};
pub use recompute::recomputed;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;

use tch::Tensor;

use crate::Error;

/// `at::Tensor*`.
type Handle = *const c_void;

unsafe extern "C" {
    fn ijepa_free(message: *mut c_char);
    fn ijepa_adamw(
        parameters: *const Handle,
        gradients: *const Handle,
        exp_avg: *const Handle,
        exp_avg_sq: *const Handle,
        count: usize,
        step: Handle,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
    fn ijepa_ema(
        slow: *const Handle,
        fast: *const Handle,
        count: usize,
        momentum: f64,
    ) -> *mut c_char;
    fn ijepa_normal(tensors: *const Handle, count: usize, deviation: f64, seed: u64)
    -> *mut c_char;
    fn ijepa_norm(tensors: *const Handle, count: usize, norm: *mut f64) -> *mut c_char;
    fn ijepa_clear_gradients(tensors: *const Handle, count: usize) -> *mut c_char;
    fn ijepa_autocast_enter(
        like: Handle,
        was_enabled: *mut c_int,
        previous_type: *mut c_int,
    ) -> *mut c_char;
    fn ijepa_autocast_exit(like: Handle, was_enabled: c_int, previous_type: c_int) -> *mut c_char;
}

fn handle(tensor: &Tensor) -> Handle {
    tensor.as_ptr().cast()
}

fn handles<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<Handle> {
    tensors.into_iter().map(handle).collect()
}

/// Turns the shim's answer into a result.
///
/// # Safety
/// `message` is null or came from a function of the shim and was not freed.
unsafe fn outcome(message: *mut c_char) -> Result<(), Error> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: not null, hence a C string made by the shim's strdup; it is copied before it is freed, once.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        ijepa_free(message);
        text
    };
    Err(Error::torch(&text))
}

/// The constants of one AdamW step.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// Does a fused AdamW step over four lists of equal length; `step` counts from 1.
///
/// # Errors
/// From the device: [`Error::OutOfMemory`] or [`Error::Torch`].
///
/// # Panics
/// If the lists have different lengths.
pub fn adamw(
    parameters: &[&Tensor],
    gradients: &[Tensor],
    exp_avg: &[&Tensor],
    exp_avg_sq: &[&Tensor],
    step: &Tensor,
    constants: AdamW,
) -> Result<(), Error> {
    let count = parameters.len();
    assert!(gradients.len() == count && exp_avg.len() == count && exp_avg_sq.len() == count);
    let parameters = handles(parameters.iter().copied());
    let gradients = handles(gradients);
    let exp_avg = handles(exp_avg.iter().copied());
    let exp_avg_sq = handles(exp_avg_sq.iter().copied());
    let AdamW {
        lr,
        beta1,
        beta2,
        weight_decay,
        eps,
    } = constants;
    // SAFETY: four arrays of `count` live tensors (borrowed for this call) and one live tensor.
    unsafe {
        outcome(ijepa_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            exp_avg.as_ptr(),
            exp_avg_sq.as_ptr(),
            count,
            handle(step),
            lr,
            beta1,
            beta2,
            weight_decay,
            eps,
        ))
    }
}

/// Sets `slow = slow * momentum + fast * (1 - momentum)` for each pair, with three separate roundings.
///
/// # Errors
/// From the device: [`Error::OutOfMemory`] or [`Error::Torch`].
pub fn ema<'a>(
    pairs: impl IntoIterator<Item = (&'a Tensor, &'a Tensor)>,
    momentum: f64,
) -> Result<(), Error> {
    let (slow, fast): (Vec<Handle>, Vec<Handle>) = pairs
        .into_iter()
        .map(|(slow, fast)| (handle(slow), handle(fast)))
        .unzip();
    // SAFETY: two arrays of as many tensors, borrowed for `'a`, which outlives this call.
    unsafe {
        outcome(ijepa_ema(
            slow.as_ptr(),
            fast.as_ptr(),
            slow.len(),
            momentum,
        ))
    }
}

/// Fills the tensors with normal values of one random stream that starts at `seed`.
///
/// The values are drawn on the CPU whatever their device. libtorch's global stream, which other threads may use, is not
/// touched.
///
/// # Errors
/// From the device: [`Error::OutOfMemory`] or [`Error::Torch`].
pub fn normal<'a>(
    tensors: impl IntoIterator<Item = &'a Tensor>,
    deviation: f64,
    seed: u64,
) -> Result<(), Error> {
    let tensors = handles(tensors);
    // SAFETY: an array of live tensors, borrowed for `'a`, which outlives this call.
    unsafe {
        outcome(ijepa_normal(
            tensors.as_ptr(),
            tensors.len(),
            deviation,
            seed,
        ))
    }
}

/// Returns the Euclidean norm of all elements of the tensors (at least one) together; waits for their device.
///
/// # Errors
/// From the device: [`Error::OutOfMemory`] or [`Error::Torch`].
pub fn norm(tensors: &[Tensor]) -> Result<f64, Error> {
    let tensors = handles(tensors);
    let mut norm = 0.0;
    // SAFETY: an array of live tensors, borrowed for this call, and a place to write to.
    unsafe { outcome(ijepa_norm(tensors.as_ptr(), tensors.len(), &mut norm))? };
    Ok(norm)
}

/// Drops the gradients, so that the next backward pass stores them instead of adding.
///
/// # Errors
/// From libtorch.
pub fn clear_gradients<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<(), Error> {
    let tensors = handles(tensors);
    // SAFETY: an array of live tensors, borrowed for `'a`, which outlives this call.
    unsafe { outcome(ijepa_clear_gradients(tensors.as_ptr(), tensors.len())) }
}

/// While it lives, this thread computes matrix products in bfloat16 on the device of the tensor it was made from
/// (`torch.autocast(dtype=torch.bfloat16)`). Drop it before the backward pass.
pub struct Autocast {
    like: Tensor,
    was_enabled: c_int,
    previous_type: c_int,
    // Autocast is a property of a thread, so the guard must not move to another one.
    thread: PhantomData<*const ()>,
}

impl Autocast {
    /// Enters autocast on the type of device that `like` lives on.
    ///
    /// # Errors
    /// From libtorch.
    pub fn bfloat16(like: &Tensor) -> Result<Self, Error> {
        let (mut was_enabled, mut previous_type) = (0, 0);
        // SAFETY: a live tensor and two places to write to. On failure nothing was entered.
        unsafe {
            outcome(ijepa_autocast_enter(
                handle(like),
                &mut was_enabled,
                &mut previous_type,
            ))
        }?;
        Ok(Self {
            like: like.shallow_clone(),
            was_enabled,
            previous_type,
            thread: PhantomData,
        })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: entered by this guard on this thread; the tensor is alive.
        let left = unsafe {
            outcome(ijepa_autocast_exit(
                handle(&self.like),
                self.was_enabled,
                self.previous_type,
            ))
        };
        left.expect("leaving autocast restores what entering it read");
    }
}
