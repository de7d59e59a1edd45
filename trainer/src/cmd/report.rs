//! `trainer report RUN… --out report.html`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use shardtool::program::{Results, arguments};
use shardtool::{Escaped, exit};
use trainer::report::page::Runs;

/// Write a page about runs: curves, configurations, checkpoints, in one file that needs no network
#[derive(clap::Args)]
pub struct Args {
    /// Run directories (logging.folder), *_r0.jsonl logs, or CSV logs of the official code
    #[arg(value_name = "RUN", required = true, value_parser = arguments::path())]
    runs: Vec<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE", default_value = "report.html", value_parser = arguments::path())]
    out: PathBuf,
}

pub fn run(args: &Args, results: &mut Results) -> Result<u8> {
    let runs = Runs::open(&args.runs)?;
    runs.write(&args.out)?;
    for (name, steps) in runs.steps() {
        let out = Escaped::new(&args.out);
        writeln!(results, "{out}: {steps} steps of {name}")?;
    }
    Ok(exit::FINE)
}
