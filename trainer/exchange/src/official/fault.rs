//! What is wrong with a file, and where.

use std::fmt;

/// A violated rule of one of the formats, at a byte of the file. Whoever opened the file adds its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Distance from the start of the file in bytes.
    pub offset: u64,
    /// What was found there, and what was expected.
    pub cause: String,
}

impl Fault {
    /// `cause` at byte `offset`.
    pub fn new(offset: u64, cause: impl Into<String>) -> Fault {
        Fault {
            offset,
            cause: cause.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.cause)
    }
}

impl std::error::Error for Fault {}
