//! What a checkpoint knows besides its tensors: `checkpoint.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shardtool::regular;
use xxhash_rust::xxh3::xxh3_64;

use super::files::member;
use super::{CHECKSUM, Error, STATE, Turn, VERSION};

/// Longest `checkpoint.json` that is read, in bytes; one of ours has some ten thousand.
const MAX_BYTES: u64 = 16 << 20;

/// The content of a checkpoint besides its tensors.
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
    /// Hash of the configuration that decides samples, crops and masks. An imported checkpoint has none.
    #[serde(with = "hex")]
    pub sampling_hash: Option<u64>,
    /// Checksum of the shards' manifest: another one means other images. An imported checkpoint has none.
    #[serde(with = "hex")]
    pub manifest_checksum: Option<u64>,
    /// Loss of the last step, absent before the first.
    pub loss: Option<f64>,
    /// Version of the trainer that wrote it.
    pub trainer: String,
    /// The resolved configuration.
    pub config: Map<String, Value>,
    /// Updates left out in a row, up to this step, because something in them was not finite.
    #[serde(default)]
    pub skipped: u64,
    /// Threads that computed it on a CPU, where sums of another number of threads round otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,
    /// Where the run went on under other values or in another directory, oldest first.
    #[serde(default)]
    pub lineage: Vec<Turn>,
    /// The other files by name, filled in when they are written.
    pub files: BTreeMap<String, FileDigest>,
}

/// Length and checksum of a file as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its length.
    pub bytes: u64,
    /// The xxh3 (64 bits) of its bytes, as 16 hexadecimal digits.
    pub xxh3: String,
}

impl State {
    /// Makes a state of the current layout and program.
    pub fn new(step: u64, epoch_len: u64, config: Map<String, Value>) -> State {
        State {
            version: VERSION,
            step,
            epoch: step / epoch_len,
            epoch_len,
            global_batch: 0,
            sampling_hash: None,
            manifest_checksum: None,
            loss: None,
            trainer: env!("CARGO_PKG_VERSION").to_owned(),
            config,
            skipped: 0,
            threads: None,
            lineage: Vec::new(),
            files: BTreeMap::new(),
        }
    }

    /// Returns it as text, with a checksum over all of it.
    pub(super) fn to_json(&self) -> String {
        let mut value =
            serde_json::to_value(self).expect("numbers, strings and maps always serialise");
        value[CHECKSUM] = checksum(&value).into();
        format!("{value:#}\n")
    }
}

/// Returns what the checkpoint in `path` knows besides its tensors.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Version`], or what the file system says.
pub fn read_state(path: &Path) -> Result<State, Error> {
    let file = path.join(STATE);
    let bytes = member(&file, regular::read(&file, MAX_BYTES))?;
    let mut value: Value =
        serde_json::from_slice(&bytes).map_err(|fault| Error::damaged(&file, fault))?;
    let version = value.get("version").and_then(Value::as_u64);
    if version != Some(VERSION.into()) {
        return Err(Error::Version {
            path: file,
            found: version,
            known: VERSION,
        });
    }
    let then = value.as_object_mut().and_then(|keys| keys.remove(CHECKSUM));
    let Some(then) = then else {
        return Err(Error::damaged(
            &file,
            format!("its checksum, the key {CHECKSUM}, is missing"),
        ));
    };
    let now = checksum(&value);
    if then != *now {
        return Err(Error::damaged(
            &file,
            format!("its checksum is {now}, and {then} was written"),
        ));
    }
    serde_json::from_value(value).map_err(|fault| Error::damaged(&file, fault))
}

/// Returns the checksum of a JSON value without insignificant spaces.
fn checksum(value: &Value) -> String {
    format!("{:016x}", xxh3_64(value.to_string().as_bytes()))
}

/// Checksums of 64 bits as 16 hexadecimal digits; none as no text at all.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sum: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match sum {
            Some(sum) => to.collect_str(&format_args!("{sum:016x}")),
            None => to.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        u64::from_str_radix(&text, 16)
            .map(Some)
            .map_err(D::Error::custom)
    }
}
