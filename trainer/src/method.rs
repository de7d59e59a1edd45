//! The method: I-JEPA's networks, loss, initialisation, schedules and optimiser, as the paper and the official code
//! have them.
//!
//! | file | what it has |
//! |---|---|
//! | [`ijepa`] | the three networks together: target, prediction, loss |
//! | [`encoder`], [`predictor`] | the networks, made of the transformer's parts |
//! | [`model`], [`parameters`] | their sizes, and the list of their parameters |
//! | [`regularizer`], [`visible`] | terms that can be added to the loss, off by default |
//! | [`noise`] | random numbers of such options |
//! | [`init`], [`optimizer`], [`schedule`] | fresh weights, and how they are moved |
//! | [`hooks`] | intermediate results, for who compares them |

pub(crate) mod positions;
mod state_dict;
pub(crate) mod transformer;

pub mod encoder;
pub mod gather;
pub mod hooks;
pub mod ijepa;
pub mod init;
pub mod noise;
pub mod optimizer;
pub mod predictor;
pub mod regularizer;
pub mod schedule;
pub mod visible;

pub use exchange::{model, parameters};
