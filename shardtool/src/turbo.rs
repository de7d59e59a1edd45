//! The bridge to libjpeg-turbo: JPEG files to coefficients and back, pixels to coefficients, and the decoding that the
//! loader's benchmark compares itself with.
//!
//! Only conversion and that benchmark use it (feature `turbo`); reading a `dct` shard needs no JPEG library. The
//! library is the copy of libjpeg-turbo that MozJPEG keeps: same decoder, same vector code; what MozJPEG adds to the
//! encoder is turned off. All calls into it run in `csrc/`, where an error, which libjpeg reports by a call that must
//! not return, becomes a status and a message before Rust sees it.
//!
//! Whatever the bytes, an image larger than [`crate::format::fits`] allows is refused before memory is taken for it,
//! and a file of absurdly many scans is given up.

mod ffi;
mod read;
mod write;

pub use read::{Decoder, Flaw, Reader, Reading};
pub use write::{Chroma, encode_gray, encode_rgb, write_jpeg};

/// The reason why a file could not be read, or coefficients not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A kind of JPEG whose coefficients have no place in [`Coefficients`](crate::dct::coefficients::Coefficients):
    /// CMYK; or that has no pixels either: 12 bits a sample, lossless, two components.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// What libjpeg cannot make sense of.
    #[error("{0}")]
    Damaged(String),
}

/// Tells whether libjpeg-turbo's vector code was compiled in (x86 needs nasm for that) and runs on this processor.
/// Without it pixels take half as long again to decode and six times as long to encode; coefficients are read as fast.
pub fn simd() -> bool {
    // SAFETY: asks for processor features; takes nothing and keeps nothing.
    unsafe { ffi::turbo_simd() != 0 }
}

#[cfg(test)]
mod tests;
