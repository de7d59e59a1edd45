//! What can go wrong in the networks, on the device and in libtorch.

use std::path::PathBuf;

use exchange::model::SizesError;
use shardtool::Escaped;

/// The reason why the method, a device or libtorch could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device, or the machine, has too little memory for what was being computed.
    #[error("not enough memory{} ({reason}); {}", during(doing), cure(doing))]
    OutOfMemory {
        /// What was being computed, where that is known.
        doing: Option<String>,
        /// What the allocator says.
        reason: String,
    },
    /// libtorch failed otherwise.
    #[error("libtorch failed{}: {reason}", during(doing))]
    Torch {
        /// What was being computed, where that is known.
        doing: Option<String>,
        /// What libtorch says.
        reason: String,
    },
    /// CUDA, or a library beside it, failed.
    #[error("CUDA: {call}: {reason}")]
    Cuda {
        /// The function that failed.
        call: &'static str,
        /// What CUDA says about it.
        reason: String,
    },
    /// The device is not there, or not in this build.
    #[error("device `{}`: {reason}", Escaped::new(device))]
    Device {
        /// The device asked for.
        device: String,
        /// Why it cannot be had, and the cure.
        reason: String,
    },
    /// The sizes do not make a network.
    #[error(transparent)]
    Sizes(#[from] SizesError),
    /// The images have another size than the position embedding was made for.
    #[error("images of {found:?} given to a model of {expected:?} (channels, height, width)")]
    ImageSize {
        /// Channels, height and width that the model takes.
        expected: [i64; 3],
        /// Channels, height and width of the images.
        found: Vec<i64>,
    },
    /// The images are not made of whole patches.
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
    /// The loss has no mask to predict from, or none to predict.
    #[error("no {0} masks: nothing to compute a loss of")]
    NoMasks(&'static str),
    /// The schedule has no step, or a step that is not a number.
    #[error(
        "{epochs} epochs (optimization.epochs) of {steps_per_epoch} steps, optimization.ipe_scale {ipe_scale} and \
         optimization.warmup {warmup} give no step"
    )]
    Schedule {
        /// Epochs of the run.
        epochs: u64,
        /// Steps of an epoch.
        steps_per_epoch: u64,
        /// Stretch of the schedules.
        ipe_scale: f64,
        /// Epochs of warm-up.
        warmup: f64,
    },
    /// A set of tensors to load lacks a tensor.
    #[error("state: tensor `{}` is missing", Escaped::new(.0))]
    MissingTensor(String),
    /// A set of tensors to load holds a tensor that nothing here is called.
    #[error("state: tensor `{}` is not known to this model", Escaped::new(.0))]
    UnknownTensor(String),
    /// A tensor to load has another shape or type.
    #[error(
        "state: tensor `{}` is {found}, expected {expected}",
        Escaped::new(name)
    )]
    TensorForm {
        /// The tensor's name.
        name: String,
        /// Type and shape expected.
        expected: String,
        /// Type and shape found.
        found: String,
    },
    /// Positions are to be computed for images of another size, and these are not ones that can be.
    #[error(
        "state: `{name}` is not the sine-cosine table of fixed positions, so it cannot be computed for images of {wanted} \
         pixels instead of {given} (data.crop_size)"
    )]
    Positions {
        /// The tensor.
        name: &'static str,
        /// Side of the images that it is for.
        given: i64,
        /// Side of images to come.
        wanted: i64,
    },
    /// A trained parameter took no part in the loss.
    #[error("parameter `{0}` has no gradient: was the loss's backward pass run?")]
    NoGradient(String),
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

/// Texts by which libtorch, the C++ library, CUDA and its libraries say that memory is out.
const OUT_OF_MEMORY: [&str; 5] = [
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "bad_alloc",
    "ALLOC_FAILED",
];

impl Error {
    /// Sorts what libtorch says. Its C++ stack traces are left out: an error is one line.
    pub(crate) fn torch(text: &str) -> Error {
        let traces = ["\nException raised from", "frame #0: "].map(|trace| text.find(trace));
        let end = traces.into_iter().flatten().min().unwrap_or(text.len());
        let text = &text[..end];
        let reason = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let doing = None;
        if OUT_OF_MEMORY.iter().any(|sign| reason.contains(sign)) {
            Error::OutOfMemory { doing, reason }
        } else {
            Error::Torch { doing, reason }
        }
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        match error {
            tch::TchError::Torch(text) => Self::torch(&text),
            other => Self::torch(&other.to_string()),
        }
    }
}

/// Returns " during …", or nothing where nobody knows.
fn during(doing: &Option<String>) -> String {
    doing
        .as_ref()
        .map_or_else(String::new, |doing| format!(" during {doing}"))
}

/// The work on networks that have no room, whatever the images are, as [`Error::OutOfMemory`] names it.
pub(crate) const MAKING: &str = "the making of the networks";

/// The work on the optimiser's state, which is as large as the networks.
pub(crate) const MAKING_MOMENTS: &str = "the making of the optimiser's moments";

/// Returns how less memory would be needed.
fn cure(doing: &Option<String>) -> &'static str {
    match doing.as_deref() {
        Some(MAKING | MAKING_MOMENTS) => {
            "less is needed with smaller networks (meta.model_name, meta.pred_depth, meta.pred_emb_dim)"
        }
        _ => {
            "less is needed with trainer.activation_checkpointing=true, with meta.use_bfloat16=true, or with a smaller \
             data.batch_size under the same optimization.global_batch (which draws other masks)"
        }
    }
}

/// Adds to an error of libtorch what was being computed.
pub(crate) trait During<T> {
    /// Adds `doing`, a noun, unless the error says already what was being computed.
    fn during(self, doing: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<Error>> During<T> for Result<T, E> {
    fn during(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| match error.into() {
            Error::OutOfMemory {
                doing: None,
                reason,
            } => Error::OutOfMemory {
                doing: Some(doing()),
                reason,
            },
            Error::Torch {
                doing: None,
                reason,
            } => Error::Torch {
                doing: Some(doing()),
                reason,
            },
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_allocators_say_is_told_apart_from_other_failures() {
        for text in [
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB",
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
             allocate 6021120000000 bytes. Error code 12 (Cannot allocate memory)\nException raised from alloc_cpu\nframe",
            "[enforce fail at alloc_cpu.cpp:76] data. DefaultCPUAllocator: not enough memory: you tried to allocate 1",
            "CUDA error: out of memory",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "std::bad_alloc",
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: Error code 12 (Cannot allocate memory)\n\
             frame #0: c10::ThrowEnforceNotMet",
        ] {
            let error = Err::<(), _>(Error::torch(text)).during(|| "the test".to_owned());
            let error = error.unwrap_err();
            assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
            let message = error.to_string();
            assert!(
                message.starts_with("not enough memory during the test ("),
                "{message}"
            );
            assert!(
                message.contains("activation_checkpointing")
                    && !message.contains('\n')
                    && !message.contains("frame #"),
                "{message}"
            );
        }
        let error = Err::<(), _>(Error::torch("out of memory")).during(|| MAKING.to_owned());
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("smaller networks") && !message.contains("batch_size"),
            "{message}"
        );
        let error = Error::torch(
            "The size of tensor a (3) must\n match\nException raised from infer_size\n#0",
        );
        assert!(matches!(error, Error::Torch { .. }));
        assert_eq!(
            error.to_string(),
            "libtorch failed: The size of tensor a (3) must match"
        );
    }

    #[test]
    fn the_innermost_says_what_was_being_computed() {
        let error = Err::<(), _>(Error::torch("no")).during(|| "the inner".to_owned());
        let error = error.during(|| "the outer".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "libtorch failed during the inner: no");
    }
}
