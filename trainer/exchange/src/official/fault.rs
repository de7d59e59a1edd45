//! What is wrong with an official checkpoint, and where.

use shardtool::Escaped;

use super::pickle::op;

/// A violated rule of the format, at a byte of the file.
///
/// Whoever opened the file adds its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {cause}")]
pub struct Fault {
    /// Distance from the start of the file in bytes.
    pub offset: u64,
    /// What was found there.
    pub cause: Cause,
}

/// The reason why a file is no official checkpoint that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The file is of another kind, or only the beginning of a file.
    #[error("{0}")]
    Foreign(&'static str),
    /// A value that is needed would be made by code. Nothing of it was executed.
    #[error(
        "an object of `{}`, which only code could make (nothing of it was executed), expected {expected}",
        Escaped::new(name)
    )]
    Code {
        /// What the code is called.
        name: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// The pickle has an instruction that is not understood, such as one of another protocol.
    #[error("the pickle instruction 0x{:02x}{} has no place in a checkpoint", .0, op::name(*.0))]
    UnsafeInstruction(u8),
    /// The content of a record does not have the record's checksum.
    #[error(
        "record `{}` is damaged: its checksum is {found:08x}, expected {expected:08x}",
        Escaped::new(record)
    )]
    Checksum {
        /// The record.
        record: String,
        /// CRC-32 of its content.
        found: u32,
        /// CRC-32 that the zip file states.
        expected: u32,
    },
    /// The file describes more than any checkpoint has: reading it would take memory or time without end.
    #[error("{0}")]
    TooMuch(String),
    /// A dictionary lacks a key.
    #[error("the dict lacks the key `{0}`")]
    MissingKey(String),
    /// A value is of another type than an official checkpoint has in its place.
    #[error("{found}, expected {expected}")]
    Type {
        /// What it is.
        found: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// A tensor lies outside its storage, or its storage is not what the pickle says.
    #[error("{0}")]
    Tensor(String),
    /// The bytes break a rule of the zip format or of the pickle language.
    #[error("{0}")]
    Malformed(String),
    /// The values are well formed, but not those of an official checkpoint.
    #[error("{0}")]
    Content(String),
}

impl Fault {
    /// Puts `cause` at byte `offset`.
    pub fn new(offset: u64, cause: impl Into<Cause>) -> Fault {
        Fault {
            offset,
            cause: cause.into(),
        }
    }
}

/// Most rules are those of zip and pickle, and need no more than a sentence.
impl From<String> for Cause {
    fn from(sentence: String) -> Cause {
        Cause::Malformed(sentence)
    }
}

impl From<&str> for Cause {
    fn from(sentence: &str) -> Cause {
        Cause::Malformed(sentence.to_owned())
    }
}
