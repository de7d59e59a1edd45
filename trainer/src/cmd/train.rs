//! `trainer train`: one rank, fed by a loader that somebody else started.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use loader::link::{self, Endpoint};
use shardtool::program::{self, Results, arguments};
use shardtool::{Escaped, disk, exit};
use trainer::config::Config;
use trainer::distributed::Place;
use trainer::observe::{Observer, Record};
use trainer::session::{Ended, Opened, Session, Start};
use trainer::stop::Stop;
use trainer::torch::device;
use trainer::train::{self, Outcome};

use super::RunArgs;

/// Train with a loader that was started by hand
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cuda", value_parser = arguments::text())]
    device: String,
    /// The loader's socket [default: the one `loader run` chooses for the same configuration]
    #[arg(long, value_name = "PATH", value_parser = arguments::path())]
    socket: Option<PathBuf>,
    /// A socket inherited from `trainer launch`, over which connections to loaders arrive
    #[arg(long, value_name = "N", hide = true)]
    socket_fd: Option<RawFd>,
}

pub fn run(args: &Args, out: &mut Results) -> Result<u8> {
    let started = Instant::now();
    // First of all, before this process opens a descriptor that could have the same number by mistake.
    let channel = args.socket_fd.map(link::inherit).transpose()?;
    // A launcher is the one that gave it, and passes its own signals on.
    let launcher = channel
        .as_ref()
        .map(|_| std::os::unix::process::parent_id());
    let stop = Stop::on_signals(launcher).context("cannot listen to signals")?;
    let config = args.run.overrides.load(&args.run.config)?;
    config.check_allowed(&args.run.allow)?;
    let folder = config.folder()?.to_owned();
    let place = Place::from_environment()?;
    let rank = place.world.rank;
    program::set_rank(rank, place.world.world);
    super::set_threads(config.trainer.threads, place.world.local_world)?;
    let endpoint = match (channel, &args.socket) {
        (_, Some(path)) => Some(Endpoint::Path(path.clone())),
        (Some(channel), None) => Some(Endpoint::Inherited(channel)),
        (None, None) => None,
    };
    let start = Start {
        device: device::parse(&device::of_rank(
            &args.device,
            place.world.local_rank,
            place.world.local_world,
        ))?,
        place,
        interface: args.run.interface.clone(),
        endpoint,
        resume: args.run.resume.clone(),
        allowed: args.run.allow.clone(),
        started,
    };
    let opened = match Session::open(&config, start, stop) {
        Err(error) if error.may_pass() => {
            tracing::error!("{error}");
            return Ok(exit::FAILED_MIDWAY);
        }
        opened => opened?,
    };
    let mut session = match opened {
        Opened::Ready(session) => session,
        Opened::Stopped(signal) => {
            tracing::info!("stopped by {signal} before the first step");
            return Ok(exit::PREEMPTED);
        }
        Opened::NothingToDo {
            checkpoint,
            step,
            epoch_len,
        } => {
            let at = format!("{} stands at step {step}", Escaped::new(&checkpoint));
            if rank == 0 {
                out.announce(format_args!(
                    "nothing to do: {at}, {}",
                    why_nothing(&config, &args.run, &checkpoint, step, epoch_len)
                ));
            }
            return Ok(exit::FINE);
        }
    };
    match session.log() {
        Some(log) => log.add(Box::new(Progress::new())),
        None => log_apart(&folder, rank),
    }
    Ok(tell(session.train(), Escaped::new(&folder), out, rank))
}

/// Has this rank, which is not the first, write what it says beside the run; warnings and errors are heard as well.
fn log_apart(folder: &Path, rank: u32) {
    let folder = folder.join("ranks");
    let path = folder.join(format!("rank{rank:04}.log"));
    let opened = match disk::is_link(&folder) {
        true => Err(std::io::Error::other("its directory is a link")),
        false => std::fs::create_dir_all(&folder).and_then(|()| program::log_to(&path)),
    };
    if let Err(error) = opened {
        let path = Escaped::new(&path);
        tracing::warn!("{path}: {error}; what this rank says goes to standard error alone");
    }
}

/// Returns why no step is left, and what may be done about it: a sentence or two.
fn why_nothing(
    config: &Config,
    args: &RunArgs,
    checkpoint: &Path,
    step: u64,
    epoch_len: u64,
) -> String {
    let (end, total) = (config.last_step(epoch_len), config.total_steps(epoch_len));
    if step < total {
        return format!(
            "and trainer.stop_at_step is {end}. For the rest of the run, add to the command: \
             --set trainer.stop_at_step=null"
        );
    }
    let epochs = config.optimization.epochs;
    let (done, more) = match config.optimization.steps {
        Some(steps) => (
            format!("step {step} of {steps} (optimization.steps)"),
            format!(
                "optimization.steps={} --allow optimization.steps",
                step.max(steps) + epoch_len
            ),
        ),
        None => {
            let epoch = step / epoch_len.max(1);
            let more = epoch.max(epochs) + 1;
            (
                format!("epoch {epoch} of {epochs} (optimization.epochs)"),
                format!("optimization.epochs={more} --allow optimization.epochs"),
            )
        }
    };
    let stop = match end < total {
        true => " --set trainer.stop_at_step=null",
        false => "",
    };
    format!(
        "{done}.\nFor another epoch, add to the command: --set {more}{stop}\n\
         To begin anew with its weights:\n  trainer import {} --config {} --start-over --out DIR",
        Escaped::new(checkpoint),
        Escaped::new(&args.config)
    )
}

/// Says what became of a run, and returns the exit code for it.
///
/// What is the same for all ranks is said by the first alone.
fn tell(ended: Ended, folder: Escaped<'_>, out: &mut Results, rank: u32) -> u8 {
    let Ended {
        outcome,
        first_step,
        step,
        report,
        restarts,
    } = ended;
    if let (Ok(_), Some(report)) = (&outcome, report) {
        out.announce(format_args!("{report}"));
    }
    // The ranks of a node lose the same ones.
    if restarts > 0 && rank == 0 {
        out.announce(format_args!(
            "{restarts} loader(s) lost on the way; no step was lost with them"
        ));
    }
    match outcome {
        Ok(Outcome::Finished) => {
            if rank == 0 {
                out.announce(format_args!("finished at step {step}: {folder}"));
            }
            exit::FINE
        }
        Ok(Outcome::Preempted(signal)) => {
            if rank == 0 {
                out.announce(format_args!(
                    "stopped by {signal} after step {step}; the same command continues: {folder}"
                ));
            }
            exit::PREEMPTED
        }
        Ok(Outcome::NotFinite {
            step,
            losses,
            gradient_norm,
            samples,
            dump,
        }) => {
            let see = dump.map(|dump| format!("; see {}", Escaped::new(&dump)));
            tracing::error!(
                "step {step} is not finite: losses {losses:?} (one per group), norm of the gradient {gradient_norm}; \
                 samples {samples:?}{}",
                see.unwrap_or_default()
            );
            exit::FAULTS
        }
        Err(error) => {
            tracing::error!("{folder}: step {step}: {error}");
            let too_large = matches!(
                error,
                train::Error::Compute(trainer::Error::OutOfMemory { .. })
            );
            if too_large && step == first_step {
                exit::COULD_NOT_RUN // and would not the next time
            } else {
                exit::FAILED_MIDWAY
            }
        }
    }
}

/// The progress bar of a run.
struct Progress {
    bar: ProgressBar,
    begun: bool,
}

impl Progress {
    fn new() -> Progress {
        let template =
            "{wide_bar:.cyan/238} step {pos}/{len}  {elapsed_precise} elapsed, {eta_precise} to go";
        let bar = program::progress_bar(None, template);
        bar.set_style(bar.style().progress_chars("━╸─"));
        Progress { bar, begun: false }
    }
}

impl Observer for Progress {
    fn step(&mut self, record: &Record) {
        if !self.begun {
            self.begun = true;
            self.bar.set_length(record.total_steps);
            self.bar.set_position(record.step);
            self.bar.reset_eta();
        }
        self.bar.set_position(record.step + 1);
    }

    fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}
