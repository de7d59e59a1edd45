//! Stores, groups and reducers of `csrc/distributed.cpp`: what is unsafe about them, and nothing else.
//!
//! Whoever waits here waits as long as libtorch does, which may be for ever at a store that does not answer. The
//! callers, in [`crate::distributed`], bound that.

use std::ffi::{CString, c_char, c_int};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::time::Duration;

use tch::Tensor;

use super::{Handle, handle, handles, ijepa_free, outcome};
use crate::Error;

/// What C++ owns.
#[repr(C)]
struct Opaque([u8; 0]);
type Raw = *mut Opaque;

unsafe extern "C" {
    fn ijepa_store_open(
        host: *const c_char,
        port: u16,
        serve: bool,
        listening: c_int,
        timeout_ms: i64,
        store: *mut Raw,
    ) -> *mut c_char;
    fn ijepa_store_drop(store: Raw);
    fn ijepa_store_set(
        store: Raw,
        key: *const c_char,
        data: *const u8,
        length: usize,
    ) -> *mut c_char;
    fn ijepa_store_get(
        store: Raw,
        key: *const c_char,
        timeout_ms: i64,
        data: *mut *mut c_char,
        length: *mut usize,
    ) -> *mut c_char;
    fn ijepa_store_has(store: Raw, key: *const c_char, found: *mut bool) -> *mut c_char;
    fn ijepa_store_add(store: Raw, key: *const c_char, amount: i64, sum: *mut i64) -> *mut c_char;
    fn ijepa_group_join(
        store: Raw,
        prefix: *const c_char,
        rank: c_int,
        world: c_int,
        interface: *const c_char,
        address: *const c_char,
        join_ms: i64,
        wait_ms: i64,
        group: *mut Raw,
    ) -> *mut c_char;
    fn ijepa_group_drop(group: Raw);
    fn ijepa_group_all_gather(
        group: Raw,
        own: Handle,
        gathered: *const Handle,
        world: usize,
    ) -> *mut c_char;
    fn ijepa_group_broadcast(
        group: Raw,
        tensors: *const Handle,
        count: usize,
        root: c_int,
    ) -> *mut c_char;
    fn ijepa_reducer_new(
        group: Raw,
        parameters: *const Handle,
        count: usize,
        as_bfloat16: bool,
        bucket_bytes: usize,
        reducer: *mut Raw,
    ) -> *mut c_char;
    fn ijepa_reducer_drop(reducer: Raw);
    fn ijepa_reducer_expect(reducer: Raw) -> *mut c_char;
    fn ijepa_reducer_check(reducer: Raw) -> *mut c_char;
}

/// A place where processes leave values for each other by name.
#[derive(Debug)]
pub struct Store(Raw);

// SAFETY: c10d's TCPStore may be used and dropped by any thread; it locks itself.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Serves a store at a listening socket, which is at `port`, for all interfaces that it listens at.
    ///
    /// # Errors
    /// From libtorch.
    pub fn serve(listening: OwnedFd, port: u16, timeout: Duration) -> Result<Store, Error> {
        let store = Store::open(c"localhost".into(), port, Some(&listening), timeout)?;
        // The server took it over, and closes it.
        std::mem::forget(listening);
        Ok(store)
    }

    /// Connects to the store at `host` and `port`.
    ///
    /// # Errors
    /// From libtorch. Somebody else there who says nothing makes this wait for ever.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Store, Error> {
        Store::open(text(host), port, None, timeout)
    }

    fn open(
        host: CString,
        port: u16,
        listening: Option<&OwnedFd>,
        timeout: Duration,
    ) -> Result<Store, Error> {
        let mut store = null_mut();
        let descriptor = listening.map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: a C string, and a place to write to.
        unsafe {
            outcome(ijepa_store_open(
                host.as_ptr(),
                port,
                listening.is_some(),
                descriptor,
                milliseconds(timeout),
                &mut store,
            ))?;
        }
        Ok(Store(store))
    }

    /// Leaves a value.
    ///
    /// # Errors
    /// From libtorch.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let key = text(key);
        // SAFETY: a live store, a C string, and bytes of this length.
        unsafe {
            outcome(ijepa_store_set(
                self.0,
                key.as_ptr(),
                value.as_ptr(),
                value.len(),
            ))
        }
    }

    /// Returns a value once it is there.
    ///
    /// # Errors
    /// From libtorch, after `timeout` at the latest if the store answers.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, Error> {
        let key = text(key);
        let (mut data, mut length) = (null_mut::<c_char>(), 0);
        // SAFETY: a live store, a C string, two places to write to. The value is copied before it is freed, once.
        unsafe {
            outcome(ijepa_store_get(
                self.0,
                key.as_ptr(),
                milliseconds(timeout),
                &mut data,
                &mut length,
            ))?;
            let value = std::slice::from_raw_parts(data.cast::<u8>(), length).to_vec();
            ijepa_free(data);
            Ok(value)
        }
    }

    /// Tells if there is a value.
    ///
    /// # Errors
    /// From libtorch.
    pub fn has(&self, key: &str) -> Result<bool, Error> {
        let key = text(key);
        let mut found = false;
        // SAFETY: a live store, a C string, a place to write to.
        unsafe { outcome(ijepa_store_has(self.0, key.as_ptr(), &mut found))? };
        Ok(found)
    }

    /// Adds to a number, which begins at 0, and returns the sum.
    ///
    /// # Errors
    /// From libtorch.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, Error> {
        let key = text(key);
        let mut sum = 0;
        // SAFETY: a live store, a C string, a place to write to.
        unsafe { outcome(ijepa_store_add(self.0, key.as_ptr(), amount, &mut sum))? };
        Ok(sum)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by ijepa_store_open and dropped once.
        unsafe { ijepa_store_drop(self.0) }
    }
}

/// Where a member of a group listens for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// At the address of a network interface.
    Interface(String),
    /// At a local address.
    Address(String),
}

/// The ranks of a run, connected to each other.
#[derive(Debug)]
pub struct Group {
    raw: Raw,
    world: u32,
}

// SAFETY: c10d's groups may be used by another thread than the one that made them; this handle is not shared.
unsafe impl Send for Group {}

impl Group {
    /// Joins the group of ranks `0..world` that meet in `store` under `prefix`.
    ///
    /// Meeting may take five times `join`; each wait for a peer after that takes `wait` at most.
    ///
    /// # Errors
    /// From libtorch: who does not come is not named.
    pub fn join(
        store: &Store,
        prefix: &str,
        rank: u32,
        world: u32,
        device: &Device,
        [join, wait]: [Duration; 2],
    ) -> Result<Group, Error> {
        let prefix = text(prefix);
        let (Device::Interface(name) | Device::Address(name)) = device;
        let name = text(name);
        let pointers = match device {
            Device::Interface(_) => (name.as_ptr(), null_mut::<c_char>().cast_const()),
            Device::Address(_) => (null_mut::<c_char>().cast_const(), name.as_ptr()),
        };
        let mut raw = null_mut();
        // SAFETY: a live store, C strings of which one may be null, a place to write to.
        unsafe {
            outcome(ijepa_group_join(
                store.0,
                prefix.as_ptr(),
                rank as c_int,
                world as c_int,
                pointers.0,
                pointers.1,
                milliseconds(join),
                milliseconds(wait),
                &mut raw,
            ))?;
        }
        Ok(Group { raw, world })
    }

    /// Returns every rank's `own`, which has the same shape and type on all of them.
    ///
    /// # Errors
    /// From libtorch: a peer is gone, or does not answer.
    pub fn all_gather(&self, own: &Tensor) -> Result<Vec<Tensor>, Error> {
        let gathered = (0..self.world).map(|_| own.f_empty_like());
        let gathered = gathered.collect::<Result<Vec<_>, _>>()?;
        let outputs = handles(&gathered);
        // SAFETY: a live group; one live tensor, and as many as there are ranks.
        unsafe {
            outcome(ijepa_group_all_gather(
                self.raw,
                handle(own),
                outputs.as_ptr(),
                outputs.len(),
            ))?;
        }
        Ok(gathered)
    }

    /// Overwrites the tensors by those of rank `root`.
    ///
    /// # Errors
    /// From libtorch: a peer is gone, or does not answer.
    pub fn broadcast<'a>(
        &self,
        tensors: impl IntoIterator<Item = &'a Tensor>,
        root: u32,
    ) -> Result<(), Error> {
        let tensors = handles(tensors);
        // SAFETY: a live group, and an array of live tensors.
        unsafe {
            outcome(ijepa_group_broadcast(
                self.raw,
                tensors.as_ptr(),
                tensors.len(),
                root as c_int,
            ))
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by ijepa_group_join and dropped once.
        unsafe { ijepa_group_drop(self.raw) }
    }
}

/// A sum of gradients over all ranks, made while the backward pass goes on (the reducer of PyTorch's
/// `DistributedDataParallel`).
#[derive(Debug)]
pub struct Reducer(Raw);

impl Reducer {
    /// Makes one for these parameters, in the same order on every rank; all of them require gradients.
    ///
    /// With `as_bfloat16`, sums are rounded to bfloat16 on their way. About `bucket_bytes` are sent at a time, while
    /// the backward pass goes on; if that is 0, all after it.
    ///
    /// # Errors
    /// From libtorch.
    pub fn new<'a>(
        group: &Group,
        parameters: impl IntoIterator<Item = &'a Tensor>,
        as_bfloat16: bool,
        bucket_bytes: usize,
    ) -> Result<Reducer, Error> {
        let parameters = handles(parameters);
        let mut reducer = null_mut();
        // SAFETY: a live group, an array of live tensors, a place to write to. The reducer keeps what it needs alive.
        unsafe {
            outcome(ijepa_reducer_new(
                group.raw,
                parameters.as_ptr(),
                parameters.len(),
                as_bfloat16,
                bucket_bytes,
                &mut reducer,
            ))?;
        }
        Ok(Reducer(reducer))
    }

    /// Has the next backward pass sum the gradients, with those accumulated before it, over all ranks.
    ///
    /// # Errors
    /// From libtorch.
    pub fn expect(&mut self) -> Result<(), Error> {
        // SAFETY: a live reducer.
        unsafe { outcome(ijepa_reducer_expect(self.0)) }
    }

    /// Makes sure that it has summed every gradient.
    ///
    /// # Errors
    /// From libtorch, if a parameter took no part in the loss.
    pub fn check(&mut self) -> Result<(), Error> {
        // SAFETY: a live reducer.
        unsafe { outcome(ijepa_reducer_check(self.0)) }
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: made by ijepa_reducer_new and dropped once.
        unsafe { ijepa_reducer_drop(self.0) }
    }
}

/// Returns text for C, without what C cannot hold.
fn text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
