//! A small data set, a configuration for it, and what comes out of a pipeline.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use shardtool::Dataset;

use super::dataset::{SAMPLES, write_dataset};
use super::parsed;
use crate::config::{Loader, LoaderConfig};
use crate::pipeline::{OpenSplit, Pipeline, geometry};
use crate::ring::{Geometry, SlotReader};
use crate::sampler::PretrainingSampler;

/// A data set of `SAMPLES` JPEGs of different sizes in two classes, and a configuration for it.
pub struct Fixture {
    pub directory: tempfile::TempDir,
    pub config: LoaderConfig,
}

impl Fixture {
    pub fn new(sets: &[&str]) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        write_dataset(directory.path());
        let text = "data: {batch_size: 4, crop_size: 64, use_horizontal_flip: true}\n\
                    mask: {patch_size: 8, min_keep: 4}\n\
                    loader: {slots: 2}\n\
                    optimization: {global_batch: 8}";
        let config = parsed(text, sets).unwrap();
        Fixture { directory, config }
    }

    pub fn source(&self) -> OpenSplit {
        OpenSplit::open(self.directory.path(), "train").unwrap()
    }

    pub fn sampler(&self) -> Arc<PretrainingSampler> {
        let global_batch = self.config.global_batch(1);
        Arc::new(PretrainingSampler::new(&self.config, SAMPLES, global_batch).unwrap())
    }

    pub fn geometry(&self) -> Geometry {
        geometry(&self.config, &self.sampler())
    }

    pub fn pipeline(&self, workers: usize) -> Pipeline {
        Pipeline::start(self.source(), workers, &Loader::default()).unwrap()
    }

    /// Flips one byte in the middle of each of these samples' payloads.
    pub fn damage(&self, ids: impl IntoIterator<Item = u64>) {
        let dataset = Dataset::open(self.directory.path()).unwrap();
        let split = dataset.split("train").unwrap();
        for id in ids {
            let sample = split.sample(id);
            let payload = sample.payload().unwrap();
            let middle = payload.len() / 2;
            let mut file = File::options()
                .write(true)
                .open(sample.shard().path())
                .unwrap();
            file.seek(SeekFrom::Start(sample.entry().offset + middle as u64))
                .unwrap();
            file.write_all(&[!payload[middle]]).unwrap();
        }
    }
}

/// All that a slot holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Copied {
    pub step: u64,
    pub group: u64,
    pub size: (usize, usize),
    pub images: Vec<u8>,
    pub masks: Vec<Vec<i64>>,
    pub labels: Vec<i64>,
    pub ids: Vec<u64>,
    pub flags: Vec<u8>,
}

impl Copied {
    pub fn of(slot: &SlotReader) -> Copied {
        Copied {
            step: slot.step(),
            group: slot.group(),
            size: slot.size(),
            images: slot.images().to_vec(),
            masks: [
                slot.context(0),
                slot.target(0),
                slot.target(1),
                slot.target(2),
                slot.target(3),
            ]
            .map(<[i64]>::to_vec)
            .to_vec(),
            labels: slot.labels().to_vec(),
            ids: slot.sample_ids().to_vec(),
            flags: slot.flags().to_vec(),
        }
    }
}
