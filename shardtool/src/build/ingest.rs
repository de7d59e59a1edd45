//! One source file becomes one payload, or a reason why not.
//!
//! What a file is, is decided by its content. Everything kept has been decoded here by the very
//! decoder that will read it later.

use super::source::SourceFile;
use crate::Codec;
use crate::codec::{Decoder, Region};
use image::ImageDecoder;
use image::metadata::Orientation;
use std::io::Cursor;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::options::DecoderOptions;

/// What a file of an unexpected type may make its decoder allocate.
const MAX_ALLOCATION: u64 = 1 << 30;

/// A file ready to be written.
#[derive(Debug)]
pub struct Image {
    pub payload: Vec<u8>,
    pub codec: Codec,
    pub size: (u32, u32),
    pub orientation: u8,
    /// What the file was: "JPEG", "PNG", …
    kind: String,
}

impl Image {
    /// What to report of an image that cannot have the codec asked for.
    pub fn converted(&self, asked: Codec) -> Option<String> {
        (self.codec != asked).then(|| format!("is {}, not JPEG", self.kind))
    }
}

/// One thread's decoder and buffers.
pub struct Worker {
    codec: Codec,
    level: i32,
    decoder: Decoder,
}

impl Worker {
    pub fn new(codec: Codec, level: i32) -> Worker {
        Worker {
            codec,
            level,
            decoder: Decoder::new(),
        }
    }

    /// Reads and decodes one file.
    pub fn ingest(&mut self, root: &Path, file: &SourceFile) -> Result<Image, String> {
        if let Some(fault) = &file.fault {
            return Err(fault.clone());
        }
        let bytes = std::fs::read(root.join(&file.path))
            .map_err(|error| format!("cannot be read: {error}"))?;
        // A decoder that panics at one odd file must not end a build of a million. It is dropped
        // with whatever state it was left in.
        std::panic::catch_unwind(AssertUnwindSafe(|| self.convert(bytes))).unwrap_or_else(|_| {
            self.decoder = Decoder::new();
            Err("the decoder panicked".to_owned())
        })
    }

    fn convert(&mut self, bytes: Vec<u8>) -> Result<Image, String> {
        if bytes.is_empty() {
            return Err("empty file".to_owned());
        }
        match bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            true => self.convert_jpeg(bytes),
            false => self.convert_other(&bytes),
        }
    }

    fn convert_jpeg(&mut self, bytes: Vec<u8>) -> Result<Image, String> {
        check_complete(&bytes)?;
        let ((width, height), orientation) = read_header(&bytes)?;
        let region = Region {
            x: 0,
            y: 0,
            width,
            height,
        };
        let view = self
            .decoder
            .decode_payload(Codec::Jpeg, &bytes, width, height, region)?;
        let payload = match self.codec {
            Codec::Jpeg => bytes,
            Codec::Raw => compress(view.pixels, self.level)?,
        };
        Ok(Image {
            payload,
            codec: self.codec,
            size: (width, height),
            orientation,
            kind: "JPEG".to_owned(),
        })
    }

    fn convert_other(&mut self, bytes: &[u8]) -> Result<Image, String> {
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
        Ok(Image {
            payload: compress(&image.into_rgb8(), self.level)?,
            codec: Codec::Raw,
            size: (width, height),
            orientation: orientation.to_exif(),
            kind,
        })
    }
}

fn compress(pixels: &[u8], level: i32) -> Result<Vec<u8>, String> {
    let payload = zstd::bulk::compress(pixels, level);
    payload.map_err(|error| format!("cannot be compressed: {error}"))
}

fn check_size(width: u32, height: u32) -> Result<(), String> {
    match crate::format::fits(width, height) {
        true => Ok(()),
        false => Err(format!(
            "{width}x{height} pixels, more than an image may have"
        )),
    }
}

/// Size and EXIF orientation of a JPEG file.
fn read_header(bytes: &[u8]) -> Result<((u32, u32), u8), String> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut jpeg = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    jpeg.decode_headers()
        .map_err(|error| format!("JPEG: {error}"))?;
    let (width, height) = jpeg.dimensions().ok_or("JPEG: no dimensions")?;
    let (width, height) = (width as u32, height as u32); // JPEG has 16-bit dimensions
    check_size(width, height)?;
    let orientation = jpeg
        .exif()
        .and_then(|exif| Orientation::from_exif_chunk(exif));
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    Ok(((width, height), orientation.to_exif()))
}

/// Refuses a JPEG file that ends before its end-of-image marker. The decoder would fill the
/// missing part with gray; Pillow, and with it torchvision, refuses such a file too.
fn check_complete(bytes: &[u8]) -> Result<(), String> {
    const END_OF_IMAGE: u8 = 0xd9;
    let truncated = || format!("truncated: no end-of-image marker in {} bytes", bytes.len());
    let mut at = 2;
    loop {
        // Entropy-coded data holds FF only before 00 or a restart marker, so that a search for
        // the next other marker serves behind a scan's header as well as between segments.
        while bytes.get(at) != Some(&0xff) {
            at += 1;
            if at >= bytes.len() {
                return Err(truncated());
            }
        }
        at += 1;
        match bytes.get(at) {
            None => return Err(truncated()),
            Some(&END_OF_IMAGE) => return Ok(()),
            Some(0xff) => {}
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(_) => {
                let length = bytes.get(at + 1..at + 3).ok_or_else(truncated)?;
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_behind_segments_and_scans() {
        let jpeg = [
            &[0xff, 0xd8][..],
            &[0xff, 0xe1, 0, 6, 0xff, 0xd9, 0xff, 0xd9], // a thumbnail's end is not the image's
            &[0xff, 0xda, 0, 2, 1, 2, 0xff, 0, 3, 0xff, 0xd0, 4],
            &[0xff, 0xff, 0xc4, 0, 2],
            &[0xff, 0xda, 0, 2, 5],
            &[0xff, 0xd9],
        ]
        .concat();
        assert_eq!(check_complete(&jpeg), Ok(()));
        for length in 0..jpeg.len() {
            assert!(check_complete(&jpeg[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(check_complete(&[&jpeg[..], &[0, 0]].concat()), Ok(()));
    }
}
