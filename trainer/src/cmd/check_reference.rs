//! `trainer check-reference`: does this trainer compute what the official code computed?

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use shardtool::exit;
use shardtool::program::{Results, arguments};
use trainer::proof::reference::{self, Precision};
use trainer::torch::device;

/// The options of `check-reference`.
#[derive(clap::Args)]
pub struct Args {
    /// The reference set: a directory with meta.json and safetensors files.
    #[arg(value_parser = arguments::path())]
    dir: PathBuf,
    /// Where to compute: `cpu` or `cuda:N`.
    #[arg(long, default_value = "cpu", value_parser = arguments::text())]
    device: String,
    /// What matrix products are computed in: `float32`, as in the set, or `bf16`, under autocast. The two have
    /// tolerances of their own.
    #[arg(long, value_enum, default_value = "float32")]
    dtype: Dtype,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// `--dtype`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Dtype {
    /// Full precision
    Float32,
    /// Autocast to bfloat16
    Bf16,
}

/// Exits 1 where the set and this trainer disagree.
pub fn run(args: &Args, out: &mut Results) -> Result<u8> {
    let precision = match args.dtype {
        Dtype::Float32 => Precision::Float32,
        Dtype::Bf16 => Precision::Bfloat16,
    };
    let report = reference::check(&args.dir, device::parse(&args.device)?, precision)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(if report.pass {
        exit::FINE
    } else {
        exit::FAULTS
    })
}
