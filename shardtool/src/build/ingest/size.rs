//! Sizes of images: what the index has room for, and how images become smaller.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

/// Refuses images that a shard's index has no room for.
pub fn check_size(width: u32, height: u32) -> Result<(), String> {
    if crate::format::fits(width, height) {
        Ok(())
    } else {
        Err(format!(
            "{width}x{height} pixels, more than an image may have"
        ))
    }
}

/// Returns the size of an image within the bound, if its shorter side is beyond it.
///
/// Sides are rounded to the nearest; the shorter one becomes the bound itself.
pub fn bounded((width, height): (u32, u32), short_side: u32) -> Option<(u32, u32)> {
    let shorter = width.min(height);
    let scale = |side: u32| {
        let scaled = u64::from(side) * u64::from(short_side) + u64::from(shorter) / 2;
        (scaled / u64::from(shorter)) as u32
    };
    (shorter > short_side).then(|| (scale(width), scale(height)))
}

/// Pixels on their way to a codec that keeps none.
pub struct Pixels<'a> {
    pub bytes: &'a [u8],
    pub size: (u32, u32),
    /// True if a pixel is one byte instead of three.
    pub gray: bool,
}

/// Makes an image smaller and returns its bytes, of as many a pixel.
pub fn shrink(
    resizer: &mut Resizer,
    pixels: &Pixels<'_>,
    size: (u32, u32),
) -> Result<Vec<u8>, String> {
    // The library is compiled for each type of pixel it is called with, which takes long: gray borrows RGB's.
    let spread: Vec<u8>;
    let packed = if pixels.gray {
        spread = pixels.bytes.iter().flat_map(|&gray| [gray; 3]).collect();
        &spread
    } else {
        pixels.bytes
    };
    let (width, height) = pixels.size;
    let wrong = |error: &dyn std::error::Error| error.to_string();
    let source = TypedImageRef::<U8x3>::from_buffer(width, height, packed);
    let mut smaller = TypedImage::<U8x3>::new(size.0, size.1);
    // Lanczos, as Pillow's thumbnails are made: the sharpest of the usual filters.
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    resizer
        .resize_typed(
            &source.map_err(|error| wrong(&error))?,
            &mut smaller,
            &options,
        )
        .map_err(|error| wrong(&error))?;
    let bytes: Vec<u8> = smaller.pixels().iter().flat_map(|pixel| pixel.0).collect();
    Ok(if pixels.gray {
        bytes.into_iter().step_by(3).collect()
    } else {
        bytes
    })
}
