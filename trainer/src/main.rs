//! The `trainer` program: parse, dispatch, exit code.
//!
//! [`shardtool::exit`] has the exit codes; `launch` passes on its trainer's.

// A message that cannot be written must end nothing: speech goes through `tracing` and `shardtool::program`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod cmd;

use std::process::ExitCode;

use clap::Parser;
use shardtool::program;
use trainer::stop;

/// Holds the signals that ask for a stop before libtorch's libraries are initialised: that takes a large part of a
/// second and makes threads, and a stop that is asked for meanwhile is a stop.
#[used]
#[unsafe(link_section = ".preinit_array")]
static HOLD: extern "C" fn() = {
    extern "C" fn hold() {
        stop::hold();
    }
    hold
};

fn main() -> ExitCode {
    let cli = cmd::Cli::parse();
    let verbosity = cli.verbosity;
    program::run("trainer", &verbosity, |out| cmd::run(cli, out))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use shardtool::program::arguments::unexpanded_path;

    #[test]
    fn every_path_among_the_arguments_is_expanded() {
        assert_eq!(unexpanded_path(&super::cmd::Cli::command()), None);
    }
}
