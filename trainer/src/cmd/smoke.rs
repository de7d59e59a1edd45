//! `trainer smoke`: does everything that training needs of a device work on this machine?

use std::io::Write;

use anyhow::Result;
use serde_json::json;
use shardtool::exit;
use shardtool::program::{Results, arguments};
use trainer::proof::smoke::{self, Verdict};
use trainer::torch::cuda;
use trainer::torch::device;

/// The options of `smoke`.
#[derive(clap::Args)]
pub struct Args {
    /// What to check: cuda or cuda:N; with cpu, what needs no GPU
    #[arg(long, value_name = "DEVICE", default_value = "cuda", value_parser = arguments::text())]
    device: String,
    /// One JSON object at the end instead of lines
    #[arg(long)]
    json: bool,
}

/// Returns 1 where something does not work.
pub fn run(args: &Args, out: &mut Results) -> Result<u8> {
    let device = device::parse(&args.device)?;
    let mut written = Ok(());
    let lines = smoke::run(device, |line| {
        if !args.json && written.is_ok() {
            written = writeln!(out, "{line}");
        }
    });
    written?;
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
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{ok} ok, {failed} failed, {skipped} skipped")?;
    }
    Ok(if failed == 0 {
        exit::FINE
    } else {
        exit::FAULTS
    })
}
