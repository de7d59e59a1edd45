//! `trainer smoke`: does everything that training needs of a device work on this machine?

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use trainer::proof::smoke::{self, Verdict};
use trainer::torch::cuda;
use trainer::torch::device;

/// Where, and how to tell.
#[derive(clap::Args)]
pub struct Args {
    /// What to check: cuda or cuda:N; with cpu, what needs no GPU
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    device: String,
    /// One JSON object at the end instead of lines
    #[arg(long)]
    json: bool,
}

/// Exits 1 where something does not work.
pub fn run(args: &Args) -> Result<ExitCode> {
    let device = device::parse(&args.device)?;
    let lines = smoke::run(device, |line| {
        if !args.json {
            println!("{line}");
        }
    });
    let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    let (ok, failed) = (count(Verdict::Ok), count(Verdict::Failed));
    let skipped = count(Verdict::Skipped);
    if args.json {
        let gpu = match device {
            tch::Device::Cuda(index) => Some(cuda::properties(index)?),
            _ => None,
        };
        let report =
            json!({"device": args.device, "gpu": gpu, "pass": failed == 0, "lines": lines});
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{ok} ok, {failed} failed, {skipped} skipped");
    }
    Ok(ExitCode::from(if failed == 0 { 0 } else { super::FAULTY }))
}
