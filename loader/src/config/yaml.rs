//! YAML read into a tree, and its faults in plain words on one line.

use std::io::{self, Read};

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

/// The largest text of a configuration: far beyond any use. What is read may be a pipe or a device, which need not end.
const MOST_BYTES: u64 = 16 << 20;

/// Reads all of a text that is to be YAML.
///
/// # Errors
/// What the system says; within, what is wrong with the bytes.
pub(super) fn read(from: impl Read) -> io::Result<Result<String, Wrong>> {
    let mut bytes = Vec::new();
    from.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        let problem = format!("more than {MOST_BYTES} bytes, which no configuration needs");
        return Ok(Err(Wrong { at: None, problem }));
    }
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..] = bytes[..] {
        let problem = "UTF-16 or UTF-32, where UTF-8 is needed; save it as UTF-8".to_owned();
        return Ok(Err(Wrong { at: None, problem }));
    }
    Ok(String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let mut lines = before.rsplit(|&byte| byte == b'\n');
        let last = lines.next().unwrap_or_default();
        let column = String::from_utf8_lossy(last).chars().count() as u64 + 1;
        Wrong {
            at: Some((lines.count() as u64 + 1, column)),
            problem: "not UTF-8; save the file as UTF-8".to_owned(),
        }
    }))
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

/// What is wrong with a text at one of the parser's limits.
const TOO_MUCH: &str = "more or deeper values than a configuration has";

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
        Error::Budget { .. } => TOO_MUCH.to_owned(),
        other => {
            let text = other.render_with_formatter(&UserMessageFormatter);
            let text = text.lines().next().unwrap_or_default();
            if ["too large or too complex", "recursion limit"]
                .iter()
                .any(|limit| text.contains(limit))
            {
                return TOO_MUCH.to_owned();
            }
            // The place is told apart from the words.
            let words = text.split(" at line ").next().unwrap_or(text);
            format!("not YAML: {}", words.trim_start_matches("error: "))
        }
    }
}
