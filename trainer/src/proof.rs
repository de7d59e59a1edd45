//! Proof that the method is the official one, and that a device computes it.

pub mod reference;
pub mod smoke;
