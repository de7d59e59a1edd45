//! YAML read into a tree, and its faults in plain words on one line.

use serde_json::Value;
use serde_saphyr::{Error, UserMessageFormatter};

/// A fault of a YAML text.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Line and column, from 1, where they are known.
    pub at: Option<(u64, u64)>,
    /// What is wrong there.
    pub problem: String,
}

/// Reads a YAML text.
pub(super) fn parse(text: &str) -> Result<Value, Wrong> {
    serde_saphyr::from_str(text).map_err(|error| {
        let at = error.location().map(|at| (at.line(), at.column()));
        Wrong {
            // Zero stands for a place that is not known.
            at: at.filter(|&(line, _)| line > 0),
            problem: plain(error.without_snippet()),
        }
    })
}

/// Says what is wrong without the place, and without what only a programmer could do about it.
fn plain(error: &Error) -> String {
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {key} stands here twice")
        }
        Error::DuplicateMappingKey { .. } => "a key stands here twice".to_owned(),
        Error::NonFiniteFloat { value, .. } => format!("{value} is not a finite number"),
        Error::MultipleDocuments { .. } => "a second document begins here".to_owned(),
        Error::MergeKeyNotAllowed { .. } => "merge keys (<<) are not taken".to_owned(),
        Error::Budget { .. } => "more or deeper values than a configuration has".to_owned(),
        other => {
            let text = other.render_with_formatter(&UserMessageFormatter);
            let text = text.lines().next().unwrap_or_default();
            // The place is told apart from the words.
            let words = text.split(" at line ").next().unwrap_or(text);
            format!("not YAML: {}", words.trim_start_matches("error: "))
        }
    }
}
