//! Being asked to stop: a signal sets a flag that the training loop looks at between two steps.
//!
//! Clusters announce preemption with SIGTERM or SIGUSR1, a person sends SIGINT, a terminal that closes SIGHUP. All mean
//! the same here: finish the step, write a checkpoint, exit 75. Further ones change nothing, for a scheduler may well
//! send SIGTERM after SIGUSR1 while the checkpoint is being written. Only a second SIGINT, which a person sends, ends
//! the process at once: Ctrl-C twice gives up the steps since the last checkpoint, which stays as it is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

/// A flag that says by which signal this process was asked to stop, if it was. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicUsize>);

/// Returns the signals that ask for a stop. SIGHUP is one unless it was ignored when the process began: `nohup`.
pub fn signals() -> impl Iterator<Item = i32> {
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    [SIGTERM, SIGINT, SIGUSR1].into_iter().chain(hangup)
}

/// Tells whether this process ignores `signal`, as far as the system says.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

impl Stop {
    /// Listens to the [`signals`] from now on.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn on_signals() -> io::Result<Stop> {
        let (stop, interrupted) = (Stop::default(), Arc::new(AtomicBool::new(false)));
        // First of the handlers of SIGINT, so that it sees whether there was one before. Other signals do not arm it: a
        // launcher passes a terminal's Ctrl-C on, and both may arrive at once, in any order.
        flag::register_conditional_shutdown(SIGINT, 128 + SIGINT, Arc::clone(&interrupted))?;
        flag::register(SIGINT, interrupted)?;
        for signal in signals() {
            flag::register_usize(signal, Arc::clone(&stop.0), signal as usize)?;
        }
        Ok(stop)
    }

    /// Does what a signal's handler does, for tests.
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
            SIGHUP => Some("SIGHUP"),
            _ => Some("SIGUSR1"),
        }
    }
}
