//! The way to libtorch: devices, CUDA, and what `tch` does not bind.

pub mod cuda;
pub mod device;
pub mod environment;
pub mod shim;
