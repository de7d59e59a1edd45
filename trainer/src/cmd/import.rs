//! `trainer import SRC --out DIR`

use std::path::PathBuf;

use anyhow::Result;
use shardtool::program::Results;
use shardtool::{Escaped, exit};
use trainer::config::Config;
use trainer::exchange::import::{Options, import};

/// Make a checkpoint of official weights or of a Hugging Face model
#[derive(clap::Args)]
pub struct Args {
    /// An official checkpoint (.pth.tar), or a directory with config.json and model.safetensors
    source: PathBuf,
    /// Run directory to write the checkpoint into; export it, or continue from it with --resume DIR
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Configuration under which training will continue; without it, weights only
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the shards, instead of loader.shards
    #[arg(long, value_name = "DIR", requires = "config")]
    shards: Option<PathBuf>,
    /// Override one key, as in optimization.epochs=10; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Steps of an epoch [default: images of the shards / global batch]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps_per_epoch: Option<u64>,
    /// Take the file although its checksums are wrong (PyTorch can be told to write none)
    #[arg(long)]
    ignore_checksums: bool,
}

pub fn run(args: &Args, results: &mut Results) -> Result<u8> {
    let config = match &args.config {
        Some(path) => Some(Config::load(path, &args.sets, args.shards.as_deref())?),
        None => None,
    };
    let options = Options {
        steps_per_epoch: args.steps_per_epoch,
        ignore_checksums: args.ignore_checksums,
    };
    let imported = import(&args.source, &args.out, config.as_ref(), &options)?;
    for note in &imported.notes {
        tracing::info!("note: {note}");
    }
    results.announce(format_args!(
        "{}: epoch {}, step {}, {}",
        Escaped::new(&imported.path),
        imported.epoch,
        imported.step,
        imported.model.describe()
    ));
    match config {
        None if imported.model.predictor_depth == 0 => results.announce(format_args!(
            "weights only, and no predictor: for export and features, not to continue training from"
        )),
        Some(_) => results.announce(format_args!(
            "continue with: trainer train --resume {} …",
            Escaped::new(&args.out)
        )),
        None => results.announce(format_args!(
            "weights only: training can continue from an import with --config"
        )),
    }
    Ok(exit::FINE)
}
