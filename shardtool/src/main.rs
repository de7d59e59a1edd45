//! The `shardtool` program: parse, dispatch, exit code.
//!
//! Results go to stdout, progress and errors to stderr. Exit codes: 0 fine, 1 ran and found faults
//! (rejected images, damaged samples), 2 could not run.

mod cmd;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Converts image folders into shards: validated, memory-mapped, read in any order.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(cmd::build::Args),
    Verify(cmd::verify::Args),
    Inspect(cmd::inspect::Args),
    Extract(cmd::extract::Args),
    Synth(cmd::synth::Args),
}

/// How a command that ran ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Fine,
    FoundFaults,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Build(args) => cmd::build::run(&args),
        Command::Verify(args) => cmd::verify::run(&args),
        Command::Inspect(args) => cmd::inspect::run(&args),
        Command::Extract(args) => cmd::extract::run(&args),
        Command::Synth(args) => cmd::synth::run(&args),
    };
    match result {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::FoundFaults) => ExitCode::from(1),
        Err(error) => {
            eprintln!("shardtool: {error:#}");
            ExitCode::from(2)
        }
    }
}
