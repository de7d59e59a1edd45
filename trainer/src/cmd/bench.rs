//! `trainer bench`: the training step, timed.

mod machine;
mod made_up;
mod own_loader;
#[cfg(feature = "compare")]
mod peer;
mod report;
mod step;

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use shardtool::exit;
use shardtool::paths::literal;
use shardtool::program::{Results, Verbosity, arguments};
use tch::Device;
use trainer::config::Config;
use trainer::launch::Program;
use trainer::method::model::Preset as Sizes;
use trainer::source::GroupSource;
use trainer::torch::device;

use made_up::MadeUp;
use report::Report;
use step::Workload;

/// Sizes of an official or published recipe; those for whom memory is short give a smaller --batch
#[derive(Clone, Copy, clap::ValueEnum)]
enum Preset {
    /// ViT-B/16, predictor of 6 blocks and width 384, 128 images
    #[value(name = "vit_b16")]
    B16,
    /// ViT-L/16, predictor of 12 blocks and width 384, 128 images
    #[value(name = "vit_l16")]
    L16,
    /// ViT-H/14, predictor of 12 blocks and width 384, 128 images
    #[value(name = "vit_h14")]
    H14,
}

/// Time the training step: phases, images per second, FLOP/s and memory
#[derive(clap::Args)]
pub struct Args {
    /// Sizes of a recipe; the options below change single ones
    #[arg(long)]
    preset: Option<Preset>,
    /// Encoder [default: vit_tiny]
    #[arg(long, value_name = "vit_tiny…vit_giant", value_parser = arguments::text())]
    model: Option<String>,
    /// Side of a patch in pixels [default: 16]
    #[arg(long, value_name = "PIXELS")]
    patch: Option<u32>,
    /// Side of an image in pixels [default: 224]
    #[arg(long, value_name = "PIXELS")]
    size: Option<u32>,
    /// Images of a step [default: 32]
    #[arg(long, value_name = "N")]
    batch: Option<u64>,
    /// Blocks of the predictor [default: 6]
    #[arg(long, value_name = "N")]
    pred_depth: Option<i64>,
    /// Width of the predictor [default: half of the encoder's]
    #[arg(long, value_name = "N")]
    pred_width: Option<i64>,
    /// Take model and batch from this file instead; of several sizes in data.crop_size the first
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["preset", "model", "patch", "size", "batch", "pred_depth", "pred_width", "dtype"],
        value_parser = arguments::path()
    )]
    config: Option<PathBuf>,
    /// Override one key of --config, as in optimization.global_batch=256; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config", value_parser = arguments::text())]
    sets: Vec<String>,
    /// With --config: real images from these shards, by a loader beside this process
    #[arg(long, value_name = "DIR", requires = "config", value_parser = arguments::path())]
    shards: Option<PathBuf>,
    /// Steps that are timed
    #[arg(long, value_name = "N", default_value_t = 10)]
    steps: u64,
    /// Steps before them that are not
    #[arg(long, value_name = "N", default_value_t = 3)]
    warmup: u64,
    /// Use the masks of this step in every step, so that all are of one size; without, each has its own
    #[arg(long, value_name = "STEP", conflicts_with = "shards")]
    masks_of: Option<u64>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = arguments::text())]
    device: String,
    /// Matrix products in float32 or bfloat16 [default: float32 on a CPU, bfloat16 on a GPU]
    #[arg(long, value_parser = ["float32", "bfloat16"])]
    dtype: Option<String>,
    /// Threads of libtorch on the CPU [default: one per CPU this process may use]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Measure once for each line on stdin and answer each with a line of JSON: for taking turns with others
    #[arg(long, requires = "json")]
    paced: bool,
    #[cfg(feature = "compare")]
    #[command(flatten)]
    peer: peer::PeerArgs,
}

pub fn run(args: &Args, verbosity: &Verbosity, out: &mut Results) -> Result<u8> {
    let device = device::parse(&args.device)?;
    let workload = args.workload(device)?;
    let mut config = match &args.config {
        Some(path) => Config::load(path, &args.sets, args.shards.as_deref())?,
        None => workload.config()?,
    };
    // Steps of one size are comparable; --set says which, where it is not to be the first.
    let crop_size = config.loader.data.crop_size.at(0);
    config.loader.data.crop_size = crop_size.into();
    super::set_threads(args.threads, 1).context("--threads")?;

    #[cfg(feature = "compare")]
    if let Some(ijepa) = &args.peer.compare_python {
        return peer::run(args, &config, &workload, device, ijepa, out);
    }
    let mut loader = None;
    let (mut source, epoch_len): (Box<dyn GroupSource>, _) =
        if let (Some(file), Some(shards)) = (&args.config, &args.shards) {
            let mut program = Program::beside_this("loader", "run")?;
            let (file, shards) = (literal(file), literal(shards));
            program.args(["--config".as_ref(), &*file, "--shards".as_ref(), &shards]);
            for set in &args.sets {
                program.args(["--set", set]);
            }
            program.args(["--set", &format!("data.crop_size={crop_size}")]);
            program.args(verbosity.arguments());
            let (started, source) = own_loader::start(&program, &config, device)?;
            let epoch_len = source.epoch_len();
            loader = Some(started);
            (Box::new(source), Some(epoch_len))
        } else {
            let masks = match args.masks_of {
                Some(step) => step..step + 1,
                None => 0..args.warmup + args.steps,
            };
            (Box::new(MadeUp::new(&config, masks, device)?), None)
        };
    let mut run = step::start(&config, epoch_len, device)?;
    let peak = machine::peak(device, run.bfloat16);
    let mut report = || -> Result<Report> {
        let each = step::measure(&mut run, &mut *source, args.warmup, args.steps)?;
        Report::new(&config, &run, peak.clone(), each)
    };
    if args.paced {
        for line in std::io::stdin().lock().lines() {
            line.context("stdin")?;
            writeln!(out, "{}", serde_json::to_string(&report()?)?)?;
            out.flush()?;
        }
    } else if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report()?)?)?;
    } else {
        writeln!(out, "{}", report()?)?;
    }
    drop(source);
    drop(loader);
    Ok(exit::FINE)
}

impl Args {
    fn workload(&self, device: Device) -> Result<Workload> {
        let (model, patch, depth, width, batch) = match self.preset {
            None => ("vit_tiny", 16, 6, None, 32),
            Some(Preset::B16) => ("vit_base", 16, 6, Some(384), 128),
            Some(Preset::L16) => ("vit_large", 16, 12, Some(384), 128),
            Some(Preset::H14) => ("vit_huge", 14, 12, Some(384), 128),
        };
        let model = self.model.as_deref().unwrap_or(model);
        let width = match self.pred_width.or(width) {
            Some(width) => width,
            None => Sizes::named(model)?.embed_dim / 2,
        };
        Ok(Workload {
            model: model.to_owned(),
            patch: self.patch.unwrap_or(patch),
            size: self.size.unwrap_or(224),
            batch: self.batch.unwrap_or(batch),
            predictor_depth: self.pred_depth.unwrap_or(depth),
            predictor_dim: width,
            bfloat16: self
                .dtype
                .as_ref()
                .map_or(device.is_cuda(), |dtype| dtype == "bfloat16"),
        })
    }
}
