//! The `trainer` program: parse, dispatch, exit code.
//!
//! [`shardtool::exit`] has the exit codes; `launch` passes on its trainer's.

// A message that cannot be written must end nothing: speech goes through `tracing` and `shardtool::program`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod cmd;

use std::process::ExitCode;

use clap::Parser;
use shardtool::program;

fn main() -> ExitCode {
    let cli = cmd::Cli::parse();
    let verbosity = cli.verbosity;
    program::run("trainer", &verbosity, |out| cmd::run(cli, out))
}
