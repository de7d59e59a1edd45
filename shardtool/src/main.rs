//! The `shardtool` program: parse, dispatch, exit code.
//!
//! Results go to stdout, progress and errors to stderr. [`shardtool::exit`] has the exit codes.

// A message that cannot be written must end nothing: speech goes through `tracing` and `shardtool::program`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod cmd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shardtool::program::{self, Verbosity};

/// Converts image folders into shards: validated, read in any order.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    verbosity: Verbosity,
}

#[derive(Subcommand)]
enum Command {
    Build(cmd::build::Args),
    Verify(cmd::verify::Args),
    Inspect(cmd::inspect::Args),
    Extract(cmd::extract::Args),
    Synth(cmd::synth::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    program::run("shardtool", &cli.verbosity, |out| match cli.command {
        Command::Build(args) => cmd::build::run(&args, out),
        Command::Verify(args) => cmd::verify::run(&args, out),
        Command::Inspect(args) => cmd::inspect::run(&args, out),
        Command::Extract(args) => cmd::extract::run(&args, out),
        Command::Synth(args) => cmd::synth::run(&args, out),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use shardtool::program::arguments::unexpanded_path;

    #[test]
    fn every_path_among_the_arguments_is_expanded() {
        assert_eq!(unexpanded_path(&super::Cli::command()), None);
    }
}
