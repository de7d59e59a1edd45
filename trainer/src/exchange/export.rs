//! A checkpoint for others: a Hugging Face directory, or a file that the official code continues from.
//!
//! Nothing is computed; bytes go from the checkpoint's mapped files into the new ones, under other names.

mod official;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use exchange::huggingface;
use exchange::model::ModelConfig;
use exchange::parameters;
use exchange::weights::{self, Mapped, Tensors};

use super::Error;
use crate::checkpoint::{self, State};
use crate::config::Config;

pub use official::to_official;

/// An encoder to give away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The target encoder, which is the one that the paper evaluates.
    Target,
    /// The context encoder.
    Context,
}

/// The mapped files of a checkpoint.
#[derive(Debug)]
pub struct ExportedCheckpoint {
    /// What it knows besides its tensors.
    pub state: State,
    path: PathBuf,
    encoder: Mapped,
    target_encoder: Mapped,
    predictor: Option<Mapped>,
    optimizer: Option<Mapped>,
}

impl ExportedCheckpoint {
    /// Opens the checkpoint `path`, or the latest one of the run directory `path`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none, or it is damaged.
    pub fn open(path: &Path) -> Result<ExportedCheckpoint, Error> {
        let path = checkpoint::find(path)?;
        let state = checkpoint::read_state(&path)?;
        let part = |part: &str| checkpoint::map_part(&path, part);
        // Weights that were imported without a configuration may come without these.
        let optional = |name: &str| {
            let there = path.join(format!("{name}.safetensors")).exists();
            there.then(|| part(name)).transpose()
        };
        Ok(ExportedCheckpoint {
            path: path.clone(),
            encoder: part("encoder")?,
            target_encoder: part("target_encoder")?,
            predictor: optional("predictor")?,
            optimizer: optional("optimizer")?,
            state,
        })
    }

    /// Returns the configuration it was trained under, if all of it is known.
    fn config(&self) -> Option<Config> {
        Config::from_resolved(&self.state.config).ok()
    }

    /// Returns the sizes of the networks, after every tensor was found to fit them.
    fn model(
        &self,
        encoder: &Tensors<'_>,
        predictor: Option<&Tensors<'_>>,
    ) -> Result<ModelConfig, Error> {
        let heads = super::heads_of(&self.state);
        let fitting = weights::sizes(encoder, predictor, heads).and_then(|model| {
            weights::check("encoder", encoder, &parameters::encoder(&model))?;
            if let Some(predictor) = predictor {
                weights::check("predictor", predictor, &parameters::predictor(&model))?;
            }
            Ok(model)
        });
        fitting.map_err(|cause| ::exchange::Error::unfit(&self.path, cause).into())
    }
}

/// Writes what `transformers`' `IJepaModel.from_pretrained` loads into the directory `out`, which must not exist.
///
/// # Errors
/// [`Error::Exists`] or [`Error::Io`] if the directory cannot be made, [`Error::File`] if the tensors make no such
/// model.
pub fn to_huggingface(
    source: &ExportedCheckpoint,
    which: Which,
    out: &Path,
) -> Result<ModelConfig, Error> {
    refuse_existing(out)?;
    let encoder = match which {
        Which::Target => &source.target_encoder,
        Which::Context => &source.encoder,
    };
    let encoder = encoder.tensors()?;
    let predictor = source.predictor.as_ref().map(Mapped::tensors).transpose()?;
    let model = source.model(&encoder, predictor.as_ref())?;
    finish(out, |aside| {
        named(aside, fs::create_dir_all(aside))?;
        Ok(huggingface::write(
            aside,
            &model,
            &encoder,
            predictor.as_ref(),
        )?)
    })?;
    Ok(model)
}

fn refuse_existing(out: &Path) -> Result<(), Error> {
    if out.exists() {
        return Err(Error::Exists {
            path: out.to_owned(),
        });
    }
    Ok(())
}

/// Lets `write` make a file or directory under a temporary name, and gives it its own when it is whole.
fn finish(out: &Path, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let name = out.file_name().ok_or_else(|| Error::NoName {
        path: out.to_owned(),
    })?;
    let aside = out.with_file_name(format!(
        ".tmp-{}-{}",
        std::process::id(),
        name.to_string_lossy()
    ));
    let outcome = write(&aside).and_then(|()| named(out, fs::rename(&aside, out)));
    if outcome.is_err() {
        // Whatever there is of it; the error that is reported is the first one.
        let _ = fs::remove_file(&aside).or_else(|_| fs::remove_dir_all(&aside));
    }
    outcome
}

fn named<T>(path: &Path, outcome: io::Result<T>) -> Result<T, Error> {
    outcome.map_err(|cause| Error::Io {
        path: path.to_owned(),
        cause,
    })
}
