//! One pass over a split: every image once, through the ring as in training.

use loader::LoaderConfig;
use loader::link::{Hello, PROTOCOL};
use loader::ring::FLAG_ABSENT;
use loader::sampler::Plan;
use shardtool::Manifest;
use tch::{Device, Kind, Tensor};

use super::{Error, Features, Pooling, Table};
use crate::source::GroupSource;
use crate::torch::shim::Autocast;

/// Returns what is told a loader that sends `groups` groups under `plan`.
pub fn hello(plan: Plan, config: &LoaderConfig, manifest: &Manifest, groups: u64) -> Hello {
    Hello {
        protocol: PROTOCOL,
        pid: std::process::id(),
        plan,
        sampling_hash: config.plan_hash(plan),
        manifest_checksum: manifest.checksum(),
        rank: 0,
        world: 1,
        global_batch: config.data.batch_size,
        first_step: 0,
        end_step: Some(groups),
    }
}

/// The circumstances of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Groups that the loader sends.
    pub groups: u64,
    /// Samples of the split.
    pub samples: u64,
    /// Last blocks whose features stand side by side.
    pub layers: usize,
    /// What is kept of the patches.
    pub pooling: Pooling,
    /// Matrix products are computed in bfloat16.
    pub bfloat16: bool,
}

impl Pass {
    /// Takes the features of all images that `source` brings, a loader's evaluation. `progress` is told the number of
    /// groups done. Places without an image, those of damaged samples among them, have no row.
    ///
    /// # Errors
    /// [`Error::Source`] and [`Error::Compute`].
    pub fn run(
        &self,
        features: &Features,
        source: &mut dyn GroupSource,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Table, Error> {
        let width = features.encoder().config().embed_dim * self.layers as i64;
        let width = width * self.pooling.parts();
        let kept = Tensor::f_zeros([self.samples as i64, width], (Kind::Float, Device::Cpu));
        let kept = kept.map_err(crate::Error::from)?;
        let (mut labels, mut samples) = (Vec::new(), Vec::new());
        for step in 0..self.groups {
            let Some(group) = source.take(step, 0)? else {
                break;
            };
            let rows = (0..group.flags.len()).filter(|&at| group.flags[at] & FLAG_ABSENT == 0);
            let rows: Vec<i64> = rows.map(|at| at as i64).collect();
            let first = labels.len() as i64;
            labels.extend(rows.iter().map(|&at| group.labels[at as usize]));
            samples.extend(rows.iter().map(|&at| group.sample_ids[at as usize] as i64));
            let pooled = {
                let mixed = self.bfloat16.then(|| Autocast::bfloat16(&group.images));
                let _mixed = mixed.transpose()?;
                features.pooled_layers(&group.images, self.layers, self.pooling)?
            };
            source.look_ahead()?;
            copy(&pooled, &rows, &kept, first)?;
            progress(step + 1);
        }
        let rows = labels.len() as i64;
        let whole = || kept.f_narrow(0, 0, rows);
        Ok(Table {
            features: whole().map_err(crate::Error::from)?,
            labels: Tensor::f_from_slice(&labels).map_err(crate::Error::from)?,
            samples: Tensor::f_from_slice(&samples).map_err(crate::Error::from)?,
        })
    }
}

/// Copies rows of a group to the rows of `kept` from `first` on.
fn copy(pooled: &Tensor, rows: &[i64], kept: &Tensor, first: i64) -> Result<(), crate::Error> {
    let pooled = pooled.f_to_device(Device::Cpu)?;
    let there = pooled.f_index_select(0, &Tensor::f_from_slice(rows)?)?;
    let mut place = kept.f_narrow(0, first, rows.len() as i64)?;
    place.f_copy_(&there)?;
    Ok(())
}
