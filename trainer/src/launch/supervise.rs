//! The loop that waits for signals and for the ends of a job's processes.

use std::time::Duration;

use rustix::process::Signal;

use super::Error;
use super::child::describe;
use super::events::{Event, Events};
use super::loaders::Loaders;
use super::team::Team;
use crate::stop::Patience;

/// Between two looks at ranks that have to end.
const TICK: Duration = Duration::from_millis(500);

/// What became of the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The exit code of the whole.
    pub code: u8,
    /// True if a stop was asked for.
    pub is_asked: bool,
}

/// Keeps a loader going for the ranks until all have ended.
pub(super) fn supervise(
    events: &Events,
    team: &mut Team,
    loaders: &mut Loaders<'_>,
) -> Result<End, Error> {
    let mut is_asked = false;
    let mut patience = Patience::default();
    loaders.start(events)?;
    loaders.connect(team.running())?;
    loop {
        let event = match team.is_ending() {
            true => events.next_within(TICK),
            false => Some(events.next()),
        };
        if let Some(Event::Asked(heard)) = event {
            is_asked = true;
            if patience.is_over(heard.signal) {
                team.kill();
                let code = (128 + heard.signal) as u8;
                return Ok(End { code, is_asked });
            }
            // A terminal's Ctrl-C reaches the ranks as well; they know this process, and take both for one.
            if let Some(signal) = Signal::from_named_raw(heard.signal) {
                team.ask(signal);
            }
        }
        team.look()?;
        if let Some(code) = team.code() {
            return Ok(End { code, is_asked });
        }
        team.press();
        let Some(status) = loaders.ended()? else {
            continue;
        };
        if is_asked || team.has_failed() {
            continue;
        }
        // One that ends because the ranks are ending is not missed: give them the moment to end, too.
        std::thread::sleep(loaders.pause(status)?);
        team.look()?;
        if let Some(code) = team.code() {
            return Ok(End { code, is_asked });
        }
        let how = describe(status);
        tracing::warn!("the loader ended ({how}); starting another one");
        loaders.start(events)?;
        loaders.connect(team.running())?;
    }
}
