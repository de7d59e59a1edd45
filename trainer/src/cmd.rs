//! The subcommands: each module holds its `Args` and a `run`.

pub mod bench;
pub mod check_reference;
pub mod export;
pub mod import;
pub mod launch;
pub mod plot;
pub mod smoke;
pub mod train;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use trainer::method::model::ModelConfig;
use trainer::run::run_dir::Resume;

/// Ran and found a fault.
pub const FAULTY: u8 = 1;
/// Could not run.
pub const COULD_NOT_RUN: u8 = 2;
/// Stopped by a signal, to be resumed (`EX_TEMPFAIL`).
pub const PREEMPTED: u8 = 75;

/// I-JEPA pretraining on libtorch.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a loader and a trainer together and keep them going
    Launch(launch::Args),
    /// Train with a loader that was started by hand
    Train(train::Args),
    /// Draw the loss curve of a run
    Plot(plot::Args),
    /// Time the training step: phases, images per second, FLOP/s and memory
    Bench(bench::Args),
    /// Check everything that training needs of a device, one line each
    Smoke(smoke::Args),
    /// Make a checkpoint of official weights or of a Hugging Face model
    Import(import::Args),
    /// Write a checkpoint for transformers or for the official code
    Export(export::Args),
    /// Replay a recorded run of the official code and compare everything it recorded
    CheckReference(check_reference::Args),
}

/// What decides a run; the same for `launch` and `train`.
#[derive(Args, Clone)]
pub struct RunArgs {
    /// Configuration file (the official ones are taken unchanged)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Directory of the shards, instead of loader.shards
    #[arg(long, value_name = "DIR")]
    shards: Option<PathBuf>,
    /// Override one key, as in optimization.epochs=10; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Where to begin: auto (at the run directory's latest checkpoint, else at step 0), last-good (the same, but damaged
    /// checkpoints are set aside), never (at step 0, in a fresh directory), or a checkpoint [default: auto; with
    /// meta.load_checkpoint, what the file says]
    #[arg(long, value_name = "auto|last-good|never|DIR")]
    resume: Option<Resume>,
}

/// The sizes of a model in words.
fn sizes(model: &ModelConfig) -> String {
    let name = ModelConfig::official_name(model.embed_dim, model.depth, model.mlp_dim);
    let (name, _) = name.unwrap_or(("a network of its own", 0));
    let &ModelConfig {
        patch_size,
        image_size,
        predictor_dim,
        predictor_depth,
        ..
    } = model;
    format!(
        "{name}, patches of {patch_size}, images of {image_size}, predictor {predictor_dim} wide and {predictor_depth} deep"
    )
}

/// Runs the subcommand.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Launch(args) => launch::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Smoke(args) => smoke::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Export(args) => export::run(&args),
        Command::CheckReference(args) => check_reference::run(&args),
    }
}
