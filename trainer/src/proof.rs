//! Proof that the method is the official one, that a device computes it, and how fast.

pub mod bench;
pub mod reference;
pub mod smoke;
