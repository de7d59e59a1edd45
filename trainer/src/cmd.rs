//! The subcommands: each module holds its `Args` and a `run`.

pub mod bench;
pub mod check_reference;
pub mod eval;
pub mod export;
pub mod import;
pub mod launch;
pub mod plan;
pub mod plot;
pub mod report;
pub mod serve;
pub mod slurm;
pub mod smoke;
pub mod train;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use shardtool::paths::literal;
use shardtool::program::{Results, Verbosity, arguments};
use trainer::config::{self, Config, MAX_THREADS, default_threads};
use trainer::run::Resume;
use trainer::stop;
use trainer::torch::environment;

/// I-JEPA pretraining on libtorch.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The options that decide how much is said.
    #[command(flatten)]
    pub verbosity: Verbosity,
}

#[derive(Subcommand)]
enum Command {
    /// Start a loader and a trainer together and keep them going
    Launch(launch::Args),
    /// Train with a loader that was started by hand
    Train(train::Args),
    /// Submit a run to SLURM: it stops before its time is up, goes back into the queue and goes on
    Slurm(slurm::Args),
    /// Say what a run will need and take: memory, time, cores, disks, network
    Plan(plan::Args),
    /// Draw the loss curve of a run
    Plot(plot::Args),
    /// Write a page about runs: curves, configurations, checkpoints, in one file that needs no network
    Report(report::Args),
    /// Show the page about runs live, on this machine alone
    Serve(serve::Args),
    /// Time the training step: phases, images per second, FLOP/s and memory
    Bench(bench::Args),
    /// Evaluate an encoder: features, nearest neighbours, linear probes
    Eval(eval::Args),
    /// Check everything that training needs of a device, one line each
    Smoke(smoke::Args),
    /// Make a checkpoint of official weights or of a Hugging Face model
    Import(import::Args),
    /// Write a checkpoint for transformers or for the official code
    Export(export::Args),
    /// Replay a recorded run of the official code and compare everything it recorded
    CheckReference(check_reference::Args),
}

/// The options that decide a run, which `launch` and `train` share.
#[derive(Args, Clone)]
pub struct RunArgs {
    /// Configuration file (the official ones are taken unchanged)
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    /// Where to begin: auto (at the run directory's latest checkpoint, else at step 0), last-good (the same, but
    /// damaged checkpoints are set aside), never (at step 0, in a fresh directory), or a checkpoint [default: auto;
    /// with meta.load_checkpoint, what the file says]
    #[arg(long, value_name = "auto|last-good|never|DIR", value_parser = resume())]
    resume: Option<Resume>,
    /// Network interface at which this process listens for other ranks [default: the one that reaches MASTER_ADDR]
    #[arg(long, value_name = "NAME", value_parser = arguments::text())]
    interface: Option<String>,
    /// Keys that may differ from those of the checkpoint to continue, as in optimization.epochs,optimization.lr;
    /// loader.shards stands for other images
    #[arg(long, value_name = "KEY", num_args = 1.., value_delimiter = ',', value_parser = arguments::text())]
    allow: Vec<String>,
}

/// The options that change a configuration file for one run of a program.
#[derive(Args, Clone)]
pub struct Overrides {
    /// Directory of the shards, instead of loader.shards
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    shards: Option<PathBuf>,
    /// Override one key, as in trainer.threads=4; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = arguments::text())]
    sets: Vec<String>,
}

impl Overrides {
    /// Loads a configuration file with these changes.
    fn load(&self, file: &Path) -> Result<Config, config::Error> {
        Config::load(file, &self.sets, self.shards.as_deref())
    }

    /// Returns the arguments by which another program loads that file with these changes.
    fn arguments(&self, file: &Path) -> Vec<OsString> {
        let mut arguments = vec!["--config".into(), literal(file)];
        if let Some(shards) = &self.shards {
            arguments.extend(["--shards".into(), literal(shards)]);
        }
        for set in &self.sets {
            arguments.extend(["--set".into(), set.into()]);
        }
        arguments
    }
}

/// Returns the parser of `--resume`.
fn resume() -> impl TypedValueParser<Value = Resume> {
    OsStringValueParser::new().try_map(|written| Resume::of_argument(&written))
}

/// Has libtorch compute with `threads` threads; by default those of `$OMP_NUM_THREADS`, else one per CPU that this
/// process may use, which it shares with the other ranks of its node, `local_world` in all.
fn set_threads(threads: Option<usize>, local_world: u32) -> Result<()> {
    let omp = std::env::var("OMP_NUM_THREADS").ok();
    let cpus = (shardtool::cpus::count() / local_world.max(1) as usize).max(1);
    let threads = threads.unwrap_or_else(|| default_threads(omp.as_deref(), cpus));
    ensure!(
        (1..=MAX_THREADS).contains(&threads),
        "{threads} is outside 1..={MAX_THREADS}"
    );
    tch::set_num_threads(threads as i32);
    Ok(())
}

/// Runs the subcommand and returns its exit code.
///
/// Signals that ask for a stop are [held](stop::hold): who trains listens to them, the others end by them.
///
/// # Errors
/// Why it could not run, with the file or option at fault.
pub fn run(cli: Cli, out: &mut Results) -> Result<u8> {
    let is_stopped_softly = matches!(cli.command, Command::Launch(_) | Command::Train(_));
    if is_stopped_softly || matches!(cli.command, Command::Bench(_) | Command::Eval(_)) {
        // Where it cannot be had, training is slower in company, takes more memory, and is the same otherwise.
        environment::complete()
            .unwrap_or_else(|error| tracing::debug!("libraries are as they come: {error}"));
    }
    if !is_stopped_softly {
        stop::release();
    }
    match cli.command {
        Command::Launch(args) => launch::run(&args, &cli.verbosity),
        Command::Train(args) => train::run(&args, out),
        Command::Slurm(args) => slurm::run(&args, &cli.verbosity, out),
        Command::Plan(args) => plan::run(&args, out),
        Command::Plot(args) => plot::run(&args, out),
        Command::Report(args) => report::run(&args, out),
        Command::Serve(args) => serve::run(&args, out),
        Command::Bench(args) => bench::run(&args, &cli.verbosity, out),
        Command::Eval(args) => eval::run(&args, &cli.verbosity, out),
        Command::Smoke(args) => smoke::run(&args, out),
        Command::Import(args) => import::run(&args, out),
        Command::Export(args) => export::run(&args, out),
        Command::CheckReference(args) => check_reference::run(&args, out),
    }
}
