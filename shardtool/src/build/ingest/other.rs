//! Files that are not JPEG, decoded by the `image` crate and its kin.

mod depth;
mod gif;
mod png;
mod tiff;

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat};
use jxl_oxide::integration::JxlDecoder;

use super::size::check_size;
use crate::build::budget::Taken;

/// The most bytes that a file may make its decoder allocate.
const MAX_ALLOCATION: u64 = 2 << 30;

/// A decoded file: 8 bits a sample, gray or RGB.
pub struct Other {
    pub pixels: Vec<u8>,
    pub size: (u32, u32),
    /// True if a pixel is one byte instead of three.
    pub gray: bool,
    /// EXIF orientation, 1 to 8.
    pub orientation: u8,
    /// How samples of another depth became 8 bits, where there is a choice.
    pub scaled: Option<String>,
    /// What is wrong with a file that was read all the same.
    pub flaw: Option<String>,
}

/// Decodes a file of a kind that [`Kind::of`](crate::source::Kind::of) knows as an image. `room` is asked for the bytes
/// that decoding will take, before it does.
pub fn decode(
    bytes: &[u8],
    kind: &'static str,
    room: &dyn Fn(u64) -> Result<Taken, String>,
) -> Result<Other, String> {
    let wrong = |error: image::ImageError| format!("{kind}: {error}");
    if kind == "TIFF" {
        let deep = tiff::decode(bytes, room).map_err(|error| format!("TIFF: {error}"))?;
        if let Some(decoded) = deep {
            return Ok(decoded);
        }
    }
    if kind == "JPEG XL" {
        let decoder = JxlDecoder::new(Cursor::new(bytes)).map_err(wrong)?;
        return picture(decoder, room).map_err(|reason| format!("{kind}: {reason}"));
    }
    let format = match kind {
        "TIFF" => ImageFormat::Tiff,
        "PNG" => ImageFormat::Png,
        "WEBP" => ImageFormat::WebP,
        "GIF" => ImageFormat::Gif,
        "BMP" => ImageFormat::Bmp,
        "PNM" => ImageFormat::Pnm,
        _ => return Err("not an image of a known type".to_owned()),
    };
    let completed = (kind == "PNG").then(|| png::with_end(bytes)).flatten();
    let whole = completed.as_deref().unwrap_or(bytes);
    let reader = image::ImageReader::with_format(Cursor::new(whole), format);
    let decoder = reader.into_decoder().map_err(wrong)?;
    let picture = picture(decoder, room).map_err(|reason| format!("{kind}: {reason}"))?;
    Ok(Other {
        flaw: match (&completed, kind) {
            (Some(_), _) => Some("ends without its IEND chunk".to_owned()),
            (None, "PNG") => png::bomb(bytes),
            (None, "GIF") => gif::uncovered(bytes),
            _ => None,
        },
        ..picture
    })
}

/// Decodes a picture, within the limits.
fn picture(
    mut decoder: impl ImageDecoder,
    room: &dyn Fn(u64) -> Result<Taken, String>,
) -> Result<Other, String> {
    let wrong = |error: image::ImageError| error.to_string();
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let _held = room(decoder.total_bytes() + pixels_and_more(width, height))?;
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOCATION);
    decoder.set_limits(limits).map_err(wrong)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(wrong)?;
    Ok(Other {
        orientation: orientation.to_exif(),
        ..eight_bits(image)
    })
}

/// Returns the bytes that RGB pixels take, the coefficients made of them, and the streams made of those.
fn pixels_and_more(width: u32, height: u32) -> u64 {
    (3 + 6 + 5) * u64::from(width) * u64::from(height)
}

/// Brings pixels to 8 bits a sample, and drops transparency.
fn eight_bits(image: DynamicImage) -> Other {
    let size = (image.width(), image.height());
    let gray = !image.color().has_color();
    let mut scaled = None;
    let pixels = match image {
        // What more than 8 bits of gray mean is the maker's secret: often fewer are used than there are.
        DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_) => {
            let (pixels, how) = depth::integers(image.into_luma16().as_raw());
            scaled = Some(how);
            pixels
        }
        _ if gray => image.into_luma8().into_raw(),
        _ => image.into_rgb8().into_raw(),
    };
    Other {
        pixels,
        size,
        gray,
        orientation: 1,
        scaled,
        flaw: None,
    }
}
