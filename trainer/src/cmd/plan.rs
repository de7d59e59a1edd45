//! `trainer plan`: what a run will need and take.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use shardtool::program::{Results, arguments};
use shardtool::{Dataset, Escaped, exit};
use trainer::config::Config;
use trainer::plan::gpu::Gpu;
use trainer::plan::{BYTES_PER_IMAGE, IMAGENET, Images, Machines, Plan};
use trainer::submit::check_share;

/// The most nodes, and GPUs of a node: beyond any cluster, and small enough that ranks can be counted.
const MOST: u64 = 1 << 20;

/// Say what a run will need and take: memory, time, cores, disks, network
#[derive(clap::Args)]
pub struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    config: PathBuf,
    /// Override one key, as in optimization.global_batch=2048; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = arguments::text())]
    sets: Vec<String>,
    /// Kind of the GPUs: A100-80, A100-40, H100, H200, 4090, …; another name lists all
    #[arg(long, value_name = "NAME")]
    gpu: String,
    /// GPUs of a node, each of them a rank
    #[arg(long, value_name = "N", default_value_t = 8)]
    devices: u64,
    /// Nodes
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: u64,
    /// Shards, which say how many images there are and how large
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    shards: Option<PathBuf>,
    /// Number of images, where there are no shards yet [default: ImageNet-1K's]
    #[arg(long, value_name = "N", conflicts_with = "shards")]
    images: Option<u64>,
    /// One JSON object instead of a table; ranges have `worst` and `best`
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, out: &mut Results) -> Result<u8> {
    let gpu = Gpu::named(&args.gpu).with_context(|| {
        format!(
            "--gpu {}: known are {}",
            Escaped::new(&args.gpu),
            Gpu::names()
        )
    })?;
    for (option, number) in [("--devices", args.devices), ("--nodes", args.nodes)] {
        ensure!(
            (1..=MOST).contains(&number),
            "{option} {number}: outside 1..={MOST}"
        );
    }
    let config = Config::load(&args.config, &args.sets, args.shards.as_deref())?;
    let ranks = args.nodes * args.devices;
    check_share(&config, ranks).with_context(|| Escaped::new(&args.config).to_string())?;
    let images = args.images(&config)?;
    let batch = config.loader.global_batch(ranks);
    ensure!(
        images.count >= batch,
        "{} images are less than a step's {batch}: nothing to train",
        images.count
    );
    let machines = Machines {
        nodes: args.nodes,
        devices: args.devices,
        gpu,
    };
    let plan = Plan::new(&config, images, machines)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&plan)?)?;
    } else {
        write!(out, "{plan}")?;
    }
    Ok(exit::FINE)
}

impl Args {
    /// Finds out how many images there are: from the shards where there are some, else from what is said.
    fn images(&self, config: &Config) -> Result<Images> {
        let guessed = |count: u64, said: &str| Images {
            count,
            shard_bytes: count.saturating_mul(BYTES_PER_IMAGE),
            known_from: format!("{said}, {BYTES_PER_IMAGE} bytes each (ImageNet as lossless dct)"),
        };
        if let Some(count) = self.images {
            return Ok(guessed(count, "--images"));
        }
        if self.shards.is_none() && config.loader.shards_dir().is_err() {
            return Ok(guessed(
                IMAGENET,
                "those of ImageNet-1K, as nothing else is said",
            ));
        }
        let folder = config.loader.shards_dir()?;
        let dataset = Dataset::open(&folder)?;
        let name = &config.loader.loader.split;
        let mut splits = dataset.manifest().splits.iter();
        let split = splits.find(|split| split.name == *name).with_context(|| {
            format!(
                "{}: no split `{}`",
                Escaped::new(&folder),
                Escaped::new(name)
            )
        })?;
        Ok(Images {
            count: split.samples,
            shard_bytes: split.shards.iter().map(|shard| shard.bytes).sum(),
            known_from: format!("the split {name} of {}", folder.display()),
        })
    }
}
