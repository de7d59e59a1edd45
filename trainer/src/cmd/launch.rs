//! `trainer launch`: a loader and a trainer, started and kept going together.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};
use shardtool::exit;
use shardtool::paths::literal;
use shardtool::program::{Verbosity, arguments};
use trainer::config::Config;
use trainer::launch::{Events, Job, Program};
use trainer::torch::device;

use super::RunArgs;

/// Start a loader and a trainer together and keep them going
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
    /// Where to compute: cpu or cuda:N
    #[arg(long, value_name = "DEVICE", num_args = 1.., value_delimiter = ',', required = true)]
    #[arg(value_parser = arguments::text())]
    devices: Vec<String>,
}

pub fn run(args: &Args, verbosity: &Verbosity) -> Result<u8> {
    let events = Events::on_signals().context("cannot listen to signals")?;
    let [device] = &args.devices[..] else {
        bail!(
            "--devices {}: several devices are not supported yet; give one",
            args.devices.join(" ")
        );
    };
    // Faults that both programs would find are told once, before there are processes.
    device::parse(device)?;
    let config = Config::load(&args.run.config, &args.run.sets, args.run.shards.as_deref())?;
    config.check_allowed(&args.run.allow)?;
    config.folder()?;
    config.model()?;
    // The loader would copy the shards as well, but the trainer's patience with a loader does not last that long.
    let copying = config.loader.clone();
    match events.unless_asked(move || loader::storage::shards_dir(&copying))? {
        Ok(found) => found?,
        Err(asked) => {
            tracing::info!("stopped by {} before the first step", asked.name());
            return Ok(exit::PREEMPTED);
        }
    };

    let mut shared: Vec<OsString> = vec!["--config".into(), literal(&args.run.config)];
    shared.extend(verbosity.arguments().into_iter().map(OsString::from));
    if let Some(shards) = &args.run.shards {
        shared.extend(["--shards".into(), literal(shards)]);
    }
    for set in &args.run.sets {
        shared.extend(["--set".into(), set.into()]);
    }
    let mut loader = Program::beside_this("loader", "run")?;
    loader.args(&shared);
    let mut trainer = Program::new(std::env::current_exe()?, "train");
    trainer.args(&shared).args(["--device", device]);
    if let Some(resume) = &args.run.resume {
        trainer.args(["--resume".into(), resume.argument()]);
    }
    if !args.run.allow.is_empty() {
        trainer.args(["--allow", &args.run.allow.join(",")]);
    }
    match (Job { loader, trainer }).run(&events) {
        Err(error) if error.is_midway() => {
            tracing::error!("{error}");
            Ok(exit::FAILED_MIDWAY)
        }
        outcome => Ok(outcome?),
    }
}
