//! Where the values of a configuration come from, for messages about them.

use std::fmt;
use std::path::{Path, PathBuf};

use shardtool::Escaped;

use crate::error::Error;

/// The origin of a configuration: its file, and the keys that `--set` gave instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    path: PathBuf,
    sets: Vec<String>,
}

/// The place that gave a value. Displayed, it is what stands in front of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The configuration file, or its text, which lacks the key.
    File(PathBuf),
    /// A `--set` argument.
    Set,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(f, "{}: ", Escaped::new(path)),
            Place::Set => f.write_str("--set "),
        }
    }
}

impl Origin {
    pub(super) fn new(path: PathBuf) -> Origin {
        Origin {
            path,
            sets: Vec::new(),
        }
    }

    pub(super) fn add_set(&mut self, key: &str) {
        self.sets.push(key.to_owned());
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the place that gave `key`: the argument that set it, or something in it or above it; else the file.
    pub fn of(&self, key: &str) -> Place {
        let within = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        match self
            .sets
            .iter()
            .any(|set| within(key, set) || within(set, key))
        {
            true => Place::Set,
            false => Place::File(self.path.clone()),
        }
    }

    /// Adds to an error about a key the place that gave its value. Other errors stay as they are.
    pub fn place(&self, error: Error) -> Error {
        match error.key() {
            Some(key) => Error::At {
                place: self.of(key),
                fault: Box::new(error),
            },
            None => error,
        }
    }
}
