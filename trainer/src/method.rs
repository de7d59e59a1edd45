//! The method: I-JEPA's networks, loss, initialisation, schedules and optimiser, as the paper and the official code have them.

pub mod hooks;
pub mod ijepa;
pub mod init;
pub mod model;
pub mod optimizer;
pub mod schedule;
pub(crate) mod transformer;
