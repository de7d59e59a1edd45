//! Everything that can go wrong in this library.

use std::path::PathBuf;

use shardtool::Escaped;

/// What went wrong, with the name of what it went wrong with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `meta.model_name` is none of the official ones.
    #[error("unknown model `{name}`: known are {known}")]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Sizes that do not make a network.
    #[error("model: {0}")]
    Model(String),
    /// An image of another size than the position embedding was made for.
    #[error("images of {found:?} given to a model of {expected:?} (channels, height, width)")]
    ImageSize {
        /// Channels, height and width the model takes.
        expected: [i64; 3],
        /// Those of the images.
        found: Vec<i64>,
    },
    /// An image that is not made of whole patches.
    #[error(
        "images of {height}x{width} pixels (height x width) are not made of whole patches of {patch}x{patch}"
    )]
    PatchGrid {
        /// Side of a patch.
        patch: i64,
        /// Height of the images.
        height: i64,
        /// Width of the images.
        width: i64,
    },
    /// Schedule settings that give no schedule.
    #[error("schedule: {0}")]
    Schedule(String),
    /// A device that is not there, or not in this build.
    #[error("device `{device}`: {reason}")]
    Device {
        /// The device asked for.
        device: String,
        /// Why it cannot be had, and the cure.
        reason: String,
    },
    /// A set of tensors to load lacks one.
    #[error("state: tensor `{0}` is missing")]
    MissingTensor(String),
    /// A set of tensors to load holds one that nothing here is called.
    #[error("state: tensor `{0}` is not known to this model")]
    UnknownTensor(String),
    /// A tensor to load has another shape or type.
    #[error("state: tensor `{name}` is {found}, expected {expected}")]
    TensorForm {
        /// The tensor's name.
        name: String,
        /// Type and shape expected.
        expected: String,
        /// Type and shape found.
        found: String,
    },
    /// A trainable parameter took no part in the loss.
    #[error("parameter `{0}` has no gradient: was the loss's backward pass run?")]
    NoGradient(String),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(String),
    /// CUDA, or a library beside it, failed.
    #[error("CUDA: {call}: {reason}")]
    Cuda {
        /// The function that failed.
        call: &'static str,
        /// What CUDA says about it.
        reason: String,
    },
    /// A group of the ring is not of the size that it says.
    #[error("a group of {images} images of {size:?} pixels (height, width) in {bytes} bytes")]
    GroupSize {
        /// Images it should hold.
        images: usize,
        /// Height and width of each.
        size: (usize, usize),
        /// Bytes that it has.
        bytes: usize,
    },
    /// A file of a reference set could not be read.
    #[error("{}: {reason}", Escaped::new(path))]
    Reference {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.to_string())
    }
}
