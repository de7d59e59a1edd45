//! Payload damage: why the bytes of a sample make no picture.

use crate::format::Codec;

/// The reason why a payload makes no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// The payload breaks a rule of its codec.
    #[error("{0}")]
    Malformed(String),
    /// The image is not of the entry's size.
    #[error("{codec} image is {}x{}, expected {}x{}", got.0, got.1, expected.0, expected.1)]
    Size {
        /// The codec.
        codec: Codec,
        /// Width and height that the entry says.
        expected: (u32, u32),
        /// Width and height of the image.
        got: (u32, u32),
    },
    /// The area asked for is not a part of an image, or the image is larger than any may be.
    #[error("{area} is not inside {}x{}", size.0, size.1)]
    Area {
        /// The area.
        area: String,
        /// Width and height of the image.
        size: (u32, u32),
    },
    /// The codec has no such thing.
    #[error("codec {codec} has no {what}")]
    Unsupported {
        /// The codec.
        codec: Codec,
        /// What was asked for.
        what: &'static str,
    },
    /// The library that decodes it refused.
    #[error("{0}")]
    Library(String),
    /// The library that decodes it panicked.
    #[error("the decoder panicked: {0}")]
    Panicked(String),
}

impl From<String> for Corrupt {
    fn from(rule: String) -> Corrupt {
        Corrupt::Malformed(rule)
    }
}

impl From<&str> for Corrupt {
    fn from(rule: &str) -> Corrupt {
        Corrupt::Malformed(rule.to_owned())
    }
}
