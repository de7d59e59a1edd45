//! `trainer launch`: a loader and its trainers, started and kept going together.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use loader::link::default_socket_path;
use shardtool::exit;
use shardtool::paths::literal;
use shardtool::program::{Verbosity, arguments};
use trainer::distributed::{Meeting, Place, Served};
use trainer::launch::{Events, Job, Program};
use trainer::run::Resume;
use trainer::torch::device;

use super::RunArgs;

/// Start a loader and its trainers together and keep them going
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
    /// Where to compute, one rank for each: cpu or cuda:N; under torchrun or with a SLURM task per GPU, cuda
    #[arg(long, value_name = "DEVICE", num_args = 1.., value_delimiter = ',', required = true)]
    #[arg(value_parser = arguments::text())]
    devices: Vec<String>,
    /// Ranks that share the CPUs of this machine, with --devices cpu
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    ranks: u32,
    /// Times to start again, from the last checkpoint, when a rank died or failed
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_restarts: u32,
}

pub fn run(args: &Args, verbosity: &Verbosity) -> Result<u8> {
    let events = Events::on_signals().context("cannot listen to signals")?;
    // Faults that all programs would find are told once, before there are processes.
    let place = Place::from_environment()?;
    let devices = devices(args, &place)?;
    let config = args.run.overrides.load(&args.run.config)?;
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

    let (_served, meeting) = meeting(&place, devices.len() as u32)?;
    let socket = shared_socket(&place);
    let shared = shared_arguments(args, verbosity);
    let mut loader = Program::beside_this("loader", "run")?;
    loader.args(&shared);
    if let Some(socket) = &socket {
        loader.listening_at(socket.clone());
    }
    let serves = socket.is_none() || place.world.local_rank == 0;
    let trainer = std::env::current_exe()?;
    let max_restarts = args.max_restarts;
    let args = args.run.clone();
    let ranks = move |attempt| {
        let count = devices.len() as u32;
        let rank = |(index, device): (usize, &String)| {
            let mut program = Program::new(trainer.clone(), "train");
            program.args(&shared).args(["--device", device]);
            program.args(own_arguments(&args, attempt));
            if let Some(socket) = &socket {
                program.args(["--socket".into(), literal(socket)]);
            }
            let world = place.world.member(index as u32, count);
            let meeting = meeting.clone().map(|meeting| Meeting {
                run: format!("{}/{attempt}", meeting.run),
                ..meeting
            });
            let rank = world.rank;
            program.variables(Place { world, meeting }.variables());
            program.named(format!("rank {rank}"));
            program
        };
        devices.iter().enumerate().map(rank).collect()
    };
    let job = Job {
        loader: serves.then_some(loader),
        ranks: Box::new(ranks),
        max_restarts,
    };
    match job.run(&events) {
        Err(error) if error.is_midway() => {
            tracing::error!("{error}");
            Ok(exit::FAILED_MIDWAY)
        }
        outcome => Ok(outcome?),
    }
}

/// Returns the device of each rank that this launcher starts.
fn devices(args: &Args, place: &Place) -> Result<Vec<String>> {
    let Args { devices, ranks, .. } = args;
    if *ranks > 1 {
        ensure!(
            devices.iter().all(|device| device == "cpu") && devices.len() == 1,
            "--ranks {ranks} goes with --devices cpu; for GPUs, --devices lists one for each rank"
        );
        return Ok(vec!["cpu".to_owned(); *ranks as usize]);
    }
    for (index, device) in devices.iter().enumerate() {
        ensure!(
            !devices[..index].contains(device),
            "--devices {}: {device} is there twice; ranks that share a CPU are counted by --ranks",
            devices.join(" ")
        );
        ensure!(
            devices.len() == 1 || device.starts_with("cuda:"),
            "--devices {}: several ranks need a GPU each, as in cuda:0 cuda:1, or --devices cpu --ranks N",
            devices.join(" ")
        );
        let (local_rank, local_world) = (place.world.local_rank, place.world.local_world);
        device::check(&device::of_rank(device, local_rank, local_world))?;
    }
    Ok(devices.clone())
}

/// Returns where the ranks meet, and the store there if this launcher serves it.
fn meeting(place: &Place, count: u32) -> Result<(Option<Served>, Option<Meeting>)> {
    if place.world.world * count == 1 {
        return Ok((None, None));
    }
    let Some(meeting) = &place.meeting else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        let run = format!("{}-{now}", std::process::id());
        let (served, meeting) = Served::for_this_machine(&run)?;
        return Ok((Some(served), Some(meeting)));
    };
    let serves = place.world.rank == 0 && !meeting.is_served;
    let served = serves.then(|| Served::of(meeting)).transpose()?;
    let meeting = Meeting {
        is_served: true,
        ..meeting.clone()
    };
    Ok((served, Some(meeting)))
}

/// Returns the socket of the loader that several launchers of this node share; the first of them starts it.
fn shared_socket(place: &Place) -> Option<PathBuf> {
    let world = place.world;
    let meeting = place.meeting.as_ref().filter(|_| world.local_world > 1)?;
    // By its first rank: what counts as two nodes may be one machine.
    let node = format!(
        "{}/{}",
        meeting.run,
        world.rank - world.local_rank.min(world.rank)
    );
    Some(default_socket_path(shardtool::format::checksum(
        node.as_bytes(),
    )))
}

/// Returns the arguments that loader and trainers have in common.
fn shared_arguments(args: &Args, verbosity: &Verbosity) -> Vec<OsString> {
    let mut shared = args.run.overrides.arguments(&args.run.config);
    shared.extend(verbosity.arguments().into_iter().map(OsString::from));
    shared
}

/// Returns the arguments that are the trainers' alone.
fn own_arguments(args: &RunArgs, attempt: u32) -> Vec<OsString> {
    let mut own: Vec<OsString> = Vec::new();
    let resume = match &args.resume {
        // What an attempt has begun, the next one goes on with.
        Some(Resume::Never) if attempt > 0 => Some(Resume::Auto.argument()),
        resume => resume.as_ref().map(Resume::argument),
    };
    if let Some(resume) = resume {
        own.extend(["--resume".into(), resume]);
    }
    if let Some(interface) = &args.interface {
        own.extend(["--interface".into(), interface.into()]);
    }
    if !args.allow.is_empty() {
        own.extend(["--allow".into(), args.allow.join(",").into()]);
    }
    own
}
