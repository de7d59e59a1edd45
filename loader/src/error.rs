//! What can be wrong with a configuration, alone or beside the data set.
//!
//! Each variant names the thing at fault and, where there is one, the cure. The other rooms have errors of their own:
//! [`link::Error`](crate::link::Error), [`ring::Error`](crate::ring::Error), [`storage::Error`](crate::storage::Error)
//! and `pipeline::Error`.

use std::path::PathBuf;

use shardtool::Escaped;

use crate::config::Place;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration file cannot be read.
    #[error("{}: cannot read the configuration: {cause}", Escaped::new(path))]
    ConfigRead {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The configuration file is not YAML, or not a mapping of sections.
    #[error(
        "{}{}: {}",
        Escaped::new(path),
        at.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default(),
        Escaped::new(problem)
    )]
    ConfigSyntax {
        /// The file.
        path: PathBuf,
        /// Line and column, from 1, where they are known.
        at: Option<(u64, u64)>,
        /// What is wrong there.
        problem: String,
    },
    /// A fault of a key, with the place that gave its value.
    #[error("{place}{fault}")]
    At {
        /// The file or `--set`.
        place: Place,
        /// What is wrong.
        fault: Box<Error>,
    },
    /// A `--set` argument is not `path.to.key=value`.
    #[error("--set {}: {}", Escaped::new(argument), Escaped::new(problem))]
    SetSyntax {
        /// The argument as given.
        argument: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A section or key nobody reads. It would have no effect, so it is refused.
    #[error(
        "{}: unknown key{}",
        Escaped::new(key),
        nearest.as_ref().map(|near| format!("; did you mean {near}?")).unwrap_or_default()
    )]
    UnknownKey {
        /// The full path of the key.
        key: String,
        /// The most similar known key, if one is near enough to be a likely meaning.
        nearest: Option<String>,
    },
    /// A key without a default is absent.
    #[error("{key}: missing; {cure}")]
    MissingKey {
        /// The full path of the key.
        key: String,
        /// What to do about it.
        cure: String,
    },
    /// A needed key still holds the official files' `$replace_this…` text.
    #[error("{key}: still the placeholder {:?}; {cure}", Escaped::new(value))]
    Placeholder {
        /// The full path of the key.
        key: String,
        /// The placeholder found.
        value: String,
        /// What to do about it.
        cure: String,
    },
    /// A value of the wrong type, outside its range, or at odds with another key.
    #[error(
        "{}: {} {}",
        Escaped::new(key),
        Escaped::new(value),
        Escaped::new(problem)
    )]
    Value {
        /// The full path of the key.
        key: String,
        /// The value found, as YAML would show it.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No shards where the configuration says they are.
    #[error(
        "{}: no shards there (named by {why}); build them with: shardtool build {}",
        Escaped::new(dir),
        Escaped::new(images)
    )]
    NoShards {
        /// The directory looked for.
        dir: PathBuf,
        /// The keys or the argument that named it.
        why: &'static str,
        /// The images they would be built from.
        images: PathBuf,
    },
    /// `mask.min_keep` could never be exceeded by some block, so a step that draws it would search forever.
    #[error(
        "mask.min_keep: {min_keep} is too large: on the {grid_height}x{grid_width} grid of data.crop_size and mask.patch_size, \
         {scale_key} lets the {kind} block shrink to {height}x{width} = {area} patches (in {share:.1} % of steps a block is too small), \
         and a block must hold more than min_keep patches; {cure}",
        area = height * width, share = share * 100.0
    )]
    BlockTooSmall {
        /// `mask.min_keep`.
        min_keep: usize,
        /// Patches from top to bottom.
        grid_height: usize,
        /// Patches from left to right.
        grid_width: usize,
        /// `target` or `context`.
        kind: &'static str,
        /// The key that sets the block's size.
        scale_key: &'static str,
        /// Height of the smallest block, in patches.
        height: usize,
        /// Width of the smallest block, in patches.
        width: usize,
        /// Share of steps whose block is too small.
        share: f64,
        /// A value that works, or what to change where none does.
        cure: String,
    },
    /// The split holds fewer samples than one global batch.
    #[error(
        "{samples} samples are fewer than one global batch of {global_batch}; lower data.batch_size or optimization.global_batch"
    )]
    TooFewSamples {
        /// Samples in the split.
        samples: u64,
        /// Images in a global batch.
        global_batch: u64,
    },
    /// The global batch cannot be cut into whole groups.
    #[error(
        "optimization.global_batch: {global_batch} is not a multiple of data.batch_size {batch_size}; \
         the nearest that work are {} and {}",
        (global_batch / batch_size).max(1) * batch_size, ((global_batch / batch_size).max(1) + 1) * batch_size
    )]
    UnevenGroups {
        /// Images in a global batch.
        global_batch: u64,
        /// Images in a group.
        batch_size: u64,
    },
}

impl Error {
    /// Returns the key whose value is at fault, if it is that of one key and its place is not told yet.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Error::UnknownKey { key, .. }
            | Error::MissingKey { key, .. }
            | Error::Placeholder { key, .. }
            | Error::Value { key, .. } => Some(key),
            Error::BlockTooSmall { .. } => Some("mask.min_keep"),
            Error::UnevenGroups { .. } => Some("optimization.global_batch"),
            Error::ConfigRead { .. }
            | Error::ConfigSyntax { .. }
            | Error::At { .. }
            | Error::SetSyntax { .. }
            | Error::NoShards { .. }
            | Error::TooFewSamples { .. } => None,
        }
    }
}
