//! Checkpoints: directories of safetensors files and one JSON file, which appear whole or not at all.
//!
//! `<run>/checkpoints/<tag>-step00000500/` holds `encoder`, `predictor`, `target_encoder` and `optimizer`, each a
//! `.safetensors` file with the official state-dict names, and `checkpoint.json`, a [`State`] with the checksums of all
//! of them and of itself. One is written under a name of its own, every file and the directory are synchronised to
//! disk, and only then is it renamed; an interrupted write leaves a `.tmp` directory that the next start removes. So
//! whatever has the final name is complete, and the latest good one is usable at any moment, whichever file operation
//! was the last before the power went. Training goes on meanwhile: a [`Writer`] writes from a [`Snapshot`].
//!
//! Checksums are verified whenever a file is read. Failing to load a checkpoint is an error, never a silent restart;
//! only [`Store::last_good`], when asked for, steps back to an earlier one.
//!
//! The latest `checkpoint.keep` stay, and for good those at multiples of `checkpoint.keep_every_epochs` whole epochs.
//! The official code keeps a file every 50 epochs as well, but tests the number of the epoch to come: its `-ep50` holds
//! 49 epochs of training. Here a milestone has the whole epochs that its `checkpoint.json` says, one more.

mod files;
mod part;
#[cfg(test)]
pub(crate) mod power_cut;
mod snapshot;
mod store;
mod writer;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};
use xxhash_rust::xxh3::xxh3_64;

use crate::exchange::weights::Mapped;

pub use files::write_durably;
pub use snapshot::{Snapshot, write_tensors};
pub use store::{Store, find};
pub use writer::Writer;

/// Layout of the directory; raised when an older trainer could misread it.
const VERSION: u32 = 1;
const STATE: &str = "checkpoint.json";
/// The key of [`STATE`] that holds its own checksum.
const CHECKSUM: &str = "xxh3";

/// The files of tensors, without extension.
pub const PARTS: [&str; 4] = ["encoder", "predictor", "target_encoder", "optimizer"];

/// Tensors by the name of their file, without extension.
pub type Parts = Vec<(&'static str, Vec<(String, Tensor)>)>;

/// What a checkpoint knows besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of this layout.
    pub version: u32,
    /// Steps done: the 0-based step with which the run continues.
    pub step: u64,
    /// Whole epochs done.
    pub epoch: u64,
    /// Steps of an epoch.
    pub epoch_len: u64,
    /// Images of a step.
    pub global_batch: u64,
    /// Of the configuration that decides samples, crops and masks.
    pub sampling_hash: String,
    /// Of the shards' manifest: another one means other images.
    pub manifest_checksum: String,
    /// Loss of the last step, absent before the first.
    pub loss: Option<f64>,
    /// Version of the trainer that wrote it.
    pub trainer: String,
    /// The resolved configuration.
    pub config: Map<String, Value>,
    /// Updates left out in a row, up to this step, because something in them was not finite.
    #[serde(default)]
    pub skipped: u64,
    /// The other files by name, filled in when they are written. Empty in checkpoints of the first trainers, which
    /// are not verified.
    #[serde(default)]
    pub files: BTreeMap<String, Sum>,
}

/// What a file was when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Its length.
    pub bytes: u64,
    /// The xxh3 (64 bits) of its bytes, as 16 hexadecimal digits.
    pub xxh3: String,
}

impl State {
    /// A state of the current layout and program.
    pub fn new(step: u64, epoch_len: u64, config: Map<String, Value>) -> State {
        State {
            version: VERSION,
            step,
            epoch: step / epoch_len,
            epoch_len,
            global_batch: 0,
            sampling_hash: String::new(),
            manifest_checksum: String::new(),
            loss: None,
            trainer: env!("CARGO_PKG_VERSION").to_owned(),
            config,
            skipped: 0,
            files: BTreeMap::new(),
        }
    }

    /// As text, with a checksum over all of it.
    fn to_json(&self) -> String {
        let mut value =
            serde_json::to_value(self).expect("numbers, strings and maps always serialise");
        value[CHECKSUM] = checksum(&value).into();
        format!("{value:#}\n")
    }
}

/// What the checkpoint in `path` knows besides its tensors.
pub fn read_state(path: &Path) -> Result<State> {
    let file = path.join(STATE);
    let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let mut value: Value =
        serde_json::from_str(&text).with_context(|| format!("{}", file.display()))?;
    let version = value.get("version").and_then(Value::as_u64);
    ensure!(
        version == Some(VERSION.into()),
        "{}: checkpoint version {}, this trainer reads {VERSION}",
        file.display(),
        version.map_or("missing".to_owned(), |version| version.to_string())
    );
    // Absent in checkpoints of the first trainers.
    if let Some(then) = value.as_object_mut().and_then(|keys| keys.remove(CHECKSUM)) {
        let now = checksum(&value);
        ensure!(
            then == *now,
            "{}: its checksum is {now}, and {then} was written",
            file.display()
        );
    }
    serde_json::from_value(value).with_context(|| format!("{}", file.display()))
}

/// Of a JSON value without insignificant spaces.
fn checksum(value: &Value) -> String {
    format!("{:016x}", xxh3_64(value.to_string().as_bytes()))
}

/// Reads the whole checkpoint in `path`. An error names the file at fault.
pub fn verify(path: &Path) -> Result<State> {
    let state = read_state(path)?;
    for part in PARTS {
        // Weights that were imported may come without moments or a predictor.
        if state.files.is_empty() || state.files.contains_key(&file_name(part)) {
            read_part(path, part)?;
        }
    }
    Ok(state)
}

/// Tells what to do about a checkpoint in `path` that could not be taken up.
pub fn advise<T>(path: &Path, outcome: Result<T>) -> Result<T> {
    outcome.with_context(|| {
        format!(
            "{}: cannot be taken up; --resume=last-good sets a damaged checkpoint aside and continues from the one before",
            path.display()
        )
    })
}

/// One file of the checkpoint in `path`, mapped, after its checksum was found to be right.
pub fn map_part(path: &Path, part: &str) -> Result<Mapped> {
    let mapped = Mapped::open(&path.join(file_name(part)))?;
    check_sum(path, part, mapped.bytes())?;
    Ok(mapped)
}

fn file_name(part: &str) -> String {
    format!("{part}.safetensors")
}

/// Refuses bytes that are not those which were written.
fn check_sum(path: &Path, part: &str, bytes: &[u8]) -> Result<()> {
    let name = file_name(part);
    let file = path.join(&name);
    let Some(then) = read_state(path)?.files.remove(&name) else {
        return Ok(());
    };
    ensure!(
        bytes.len() as u64 == then.bytes,
        "{}: it has {} bytes, and {} were written",
        file.display(),
        bytes.len(),
        then.bytes
    );
    let now = format!("{:016x}", xxh3_64(bytes));
    ensure!(
        now == then.xxh3,
        "{}: its checksum is {now}, and {} was written",
        file.display(),
        then.xxh3
    );
    Ok(())
}

/// The tensors in one file of the checkpoint in `path`, on the CPU.
pub fn read_part(path: &Path, part: &str) -> Result<BTreeMap<String, Tensor>> {
    let file = path.join(file_name(part));
    let bytes = fs::read(&file).with_context(|| format!("{}", file.display()))?;
    check_sum(path, part, &bytes)?;
    let tensors =
        SafeTensors::deserialize(&bytes).with_context(|| format!("{}", file.display()))?;
    let mut read = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            other => bail!(
                "{}: tensor {name} is {other:?}, which no checkpoint of ours holds",
                file.display()
            ),
        };
        let size: Vec<i64> = view.shape().iter().map(|&length| length as i64).collect();
        read.insert(name, Tensor::f_from_data_size(view.data(), &size, kind)?);
    }
    Ok(read)
}

#[cfg(test)]
mod tests;
