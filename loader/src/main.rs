//! The `loader` program: parse, dispatch, exit code. Results go to stdout, progress and faults to stderr.
//!
//! Exit codes: 0 fine, 2 could not run.

mod cmd;

use std::process::ExitCode;

use clap::Parser;

/// Samples, decodes, crops and masks images straight into shared-memory rings
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    Run(cmd::run::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Run(args) => cmd::run::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("loader: {error:#}");
        ExitCode::from(2)
    })
}
