//! The `trainer` program: parse, dispatch, exit code.
//!
//! 0 fine, 1 ran and found a fault, 2 could not run, 75 preempted (resume me); `launch` passes on its trainer's code.

mod cmd;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cmd::run(cmd::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("trainer: {error:#}");
            ExitCode::from(cmd::COULD_NOT_RUN)
        }
    }
}
