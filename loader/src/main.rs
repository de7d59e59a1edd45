//! The `loader` program: parse, dispatch, exit code.
//!
//! Results go to stdout, progress and faults to stderr. [`shardtool::exit`] has the exit codes.

// A message that cannot be written must end nothing: speech goes through `tracing` and `shardtool::program`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod cmd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shardtool::program::{self, Verbosity};

/// Samples, decodes, crops and masks images straight into shared-memory rings
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    verbosity: Verbosity,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(cmd::run::Args),
    Bench(cmd::bench::Args),
    Hash(cmd::hash::Args),
    Show(cmd::show::Args),
    #[cfg(feature = "compare")]
    Compare(cmd::compare::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    program::run("loader", &cli.verbosity, |out| match cli.command {
        Command::Run(args) => cmd::run::run(&args),
        Command::Bench(args) => cmd::bench::run(&args, out),
        Command::Hash(args) => cmd::hash::run(&args, out),
        Command::Show(args) => cmd::show::run(&args, out),
        #[cfg(feature = "compare")]
        Command::Compare(args) => cmd::compare::run(&args, out),
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
