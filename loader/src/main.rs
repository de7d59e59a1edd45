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
    Bench(cmd::bench::Args),
    Hash(cmd::hash::Args),
    Show(cmd::show::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Run(args) => cmd::run::run(&args),
        Command::Bench(args) => cmd::bench::run(&args),
        Command::Hash(args) => cmd::hash::run(&args),
        Command::Show(args) => cmd::show::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("loader: {error:#}");
        ExitCode::from(2)
    })
}
