//! `trainer plot RUN… --out loss.png`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use shardtool::program::{Results, arguments};
use shardtool::{Escaped, exit};
use trainer::report::{self, curves};

/// Draw the loss curve of a run, or of several in one picture
#[derive(clap::Args)]
pub struct Args {
    /// Run directories (logging.folder), *_r0.jsonl logs, or CSV logs of the official code
    #[arg(value_name = "RUN", required = true, value_parser = arguments::path())]
    runs: Vec<PathBuf>,
    /// The picture to write, a PNG file
    #[arg(long, value_name = "FILE", default_value = "loss.png", value_parser = arguments::path())]
    out: PathBuf,
}

pub fn run(args: &Args, results: &mut Results) -> Result<u8> {
    curves::check_name(&args.out)?;
    let drawn = args.runs.iter().map(|run| report::read(run));
    let mut drawn = drawn.collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = drawn.iter().map(|curve| curve.name.clone()).collect();
    for (curve, run) in drawn.iter_mut().zip(&args.runs) {
        // Runs of the same name, as seeds below different folders, go by their paths.
        if names.iter().filter(|name| **name == curve.name).count() > 1 {
            curve.name = Escaped::new(run).to_string();
        }
    }
    let title = match &drawn[..] {
        [curve] => format!("I-JEPA pretraining: {}", curve.name),
        several => format!("I-JEPA pretraining: {} runs", several.len()),
    };
    curves::draw(&drawn, &title, &args.out)?;
    for (curve, run) in drawn.iter().zip(&args.runs) {
        writeln!(
            results,
            "{}: {} steps of {}",
            Escaped::new(&args.out),
            curve.points.len(),
            Escaped::new(run)
        )?;
    }
    Ok(exit::FINE)
}
