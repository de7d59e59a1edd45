//! What a run will need and take, before there is one: `trainer plan`.
//!
//! Counts (parameters, operations, bytes of states and checkpoints, steps) are exact. Times and the memory of
//! activations come from models whose assumptions a plan carries with it: [`Plan::assumptions`].
//!
//! | room | what stands there |
//! |---|---|
//! | [`networks`] | parameters, and the bytes of states that follow from them |
//! | [`flops`] | operations of the method |
//! | [`gpu`] | data sheets |
//! | [`memory`] | the memory of a GPU, item by item |
//! | [`speed`] | the time of a step |
//! | `table` | all of it as text |

pub mod flops;
pub mod gpu;
pub mod memory;
pub mod networks;
pub mod speed;
mod table;

use loader::masks::MaskSampler;
use serde::Serialize;

use crate::config::{Config, Error};
use crate::method::model::ModelConfig;
use flops::Masks;
use gpu::Gpu;
use memory::{Lengths, Memory};
use networks::Networks;
use speed::{BACKWARD, BANDWIDTH, FORWARD, Range, Speed};

/// Images a second that one core decodes and crops from lossless `dct` shards at 224 px: an EPYC's, the slower of the
/// two that were measured.
const IMAGES_PER_CORE: f64 = 3313.0;
/// Bytes of an ImageNet file as a lossless `dct` sample, mean.
pub const BYTES_PER_IMAGE: u64 = 112_164;
/// Images of ImageNet-1K's training split.
pub const IMAGENET: u64 = 1_281_167;
/// Groups whose masks are drawn to know their lengths.
const GROUPS: u64 = 64;
/// Images of the largest group that is drawn as it is; of more, lengths hardly differ.
const LARGEST_GROUP: u64 = 4096;
/// Share of a GPU's memory that can be had before fragments make it scarce: an assumption.
const USABLE: f64 = 0.92;

/// The images of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Images {
    /// How many there are.
    pub count: u64,
    /// Bytes of their shards.
    pub shard_bytes: u64,
    /// How these numbers are known.
    pub known_from: String,
}

/// The machines of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machines {
    /// Nodes.
    pub nodes: u64,
    /// GPUs of a node, each of them a rank.
    pub devices: u64,
    /// The GPUs.
    pub gpu: Gpu,
}

/// Whether a run fits into the memory of its GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fits {
    /// It does.
    Yes,
    /// So closely that fragments may decide.
    Barely,
    /// It does not.
    No,
}

/// What a run will need and take.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The networks in words.
    pub model: String,
    /// The machines.
    pub machines: Machines,
    /// The images.
    pub images: Images,
    /// Parameters of the networks.
    pub parameters: Networks,
    /// Images of a step.
    pub global_batch: u64,
    /// Images of a group.
    pub group: u64,
    /// Groups that a rank computes one after the other in a step; the most where ranks have different numbers.
    pub groups_per_rank: u64,
    /// Mean lengths of masks, in patches: of a context, of a target.
    pub mask_lengths: [f64; 2],
    /// Epochs, of how many steps each.
    pub epochs: f64,
    /// Steps of an epoch.
    pub epoch_len: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Memory of a GPU.
    pub memory: Memory,
    /// The sum of it, in bytes.
    pub memory_bytes: u64,
    /// Whether that fits.
    pub fits: Fits,
    /// The time of the parts of a step.
    pub speed: Speed,
    /// Seconds of a step.
    pub step_s: Range,
    /// Images a second of all ranks.
    pub images_per_s: Range,
    /// Share of the GPUs' peak.
    pub utilisation: Range,
    /// Hours of the run.
    pub hours: Range,
    /// Cores of a node that the loader keeps busy.
    pub loader_cores: Range,
    /// Bytes a second that a node reads of its shards.
    pub read_bytes_per_s: Range,
    /// Bytes of a checkpoint.
    pub checkpoint_bytes: u64,
    /// Checkpoints that stay at the end.
    pub checkpoints: u64,
    /// Bytes that a rank sends in a step for the sum of gradients, and receives.
    pub gradient_bytes: u64,
    /// Bits a second that a node's network needs for that to stay behind the computing.
    pub network_bits_per_s: Range,
    /// What was taken for granted.
    pub assumptions: Vec<String>,
}

impl Plan {
    /// Plans a run of `config`.
    ///
    /// # Errors
    /// If the configuration makes no network, or masks of it cannot be drawn.
    pub fn new(config: &Config, images: Images, machines: Machines) -> Result<Plan, Error> {
        let crops = &config.loader.data.crop_size;
        let bfloat16 = config.meta.use_bfloat16;
        let gpu = machines.gpu;
        let ranks = machines.nodes * machines.devices;
        let (batch, group) = (
            config.loader.global_batch(ranks),
            config.loader.data.batch_size,
        );
        let groups_per_rank = (batch / group).div_ceil(ranks);
        let per_rank = (groups_per_rank * group) as f64;
        let model = config.model_for(crops.largest())?;
        let drawn = Drawn::new(config, crops.largest())?;
        let speed = drawn.speed(config, &gpu, &model);
        let step_s = speed.step_s(per_rank);
        let images_per_s = step_s.map(|seconds| batch as f64 / seconds);
        let per_node = images_per_s.map(|rate| rate / machines.nodes as f64);
        let epoch_len = images.count / batch;
        let steps = config.last_step(epoch_len);
        let run_s = run_s(config, &gpu, per_rank, epoch_len, steps)?;
        let parameters = Networks::of(&model);
        let memory = Memory::new(config, &model, drawn.longest, ranks);
        let memory_bytes = memory.total();
        // A ring passes each value around twice, but for its own share.
        let gradients = parameters.gradients();
        let around = |members: u64| 2 * (gradients - gradients / members.max(1));
        let between = around(machines.nodes) as f64;
        // Decoding and resizing grow with the pixels of a crop.
        let pixels = (model.image_size as f64 / 224.0).powi(2);
        Ok(Plan {
            model: model.describe(),
            parameters,
            global_batch: batch,
            group,
            groups_per_rank,
            mask_lengths: drawn.mean,
            epochs: steps as f64 / epoch_len.max(1) as f64,
            epoch_len,
            steps,
            memory,
            memory_bytes,
            fits: fits(memory_bytes, &gpu),
            speed,
            step_s,
            images_per_s,
            utilisation: images_per_s
                .map(|rate| rate * speed.flops_per_image / (ranks as f64 * gpu.peak(bfloat16))),
            hours: run_s.map(|seconds| seconds / 3600.0),
            loader_cores: per_node.map(|rate| rate * pixels / IMAGES_PER_CORE),
            read_bytes_per_s: per_node
                .map(|rate| rate * images.shard_bytes as f64 / images.count.max(1) as f64),
            checkpoint_bytes: parameters.checkpoint(),
            checkpoints: checkpoints(config, epoch_len, steps),
            gradient_bytes: around(ranks),
            network_bits_per_s: step_s.map(|seconds| 8.0 * between / seconds),
            assumptions: assumptions(config, &images, &gpu),
            images,
            machines,
        })
    }
}

/// Returns the seconds of a run of `steps` steps, each with images of its epoch's size.
fn run_s(
    config: &Config,
    gpu: &Gpu,
    images_per_rank: f64,
    epoch_len: u64,
    steps: u64,
) -> Result<Range, Error> {
    let phases = config.loader.data.crop_size.phases();
    let first_steps = phases
        .iter()
        .map(|(first, _)| first.saturating_mul(epoch_len).min(steps));
    let ends = first_steps.clone().skip(1).chain([steps]);
    let mut sum = Range {
        worst: 0.0,
        best: 0.0,
    };
    for ((begin, end), &(_, size)) in first_steps.zip(ends).zip(phases) {
        let model = config.model_for(size)?;
        let speed = Drawn::new(config, size)?.speed(config, gpu, &model);
        let step_s = speed.step_s(images_per_rank);
        sum.worst += (end - begin) as f64 * step_s.worst;
        sum.best += (end - begin) as f64 * step_s.best;
    }
    Ok(sum)
}

/// Lengths of masks, from groups that were drawn.
struct Drawn {
    /// Of a context and of a target.
    mean: [f64; 2],
    longest: Lengths,
}

impl Drawn {
    /// Draws masks for images of `size` pixels.
    fn new(config: &Config, size: u32) -> Result<Drawn, Error> {
        let sampler = MaskSampler::new(&config.loader, size)?;
        let images = config.loader.data.batch_size.min(LARGEST_GROUP) as usize;
        let mut sums = [0, 0];
        let mut longest = Lengths {
            context: 0,
            target: 0,
        };
        for step in 0..GROUPS {
            let group = sampler.draw(step, 0, images);
            let lengths = [group.context_len as u64, group.target_len as u64];
            sums = [sums[0] + lengths[0], sums[1] + lengths[1]];
            longest = Lengths {
                context: longest.context.max(lengths[0]),
                target: longest.target.max(lengths[1]),
            };
        }
        Ok(Drawn {
            mean: sums.map(|sum| sum as f64 / GROUPS as f64),
            longest,
        })
    }

    /// Returns the times of networks of these sizes under these masks.
    fn speed(&self, config: &Config, gpu: &Gpu, model: &ModelConfig) -> Speed {
        let masks = Masks {
            contexts: config.loader.mask.num_enc_masks,
            targets: config.loader.mask.num_pred_masks,
            context_len: self.mean[0],
            target_len: self.mean[1],
        };
        Speed::new(gpu, model, masks, config.meta.use_bfloat16)
    }
}

fn fits(bytes: u64, gpu: &Gpu) -> Fits {
    let share = bytes as f64 / (gpu.memory_gib * f64::from(1 << 30));
    match share {
        share if share <= USABLE => Fits::Yes,
        share if share <= 1.0 => Fits::Barely,
        _ => Fits::No,
    }
}

/// Returns how many checkpoints a finished run has: the latest, and those that are kept for good before them.
fn checkpoints(config: &Config, epoch_len: u64, steps: u64) -> u64 {
    let keys = &config.checkpoint;
    let epochs = steps.div_ceil(epoch_len.max(1));
    let by_epochs = epochs.checked_div(keys.every_epochs).unwrap_or(0);
    let by_steps = keys.every_steps.map_or(0, |every| steps / every);
    // How long a step takes is not known here: by minutes, there may be one at each.
    let by_minutes = keys.every_minutes.map_or(0, |_| steps);
    let written = (by_epochs + by_steps)
        .max(by_minutes)
        .clamp(1, steps.max(1));
    let latest = written.min(keys.keep as u64);
    let before = epochs.saturating_sub(latest.saturating_sub(1).saturating_mul(keys.every_epochs));
    match keys.keep_every_epochs {
        0 => latest,
        every => latest + before.saturating_sub(1) / every,
    }
}

fn assumptions(config: &Config, images: &Images, gpu: &Gpu) -> Vec<String> {
    let percent = |share: f64| format!("{:.0}", 100.0 * share);
    let mut list = vec![format!("images: {}", images.known_from)];
    let [low, high] = gpu.products.map(percent);
    let kind = if config.meta.use_bfloat16 && gpu.bfloat16_tflops.is_some() {
        "bfloat16"
    } else {
        "float32"
    };
    list.push(format!(
        "matrix products reach {low} to {high} % of {}'s {:.0} TFLOP/s in {kind}",
        gpu.name,
        gpu.peak(config.meta.use_bfloat16) / 1e12
    ));
    if config.meta.use_bfloat16 && gpu.bfloat16_tflops.is_none() {
        list.push(format!(
            "{} has no bfloat16: times are those of meta.use_bfloat16=false",
            gpu.name
        ));
    }
    list.push(format!(
        "other work moves {FORWARD:.0} bytes a token, block and unit of width forward, {BACKWARD:.0} backward, at {} % \
         of {:.0} GB/s",
        percent(BANDWIDTH),
        gpu.bandwidth_gbs
    ));
    list.push(
        "the sum of gradients hides behind the backward pass; launches and synchronisation cost nothing".to_owned(),
    );
    list.push(format!(
        "masks: lengths of {GROUPS} drawn groups, the mean for times, the longest for memory"
    ));
    if config.loader.data.crop_size.phases().len() > 1 {
        list.push(format!(
            "data.crop_size changes: all but the hours of the run is of its largest size, {} px",
            config.loader.data.crop_size.largest()
        ));
    }
    list.push(format!(
        "memory: at most {} % of {:.1} GiB can be used; 1 GiB for CUDA and its libraries, 0.5 for communication",
        percent(USABLE),
        gpu.memory_gib
    ));
    list.push(format!(
        "loader: {IMAGES_PER_CORE:.0} images/s a core (lossless dct at 224 px on an EPYC), less for larger crops by \
         their pixels{}",
        if distorts(config) { "; colour distortion and blur are not counted" } else { "" }
    ));
    list.push(
        "no GPU has run this trainer yet. The published ViT-H/14 (16 A100, global batch 2048, 300 epochs, under 72 \
         hours) was at some 20 % of the peak by this count of operations, and took two to three times as long as this \
         model says"
            .to_owned(),
    );
    list
}

fn distorts(config: &Config) -> bool {
    config.loader.data.use_color_distortion || config.loader.data.use_gaussian_blur
}

#[cfg(test)]
mod tests;
