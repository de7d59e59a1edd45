//! I-JEPA weights in other programs' files, without libtorch.
//!
//! | room | what stands there |
//! |---|---|
//! | [`model`], [`parameters`] | the networks' sizes, and the one list of their parameters: names, order, shapes |
//! | [`official`] | the official code's `.pth.tar` files: zip, pickle, and what the dictionary in them means |
//! | [`huggingface`] | the directories of `transformers`' `IJepaModel` |
//! | [`weights`] | tensors as they lie in mapped files, held against the list of parameters |
//! | [`names`], [`Networks`] | which tensor of a file is which network's, whatever wrappers its name came with |
//!
//! The trainer imports and exports with these, its networks are made from the list of parameters, and fuzzing reads
//! hostile files with them. Nothing that a file contains is executed, and none can cost more memory or time than its
//! size explains.
//!
//! Reading an official checkpoint takes three calls:
//!
//! ```
//! use std::path::Path;
//!
//! use exchange::Error;
//! use exchange::official::{Archive, Cause, Checkpoint};
//! use exchange::weights::Mapped;
//!
//! fn names(path: &Path) -> Result<Vec<String>, Error> {
//!     let file = Mapped::open(path).map_err(|cause| Error::Io { path: path.into(), cause })?;
//!     let archive = Archive::read(file.bytes(), true).map_err(|fault| Error::official(path, fault))?;
//!     let read = Checkpoint::read(path, &archive)?;
//!     Ok(read.networks.target_encoder.into_keys().collect())
//! }
//!
//! # let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official");
//! let names_of_tiny = names(&folder.join("tiny.pth.tar"))?;
//! assert_eq!(names_of_tiny[0], "blocks.0.attn.proj.bias");
//!
//! // A caller can tell kinds of faults apart.
//! match names(&folder.join("README.md")) {
//!     Err(Error::Official { fault, .. }) if matches!(fault.cause, Cause::Foreign(_)) => {}
//!     other => panic!("a text is no checkpoint, but: {other:?}"),
//! }
//! # Ok::<(), Error>(())
//! ```

// A message that cannot be written must end nothing: speech goes through `tracing` and `shardtool::program`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod error;
pub mod huggingface;
pub mod model;
pub mod names;
mod networks;
pub mod official;
pub mod parameters;
pub mod weights;

pub use error::Error;
pub use networks::Networks;
