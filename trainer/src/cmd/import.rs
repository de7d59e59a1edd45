//! `trainer import WEIGHTS --out DIR`

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use shardtool::program::{Results, arguments};
use shardtool::{Escaped, exit};
use trainer::config::{Config, Optimization};
use trainer::exchange::Error;
use trainer::exchange::import::{Imported, Options, import};

/// Make a checkpoint of weights from elsewhere: to continue from, to start over from, or to export
#[derive(clap::Args)]
pub struct Args {
    /// A file of the official code (.pth.tar) or another of PyTorch, a .safetensors file, a directory with config.json
    /// and its weights, or with --start-over a checkpoint of ours
    #[arg(value_name = "WEIGHTS", value_parser = arguments::path())]
    source: PathBuf,
    /// Run directory to write the checkpoint into [default: logging.folder of the configuration]
    #[arg(long, value_name = "DIR", required_unless_present = "config", value_parser = arguments::path())]
    out: Option<PathBuf>,
    /// Configuration under which training will continue; without it, weights only
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    config: Option<PathBuf>,
    /// Take the weights alone and begin at step 0: schedules and moments from the start, and a new predictor where the
    /// source has none or the configuration describes another
    #[arg(long, requires = "config")]
    start_over: bool,
    /// Directory of the shards, instead of loader.shards
    #[arg(long, value_name = "DIR", requires = "config", value_parser = arguments::path())]
    shards: Option<PathBuf>,
    /// Override one key, as in optimization.epochs=10; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config", value_parser = arguments::text())]
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
    let out = match (&args.out, &config) {
        (Some(out), _) => out.as_path(),
        (None, Some(config)) => config.folder()?,
        (None, None) => unreachable!("one of the two is required"),
    };
    let options = Options {
        steps_per_epoch: args.steps_per_epoch,
        ignore_checksums: args.ignore_checksums,
        start_over: args.start_over,
        heads: config.as_ref().and_then(|config| config.meta.num_heads),
    };
    let imported = import(&args.source, out, config.as_ref(), &options);
    let imported = imported.map_err(|error| match error {
        Error::Incomplete { .. }
        | Error::Ours { .. }
        | Error::OtherNetworks {
            start_over: true, ..
        } => anyhow!("{error}:\n  {}", args.starting_over(args.out.as_deref())),
        error => error.into(),
    })?;
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
    match &config {
        None => results.announce(format_args!(
            "weights only, for export and features; to begin training with them:\n  {}",
            args.starting_over(None)
        )),
        Some(config) => args.tell_how_to_go_on(&imported, out, config, results),
    }
    Ok(exit::FINE)
}

impl Args {
    /// Returns the command that begins at step 0 with the weights, in the configuration's run directory or in `out`.
    fn starting_over(&self, out: Option<&Path>) -> String {
        let command = format!("trainer import {}", quoted(&self.source));
        let out = out.map_or_else(String::new, |out| format!(" --out {}", quoted(out)));
        format!("{command}{out}{} --start-over", self.configuration())
    }

    /// Returns the options that decide the configuration.
    fn configuration(&self) -> String {
        let mut options = match &self.config {
            Some(config) => format!(" --config {}", quoted(config)),
            None => " --config FILE".to_owned(),
        };
        if let Some(shards) = &self.shards {
            options += &format!(" --shards {}", quoted(shards));
        }
        for set in &self.sets {
            options += &format!(" --set {}", quoted(Path::new(set)));
        }
        options
    }

    fn tell_how_to_go_on(
        &self,
        imported: &Imported,
        out: &Path,
        config: &Config,
        results: &mut Results,
    ) {
        let Optimization { epochs, steps, .. } = config.optimization;
        if imported.step >= config.total_steps(imported.epoch_len) {
            let has = match steps {
                Some(steps) => format!("{steps} steps (optimization.steps)"),
                None => format!("{epochs} (optimization.epochs)"),
            };
            tracing::warn!(
                "no step is left to train: {} stands at epoch {}, and the configuration has {has}. Give it more, or \
                 begin at step 0 with the weights, in another directory:\n  {}",
                Escaped::new(&self.source),
                imported.epoch,
                self.starting_over(Some(Path::new("DIR")))
            );
            return;
        }
        let same = |folder: &Path| folder.canonicalize().ok() == out.canonicalize().ok();
        // In another directory than the run's, only the first start is to look there.
        let (when, resume) = match config.folder() {
            Ok(folder) if same(folder) => ("", String::new()),
            _ => (
                " (and after an interruption without --resume)",
                format!(" --resume {}", quoted(out)),
            ),
        };
        results.announce(format_args!(
            "{} with{when}:\n  trainer launch{} --devices cuda:0{resume}",
            if self.start_over { "begin" } else { "continue" },
            self.configuration(),
        ));
    }
}

/// Returns a path or other argument as a shell takes it.
fn quoted(argument: &Path) -> String {
    let text = Escaped::new(argument).to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-=:,+@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
