//! `trainer export CHECKPOINT --to hf|official --out PATH`

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use shardtool::program::{Results, arguments};
use shardtool::{Escaped, exit};
use trainer::exchange::export::{self, ExportedCheckpoint, Which};

/// Write a checkpoint for transformers or for the official code
#[derive(clap::Args)]
pub struct Args {
    /// A checkpoint, or a run directory (its latest checkpoint)
    #[arg(value_parser = arguments::path())]
    checkpoint: PathBuf,
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    to: Format,
    /// The directory (hf) or file (official: NAME.pth.tar) to write; it must not exist
    #[arg(long, value_name = "PATH", value_parser = arguments::path())]
    out: PathBuf,
    /// Which encoder becomes the model, with --to hf
    #[arg(long, value_name = "WHICH", default_value = "target")]
    encoder: Encoder,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A directory for transformers' IJepaModel.from_pretrained, with the predictor beside it
    Hf,
    /// A file for the official code's load_checkpoint
    Official,
}

#[derive(Clone, Copy, ValueEnum)]
enum Encoder {
    /// The slowly following one, which the paper evaluates
    Target,
    /// The trained one
    Context,
}

pub fn run(args: &Args, results: &mut Results) -> Result<u8> {
    let source = ExportedCheckpoint::open(&args.checkpoint)?;
    let (model, notes) = match args.to {
        Format::Hf => {
            let which = match args.encoder {
                Encoder::Target => Which::Target,
                Encoder::Context => Which::Context,
            };
            (
                export::to_huggingface(&source, which, &args.out)?,
                Vec::new(),
            )
        }
        Format::Official => export::to_official(&source, &args.out)?,
    };
    for note in notes {
        tracing::info!("note: {note}");
    }
    results.announce(format_args!(
        "{}: epoch {}, step {}, {}",
        Escaped::new(&args.out),
        source.state.epoch,
        source.state.step,
        model.describe()
    ));
    Ok(exit::FINE)
}
