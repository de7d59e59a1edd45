//! `csrc/turbo.h` in Rust's words.

use std::ffi::{CStr, c_char, c_int};

use super::Error;
use crate::dct::coefficients::BLOCK;
use crate::planes::Colour;

// Brings the library to the linker; its functions are called from C alone.
use mozjpeg_sys as _;

/// Most components an [`Image`] has.
pub const COMPONENTS: usize = 3;

/// `struct turbo_component`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Component {
    pub h: u8,
    pub v: u8,
    pub quantization: [u16; BLOCK],
    pub blocks_wide: u32,
    pub blocks_high: u32,
    pub stride: u32,
    pub rows: u32,
    pub blocks: *mut i16,
}

/// `struct turbo_image`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Image {
    pub width: u32,
    pub height: u32,
    pub colour: u8,
    pub progressive: u8,
    pub components: u8,
    pub component: [Component; COMPONENTS],
}

impl Image {
    pub fn empty() -> Image {
        Image {
            width: 0,
            height: 0,
            colour: 0,
            progressive: 0,
            components: 0,
            component: [Component {
                h: 1,
                v: 1,
                quantization: [1; BLOCK],
                blocks_wide: 0,
                blocks_high: 0,
                stride: 0,
                rows: 0,
                blocks: std::ptr::null_mut(),
            }; COMPONENTS],
        }
    }

    /// Returns what the coefficients mean; none if there is no place for them (CMYK).
    pub fn colour(&self) -> Option<Colour> {
        match self.colour {
            0 => Some(Colour::Gray),
            1 => Some(Colour::YCbCr),
            2 => Some(Colour::Rgb),
            _ => None,
        }
    }
}

/// Returns the number of `enum turbo_colour`.
pub fn colour(colour: Colour) -> u8 {
    match colour {
        Colour::Gray => 0,
        Colour::YCbCr => 1,
        Colour::Rgb => 2,
    }
}

/// `struct turbo_reader`, known to C alone.
#[repr(C)]
pub struct Reader {
    opaque: [u8; 0],
}

/// `struct turbo_writer`, known to C alone.
#[repr(C)]
pub struct Writer {
    opaque: [u8; 0],
}

unsafe extern "C" {
    pub fn turbo_simd() -> c_int;

    pub fn turbo_reader_new() -> *mut Reader;
    pub fn turbo_reader_free(reader: *mut Reader);
    pub fn turbo_reader_message(reader: *const Reader) -> *const c_char;
    pub fn turbo_reader_warning(reader: *const Reader) -> *const c_char;
    pub fn turbo_reader_whole(reader: *const Reader) -> c_int;
    pub fn turbo_read_header(
        reader: *mut Reader,
        jpeg: *const u8,
        length: usize,
        image: *mut Image,
    ) -> c_int;
    pub fn turbo_read_nothing(reader: *mut Reader);
    pub fn turbo_read_coefficients(reader: *mut Reader, image: *mut Image) -> c_int;
    pub fn turbo_read_pixels(
        reader: *mut Reader,
        x: u32,
        y: u32,
        width: u32,
        height: u32,
        pixels: *mut u8,
    ) -> c_int;

    pub fn turbo_writer_new() -> *mut Writer;
    pub fn turbo_writer_free(writer: *mut Writer);
    pub fn turbo_writer_message(writer: *const Writer) -> *const c_char;
    pub fn turbo_encode(
        writer: *mut Writer,
        pixels: *const u8,
        quality: c_int,
        image: *mut Image,
    ) -> c_int;
    pub fn turbo_write(
        writer: *mut Writer,
        image: *const Image,
        jpeg: *mut *const u8,
        length: *mut usize,
    ) -> c_int;
}

/// Returns a copy of a message.
///
/// # Safety
/// `message` points to a zero-terminated string.
pub unsafe fn text(message: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(message) }
        .to_string_lossy()
        .into_owned()
}

/// Returns an `enum turbo_status` as a result.
pub fn check(status: c_int, message: impl FnOnce() -> String) -> Result<(), Error> {
    match status {
        0 => Ok(()),
        2 => Err(Error::Unsupported(message())),
        _ => Err(Error::Damaged(message())),
    }
}
