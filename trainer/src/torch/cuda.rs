//! What the trainer needs of NVIDIA's CUDA runtime: page-locking the ring, a stream for copies, events.
//!
//! Everything is looked up by name when it is first asked for: libtorch_cpu.so is linked against the runtime
//! (libcudart) in every wheel that knows CUDA, so a build needs neither header nor library of CUDA, and the same
//! program runs where there is none. Networks reach the GPU through libtorch alone; both use one runtime and one
//! context.
//!
//! A call acts on the thread's current device, which [`open`] sets. Every error carries CUDA's own words, and is
//! cleared: libtorch looks for the last error after each of its own calls and must not find ours.

mod library;
pub mod nccl;

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;

use tch::Tensor;

use crate::Error;
use library::functions;

/// `cudaError_t`: 0 is success.
type Code = c_int;
/// `cudaStream_t`, `cudaEvent_t`.
type Handle = *mut c_void;

/// `cudaErrorNotReady`: no fault, the event is still to come.
const NOT_READY: Code = 600;
/// `cudaStreamNonBlocking`: does not wait for the default stream, which libtorch computes on.
const STREAM_NON_BLOCKING: c_uint = 1;
/// `cudaEventDisableTiming`: cheaper to record and to wait for.
const EVENT_DISABLE_TIMING: c_uint = 2;
/// `cudaHostRegisterDefault`: readable and writable pages, for the device that is current.
const HOST_REGISTER_DEFAULT: c_uint = 0;
/// `cudaMemcpyHostToDevice`.
const HOST_TO_DEVICE: c_int = 1;
/// `cudaDevAttr…`.
const MULTIPROCESSORS: c_int = 16;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;
/// Room for a `cudaDeviceProp`, several times over; its first field is the name, 256 bytes.
const PROPERTIES_LEN: usize = 8192;

functions! {
    /// The functions of libcudart that are used here.
    struct Runtime in ["libcudart.so.13"] {
        cudaGetErrorString: fn(Code) -> *const c_char,
        cudaGetLastError: fn() -> Code,
        cudaDriverGetVersion: fn(*mut c_int) -> Code,
        cudaRuntimeGetVersion: fn(*mut c_int) -> Code,
        cudaGetDeviceCount: fn(*mut c_int) -> Code,
        cudaSetDevice: fn(c_int) -> Code,
        cudaDeviceGetAttribute: fn(*mut c_int, c_int, c_int) -> Code,
        cudaGetDeviceProperties: fn(*mut c_void, c_int) -> Code,
        cudaMemGetInfo: fn(*mut usize, *mut usize) -> Code,
        cudaHostRegister: fn(*mut c_void, usize, c_uint) -> Code,
        cudaHostUnregister: fn(*mut c_void) -> Code,
        cudaMemcpyAsync: fn(*mut c_void, *const c_void, usize, c_int, Handle) -> Code,
        cudaStreamCreateWithFlags: fn(*mut Handle, c_uint) -> Code,
        cudaStreamDestroy: fn(Handle) -> Code,
        cudaStreamSynchronize: fn(Handle) -> Code,
        cudaStreamWaitEvent: fn(Handle, Handle, c_uint) -> Code,
        cudaEventCreateWithFlags: fn(*mut Handle, c_uint) -> Code,
        cudaEventDestroy: fn(Handle) -> Code,
        cudaEventRecord: fn(Handle, Handle) -> Code,
        cudaEventQuery: fn(Handle) -> Code,
        cudaEventSynchronize: fn(Handle) -> Code,
        cudaEventElapsedTime: fn(*mut f32, Handle, Handle) -> Code,
    }
}

/// Returns the runtime, looked up once.
fn runtime() -> Result<&'static Runtime, Error> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(Runtime::find).as_ref();
    runtime.map_err(|reason| Error::Cuda {
        call: "loading the CUDA runtime",
        reason: reason.clone(),
    })
}

impl Runtime {
    /// Turns a return code into a result, with CUDA's own words, and clears the error.
    fn check(&self, call: &'static str, code: Code) -> Result<(), Error> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: both take no pointers; the text is a constant of the library, or null for a code it does not know.
        let text = unsafe {
            (self.cudaGetLastError)();
            (self.cudaGetErrorString)(code)
        };
        let text = if text.is_null() {
            "an error without a name".into()
        } else {
            // SAFETY: not null, hence a C string that lives as long as the library.
            unsafe { CStr::from_ptr(text) }.to_string_lossy()
        };
        Err(Error::Cuda {
            call,
            reason: format!("{text} (error {code})"),
        })
    }
}

/// Calls a function of the runtime by name and checks what it returns. Unsafe like the function itself.
macro_rules! call {
    ($name:ident($($argument:expr),*)) => {
        runtime().and_then(|runtime| runtime.check(stringify!($name), (runtime.$name)($($argument),*)))
    };
}

/// Loads libtorch's CUDA half, without which libtorch knows of no GPU. Must come before libtorch is first asked about
/// CUDA: it remembers the answer.
///
/// # Errors
/// [`Error::Device`] where it is not there.
pub fn load_libtorch() -> Result<(), Error> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| library::open(c"libtorch_cuda.so"));
    loaded.clone().map_err(|reason| Error::Cuda {
        call: "loading libtorch_cuda.so",
        reason,
    })
}

/// GPUs that the runtime sees; without a driver or a GPU, an error that says so.
///
/// # Errors
/// [`Error::Cuda`] or [`Error::Device`].
pub fn device_count() -> Result<usize, Error> {
    let mut count = 0;
    // SAFETY: a place to write to.
    unsafe { call!(cudaGetDeviceCount(&mut count)) }?;
    Ok(count as usize)
}

/// Makes GPU number `index` the current one of this thread, and its context, if it has none yet.
///
/// # Errors
/// [`Error::Device`] with what is missing.
pub fn open(index: usize) -> Result<(), Error> {
    // SAFETY: takes no pointers.
    unsafe { call!(cudaSetDevice(index as c_int)) }
}

/// A GPU and the software beneath it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Properties {
    /// As NVIDIA calls it, for example `NVIDIA H200`.
    pub name: String,
    /// Compute capability, for example 9.0.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of its memory.
    pub memory: u64,
    /// The latest CUDA that the driver knows, for example `13.0`.
    pub driver: String,
    /// The CUDA of the runtime library.
    pub runtime: String,
}

/// Describes GPU number `index`, the current one.
///
/// # Errors
/// [`Error::Cuda`].
pub fn properties(index: usize) -> Result<Properties, Error> {
    let index = index as c_int;
    let attribute = |attribute| {
        let mut value = 0;
        // SAFETY: a place to write to.
        unsafe { call!(cudaDeviceGetAttribute(&mut value, attribute, index)) }?;
        Ok::<_, Error>(value as u32)
    };
    let version = |version: c_int| format!("{}.{}", version / 1000, version % 1000 / 10);
    let (mut driver, mut runtime_version) = (0, 0);
    let mut bytes = vec![0u64; PROPERTIES_LEN / size_of::<u64>()];
    // SAFETY: places to write to; the third is aligned for, and larger than, any release's `cudaDeviceProp`.
    unsafe {
        call!(cudaDriverGetVersion(&mut driver))?;
        call!(cudaRuntimeGetVersion(&mut runtime_version))?;
        call!(cudaGetDeviceProperties(bytes.as_mut_ptr().cast(), index))?;
    }
    // SAFETY: the structure begins with its name, which ends with a zero, as does the buffer.
    let name = unsafe { CStr::from_ptr(bytes.as_ptr().cast()) };
    Ok(Properties {
        name: name.to_string_lossy().into_owned(),
        capability: (attribute(CAPABILITY_MAJOR)?, attribute(CAPABILITY_MINOR)?),
        multiprocessors: attribute(MULTIPROCESSORS)?,
        memory: memory()?.1 as u64,
        driver: version(driver),
        runtime: version(runtime_version),
    })
}

/// Returns the bytes of the current device's memory: (free, all).
///
/// # Errors
/// [`Error::Cuda`].
pub fn memory() -> Result<(usize, usize), Error> {
    let (mut free, mut all) = (0, 0);
    // SAFETY: two places to write to.
    unsafe { call!(cudaMemGetInfo(&mut free, &mut all)) }?;
    Ok((free, all))
}

/// Host memory that is page-locked for the device, so that copies from it need no detour and no waiting.
#[derive(Debug)]
pub struct Registration {
    start: NonNull<u8>,
}

impl Registration {
    /// Locks `memory`, whole pages that nothing else has registered.
    ///
    /// # Errors
    /// [`Error::Cuda`] where the memory cannot be page-locked.
    ///
    /// # Safety
    /// The memory stays mapped until the registration is dropped.
    pub unsafe fn new(memory: NonNull<[u8]>) -> Result<Self, Error> {
        let start = memory.cast::<u8>();
        let (address, len) = (start.as_ptr().cast(), memory.len());
        // SAFETY: mapped memory of that length, as the caller promises.
        unsafe { call!(cudaHostRegister(address, len, HOST_REGISTER_DEFAULT)) }?;
        Ok(Registration { start })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: registered by `new`, once, and still mapped. After a device fault this fails like everything else,
        // and the end of the process unlocks the memory.
        let _ = unsafe { call!(cudaHostUnregister(self.start.as_ptr().cast())) };
    }
}

/// A queue of work for the device.
#[derive(Debug)]
pub struct Stream {
    /// Null for the default stream, which is not ours to destroy.
    handle: Handle,
}

impl Stream {
    /// Makes a stream, which waits for no other unless told to.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn new() -> Result<Self, Error> {
        let mut handle = null_mut();
        // SAFETY: a place to write to.
        unsafe { call!(cudaStreamCreateWithFlags(&mut handle, STREAM_NON_BLOCKING)) }?;
        Ok(Stream { handle })
    }

    /// Returns the default stream of the current device, on which libtorch computes.
    pub const fn compute() -> Self {
        Stream { handle: null_mut() }
    }

    /// Lets all work queued here from now on wait for what `event` has recorded.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn wait(&self, event: &Event) -> Result<(), Error> {
        // SAFETY: both live; the runtime keeps what it needs of the event.
        unsafe { call!(cudaStreamWaitEvent(self.handle, event.handle, 0)) }
    }

    /// Blocks until everything queued here is done.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: the stream lives.
        unsafe { call!(cudaStreamSynchronize(self.handle)) }
    }

    /// Queues a copy of `from` to the beginning of `to`, a contiguous tensor on the current device. From memory that
    /// is not registered, it copies all the same, but blocks meanwhile.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    ///
    /// # Safety
    /// Until the copy is done, as an event or [`Stream::synchronize`] tells, `from` stays mapped and unchanged, `to`
    /// lives, and nothing else on the device touches that part of it.
    ///
    /// # Panics
    /// If `to` lies elsewhere, has another type of element or has no room.
    pub unsafe fn copy<T: tch::kind::Element>(&self, from: &[T], to: &Tensor) -> Result<(), Error> {
        assert!(to.device().is_cuda() && to.is_contiguous() && to.kind() == T::KIND);
        assert!(to.numel() >= from.len());
        let (source, bytes) = (from.as_ptr().cast(), size_of_val(from));
        // SAFETY: both ends are valid for that many bytes, as checked, and remain so, as the caller promises.
        unsafe {
            let target = to.data_ptr();
            call!(cudaMemcpyAsync(
                target,
                source,
                bytes,
                HOST_TO_DEVICE,
                self.handle
            ))
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: created by `new`; the runtime lets queued work finish.
            let _ = unsafe { call!(cudaStreamDestroy(self.handle)) };
        }
    }
}

/// A point in a stream's work.
#[derive(Debug)]
pub struct Event {
    handle: Handle,
}

impl Event {
    /// Makes an event to wait for.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn new() -> Result<Self, Error> {
        Event::with(EVENT_DISABLE_TIMING)
    }

    /// Makes an event that knows when it happened as well.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn timed() -> Result<Self, Error> {
        Event::with(0)
    }

    fn with(flags: c_uint) -> Result<Self, Error> {
        let mut handle = null_mut();
        // SAFETY: a place to write to.
        unsafe { call!(cudaEventCreateWithFlags(&mut handle, flags)) }?;
        Ok(Event { handle })
    }

    /// Marks the end of what is queued in `stream` by now, in place of what it marked before.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn record(&self, stream: &Stream) -> Result<(), Error> {
        // SAFETY: both live.
        unsafe { call!(cudaEventRecord(self.handle, stream.handle)) }
    }

    /// Tells whether it has happened; one that was never recorded has.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn happened(&self) -> Result<bool, Error> {
        let runtime = runtime()?;
        // SAFETY: the event lives; the second call takes nothing.
        unsafe {
            match (runtime.cudaEventQuery)(self.handle) {
                NOT_READY => {
                    (runtime.cudaGetLastError)();
                    Ok(false)
                }
                code => runtime.check("cudaEventQuery", code).map(|()| true),
            }
        }
    }

    /// Blocks until it has happened.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: the event lives.
        unsafe { call!(cudaEventSynchronize(self.handle)) }
    }

    /// Milliseconds since `start`; both are [`timed`](Event::timed) and have happened.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn ms_since(&self, start: &Event) -> Result<f64, Error> {
        let mut ms = 0.0;
        // SAFETY: a place to write to, and two live events.
        unsafe { call!(cudaEventElapsedTime(&mut ms, start.handle, self.handle)) }?;
        Ok(f64::from(ms))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created by `with`; the runtime keeps what a stream still waits for.
        let _ = unsafe { call!(cudaEventDestroy(self.handle)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // These hold with and without a GPU: the runtime library comes with libtorch.

    #[test]
    fn the_runtime_is_found_and_speaks() {
        let runtime = runtime().unwrap();
        assert!(runtime.check("x", 0).is_ok());
        let error = runtime.check("cudaSomething", 100).unwrap_err().to_string();
        assert_eq!(
            error,
            "CUDA: cudaSomething: no CUDA-capable device is detected (error 100)"
        );
        let mut version = 0;
        // SAFETY: a place to write to.
        unsafe { call!(cudaRuntimeGetVersion(&mut version)) }.unwrap();
        assert!((13_000..14_000).contains(&version), "{version}");
    }

    #[test]
    fn what_libtorch_lacks_for_cuda_is_said_by_name() {
        // The small install has the library itself, but not what it is linked against.
        if let Err(error) = load_libtorch() {
            let message = error.to_string();
            let other = message.contains(": cannot open shared object file")
                && !message.contains("loading libtorch_cuda.so: libtorch_cuda.so");
            assert!(other, "{message}");
        }
    }

    #[test]
    fn without_a_device_every_call_says_why() {
        let Err(error) = device_count() else {
            return; // there is one: `trainer smoke` tests these calls
        };
        let message = error.to_string();
        assert!(
            message.starts_with("CUDA: cudaGetDeviceCount: ") && message.contains("(error "),
            "{message}"
        );
        let memory = Box::leak(Box::new([0u8; 4096]));
        // SAFETY: leaked, hence never unmapped.
        let registered = unsafe { Registration::new(NonNull::from(&mut memory[..])) };
        for error in [
            open(0).unwrap_err(),
            Stream::new().unwrap_err(),
            Event::new().unwrap_err(),
            registered.unwrap_err(),
        ] {
            assert!(error.to_string().contains("(error "), "{error}");
        }
    }
}
