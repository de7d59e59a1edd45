//! What a launcher waits for, in the order in which it happens.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::stop::{self, Heard};

/// Something that a launcher waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A signal asked for a stop.
    Asked(Heard),
    /// A child, or a piece of work, has ended and can be asked how.
    Ended,
}

/// The signals to this process and the ends of its children, in one queue.
#[derive(Debug)]
pub struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    /// Returns a queue in which no signals stand.
    pub fn deaf() -> Events {
        let (sender, receiver) = mpsc::channel();
        Events { sender, receiver }
    }

    /// Listens to the signals that ask for a stop; those that came since [`stop::hold`] are heard as well.
    ///
    /// # Errors
    /// If the system refuses the thread that listens.
    pub fn on_signals() -> io::Result<Events> {
        let events = Events::deaf();
        let sender = events.sender.clone();
        // Nobody receives it any more once the launcher is about to end.
        stop::listen(move |heard| {
            let _ = sender.send(Event::Asked(heard));
        })?;
        Ok(events)
    }

    /// Does `work`, unless a stop is asked for first; the error is then the signal that did.
    ///
    /// The work goes on in a thread of its own until the process ends, so it must be of a kind that may be killed.
    ///
    /// # Panics
    /// If the work does.
    ///
    /// # Errors
    /// If the system refuses the thread.
    pub fn unless_asked<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Result<T, Heard>> {
        let sender = self.sender.clone();
        let worker = std::thread::Builder::new().spawn(move || {
            let done = catch_unwind(AssertUnwindSafe(work));
            // Nobody receives it any more once a stop was asked for.
            let _ = sender.send(Event::Ended);
            done
        })?;
        match self.next() {
            Event::Asked(heard) => Ok(Err(heard)),
            Event::Ended => match worker.join().and_then(|done| done) {
                Ok(value) => Ok(Ok(value)),
                Err(panic) => resume_unwind(panic),
            },
        }
    }

    /// Has the end of the process `pid`, a child that nobody has waited for, appear in the queue.
    pub(super) fn watch(&self, pid: Pid) -> io::Result<()> {
        let sender = self.sender.clone();
        let watcher = std::thread::Builder::new().name("watch".to_owned());
        watcher.spawn(move || {
            // It is not reaped here: until it is, its number is its own, and signals to it reach nobody else.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
            let _ = sender.send(Event::Ended);
        })?;
        Ok(())
    }

    /// Waits for the next event, at most this long.
    pub(super) fn next_within(&self, limit: Duration) -> Option<Event> {
        self.receiver.recv_timeout(limit).ok()
    }

    /// Waits for the next event.
    pub(super) fn next(&self) -> Event {
        let event = self.receiver.recv();
        event.expect("the queue has a sender of its own")
    }
}
