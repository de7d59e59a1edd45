//! Activation checkpointing over `csrc/recompute.cpp`.

use std::ffi::{CString, c_char, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use tch::Tensor;

use super::{Handle, handle, handles, outcome};
use crate::Error;

/// The C++ side's view of a closure: state, input, place for the output.
type Forward = unsafe extern "C" fn(*const c_void, Handle, *mut Handle) -> *mut c_char;
/// Frees the state.
type Release = unsafe extern "C" fn(*mut c_void);
/// A part's forward function.
type Closure = Box<dyn Fn(&Tensor) -> Result<Tensor, Error>>;

unsafe extern "C" {
    fn ijepa_recomputed(
        function: Forward,
        drop: Release,
        state: *mut c_void,
        input: Handle,
        parameters: *const Handle,
        count: usize,
        output: *mut Handle,
    ) -> *mut c_char;
}

/// Returns `forward(input)`, of which the backward pass keeps the input alone: it calls `forward` again.
///
/// The result is differentiable with respect to `input` and `parameters`, which must be everything trained that
/// `forward` uses. Autocast is in the second call as it was in the first.
///
/// # Errors
/// Those of `forward`, and its panics; those of its second call come from the backward pass.
///
/// # Safety
/// libtorch may call and drop `forward` in a thread of its own, at the latest when the last tensor that depends on
/// the result is gone; never in two threads at a time, and with the thread that runs the backward pass waiting. What
/// it holds must bear that.
pub unsafe fn recomputed(
    input: &Tensor,
    parameters: &[&Tensor],
    forward: impl Fn(&Tensor) -> Result<Tensor, Error> + 'static,
) -> Result<Tensor, Error> {
    let closure: Closure = Box::new(forward);
    // The box of the box is one pointer wide.
    let state = Box::into_raw(Box::new(closure));
    let parameters = handles(parameters.iter().copied());
    let mut output: Handle = null_mut::<c_void>();
    // SAFETY: live tensors, borrowed for this call; a place to write to; the state becomes the callee's, which gives it
    // to `call` and, once, to `release`.
    unsafe {
        outcome(ijepa_recomputed(
            call,
            release,
            state.cast(),
            handle(input),
            parameters.as_ptr(),
            parameters.len(),
            &mut output,
        ))?;
        Ok(Tensor::from_ptr(output.cast_mut().cast()))
    }
}

/// # Safety
/// `state` came from [`recomputed`] and was not released; `input` is a live tensor; `output` can be written.
unsafe extern "C" fn call(state: *const c_void, input: Handle, output: *mut Handle) -> *mut c_char {
    let body = || {
        // SAFETY: as promised; the input is another handle to the same tensor.
        let (closure, input) = unsafe {
            (
                &*state.cast::<Closure>(),
                Tensor::clone_from_ptr(input.cast_mut().cast()),
            )
        };
        closure(&input)
    };
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(result)) => {
            // The callee takes the tensor over, so it is not dropped here.
            let mut result = ManuallyDrop::new(result);
            // SAFETY: as promised.
            unsafe { *output = result.as_mut_ptr().cast_const().cast() };
            null_mut()
        }
        Ok(Err(Error::OutOfMemory { reason, .. } | Error::Torch { reason, .. })) => message(reason),
        Ok(Err(error)) => message(error.to_string()),
        Err(panic) => message(shardtool::panics::message(&*panic)),
    }
}

/// Hands text to the callee, in memory made by malloc, as it expects.
fn message(text: String) -> *mut c_char {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: a C string.
    unsafe { libc::strdup(text.as_ptr()) }
}

/// # Safety
/// `state` came from [`recomputed`] and was not released.
unsafe extern "C" fn release(state: *mut c_void) {
    // SAFETY: as promised.
    drop(unsafe { Box::from_raw(state.cast::<Closure>()) });
}
