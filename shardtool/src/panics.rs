//! Panics that are caught: what they said, for a report instead of a terminal.

use std::any::Any;

/// Returns what a panic said, from the value that [`std::panic::catch_unwind`], a join or a hook gives.
pub fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}
