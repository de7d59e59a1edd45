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
    pub epochs: u64,
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
        let mut run_s = Range {
            worst: 0.0,
            best: 0.0,
        };
        for (index, &(first, size)) in crops.phases().iter().enumerate() {
            let next = crops
                .phases()
                .get(index + 1)
                .map_or(u64::MAX, |&(next, _)| next);
            let begin = first.saturating_mul(epoch_len).min(steps);
            let count = (next.saturating_mul(epoch_len).min(steps) - begin) as f64;
            let model = config.model_for(size)?;
            let step_s = Drawn::new(config, size)?
                .speed(config, &gpu, &model)
                .step_s(per_rank);
            run_s.worst += count * step_s.worst;
            run_s.best += count * step_s.best;
        }
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
            epochs: config.optimization.epochs,
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
        let images = config.loader.data.batch_size as usize;
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
    let latest = (keys.keep as u64).min(steps);
    let epochs = steps / epoch_len.max(1);
    let latest_begin = epochs.saturating_sub(latest.saturating_sub(1) * keys.every_epochs);
    match keys.keep_every_epochs {
        0 => latest,
        every => latest + latest_begin.saturating_sub(1) / every,
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
mod tests {
    use std::path::Path;

    use super::*;

    /// Reads one of the shipped configurations with changes.
    pub fn official(name: &str, sets: &[&str]) -> Config {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../configs")
            .join(name);
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        Config::load(&path, &sets, None).unwrap()
    }

    pub fn imagenet() -> Images {
        Images {
            count: IMAGENET,
            shard_bytes: IMAGENET * BYTES_PER_IMAGE,
            known_from: "a test".to_owned(),
        }
    }

    fn machines(nodes: u64, devices: u64, gpu: &str) -> Machines {
        let gpu = Gpu::named(gpu).unwrap();
        Machines {
            nodes,
            devices,
            gpu,
        }
    }

    #[test]
    fn the_published_vit_h_14() {
        let config = official("in1k_vith14_ep300.yaml", &[]);
        let plan = Plan::new(&config, imagenet(), machines(2, 8, "A100-80")).unwrap();
        assert_eq!((plan.global_batch, plan.groups_per_rank), (2048, 1));
        assert_eq!((plan.epoch_len, plan.steps), (625, 187_500));
        assert_eq!(plan.fits, Fits::Yes);
        // Context and target of groups of 128 on a grid of 16 × 16.
        let [context, target] = plan.mask_lengths;
        assert!((64.0..73.0).contains(&context) && (42.0..47.0).contains(&target));
        // Weights, moments and the target encoder; gradients are not kept.
        let parameters = &plan.parameters;
        let values =
            parameters.encoder.all * 2 + parameters.predictor.all + parameters.trained() * 2;
        assert_eq!(plan.checkpoint_bytes, 4 * values);
        // After epochs 50, 100, …, 250, and the last two.
        assert_eq!(plan.checkpoints, 7);
        // All but a sixteenth of the gradients, twice.
        let gradients = 4 * parameters.trained();
        assert_eq!(plan.gradient_bytes, 2 * (gradients - gradients / 16));
        assert!(
            (plan.network_bits_per_s.best * plan.step_s.best / 8.0 / gradients as f64 - 1.0).abs()
                < 1e-9
        );
        assert!((plan.loader_cores.best - plan.images_per_s.best / 2.0 / 3313.0).abs() < 1e-9);

        // The paper says under 72 hours, at a fifth of the peak: the plan is that much too good for that code.
        let hours = plan.hours;
        assert!(hours.best > 22.0 && hours.worst < 40.0, "{hours:?}");
        let share = hours.map(|hours| 72.0 / hours);
        assert!(
            (1.8..3.3).contains(&share.worst) && (1.8..3.3).contains(&share.best),
            "{share:?}"
        );
        let published = plan.utilisation.worst / share.worst;
        assert!((0.15..0.25).contains(&published), "{published}");
    }

    #[test]
    fn fewer_ranks_take_more_groups_and_as_much_memory() {
        let sets = ["optimization.global_batch=2048"];
        let config = official("in1k_vith14_ep300.yaml", &sets);
        let one = Plan::new(&config, imagenet(), machines(1, 1, "H100")).unwrap();
        let eight = Plan::new(&config, imagenet(), machines(1, 8, "H100")).unwrap();
        assert_eq!((one.groups_per_rank, eight.groups_per_rank), (16, 2));
        assert_eq!(one.steps, eight.steps);
        assert_eq!(one.memory.activations, eight.memory.activations);
        let faster = one.hours.best / eight.hours.best;
        assert!(
            (7.5..8.0).contains(&faster),
            "the update is not shared: {faster}"
        );
        assert_eq!((one.gradient_bytes, one.network_bits_per_s.best), (0, 0.0));
        // 16 groups on 7 ranks: all wait for the two that have three.
        let seven = Plan::new(&config, imagenet(), machines(1, 7, "H100")).unwrap();
        assert_eq!(seven.groups_per_rank, 3);
        assert_eq!(seven.step_s, one.speed.step_s(3.0 * 128.0));
    }

    #[test]
    fn epochs_of_smaller_images_take_less_time_and_no_less_memory() {
        let plan = |size: &str| {
            let set = format!("data.crop_size={size}");
            let config = official("in1k_vith14_ep300.yaml", &[&set]);
            Plan::new(&config, imagenet(), machines(2, 8, "A100-80")).unwrap()
        };
        let (small, large) = (plan("168"), plan("224"));
        let both = plan("{0: 168, 200: 224}");
        let weighted = (2.0 * small.hours.best + large.hours.best) / 3.0;
        assert!((both.hours.best / weighted - 1.0).abs() < 1e-9, "{both:?}");
        assert_eq!(both.memory, large.memory);
        assert!(both.to_string().contains("its largest size, 224 px"));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let vith = |gpu, more: &[&str]| {
            let config = official("in1k_vith14_ep300.yaml", more);
            Plan::new(&config, imagenet(), machines(1, 8, gpu))
                .unwrap()
                .fits
        };
        assert_eq!(vith("4090", &[]), Fits::No);
        assert_eq!(vith("A100-80", &[]), Fits::Yes);
        let less = [
            "trainer.activation_checkpointing=true",
            "data.batch_size=32",
        ];
        assert_eq!(vith("4090", &less), Fits::Yes);
        let gpu = Gpu::named("A100-40").unwrap();
        let gib = |number: f64| (number * f64::from(1 << 30)) as u64;
        assert_eq!(fits(gib(36.0), &gpu), Fits::Yes);
        assert_eq!(fits(gib(38.0), &gpu), Fits::Barely);
        assert_eq!(fits(gib(40.0), &gpu), Fits::No);
    }

    #[test]
    fn checkpoints_that_stay() {
        for (epochs, keep, every, expected) in [
            (300, 2, 50, 7),
            (300, 1, 50, 6),
            (300, 2, 0, 2),
            (1, 2, 50, 2),
            (51, 2, 50, 2),
            (52, 2, 50, 3),
        ] {
            let sets = [
                format!("optimization.epochs={epochs}"),
                format!("checkpoint.keep={keep}"),
                format!("checkpoint.keep_every_epochs={every}"),
            ];
            let config = official(
                "in1k_vith14_ep300.yaml",
                &sets.each_ref().map(String::as_str),
            );
            let steps = epochs * 625;
            assert_eq!(
                checkpoints(&config, 625, steps),
                expected,
                "{epochs} {keep} {every}"
            );
        }
    }

    /// The count of operations is that of the measured steps on record, whose peak on the same CPU is on record too.
    #[test]
    fn operations_are_those_of_the_measured_steps_on_record() {
        let record = include_str!("../benches/records/official-2026-11-23.json");
        let record: serde_json::Value = serde_json::from_str(record).unwrap();
        for workload in record["workloads"].as_array().unwrap() {
            let name = workload["model"].as_str().unwrap();
            let width = crate::method::model::Preset::named(name).unwrap().embed_dim / 2;
            let model = crate::method::model::ModelConfig::preset(name, 224, 16, width, 6).unwrap();
            let masks = Masks {
                contexts: 1,
                targets: 4,
                context_len: workload["context_len"].as_f64().unwrap(),
                target_len: workload["target_len"].as_f64().unwrap(),
            };
            let batch = workload["batch"].as_f64().unwrap();
            let measured = workload["flops_per_step"].as_f64().unwrap();
            let counted = batch * flops::per_image(&model, masks);
            assert!(
                (counted / measured - 1.0).abs() < 1e-9,
                "{name}: {counted} {measured}"
            );
        }
    }
}
