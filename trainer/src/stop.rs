//! Being asked to stop: SIGTERM, SIGINT and SIGUSR1 set a flag that the training loop looks at between two steps.
//!
//! Clusters announce preemption with one of these; all mean the same here: finish the step, write a checkpoint, exit 75.
//! Further ones change nothing, for a scheduler may well send SIGTERM after SIGUSR1 while the checkpoint is being
//! written. Only SIGINT, which a person sends, ends the process at once when a stop was asked for already: Ctrl-C twice
//! gives up the steps since the last checkpoint, which stays as it is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

/// A flag that says by which signal this process was asked to stop, if it was. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Listens to the three signals from now on.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn on_signals() -> io::Result<Stop> {
        let (stop, stopping) = (Stop::default(), Arc::new(AtomicBool::new(false)));
        let listen = || {
            // First of the handlers of SIGINT, so that it sees whether there was a signal before this one.
            flag::register_conditional_shutdown(SIGINT, 128 + SIGINT, Arc::clone(&stopping))?;
            for signal in [SIGTERM, SIGINT, SIGUSR1] {
                flag::register(signal, Arc::clone(&stopping))?;
                flag::register_usize(signal, Arc::clone(&stop.0), signal as usize)?;
            }
            Ok::<_, io::Error>(())
        };
        listen()?;
        Ok(stop)
    }

    /// What a signal's handler does, for tests.
    #[cfg(test)]
    pub(crate) fn ask(&self, signal: i32) {
        self.0.store(signal as usize, Ordering::Relaxed);
    }

    /// Returns the name of the signal that asked, if one did.
    pub fn asked(&self) -> Option<&'static str> {
        // Relaxed: the flag carries nothing but itself.
        match self.0.load(Ordering::Relaxed) as i32 {
            0 => None,
            SIGTERM => Some("SIGTERM"),
            SIGINT => Some("SIGINT"),
            _ => Some("SIGUSR1"),
        }
    }
}
