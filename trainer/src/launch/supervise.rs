//! The loop that waits for signals and for the ends of a job's processes.

use rustix::process::Signal;

use super::Error;
use super::child::{Child, code, describe};
use super::events::{Event, Events};
use super::loaders::Loaders;
use crate::stop::Patience;

/// Keeps a loader going for `trainer` until that ends, and returns its exit code.
pub(super) fn supervise(
    events: &Events,
    trainer: &mut Child,
    loaders: &mut Loaders<'_>,
) -> Result<u8, Error> {
    let mut stopping = false;
    let mut patience = Patience::default();
    loaders.start(trainer, events)?;
    loop {
        if let Event::Asked(heard) = events.next() {
            stopping = true;
            if patience.is_over(heard.signal) {
                trainer.signal(Signal::KILL);
                trainer.wait();
                return Ok((128 + heard.signal) as u8);
            }
            // A terminal's Ctrl-C reaches the trainer as well; it knows this process, and takes both for one.
            if let Some(signal) = Signal::from_named_raw(heard.signal) {
                trainer.signal(signal);
            }
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
        loaders.start(trainer, events)?;
    }
}
