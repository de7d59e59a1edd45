//! Being asked to stop: a signal sets a flag that the training loop looks at between two steps.
//!
//! Clusters announce preemption with SIGTERM, SIGUSR1, SIGUSR2 or SIGHUP, limits with SIGXCPU and SIGXFSZ; a person
//! sends SIGINT, a terminal that closes SIGHUP. All mean the same here: finish the step, write a checkpoint, exit 75.
//! Further ones change nothing, for a scheduler may well send SIGTERM after SIGUSR1 while the checkpoint is being
//! written. Only a second SIGINT, which a person sends, ends the process at once: Ctrl-C twice gives up the steps since
//! the last checkpoint, which stays as it is. (A file of our own that grows beyond a limit asks for nothing: the write
//! fails, as on a full disk.)
//!
//! No handler runs, so none runs on a thread that computes. Generated code may have moved the stack pointer there into
//! the heap, over which the kernel would then write a handler's frame (oneDNN 3.10's matrix products do). The
//! signals are blocked before any thread exists and taken by one small thread.

mod signals;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use signal_hook::low_level;

pub use signals::{Heard, hold, listen, name, release};

/// Time after a SIGINT in which another one is the same Ctrl-C, come by another way: a terminal sends it to a whole
/// group, `timeout` to its child and to the group, and a launcher passes it on.
const SAME: Duration = Duration::from_millis(500);

/// A flag that says by which signal this process was asked to stop, if it was. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicI32>);

impl Stop {
    /// Listens to the signals from now on; those that came since [`hold`] are heard as well.
    ///
    /// A SIGINT of `launcher`, a process that passes signals on, is never taken for a second one.
    ///
    /// # Errors
    /// If the system refuses the thread that listens.
    pub fn on_signals(launcher: Option<u32>) -> io::Result<Stop> {
        let stop = Stop::default();
        let (flag, mut patience) = (stop.clone(), Patience::default());
        listen(move |heard| {
            flag.ask(heard.signal);
            if launcher != Some(heard.sender) && patience.is_over(heard.signal) {
                low_level::exit(128 + heard.signal);
            }
        })?;
        Ok(stop)
    }

    /// Asks for a stop, as `signal` does.
    pub fn ask(&self, signal: i32) {
        // The first one is the answer.
        let _ = self
            .0
            .compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns the name of the signal that asked, if one did.
    pub fn asked(&self) -> Option<&'static str> {
        self.signal().map(name)
    }

    /// Returns the number of the signal that asked, if one did.
    pub fn signal(&self) -> Option<i32> {
        // Relaxed: the flag carries nothing but itself.
        let signal = self.0.load(Ordering::Relaxed);
        (signal != 0).then_some(signal)
    }
}

/// The patience with a person: a second Ctrl-C ends what the first one asked to end.
#[derive(Debug, Default)]
pub struct Patience {
    first: Option<Instant>,
}

impl Patience {
    /// Tells if `signal`, which has just come, is a second Ctrl-C.
    pub fn is_over(&mut self, signal: i32) -> bool {
        signal == libc::SIGINT && self.first.get_or_insert_with(Instant::now).elapsed() > SAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_is_the_answer() {
        let stop = Stop::default();
        assert_eq!(stop.asked(), None);
        stop.ask(libc::SIGUSR2);
        stop.ask(libc::SIGTERM);
        assert_eq!(stop.asked(), Some("SIGUSR2"));
    }

    #[test]
    fn only_a_later_interrupt_is_a_second_one() {
        let mut patience = Patience::default();
        assert!(!patience.is_over(libc::SIGINT));
        assert!(!patience.is_over(libc::SIGINT), "the same one");
        patience.first = Instant::now().checked_sub(2 * SAME);
        assert!(!patience.is_over(libc::SIGTERM), "a scheduler repeats");
        assert!(patience.is_over(libc::SIGINT));
    }
}
