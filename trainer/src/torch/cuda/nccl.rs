//! NVIDIA's library for talk between GPUs, as far as it takes to see that it works: one rank that sums with itself.
//!
//! libtorch_cuda.so is linked against it, so it is there whenever a GPU is used; training's own use of it goes through
//! libtorch.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use tch::{Kind, Tensor};

use super::library::functions;
use crate::Error;

/// `ncclResult_t`: 0 is success.
type Code = c_int;
/// `ncclComm_t`.
type Handle = *mut c_void;

/// `ncclFloat32` and `ncclSum`.
const FLOAT32: c_int = 7;
const SUM: c_int = 0;

/// `ncclUniqueId`: how ranks find each other; passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; 128]);

functions! {
    /// The functions of libnccl that are used here.
    struct Nccl in ["libnccl.so.2"] {
        ncclGetErrorString: fn(Code) -> *const c_char,
        ncclGetVersion: fn(*mut c_int) -> Code,
        ncclGetUniqueId: fn(*mut UniqueId) -> Code,
        ncclCommInitRank: fn(*mut Handle, c_int, UniqueId, c_int) -> Code,
        ncclCommDestroy: fn(Handle) -> Code,
        ncclAllReduce: fn(*const c_void, *mut c_void, usize, c_int, c_int, Handle, Handle) -> Code,
    }
}

fn nccl() -> Result<&'static Nccl, Error> {
    static NCCL: OnceLock<Result<Nccl, String>> = OnceLock::new();
    let nccl = NCCL.get_or_init(Nccl::find).as_ref();
    nccl.map_err(|reason| Error::Cuda {
        call: "loading NCCL",
        reason: reason.clone(),
    })
}

impl Nccl {
    fn check(&self, call: &'static str, code: Code) -> Result<(), Error> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: takes no pointers; NCCL has a constant text for every code.
        let text = unsafe { CStr::from_ptr((self.ncclGetErrorString)(code)) };
        Err(Error::Cuda {
            call,
            reason: format!("{} (NCCL error {code})", text.to_string_lossy()),
        })
    }
}

/// Returns the library's version, as in `2.28.9`.
///
/// # Errors
/// [`Error::Cuda`] where NCCL is not there.
pub fn version() -> Result<String, Error> {
    let (nccl, mut version) = (nccl()?, 0);
    // SAFETY: a place to write to.
    nccl.check("ncclGetVersion", unsafe {
        (nccl.ncclGetVersion)(&mut version)
    })?;
    Ok(format!(
        "{}.{}.{}",
        version / 10_000,
        version % 10_000 / 100,
        version % 100
    ))
}

/// Ranks that sum tensors with each other; here, the only one.
pub struct Communicator {
    handle: Handle,
}

impl Communicator {
    /// Makes a group of one rank, on the current device.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn alone() -> Result<Self, Error> {
        let nccl = nccl()?;
        let mut id = UniqueId([0; 128]);
        let mut handle = null_mut();
        // SAFETY: places to write to; the identifier is the one just made, for one rank of number 0.
        unsafe {
            nccl.check("ncclGetUniqueId", (nccl.ncclGetUniqueId)(&mut id))?;
            let code = (nccl.ncclCommInitRank)(&mut handle, 1, id, 0);
            nccl.check("ncclCommInitRank", code)?;
        }
        Ok(Communicator { handle })
    }

    /// Sums a float32 tensor over all ranks, in place, on the stream that libtorch computes on.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    ///
    /// # Panics
    /// If it is no contiguous float32 tensor on a GPU.
    pub fn sum(&self, tensor: &Tensor) -> Result<(), Error> {
        assert!(
            tensor.device().is_cuda() && tensor.is_contiguous() && tensor.kind() == Kind::Float
        );
        let (nccl, data, count) = (nccl()?, tensor.data_ptr(), tensor.numel());
        // SAFETY: a live communicator and memory of that many floats on its device; a null stream is the default one,
        // after whose work libtorch reads or frees the memory.
        nccl.check("ncclAllReduce", unsafe {
            (nccl.ncclAllReduce)(data, data, count, FLOAT32, SUM, self.handle, null_mut())
        })
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if let Ok(nccl) = nccl() {
            // SAFETY: created by `alone`, destroyed once. NCCL waits for what is queued.
            unsafe { (nccl.ncclCommDestroy)(self.handle) };
        }
    }
}
