//! The `trainer` program: parse, dispatch, exit code.
//!
//! [`shardtool::exit`] has the exit codes; `launch` passes on its trainer's.

mod cmd;

use std::process::ExitCode;

use clap::Parser;
use shardtool::program;

fn main() -> ExitCode {
    let cli = cmd::Cli::parse();
    let verbosity = cli.verbosity;
    program::run("trainer", &verbosity, |out| cmd::run(cli, out))
}
