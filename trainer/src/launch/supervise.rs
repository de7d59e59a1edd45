//! The loop that waits for signals and for the ends of a job's processes.

use std::ffi::c_int;

use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Error;
use super::child::{Child, code, describe};
use super::loaders::Loaders;

/// Keeps a loader going for `trainer` until that ends, and returns its exit code.
pub(super) fn supervise(
    signals: &mut Signals,
    trainer: &mut Child,
    loaders: &mut Loaders<'_>,
) -> Result<u8, Error> {
    let mut stopping = false;
    loaders.start(trainer)?;
    loop {
        for signal in signals.wait().filter(|&signal| signal != SIGCHLD) {
            if let Some(passed) = passed_on(signal, stopping) {
                trainer.signal(passed);
            }
            stopping = true;
        }
        if let Some(status) = trainer.ended()? {
            return Ok(code(status));
        }
        let Some(status) = loaders.ended()? else {
            continue;
        };
        if stopping {
            continue;
        }
        // One that ends because the trainer is ending is not missed: give the trainer the moment to end, too.
        std::thread::sleep(loaders.pause(status)?);
        if let Some(status) = trainer.ended()? {
            return Ok(code(status));
        }
        let how = describe(status);
        tracing::warn!("the loader ended ({how}); starting another one");
        loaders.start(trainer)?;
    }
}

/// Returns what the trainer gets for a signal to this process.
///
/// A terminal's Ctrl-C reaches the trainer as well, and a second SIGINT would end it at once: the first one is passed
/// on as a request that may come twice.
fn passed_on(signal: c_int, stopping: bool) -> Option<Signal> {
    let passed = if signal == SIGINT && !stopping {
        SIGTERM
    } else {
        signal
    };
    Signal::from_named_raw(passed)
}
