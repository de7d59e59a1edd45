//! Pixels to coefficients, and coefficients to JPEG files.

use super::{Error, ffi};
use crate::dct::coefficients::{BLOCK, Coefficients, Component, blocks_along};
use crate::planes::Colour;

/// How much chroma encoding keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chroma {
    /// Half the resolution in both directions.
    Yuv420,
    /// Full resolution.
    Yuv444,
}

/// Encodes RGB8 pixels, rows without gaps, to YCbCr coefficients by the JPEG standard's tables at a quality of 1 to
/// 100. The memory of `into` is used again.
///
/// # Errors
/// libjpeg's complaint.
pub fn encode_rgb(
    pixels: &[u8],
    width: u32,
    height: u32,
    quality: u8,
    chroma: Chroma,
    into: &mut Coefficients,
) -> Result<(), Error> {
    let luma = match chroma {
        Chroma::Yuv420 => 2,
        Chroma::Yuv444 => 1,
    };
    let sampling = [luma, 1, 1];
    encode(
        pixels,
        (width, height),
        quality,
        Colour::YCbCr,
        &sampling,
        into,
    )
}

/// Encodes 8-bit gray pixels to one component, else as [`encode_rgb`].
///
/// # Errors
/// libjpeg's complaint.
pub fn encode_gray(
    pixels: &[u8],
    width: u32,
    height: u32,
    quality: u8,
    into: &mut Coefficients,
) -> Result<(), Error> {
    encode(pixels, (width, height), quality, Colour::Gray, &[1], into)
}

fn encode(
    pixels: &[u8],
    (width, height): (u32, u32),
    quality: u8,
    colour: Colour,
    sampling: &[u8],
    into: &mut Coefficients,
) -> Result<(), Error> {
    let length = sampling.len() as u64 * u64::from(width) * u64::from(height);
    if !crate::format::fits(width, height) || pixels.len() as u64 != length {
        let length = pixels.len();
        let reason = format!("{length} bytes of pixels for {width}x{height}");
        return Err(Error::Damaged(reason));
    }
    into.width = width;
    into.height = height;
    into.colour = colour;
    into.components.truncate(sampling.len());
    into.components.resize_with(sampling.len(), || Component {
        h: 1,
        v: 1,
        quantization: [1; BLOCK],
        blocks_wide: 0,
        blocks_high: 0,
        blocks: Vec::new(),
    });
    for (component, &factor) in into.components.iter_mut().zip(sampling) {
        component.h = factor;
        component.v = factor;
        component.blocks_wide = blocks_along(width, factor, sampling[0]);
        component.blocks_high = blocks_along(height, factor, sampling[0]);
        let blocks = component.blocks_wide * component.blocks_high;
        component.blocks.resize(blocks * BLOCK, 0);
    }
    let mut image = describe(into)?;
    for (described, component) in image.component.iter_mut().zip(&mut into.components) {
        described.blocks = component.blocks.as_mut_ptr();
    }
    let writer = Handle::new();
    // SAFETY: `pixels` holds `height` rows of `width` pixels of one byte per component (checked above). Each `blocks`
    // points to `stride * rows` blocks of its own, which nothing else touches during the call.
    let status = unsafe {
        ffi::turbo_encode(
            writer.0,
            pixels.as_ptr(),
            i32::from(quality.clamp(1, 100)),
            &mut image,
        )
    };
    writer.check(status)?;
    for (component, described) in into.components.iter_mut().zip(&image.component) {
        component.quantization = described.quantization;
    }
    Ok(())
}

/// Writes a sequential JPEG file that holds exactly these coefficients and quantization tables: baseline, or extended
/// where a quantization step exceeds 255. A coefficient that baseline's Huffman coding cannot express is an error.
///
/// # Errors
/// libjpeg's complaint, or that the coefficients are not those of an image.
pub fn write_jpeg(coefficients: &Coefficients, out: &mut Vec<u8>) -> Result<(), Error> {
    let image = describe(coefficients)?;
    let writer = Handle::new();
    let (mut jpeg, mut length) = (std::ptr::null(), 0);
    // SAFETY: `describe` has checked that each `blocks` holds `stride * rows` blocks; the call only reads them.
    let status = unsafe { ffi::turbo_write(writer.0, &image, &mut jpeg, &mut length) };
    writer.check(status)?;
    out.clear();
    // SAFETY: the call has set `jpeg` to the writer's buffer, of which `length` bytes are written; the writer lives on.
    out.extend_from_slice(unsafe { std::slice::from_raw_parts(jpeg, length) });
    Ok(())
}

/// Returns the image in C's words, checked to be whole: as many components as the colour has, each of the size that the
/// image's size and the sampling factors give.
fn describe(coefficients: &Coefficients) -> Result<ffi::Image, Error> {
    let Coefficients { width, height, .. } = *coefficients;
    let damaged = |reason: &str| Err(Error::Damaged(reason.to_owned()));
    if !crate::format::fits(width, height) {
        return damaged("an image of a size that none may have");
    }
    if coefficients.components.len() != coefficients.colour.planes() {
        return damaged("another number of components than the colour has");
    }
    let mut image = ffi::Image::empty();
    image.width = width;
    image.height = height;
    image.colour = ffi::colour(coefficients.colour);
    image.components = coefficients.components.len() as u8;
    let (h, v) = coefficients.sampling();
    for (described, component) in image.component.iter_mut().zip(&coefficients.components) {
        if !(1..=4).contains(&component.h) || !(1..=4).contains(&component.v) {
            return damaged("a sampling factor that JPEG has not");
        }
        let (wide, high) = (
            blocks_along(width, component.h, h),
            blocks_along(height, component.v, v),
        );
        if (component.blocks_wide, component.blocks_high) != (wide, high)
            || component.blocks.len() != wide * high * BLOCK
        {
            return damaged("another number of blocks than the image's size asks for");
        }
        *described = ffi::Component {
            h: component.h,
            v: component.v,
            quantization: component.quantization,
            blocks_wide: wide as u32,
            blocks_high: high as u32,
            stride: wide as u32,
            rows: high as u32,
            // Written through only by `encode`, which puts a pointer of its own here.
            blocks: component.blocks.as_ptr().cast_mut(),
        };
    }
    Ok(image)
}

/// A `struct turbo_writer` of our own.
struct Handle(*mut ffi::Writer);

impl Handle {
    fn new() -> Handle {
        // SAFETY: takes nothing; null means that there was no memory.
        let handle = unsafe { ffi::turbo_writer_new() };
        assert!(!handle.is_null(), "no memory for a JPEG writer");
        Handle(handle)
    }

    fn check(&self, status: i32) -> Result<(), Error> {
        // SAFETY: the message is a zero-terminated string inside the writer.
        ffi::check(status, || unsafe {
            ffi::text(ffi::turbo_writer_message(self.0))
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `turbo_writer_new`, freed once.
        unsafe { ffi::turbo_writer_free(self.0) }
    }
}
