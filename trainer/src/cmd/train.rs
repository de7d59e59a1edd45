//! `trainer train`: one rank, fed by a loader that somebody else started.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use loader::link::{Endpoint, Hello, PROTOCOL, default_socket_path};
use rustix::io::{FdFlags, fcntl_setfd};
use shardtool::Manifest;
use trainer::checkpoint::State;
use trainer::config::Config;
use trainer::observe::log::Log;
use trainer::run::run_dir::RunDir;
use trainer::run::stop::Stop;
use trainer::source::LoaderSource;
use trainer::torch::device;
use trainer::train::{Outcome, Run};

use super::{FAULTY, PREEMPTED, RunArgs};

/// Train with a loader that was started by hand
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    device: String,
    /// The loader's socket [default: the one `loader run` chooses for the same configuration]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A socket inherited from `trainer launch`, over which connections to loaders arrive
    #[arg(long, value_name = "N", hide = true, conflicts_with = "socket")]
    socket_fd: Option<RawFd>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let started = Instant::now();
    // Distribution is to come: this process is the only rank.
    let (rank, world) = (0, 1);
    let channel = args.socket_fd.map(inherit).transpose()?;
    let config = Config::load(&args.run.config, &args.run.sets, args.run.shards.as_deref())?;
    let device = device::parse(&args.device)?;
    let manifest = Manifest::read(&config.loader.shards_dir()?)?;
    let batch_size = config.loader.data.batch_size;
    let global_batch = config.loader.global_batch(world.into());

    let stop = Stop::on_signals()?;
    let dir = RunDir::open(&config)?;
    let found = dir.begin(&config, args.run.resume.as_ref())?;
    let resolved = config.resolved();
    eprint!("{}", dir.store_params(&resolved)?);
    eprintln!(
        "global batch {global_batch} = {} group(s) of {batch_size}, {} on each of {world} rank(s)",
        global_batch / batch_size,
        global_batch / batch_size / u64::from(world),
    );
    for warning in config.warnings(device, world.into()) {
        eprintln!("warning: {warning}");
    }
    let threads = config.trainer.threads.unwrap_or_else(cpus);
    tch::set_num_threads(i32::try_from(threads).context("trainer.threads")?);

    let hello = Hello {
        protocol: PROTOCOL,
        pid: std::process::id(),
        sampling_hash: config.loader.sampling_hash(),
        manifest_checksum: manifest.checksum(),
        rank,
        world,
        global_batch,
        first_step: found.as_ref().map_or(0, |(_, state)| state.step),
        end_step: None,
    };
    if let Some((path, state)) = &found {
        check(state, &hello).with_context(|| format!("{}", path.display()))?;
        let last = config.optimization.epochs * state.epoch_len;
        if state.step >= config.trainer.stop_at_step.unwrap_or(last).min(last) {
            println!(
                "nothing to do: {} stands at the last step, {}",
                path.display(),
                state.step
            );
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("continuing at step {} from {}", state.step, path.display());
    }

    let patience = Duration::from_secs(config.trainer.loader_patience);
    let endpoint = match (channel, &args.socket) {
        (Some(channel), _) => Endpoint::Inherited(channel),
        (None, Some(path)) => Endpoint::Path(path.clone()),
        (None, None) => Endpoint::Path(default_socket_path(hello.sampling_hash)),
    };
    let Some(mut source) =
        LoaderSource::connect(endpoint, hello.clone(), patience, device, stop.clone())?
    else {
        eprintln!(
            "stopped by {} before the first step",
            stop.asked().unwrap_or("a signal")
        );
        return Ok(ExitCode::from(PREEMPTED));
    };
    let epoch_len = source.epoch_len();
    let state = match &found {
        Some((_, state)) => {
            let earlier = state.epoch_len;
            ensure!(
                earlier == epoch_len,
                "the loader has epochs of {epoch_len} steps, the checkpoint of {earlier}"
            );
            State {
                config: resolved,
                sampling_hash: format!("{:016x}", hello.sampling_hash),
                manifest_checksum: format!("{:016x}", hello.manifest_checksum),
                ..state.clone()
            }
        }
        None => State {
            global_batch,
            sampling_hash: format!("{:016x}", hello.sampling_hash),
            manifest_checksum: format!("{:016x}", hello.manifest_checksum),
            ..State::new(0, epoch_len, resolved)
        },
    };
    let mut run = Run::new(&config, state, found.as_ref().map(|(path, _)| path), device)?;
    let mut log = Log::open(
        dir.path(),
        &config.logging.write_tag,
        run.step,
        epoch_len,
        config.trainer.log_every,
        started,
    )?;
    eprintln!(
        "{} steps of {} ({epoch_len} per epoch) on {}, {threads} thread(s)",
        run.total_steps, config.meta.model_name, args.device
    );

    let outcome = run.train(&mut source, &mut log, &dir, &stop);
    let restarts = source.restarts();
    source.goodbye();
    let report = log.finish();
    let outcome =
        outcome.with_context(|| format!("{}: step {}", dir.path().display(), run.step))?;
    println!("{report}");
    if restarts > 0 {
        println!("{restarts} loader(s) lost on the way; no step was lost with them");
    }
    let step = run.step;
    Ok(match outcome {
        Outcome::Finished => {
            println!("finished at step {step}: {}", dir.path().display());
            ExitCode::SUCCESS
        }
        Outcome::Preempted(signal) => {
            println!(
                "stopped by {signal} after step {step}; the same command continues: {}",
                dir.path().display()
            );
            ExitCode::from(PREEMPTED)
        }
        Outcome::NotFinite {
            step,
            losses,
            gradient_norm,
            samples,
            dump,
        } => {
            eprintln!(
                "trainer: step {step} is not finite: losses {losses:?} (one per group), norm of the gradient \
                 {gradient_norm}; samples {samples:?}; see {}",
                dump.display()
            );
            ExitCode::from(FAULTY)
        }
    })
}

/// A checkpoint goes on with the very samples it would have seen. One that was imported has none to compare with.
fn check(state: &State, hello: &Hello) -> Result<()> {
    let pairs = [
        (
            "a manifest checksum of",
            &state.manifest_checksum,
            format!("{:016x}", hello.manifest_checksum),
        ),
        (
            "a sampling hash of",
            &state.sampling_hash,
            format!("{:016x}", hello.sampling_hash),
        ),
        (
            "a global batch of",
            &state.global_batch.to_string(),
            hello.global_batch.to_string(),
        ),
    ];
    for (what, then, now) in pairs {
        ensure!(
            then.is_empty() || *then == now,
            "the checkpoint has {what} {then}, this run {now}: it would see other samples"
        );
    }
    Ok(())
}

/// Takes charge of the descriptor that the launcher passed; called before this process opens any other.
fn inherit(number: RawFd) -> Result<OwnedFd> {
    ensure!(
        number > 2,
        "--socket-fd {number}: not a descriptor that a launcher would pass"
    );
    // SAFETY: the launcher opened it for this process alone, and nothing here has touched it. A number made up by hand
    // is caught by the next call, because this process has opened nothing yet.
    let channel = unsafe { OwnedFd::from_raw_fd(number) };
    // It came through exec, so it would go through the next one as well.
    if let Err(error) = fcntl_setfd(&channel, FdFlags::CLOEXEC) {
        // Not open at all: closing it on drop would be an error of its own.
        std::mem::forget(channel);
        return Err(error).with_context(|| format!("--socket-fd {number}"));
    }
    Ok(channel)
}

/// CPUs that affinity and control group leave to this process.
pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
