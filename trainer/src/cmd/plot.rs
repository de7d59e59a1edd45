//! `trainer plot RUN_DIR --out loss.png`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use shardtool::program::Results;
use shardtool::{Escaped, exit};
use trainer::report::{self, curves};

/// Draw the loss curve of a run
#[derive(clap::Args)]
pub struct Args {
    /// Run directory (logging.folder), or a *_r0.jsonl log in it
    run: PathBuf,
    /// The picture to write
    #[arg(long, value_name = "FILE", default_value = "loss.png")]
    out: PathBuf,
}

pub fn run(args: &Args, results: &mut Results) -> Result<u8> {
    let records = report::steps(&args.run)?;
    let name = args.run.canonicalize().unwrap_or_else(|_| args.run.clone());
    let name = name
        .file_name()
        .map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    curves::draw(&records, &format!("I-JEPA pretraining: {name}"), &args.out)?;
    writeln!(
        results,
        "{}: {} steps of {}",
        Escaped::new(&args.out),
        records.len(),
        Escaped::new(&args.run)
    )?;
    Ok(exit::FINE)
}
