//! `trainer check-reference`: does this trainer compute what the official code computed?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use trainer::{device, reference};

/// Which set, where, and how to tell.
#[derive(clap::Args)]
pub struct Args {
    /// The reference set: a directory with meta.json and safetensors files.
    dir: PathBuf,
    /// Where to compute: `cpu` or `cuda:N`.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Exits 1 where the set and this trainer disagree.
pub fn run(args: &Args) -> Result<ExitCode> {
    let report = reference::check(&args.dir, device::parse(&args.device)?)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.pass {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(super::FAULTY)
    })
}
