//! What can be wrong with weights from elsewhere, or with writing ours for others.

use std::io;
use std::path::PathBuf;

use shardtool::Escaped;

use super::import::OptimizerFault;
use crate::{checkpoint, config};

/// The reason why weights could not be imported or exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error("{}: {cause}", Escaped::new(path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// A file of weights is damaged, unsafe to read, or not what it should be; or one could not be written.
    #[error(transparent)]
    File(#[from] ::exchange::Error),
    /// The source is a file of another kind.
    #[error(
        "{}: neither a file of PyTorch nor a safetensors file",
        Escaped::new(path)
    )]
    NoWeights {
        /// The file.
        path: PathBuf,
    },
    /// The source is a directory without a model.
    #[error(
        "{}: a directory with neither config.json nor a checkpoint; give a file of weights (.pth.tar, .safetensors), \
         a Hugging Face model's directory, or a checkpoint of ours",
        Escaped::new(path)
    )]
    NoModel {
        /// The directory.
        path: PathBuf,
    },
    /// The state of the optimiser in an official checkpoint is not that of these networks.
    #[error("{}: opt: {cause}", Escaped::new(path))]
    Optimizer {
        /// The file.
        path: PathBuf,
        /// What differs.
        cause: OptimizerFault,
    },
    /// Training shall continue from weights that are not those of all networks.
    #[error(
        "{}: no {missing} in it, so training cannot continue where it stood; \
         --start-over begins at step 0 with the weights that are there",
        Escaped::new(path)
    )]
    Incomplete {
        /// The source.
        path: PathBuf,
        /// The networks that it lacks.
        missing: String,
    },
    /// The source is a checkpoint of this program, which needs no import to be continued.
    #[error(
        "{}: a checkpoint of ours, which --resume continues as it is; \
         --start-over begins at step 0 with its weights",
        Escaped::new(path)
    )]
    Ours {
        /// The source.
        path: PathBuf,
    },
    /// The position embeddings are no fixed table, so there are none for images of another size.
    #[error(
        "{}: {network}: `{name}` is not the sine-cosine table of fixed positions, so it cannot be computed for \
         images of {wanted} pixels instead of {given} (data.crop_size)",
        Escaped::new(path)
    )]
    Positions {
        /// The source.
        path: PathBuf,
        /// The network.
        network: &'static str,
        /// The tensor.
        name: &'static str,
        /// Side of the images that the weights were trained on.
        given: i64,
        /// Side of the images that the configuration has.
        wanted: i64,
    },
    /// A new predictor, or new positions, could not be computed.
    #[error(transparent)]
    Compute(#[from] crate::Error),
    /// The configuration describes other networks than the source holds.
    #[error(
        "{}: it holds other networks than the configuration describes: {}{}",
        Escaped::new(path),
        differences.join(", "),
        if *start_over { "; --start-over begins at step 0 with its encoders" } else { "" }
    )]
    OtherNetworks {
        /// The source.
        path: PathBuf,
        /// The sizes that differ, as [`ModelConfig::differences`](::exchange::model::ModelConfig::differences) says.
        differences: Vec<String>,
        /// Whether training could start over from the encoders.
        start_over: bool,
    },
    /// Nothing tells how many steps an epoch has.
    #[error(
        "the steps of an epoch are those of the configuration's shards; \
         --steps-per-epoch N says it without them: {cause}"
    )]
    StepsUnknown {
        /// Why the shards do not tell.
        cause: StepsFault,
    },
    /// The shards have fewer images than a step takes.
    #[error(
        "the shards hold fewer images than a step takes, {global_batch} (optimization.global_batch)"
    )]
    NoSteps {
        /// Images of a step.
        global_batch: u64,
    },
    /// The run directory holds checkpoints, which an import would put itself among.
    #[error(
        "{}: holds checkpoints already; give another directory",
        Escaped::new(path)
    )]
    HasCheckpoints {
        /// The run directory.
        path: PathBuf,
    },
    /// What shall be written is there already.
    #[error("{}: exists already", Escaped::new(path))]
    Exists {
        /// The file or directory.
        path: PathBuf,
    },
    /// What shall be written has no name, as `..` has none.
    #[error("{}: not a name for a file", Escaped::new(path))]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// What a predictor says was asked for, and there is none.
    #[error(
        "{}: no predictor there, and what it says is asked for",
        Escaped::new(path)
    )]
    NoPredictor {
        /// The file or directory.
        path: PathBuf,
    },
    /// The official code needs a predictor, and the checkpoint has none.
    #[error(
        "{}: the checkpoint has no predictor, which the official code needs",
        Escaped::new(path)
    )]
    NothingToPredict {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The checkpoint to export, or the one to write.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The configuration under which training would continue.
    #[error(transparent)]
    Config(#[from] config::Error),
}

/// The reason why a configuration's shards do not tell the steps of an epoch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepsFault {
    /// The configuration names no shards that are there.
    #[error(transparent)]
    NoShards(#[from] loader::Error),
    /// The manifest of the shards cannot be read.
    #[error(transparent)]
    Manifest(#[from] shardtool::Error),
    /// The shards have no split of this name.
    #[error("{}: no split `{}`", Escaped::new(path), Escaped::new(split))]
    NoSplit {
        /// The shards.
        path: PathBuf,
        /// The split.
        split: String,
    },
}
