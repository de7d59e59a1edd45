//! Files that are not JPEG, decoded by the `image` crate.

use std::io::Cursor;

use image::ImageDecoder;
use image::metadata::Orientation;

use super::size::check_size;

/// The most bytes that a file may make its decoder allocate.
const MAX_ALLOCATION: u64 = 1 << 30;

/// A decoded file.
pub struct Other {
    pub image: image::DynamicImage,
    /// Name of the file's type, such as `PNG`.
    pub kind: String,
    /// EXIF orientation, 1 to 8.
    pub orientation: u8,
}

/// Decodes a file whose type its first bytes tell.
pub fn decode(bytes: &[u8]) -> Result<Other, String> {
    let format = image::guess_format(bytes).map_err(|_| "not an image of a known type")?;
    let kind = format!("{format:?}").to_ascii_uppercase();
    let wrong = |error: image::ImageError| format!("{kind}: {error}");
    let reader = image::ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().map_err(wrong)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOCATION);
    decoder.set_limits(limits).map_err(wrong)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = image::DynamicImage::from_decoder(decoder).map_err(wrong)?;
    Ok(Other {
        image,
        kind,
        orientation: orientation.to_exif(),
    })
}
