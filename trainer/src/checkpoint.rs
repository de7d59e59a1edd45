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

mod error;
mod files;
mod lineage;
mod part;
#[cfg(test)]
pub(crate) mod power_cut;
mod snapshot;
mod state;
mod store;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;

use exchange::weights::Mapped;
use safetensors::tensor::{Dtype, SafeTensors};
use shardtool::{Escaped, regular};
use tch::{Kind, Tensor};
use xxhash_rust::xxh3::xxh3_64;

use files::member;

pub use error::Error;
pub use lineage::{Change, Turn, epoch_lengths};
pub use snapshot::{Snapshot, write_tensors};
pub use state::{FileDigest, State, read_state};
pub use store::{Store, find};
pub use writer::Writer;

/// Layout of the directory; raised when an older trainer could misread it.
pub const VERSION: u32 = 1;
const STATE: &str = "checkpoint.json";
/// The key of [`STATE`] that holds its own checksum.
const CHECKSUM: &str = "xxh3";

/// The files of tensors, without extension.
pub const PARTS: [&str; 4] = ["encoder", "predictor", "target_encoder", "optimizer"];

/// Tensors by the name of their file, without extension.
pub type Parts = Vec<(&'static str, Vec<(String, Tensor)>)>;

/// Reads the whole checkpoint in `path`.
///
/// # Errors
/// What is wrong with the file at fault.
pub fn verify(path: &Path) -> Result<State, Error> {
    let state = read_state(path)?;
    for part in PARTS {
        // Weights that were imported may come without moments or a predictor.
        if state.files.contains_key(&file_name(part)) {
            read_part(path, part)?;
        }
    }
    Ok(state)
}

/// Maps one file of the checkpoint in `path`, after checking its checksum.
///
/// # Errors
/// [`Error::Damaged`], or what the file system says.
pub fn map_part(path: &Path, part: &str) -> Result<Mapped, Error> {
    let file = path.join(file_name(part));
    let mapped = member(&file, Mapped::open(&file))?;
    check_digest(path, part, mapped.bytes())?;
    Ok(mapped)
}

fn file_name(part: &str) -> String {
    format!("{part}.safetensors")
}

/// Refuses bytes that are not those which were written.
fn check_digest(path: &Path, part: &str, bytes: &[u8]) -> Result<(), Error> {
    let name = file_name(part);
    let file = path.join(&name);
    let Some(then) = read_state(path)?.files.remove(&name) else {
        return Err(Error::damaged(
            &file,
            format!("{STATE} knows nothing of it"),
        ));
    };
    if bytes.len() as u64 != then.bytes {
        let reason = format!(
            "it has {} bytes, and {} were written",
            bytes.len(),
            then.bytes
        );
        return Err(Error::damaged(&file, reason));
    }
    let now = format!("{:016x}", xxh3_64(bytes));
    if now != then.xxh3 {
        let reason = format!("its checksum is {now}, and {} was written", then.xxh3);
        return Err(Error::damaged(&file, reason));
    }
    Ok(())
}

/// Returns the tensors in one file of the checkpoint in `path`, on the CPU.
///
/// # Errors
/// [`Error::Damaged`], or what the file system says.
pub fn read_part(path: &Path, part: &str) -> Result<BTreeMap<String, Tensor>, Error> {
    let file = path.join(file_name(part));
    let bytes = member(&file, regular::read(&file, u64::MAX))?;
    check_digest(path, part, &bytes)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|fault| Error::damaged(&file, fault))?;
    let mut read = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            other => {
                let name = Escaped::new(&name);
                let reason =
                    format!("tensor {name} is {other:?}, which no checkpoint of ours holds");
                return Err(Error::damaged(&file, reason));
            }
        };
        let size: Vec<i64> = view.shape().iter().map(|&length| length as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &size, kind);
        read.insert(name, tensor.map_err(|fault| Error::damaged(&file, fault))?);
    }
    Ok(read)
}

#[cfg(test)]
mod tests;
