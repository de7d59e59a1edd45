//! GPU settings and memory of libtorch, over `csrc/device.cpp`.

use std::ffi::{c_char, c_int, c_uint};

use tch::Tensor;

use super::{Handle, handle, outcome};
use crate::Error;

unsafe extern "C" {
    fn ijepa_allow_tf32(allowed: c_int) -> *mut c_char;
    fn ijepa_allow_cudnn_attention(allowed: c_int) -> *mut c_char;
    fn ijepa_attention_backends(allowed: c_uint, previous: *mut c_uint) -> *mut c_char;
    fn ijepa_attention_choice(
        query: Handle,
        key: Handle,
        value: Handle,
        choice: *mut i64,
    ) -> *mut c_char;
    fn ijepa_device_memory(
        like: Handle,
        now: *mut i64,
        peak: *mut i64,
        reset: c_int,
    ) -> *mut c_char;
}

/// Lets float32 matrix products and convolutions on a GPU round their inputs to TF32 (10 bits of mantissa), or forbids
/// it.
///
/// # Errors
/// From libtorch.
pub fn allow_tf32(allowed: bool) -> Result<(), Error> {
    // SAFETY: takes no pointers.
    unsafe { outcome(ijepa_allow_tf32(allowed.into())) }
}

/// Lets attention on a GPU use cuDNN, or forbids it.
///
/// cuDNN makes a plan for each shape that it meets. Masks have other lengths at every step, so on the GPUs where
/// libtorch prefers cuDNN the first thousands of steps would make plans, for minutes in all.
///
/// # Errors
/// From libtorch.
pub fn allow_cudnn_attention(allowed: bool) -> Result<(), Error> {
    // SAFETY: takes no pointers.
    unsafe { outcome(ijepa_allow_cudnn_attention(allowed.into())) }
}

/// An implementation of scaled dot-product attention in libtorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Attention {
    /// Softmax of a matrix that is kept.
    Math = 0,
    /// Tile by tile, nothing kept.
    Flash = 1,
    /// Tile by tile, for more types and older devices.
    Efficient = 2,
    /// cuDNN's.
    CuDnn = 3,
}

impl Attention {
    const ALL: [Attention; 4] = [
        Attention::Math,
        Attention::Flash,
        Attention::Efficient,
        Attention::CuDnn,
    ];

    /// Returns the implementation that attention over these (B, H, N, K) would use; `None` where none of those allowed
    /// can.
    ///
    /// # Errors
    /// From libtorch.
    pub fn chosen(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Option<Self>, Error> {
        let mut choice = -1;
        // SAFETY: three live tensors and a place to write to.
        unsafe {
            outcome(ijepa_attention_choice(
                handle(query),
                handle(key),
                handle(value),
                &mut choice,
            ))
        }?;
        Ok(Self::ALL.into_iter().find(|one| *one as i64 == choice))
    }

    /// Runs `body` with this implementation alone allowed, in the whole process.
    ///
    /// # Errors
    /// From libtorch.
    pub fn alone<R>(self, body: impl FnOnce() -> R) -> Result<R, Error> {
        /// Allows again what was allowed, also after a panic.
        struct Restore(c_uint);
        impl Drop for Restore {
            fn drop(&mut self) {
                // SAFETY: a place to write to. Setting flags does not fail.
                let _ = unsafe { outcome(ijepa_attention_backends(self.0, &mut 0)) };
            }
        }
        let mut previous = 0;
        // SAFETY: a place to write to.
        unsafe { outcome(ijepa_attention_backends(1 << self as u32, &mut previous)) }?;
        let _restore = Restore(previous);
        Ok(body())
    }
}

/// Returns the bytes that libtorch's allocator has handed out on the GPU of `like`: (now, the most since the last
/// reset).
///
/// `reset` starts a new measurement.
///
/// # Errors
/// From libtorch.
///
/// # Panics
/// If `like` lies on a CPU, for which libtorch keeps no account.
pub fn device_memory(like: &Tensor, reset: bool) -> Result<(u64, u64), Error> {
    assert!(like.device().is_cuda(), "memory of a GPU");
    let (mut now, mut peak) = (0, 0);
    // SAFETY: a live tensor and two places to write to.
    unsafe {
        outcome(ijepa_device_memory(
            handle(like),
            &mut now,
            &mut peak,
            reset.into(),
        ))
    }?;
    Ok((now as u64, peak as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn the_one_implementation_allowed_is_chosen_and_the_others_come_back() {
        let q = Tensor::rand([1, 2, 16, 8], (Kind::Float, Device::Cpu));
        let choice = || Attention::chosen(&q, &q, &q).unwrap();
        let usual = choice();
        assert_eq!(
            Attention::Math.alone(choice).unwrap(),
            Some(Attention::Math)
        );
        assert_eq!(
            Attention::Flash.alone(choice).unwrap(),
            Some(Attention::Flash)
        );
        assert_eq!(choice(), usual);
    }
}
