//! What can be wrong with files of weights.

use std::io;
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use shardtool::Escaped;

use crate::names::Left;
use crate::official::Fault;
use crate::weights::{DataError, Unfit};

/// The reason why a file of weights could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused: no such file, no permission, a full disk.
    #[error("{}: {cause}", Escaped::new(path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// An official checkpoint is of another kind, unsafe or damaged: the [cause](crate::official::Cause) tells which.
    #[error("{}: {fault}", Escaped::new(path))]
    Official {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and at which byte.
        fault: Fault,
    },
    /// A file is no safetensors file, or a damaged one.
    #[error("{}: {cause}", Escaped::new(path))]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: SafeTensorError,
    },
    /// A tensor cannot be weights.
    #[error("{}: tensor `{}`: {cause}", Escaped::new(path), Escaped::new(name))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with it.
        cause: DataError,
    },
    /// Nothing in a file is called as the parameters of I-JEPA's networks are.
    #[error(
        "{}: no weights of an I-JEPA network in it{}",
        Escaped::new(path),
        held(found)
    )]
    NoNetwork {
        /// The file or directory.
        path: PathBuf,
        /// What it holds instead.
        found: Left,
    },
    /// Two tensors are the same parameter, once their wrappers are taken off.
    #[error(
        "{}: {network}: two tensors `{}`",
        Escaped::new(path),
        Escaped::new(name)
    )]
    Twice {
        /// The file or directory.
        path: PathBuf,
        /// The network.
        network: &'static str,
        /// The parameter.
        name: String,
    },
    /// The tensors are not those of I-JEPA's networks, or of networks of other sizes.
    #[error("{}: {cause}", Escaped::new(path))]
    Unfit {
        /// The file or directory.
        path: PathBuf,
        /// The tensor that does not fit.
        cause: Unfit,
    },
    /// A file is no JSON.
    #[error("{}: {cause}", Escaped::new(path))]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        cause: serde_json::Error,
    },
    /// A model of Hugging Face's layout computes something else than these networks.
    #[error(
        "{}: `{key}` is {}, and these networks have {expected}",
        Escaped::new(path),
        Escaped::new(found)
    )]
    Setting {
        /// The model's `config.json`.
        path: PathBuf,
        /// The setting.
        key: &'static str,
        /// Its value, as JSON.
        found: String,
        /// The value that these networks have, as JSON.
        expected: String,
    },
    /// A size in `config.json` is missing, or not one length that a network can have.
    #[error(
        "{}: `{key}`: not one length that a network can have",
        Escaped::new(path)
    )]
    Length {
        /// The model's `config.json`.
        path: PathBuf,
        /// The setting.
        key: &'static str,
    },
    /// A model's directory lacks the file of its weights.
    #[error(
        "{}: neither model.safetensors nor pytorch_model.bin in it, nor an index of either",
        Escaped::new(path)
    )]
    NoWeights {
        /// The directory.
        path: PathBuf,
    },
    /// The index of a model in several files is not in the layout.
    #[error("{}: {reason}", Escaped::new(path))]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

fn held(found: &Left) -> String {
    match found.count {
        0 => String::new(),
        _ => format!("; it holds {found}"),
    }
}

impl Error {
    pub(crate) fn io(path: &Path, cause: io::Error) -> Error {
        Error::Io {
            path: path.to_owned(),
            cause,
        }
    }

    pub(crate) fn safetensors(path: &Path, cause: SafeTensorError) -> Error {
        let path = path.to_owned();
        match cause {
            SafeTensorError::IoError(cause) => Error::Io { path, cause },
            cause => Error::Safetensors { path, cause },
        }
    }

    /// Adds to a fault the name of the file that has it.
    pub fn official(path: &Path, fault: Fault) -> Error {
        Error::Official {
            path: path.to_owned(),
            fault,
        }
    }

    /// Adds to tensors that do not fit the name of the file or directory that has them.
    pub fn unfit(path: &Path, cause: Unfit) -> Error {
        Error::Unfit {
            path: path.to_owned(),
            cause,
        }
    }
}
