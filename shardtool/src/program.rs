//! How a program speaks and ends: one way for `shardtool`, `loader` and `trainer` (feature `program`).
//!
//! * **Results** go to standard output through [`Results`]. A result that cannot be written ends the program: quietly
//!   with [`exit::STDOUT_CLOSED`] where the reader has gone, else with a line and [`exit::COULD_NOT_RUN`].
//! * **Messages** are `tracing` events. The subscriber that [`run`] installs writes each as whole lines to standard
//!   error, through the progress bar if there is one. A message that cannot be written is dropped: it never ends a
//!   program and never changes its exit code.
//! * **Errors** come back from a command with file and cause; [`run`] says them and chooses the exit code.
//! * **Panics** print nothing. Who catches one reports its [message](crate::panics::message); one that nobody caught is
//!   said in a line, as an internal error.

pub mod arguments;
mod console;
mod results;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use anyhow::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use console::{Verbosity, faulty_variable, log_to, progress_bar, set_rank};
pub use results::Results;

use crate::{exit, panics};
use results::Unwritten;

/// Runs a program's command and returns its exit code.
///
/// `name` stands in front of error messages. `command` writes results to what it is given, and returns one of the codes
/// in [`exit`], or why it could not run.
pub fn run(
    name: &'static str,
    verbosity: &Verbosity,
    command: impl FnOnce(&mut Results) -> Result<u8>,
) -> ExitCode {
    console::install(name, verbosity);
    raise_open_files();
    let mut results = Results::default();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let code = command(&mut results)?;
        results.finish()?;
        Ok(code)
    }));
    ExitCode::from(match outcome {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => match Unwritten::find(&error) {
            Some(std::io::ErrorKind::BrokenPipe) => exit::STDOUT_CLOSED,
            _ => {
                tracing::error!("{}", said(&error));
                exit::COULD_NOT_RUN
            }
        },
        Err(payload) => {
            let (message, place) = (panics::message(&*payload), console::last_panic());
            tracing::error!("internal error, a fault of this program: {message} ({place})");
            exit::INTERNAL
        }
    })
}

/// Lets this process open as many files as the system permits: each open shard is one, and large datasets have more
/// than the usual 1,024.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Without it, a dataset that needs more says so when it is opened.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Returns an error and its causes, outermost first, on one line.
///
/// Our own errors hold their causes' texts and name no source, but other crates' may do both: a text that stands in the
/// one before it already is left out.
fn said(error: &anyhow::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in error.chain().map(ToString::to_string) {
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read: {source}")]
    struct Twice {
        source: std::io::Error,
    }

    #[test]
    fn a_cause_is_said_once() {
        let source = std::io::Error::other("no such file");
        let error = anyhow::Error::new(Twice { source });
        assert_eq!(said(&error), "cannot read: no such file");
        let outcome = Err::<(), _>(error).context("a.yaml").context("training");
        assert_eq!(
            said(&outcome.unwrap_err()),
            "training: a.yaml: cannot read: no such file"
        );
    }
}
