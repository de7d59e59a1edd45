//! `trainer bench --compare-python`: the official code's step beside ours.

mod comparison;
mod process;
mod turns;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use shardtool::exit;
use shardtool::paths::literal;
use shardtool::program::{Results, arguments};
use tch::Device;
use trainer::config::Config;

use super::step::Workload;
use turns::How;

/// What to compare with.
#[derive(clap::Args)]
pub struct PeerArgs {
    /// Compare with the official code: a checkout of facebookresearch/ijepa, which is run by --python as published,
    /// with fused attention and with torch.compile
    #[arg(long, value_name = "PATH", conflicts_with_all = ["shards", "paced"], value_parser = arguments::path())]
    pub compare_python: Option<PathBuf>,
    /// With --compare-python: a Python that has PyTorch and numpy
    #[arg(
        long,
        value_name = "EXE",
        default_value = "python3",
        requires = "compare_python",
        value_parser = arguments::path()
    )]
    python: PathBuf,
    /// With --compare-python: turns of each; a turn has its own --warmup and --steps
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        requires = "compare_python"
    )]
    rounds: u64,
}

/// Measures, writes the comparison and returns 1 where a variant failed.
pub fn run(
    args: &super::Args,
    config: &Config,
    workload: &Workload,
    device: Device,
    ijepa: &Path,
    out: &mut Results,
) -> Result<u8> {
    let mut ours: Vec<OsString> = Vec::new();
    if let Some(path) = &args.config {
        ours.extend(["--config".into(), literal(path)]);
        for set in &args.sets {
            ours.extend(["--set".into(), set.into()]);
        }
    } else {
        let dtype = if workload.bfloat16 {
            "bfloat16"
        } else {
            "float32"
        };
        for (name, value) in [
            ("--model", &workload.model),
            ("--patch", &workload.patch.to_string()),
            ("--size", &workload.size.to_string()),
            ("--batch", &workload.batch.to_string()),
            ("--pred-depth", &workload.predictor_depth.to_string()),
            ("--pred-width", &workload.predictor_dim.to_string()),
            ("--dtype", &dtype.to_owned()),
        ] {
            ours.extend([name.into(), value.into()]);
        }
    }
    let found = turns::compare(
        config,
        &How {
            ijepa,
            python: args.peer.python.as_os_str(),
            device,
            warmup: args.warmup,
            steps: args.steps,
            rounds: args.peer.rounds,
            masks_of: args.masks_of,
            ours: &ours,
        },
    )?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
    } else {
        writeln!(out, "{found}")?;
    }
    Ok(if found.is_one() {
        exit::FINE
    } else {
        exit::FAULTS
    })
}
