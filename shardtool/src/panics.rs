//! Panics that are caught: what they said, for a report instead of a terminal.

use std::any::Any;
#[cfg(feature = "program")]
use std::panic::PanicHookInfo;

/// Returns what a caught panic said, from the value that [`std::panic::catch_unwind`] or a join gives back.
pub fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// Returns what a panic says, to a panic hook.
#[cfg(feature = "program")]
pub(crate) fn message_of_hook(info: &PanicHookInfo<'_>) -> String {
    info.payload_as_str()
        .unwrap_or("a panic without words")
        .to_owned()
}
