//! The features of a split: those that were kept, or new ones from a loader of our own.

use std::path::PathBuf;

use anyhow::Result;
use shardtool::Escaped;
use shardtool::program;
use trainer::evaluate::{Features, Key, NotKept, Pass, Pooling, Table};

use super::shown::Shown;

/// All that decides features, and where they are kept.
pub struct Splits<'a> {
    pub features: Features,
    /// Checksum of the encoder's weights.
    pub checksum: u64,
    /// `target` or `context`.
    pub encoder: &'static str,
    /// The directory of the features.
    pub out: PathBuf,
    /// The images.
    pub shown: Shown<'a>,
    /// Last blocks whose features stand side by side.
    pub layers: usize,
    pub pooling: Pooling,
    pub bfloat16: bool,
    /// To keep the features is what was asked for.
    pub must_be_kept: bool,
}

impl Splits<'_> {
    /// Returns the type of the encoder's matrix products.
    pub fn dtype(&self) -> &'static str {
        match self.bfloat16 {
            true => "bfloat16",
            false => "float32",
        }
    }

    /// Returns the file of a split's features.
    pub fn path(&self, split: &str) -> PathBuf {
        let mut kind = match self.layers {
            1 => "last".to_owned(),
            layers => format!("last{layers}"),
        };
        if self.pooling != Pooling::Mean {
            kind = format!("{kind}-{}", self.pooling.name());
        }
        let size = self.shown.config.loader.eval_crop();
        let name = format!("{split}-{}-{size}px-{kind}.safetensors", self.encoder);
        self.out.join(name)
    }

    /// Returns the features of a split, and keeps them for the next time.
    pub fn table(&self, split: &str) -> Result<Table> {
        let (path, key) = (self.path(split), self.key(split)?);
        let shown = Escaped::new(&path);
        match Table::read(&path, &key) {
            Ok(table) => {
                tracing::info!("{split:?}: features of {} images from {shown}", table.len());
                return Ok(table);
            }
            Err(NotKept::Missing) => {}
            Err(cause) => tracing::warn!("{shown}: {cause}; computing them anew"),
        }
        let table = self.compute(split)?;
        let written = table.write(&path, &key);
        match written {
            Ok(()) => tracing::info!("{split:?}: features of {} images in {shown}", table.len()),
            Err(error) if self.must_be_kept => return Err(error.into()),
            Err(error) => {
                tracing::warn!("{error}: the features are not kept; --out names another place")
            }
        }
        Ok(table)
    }

    fn key(&self, split: &str) -> Result<Key> {
        let config = &self.shown.config.loader;
        let fidelity = serde_json::to_value(config.loader.fidelity)?;
        Ok(Key {
            weights: format!("{:016x}", self.checksum),
            manifest: format!("{:016x}", self.shown.manifest.checksum()),
            split: split.to_owned(),
            crop_size: config.eval_crop(),
            resize: config.eval_resize(),
            fidelity: fidelity.as_str().unwrap_or_default().to_owned(),
            layers: self.layers,
            pooling: self.pooling,
            dtype: self.dtype().to_owned(),
        })
    }

    /// Takes the features of every image of a split once, from a loader beside this process.
    fn compute(&self, split: &str) -> Result<Table> {
        let mut showing = self.shown.open(split)?;
        let (samples, groups) = (showing.samples, showing.groups);
        let pass = Pass {
            groups,
            samples,
            layers: self.layers,
            pooling: self.pooling,
            bfloat16: self.bfloat16,
        };
        let template = "{wide_bar:.cyan/238} features, group {pos}/{len}  {eta_precise} to go";
        let bar = program::progress_bar(Some(groups), template);
        let progress = &mut |group| bar.set_position(group);
        let table = pass.run(&self.features, &mut showing.source, progress);
        bar.finish_and_clear();
        showing.source.goodbye();
        let table = table?;
        let missing = samples - table.len() as u64;
        if missing > 0 {
            tracing::warn!(
                "{split:?}: {missing} of {samples} images cannot be read, and are left out"
            );
        }
        Ok(table)
    }
}
