//! Checkpoints: directories of safetensors files and one JSON file, which appear whole or not at all.
//!
//! `<run>/checkpoints/<tag>-step00000500/` holds `encoder`, `predictor`, `target_encoder` and `optimizer`, each a
//! `.safetensors` file with the official state-dict names, and `checkpoint.json`, a [`State`]. One is written under a
//! name of its own, every file and the directory are synchronised to disk, and only then is it renamed; an interrupted
//! write leaves a `.tmp` directory that the next start removes. So whatever has the final name is complete, and the
//! latest good one is usable at any moment. Failing to load one is an error, never a silent restart.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use crate::weights::{Mapped, Tensors};

/// Layout of the directory; raised when an older trainer could misread it.
const VERSION: u32 = 1;
const STATE: &str = "checkpoint.json";
/// Beginning of the names of directories that are being written or removed.
const TEMPORARY: &str = ".tmp-";

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
        }
    }

    /// Whether the checkpoint stands at the end of an epoch, and of which.
    fn whole_epoch(&self) -> Option<u64> {
        (self.epoch > 0 && self.step == self.epoch * self.epoch_len).then_some(self.epoch)
    }
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    tag: String,
}

impl Store {
    /// Those of the run directory `run`; nothing is created yet.
    pub fn new(run: &Path, tag: &str) -> Store {
        Store {
            folder: run.join("checkpoints"),
            tag: tag.to_owned(),
        }
    }

    /// Removes what an interrupted write or removal left. Only for the holder of the run's lock.
    pub fn clean(&self) -> Result<()> {
        for entry in entries(&self.folder)? {
            if entry
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY))
            {
                fs::remove_dir_all(&entry).with_context(|| format!("{}", entry.display()))?;
            }
        }
        Ok(())
    }

    /// Steps and directories of all checkpoints, oldest first.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let prefix = format!("{}-step", self.tag);
        let mut found: Vec<(u64, PathBuf)> = entries(&self.folder)?
            .into_iter()
            .filter_map(|path| {
                let step = path
                    .file_name()?
                    .to_str()?
                    .strip_prefix(&prefix)?
                    .parse()
                    .ok()?;
                Some((step, path))
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// The directory of the latest checkpoint.
    pub fn latest(&self) -> Result<Option<PathBuf>> {
        Ok(self.list()?.pop().map(|(_, path)| path))
    }

    /// Writes a checkpoint and returns its directory. One of the same step that exists already is left as it is.
    pub fn save(&self, state: &State, parts: &Parts) -> Result<PathBuf> {
        self.save_views(
            state,
            parts.iter().map(|(part, tensors)| {
                // One network at a time on the host: at most one copy of it beside the device's.
                let views = tensors
                    .iter()
                    .map(|(name, tensor)| Ok((name.clone(), Host::new(tensor)?)));
                Ok((*part, views.collect::<Result<Vec<_>>>()?))
            }),
        )
    }

    /// The same from tensors that lie in files; a checkpoint of weights alone has fewer parts.
    pub fn save_files(
        &self,
        state: &State,
        parts: &[(&'static str, Tensors<'_>)],
    ) -> Result<PathBuf> {
        let views = parts.iter().map(|(part, tensors)| {
            let views = tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.clone()));
            Ok((*part, views.collect()))
        });
        self.save_views(state, views)
    }

    fn save_views<V: View>(
        &self,
        state: &State,
        parts: impl Iterator<Item = Result<(&'static str, Vec<(String, V)>)>>,
    ) -> Result<PathBuf> {
        let name = format!("{}-step{:08}", self.tag, state.step);
        let path = self.folder.join(&name);
        if path.exists() {
            return Ok(path);
        }
        let aside = self.folder.join(format!("{TEMPORARY}{name}"));
        self.write(&aside, state, parts)
            .with_context(|| format!("cannot write the checkpoint {}", path.display()))?;
        fs::rename(&aside, &path).with_context(|| format!("{}", path.display()))?;
        sync(&self.folder)?;
        Ok(path)
    }

    fn write<V: View>(
        &self,
        aside: &Path,
        state: &State,
        parts: impl Iterator<Item = Result<(&'static str, Vec<(String, V)>)>>,
    ) -> Result<()> {
        if !self.folder.exists() {
            fs::create_dir_all(&self.folder)?;
            // The new directory's own name must survive too.
            sync(self.folder.parent().unwrap_or(Path::new(".")))?;
        }
        if aside.exists() {
            fs::remove_dir_all(aside)?;
        }
        fs::create_dir(aside)?;
        for part in parts {
            let (part, views) = part?;
            let path = aside.join(format!("{part}.safetensors"));
            safetensors::serialize_to_file(views, None, &path)?;
            sync(&path)?;
        }
        let json = serde_json::to_string_pretty(state)
            .expect("numbers, strings and maps always serialise");
        let path = aside.join(STATE);
        fs::write(&path, json)?;
        sync(&path)?;
        sync(aside)
    }

    /// Removes all but the `keep` latest checkpoints and those at multiples of `epochs` whole epochs (0: none).
    pub fn prune(&self, keep: usize, epochs: u64) -> Result<()> {
        let all = self.list()?;
        for (_, path) in &all[..all.len().saturating_sub(keep)] {
            let for_good = || {
                Ok::<_, anyhow::Error>(
                    read_state(path)?
                        .whole_epoch()
                        .is_some_and(|at| at % epochs == 0),
                )
            };
            if epochs > 0 && for_good()? {
                continue;
            }
            // Renamed first: a half-removed checkpoint must not have a checkpoint's name.
            let name = path
                .file_name()
                .expect("listed by its name")
                .to_string_lossy();
            let aside = self.folder.join(format!("{TEMPORARY}{name}"));
            fs::rename(path, &aside).with_context(|| format!("{}", path.display()))?;
            fs::remove_dir_all(&aside).with_context(|| format!("{}", aside.display()))?;
        }
        Ok(())
    }
}

/// The checkpoint that `path` means: itself, or the latest of the run directory `path`.
pub fn find(path: &Path) -> Result<PathBuf> {
    if path.join(STATE).is_file() {
        return Ok(path.to_owned());
    }
    if path.to_string_lossy().ends_with(".pth.tar") {
        bail!(
            "{}: a checkpoint of the official code; `trainer import {} --out DIR` makes one of ours of it",
            path.display(),
            path.display()
        );
    }
    let mut found = Vec::new();
    for candidate in entries(&path.join("checkpoints"))? {
        let temporary = candidate
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY));
        if !temporary && candidate.join(STATE).is_file() {
            found.push((read_state(&candidate)?.step, candidate));
        }
    }
    match found.into_iter().max() {
        Some((_, latest)) => Ok(latest),
        None => bail!(
            "{}: neither a checkpoint ({STATE} is missing) nor a run directory with one",
            path.display()
        ),
    }
}

/// What the checkpoint in `path` knows besides its tensors.
pub fn read_state(path: &Path) -> Result<State> {
    let file = path.join(STATE);
    let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("{}", file.display()))?;
    let version = value.get("version").and_then(Value::as_u64);
    ensure!(
        version == Some(VERSION.into()),
        "{}: checkpoint version {}, this trainer reads {VERSION}",
        file.display(),
        version.map_or("missing".to_owned(), |version| version.to_string())
    );
    serde_json::from_value(value).with_context(|| format!("{}", file.display()))
}

/// One file of the checkpoint in `path`, mapped.
pub fn map_part(path: &Path, part: &str) -> Result<Mapped> {
    Mapped::open(&path.join(format!("{part}.safetensors")))
}

/// The tensors in one file of the checkpoint in `path`, on the CPU.
pub fn read_part(path: &Path, part: &str) -> Result<BTreeMap<String, Tensor>> {
    let file = path.join(format!("{part}.safetensors"));
    let bytes = fs::read(&file).with_context(|| format!("{}", file.display()))?;
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

/// A tensor's bytes on the host, as safetensors writes them.
struct Host {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Host {
    fn new(tensor: &Tensor) -> Result<Host> {
        let dtype = match tensor.f_kind()? {
            Kind::Float => Dtype::F32,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Int64 => Dtype::I64,
            other => bail!("tensors of kind {other:?} have no place in a checkpoint"),
        };
        let shape = tensor
            .size()
            .iter()
            .map(|&length| length as usize)
            .collect();
        Ok(Host {
            tensor: tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?,
            dtype,
            shape,
        })
    }
}

impl View for Host {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        // SAFETY: a contiguous CPU tensor owns `data_len` bytes at its data pointer, which live as long as `self`.
        // It may share them with a parameter, but nothing trains while a checkpoint is being written: both happen on
        // the one thread that owns the model.
        Cow::Borrowed(unsafe {
            std::slice::from_raw_parts(self.tensor.data_ptr().cast::<u8>(), self.data_len())
        })
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// Replaces `path` by a file of these bytes, on disk when this returns; a crash leaves the old content or the new.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .with_context(|| format!("{}: not a file name", path.display()))?;
    let aside = folder.join(format!("{TEMPORARY}{}", name.to_string_lossy()));
    let write = || -> Result<()> {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        sync(folder)
    };
    write().with_context(|| format!("{}", path.display()))
}

/// Synchronises a file or directory to disk.
fn sync(path: &Path) -> Result<()> {
    // The parent of a relative name is the empty path.
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("{}", path.display()))
}

/// The paths in a directory; none where there is no such directory.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            paths
                .collect::<Result<_, _>>()
                .with_context(|| format!("{}", folder.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("{}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(value: f64) -> Parts {
        let tensor = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]) + value;
        vec![
            (
                "encoder",
                vec![("a.weight".to_owned(), tensor.transpose(0, 1))],
            ),
            (
                "optimizer",
                vec![("step".to_owned(), Tensor::from(value as f32))],
            ),
        ]
    }

    fn state(step: u64) -> State {
        State {
            loss: Some(0.5),
            ..State::new(step, 10, Map::new())
        }
    }

    #[test]
    fn a_checkpoint_reads_back_bit_by_bit() {
        let run = tempfile::tempdir().unwrap();
        let store = Store::new(run.path(), "jepa");
        assert_eq!(store.latest().unwrap(), None);
        let path = store.save(&state(13), &parts(0.1)).unwrap();
        assert_eq!(find(run.path()).unwrap(), path);
        assert_eq!(find(&path).unwrap(), path);
        assert_eq!(read_state(&path).unwrap(), state(13));
        let read = read_part(&path, "encoder").unwrap();
        assert!(read["a.weight"].equal(&parts(0.1)[0].1[0].1));
        let step = &read_part(&path, "optimizer").unwrap()["step"];
        assert_eq!((step.dim(), f32::try_from(step).unwrap()), (0, 0.1));
    }

    #[test]
    fn an_interrupted_write_is_never_taken_for_a_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        let store = Store::new(run.path(), "jepa");
        let good = store.save(&state(5), &parts(1.0)).unwrap();
        // What a crash leaves just before the rename: every file, under the temporary name.
        let torn = run.path().join("checkpoints/.tmp-jepa-step00000010");
        fs::rename(store.save(&state(10), &parts(2.0)).unwrap(), &torn).unwrap();
        assert_eq!(store.latest().unwrap(), Some(good.clone()));
        assert_eq!(find(run.path()).unwrap(), good);
        store.clean().unwrap();
        assert!(!torn.exists() && good.exists());
    }

    #[test]
    fn pruning_keeps_the_latest_and_the_milestones() {
        let run = tempfile::tempdir().unwrap();
        let store = Store::new(run.path(), "jepa");
        for step in [10, 15, 20, 30, 40, 45] {
            store.save(&state(step), &parts(0.0)).unwrap();
        }
        store.prune(2, 2).unwrap();
        let steps: Vec<u64> = store
            .list()
            .unwrap()
            .into_iter()
            .map(|(step, _)| step)
            .collect();
        assert_eq!(
            steps,
            [20, 40, 45],
            "epoch 2 is a milestone; 40 and 45 are the latest two"
        );
        store.prune(1, 0).unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let run = tempfile::tempdir().unwrap();
        let store = Store::new(run.path(), "jepa");
        let path = store.save(&state(5), &parts(1.0)).unwrap();
        let file = path.join("encoder.safetensors");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        let message = format!("{:#}", read_part(&path, "encoder").unwrap_err());
        assert!(message.contains("encoder.safetensors"), "{message}");
        fs::write(path.join(STATE), r#"{"version": 9}"#).unwrap();
        let message = format!("{:#}", read_state(&path).unwrap_err());
        assert!(
            message.contains("version 9, this trainer reads 1"),
            "{message}"
        );
    }

    #[test]
    fn official_checkpoints_are_refused_by_name() {
        let message = find(Path::new("/runs/jepa-latest.pth.tar"))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("trainer import /runs/jepa-latest.pth.tar --out"),
            "{message}"
        );
    }
}
