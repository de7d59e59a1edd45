//! I-JEPA pretraining on libtorch.
//!
//! The method is [`ijepa`]: a context encoder, a predictor and a slowly following target encoder, whose networks stand
//! in [`model`] and start from [`init`]. [`optimizer`] and [`schedule`] move them. [`mod@reference`] replays recorded runs
//! of the official code through the same functions and says how far the results lie apart.
//!
//! A run is [`train`]: it takes batches from a [`source`], writes [`checkpoint`]s and a [`log`] into a [`run_dir`], and
//! is made from a [`config`]. [`launch`] starts it together with its loader; [`plot`] draws what it wrote; [`mod@bench`]
//! says where the time of its steps goes.
//!
//! [`import`] takes [`official`] checkpoints and [`huggingface`] models in, [`export`] gives them out; both move
//! [`weights`] between files without libtorch.

pub mod bench;
pub mod checkpoint;
pub mod clock;
pub mod config;
pub mod cuda;
pub mod device;
mod error;
pub mod export;
pub mod huggingface;
pub mod ijepa;
pub mod import;
pub mod init;
pub mod launch;
pub mod log;
pub mod model;
pub mod official;
pub mod optimizer;
pub mod plot;
pub mod reference;
pub mod run_dir;
pub mod schedule;
pub mod shim;
pub mod smoke;
pub mod source;
pub mod stop;
pub mod taps;
pub mod train;
mod transformer;
pub mod weights;

pub use error::Error;
