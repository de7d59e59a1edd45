//! JPEG files: their coefficients where they have some, their pixels otherwise. libjpeg-turbo judges both.

use image::metadata::Orientation;

use super::size::Pixels;
use super::{Converted, Ingested, QUALITY, Worker, compress};
use crate::Codec;
use crate::build::budget::Taken;
use crate::codec::{Region, RgbView};
use crate::turbo::{self, Flaw};

impl Worker {
    /// Codes a file as the options say.
    pub(super) fn convert_jpeg(&mut self, bytes: Vec<u8>) -> Result<Ingested, String> {
        if self.options.name == Codec::Dct {
            let converted = self.jpeg_to_coefficients(&bytes)?;
            return self.finish_dct(converted, Some(bytes));
        }
        let mut pixels = std::mem::take(&mut self.pixels);
        let decoded = self.decode_jpeg(&bytes, &mut pixels);
        // Memory is given back before more is taken: who held some and waited for more might wait for itself.
        let decoded = decoded.map(|(size, warning, _held)| (size, warning));
        let turned = orientation(&bytes);
        let converted = decoded.and_then(|(size, warning)| {
            let payload = match self.options.name {
                Codec::Raw => compress(&pixels, self.options.level)?,
                Codec::Jpeg | Codec::Dct => match self.loader_reads(&bytes, size, &pixels) {
                    Ok(()) => bytes,
                    Err(reason) => return self.convert_odd_jpeg(&bytes, &reason),
                },
            };
            Ok(Ingested {
                orientation: turned,
                payload,
                codec: self.options.name,
                stored: size,
                source: size,
                change: None,
                warning,
                misnamed: None,
            })
        });
        self.pixels = pixels;
        converted
    }

    /// Stores a JPEG file as its coefficients instead, for a reason.
    fn convert_odd_jpeg(&mut self, bytes: &[u8], reason: &str) -> Result<Ingested, String> {
        let mut converted = self.jpeg_to_coefficients(bytes)?;
        let how = converted.change.take();
        let how = how.unwrap_or_else(|| "stored as its coefficients".to_owned());
        converted.change = Some(format!("{reason}: {how}"));
        self.finish_dct(converted, None)
    }

    /// Checks that the loader's decoder makes the picture of a `jpeg` payload that libjpeg-turbo makes of it.
    fn loader_reads(
        &mut self,
        bytes: &[u8],
        size: (u32, u32),
        pixels: &[u8],
    ) -> Result<(), String> {
        if self.turbo_pixels.flaw().is_some_and(|flaw| flaw.endless) {
            return Err("a JPEG file without its end marker".to_owned());
        }
        let region = Region::whole(size);
        match self
            .decoder
            .decode_payload(Codec::Jpeg, bytes, size.0, size.1, region)
        {
            Ok(view) if are_alike(pixels, &view) => Ok(()),
            Ok(_) => {
                Err("a kind of JPEG that the loader would decode to another picture".to_owned())
            }
            Err(fault) => Err(format!(
                "a kind of JPEG that the loader would not decode ({fault})"
            )),
        }
    }

    /// Stores a JPEG file itself instead of its coefficients, or if the loader would not read it, its pixels. Returns
    /// which of both.
    pub(super) fn keep_file(
        &mut self,
        jpeg: Vec<u8>,
        image: &mut Ingested,
    ) -> Result<&'static str, String> {
        let mut pixels = std::mem::take(&mut self.pixels);
        let kept = self
            .decode_jpeg(&jpeg, &mut pixels)
            .and_then(|(size, _, _held)| {
                if self.loader_reads(&jpeg, size, &pixels).is_ok() {
                    (image.payload, image.codec) = (jpeg, Codec::Jpeg);
                    Ok("stored as the JPEG file")
                } else {
                    (image.payload, image.codec) =
                        (compress(&pixels, self.options.level.max(1))?, Codec::Raw);
                    Ok("stored as raw pixels")
                }
            });
        self.pixels = pixels;
        kept
    }

    /// Finds a JPEG file's own coefficients, or codes its pixels where there are none or the image is beyond the bound.
    pub(super) fn jpeg_to_coefficients(&mut self, bytes: &[u8]) -> Result<Converted, String> {
        let source = self.turbo_pixels.size(bytes).map_err(jpeg_error)?;
        let orientation = orientation(bytes);
        let mut change = None;
        if self.bounded(source).is_none() {
            let pixels = u64::from(source.0) * u64::from(source.1);
            // Three components of 16 bits, and the streams made of them.
            let _held = self.room(11 * pixels)?;
            match self.turbo.read_coefficients(bytes, &mut self.coefficients) {
                Ok(reading) => {
                    return Ok(Converted {
                        source,
                        orientation,
                        change,
                        warning: reading.flaw.map(bear_with).transpose()?,
                    });
                }
                Err(turbo::Error::Unsupported(reason)) => {
                    change = Some(format!("{reason}: coded anew at quality {QUALITY}, 4:4:4"));
                }
                Err(error) => return Err(jpeg_error(error)),
            }
        }
        // Taken out so that the rest of the worker can work on them.
        let mut pixels = std::mem::take(&mut self.pixels);
        let coded = self
            .decode_jpeg(bytes, &mut pixels)
            .and_then(|(size, warning, _held)| {
                self.pixels_to_coefficients(Pixels {
                    bytes: &pixels,
                    size,
                    gray: false,
                })?;
                Ok(warning)
            });
        self.pixels = pixels;
        coded.map(|warning| Converted {
            source,
            orientation,
            change,
            warning,
        })
    }

    /// Decodes a JPEG file and returns its size, what is wrong with it, and the memory that was taken for it.
    fn decode_jpeg(&mut self, bytes: &[u8], into: &mut Vec<u8>) -> Result<Decoded, String> {
        let (width, height) = self.turbo_pixels.size(bytes).map_err(jpeg_error)?;
        // Pixels, and the coefficients of a progressive file or those that are made of the pixels.
        let held = self.room(14 * u64::from(width) * u64::from(height))?;
        let size = self
            .turbo_pixels
            .decode_full(bytes, into)
            .map_err(jpeg_error)?;
        let warning = self.turbo_pixels.flaw().map(bear_with).transpose()?;
        Ok((size, warning, held))
    }
}

/// A decoded JPEG file: its size, what is wrong with it, and the memory that was taken for it.
type Decoded = ((u32, u32), Option<String>, Taken);

fn jpeg_error(error: turbo::Error) -> String {
    match error {
        turbo::Error::Unsupported(reason) | turbo::Error::Damaged(reason) => {
            format!("JPEG: {reason}")
        }
    }
}

/// Refuses a file that ends before its picture does, as Pillow and with it torchvision do; else says what is wrong.
fn bear_with(flaw: Flaw) -> Result<String, String> {
    if flaw.cut {
        Err(format!("JPEG: truncated: {}", flaw.complaint))
    } else {
        Ok(flaw.complaint)
    }
}

/// Returns the EXIF orientation, 1 to 8; 1 where the markers tell none. libjpeg alone judges whether the file is whole.
fn orientation(bytes: &[u8]) -> u8 {
    exif(bytes).unwrap_or(Orientation::NoTransforms).to_exif()
}

fn exif(bytes: &[u8]) -> Option<Orientation> {
    let mut found = None;
    let mut at = 2;
    loop {
        // As libjpeg does: what lies between segments is skipped, and any number of FF may come before a marker.
        let rest = bytes.get(at..)?;
        at += rest
            .windows(2)
            .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff))?;
        let marker = bytes[at + 1];
        match marker {
            0x01 | 0xd0..=0xd8 => {
                at += 2; // a marker without a segment
                continue;
            }
            0xd9 | 0xda => return found,
            _ => {}
        }
        let length = bytes.get(at + 2..at + 4)?;
        let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
        let segment = bytes.get(at + 4..end)?;
        if marker == 0xe1 {
            let exif = segment.strip_prefix(b"Exif\0\0");
            found = exif.and_then(Orientation::from_exif_chunk).or(found);
        }
        at = end;
    }
}

/// Tells if two decoders made the same picture of a file. They round differently, and may make finer chroma of coarse
/// in different ways, but nowhere do areas differ.
fn are_alike(one: &[u8], other: &RgbView<'_>) -> bool {
    /// Levels that an area's mean may differ by. Decoders that are right differ by less than a third of it.
    const TOLERANCE: u64 = 6;
    const CELL: usize = 16;
    let width = other.width as usize;
    let columns = width.div_ceil(CELL);
    let mut sums = vec![[[0u64; 3]; 2]; columns];
    let mut rows = one.chunks_exact(3 * width).zip(other.rows()).peekable();
    let mut height = 0;
    while let Some(pair) = rows.next() {
        for (which, row) in [pair.0, pair.1].into_iter().enumerate() {
            for (cell, sums) in row.chunks(3 * CELL).zip(&mut sums) {
                for pixel in cell.chunks_exact(3) {
                    for (sum, value) in sums[which].iter_mut().zip(pixel) {
                        *sum += u64::from(*value);
                    }
                }
            }
        }
        height += 1;
        if height < CELL && rows.peek().is_some() {
            continue;
        }
        for (column, [one, other]) in sums.iter().enumerate() {
            let pixels = (height * CELL.min(width - column * CELL)) as u64;
            let differ = |(one, other): (&u64, &u64)| one.abs_diff(*other) > TOLERANCE * pixels;
            if one.iter().zip(other).any(differ) {
                return false;
            }
        }
        sums.fill([[0; 3]; 2]);
        height = 0;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientation_is_found_wherever_it_stands_and_nothing_else_is_taken_for_it() {
        let exif = [
            &b"Exif\0\0MM\0\x2a\0\0\0\x08"[..],
            &[0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let segment = |marker: u8, data: &[u8]| {
            let length = (data.len() as u16 + 2).to_be_bytes();
            [&[0xff, marker, length[0], length[1]], data].concat()
        };
        let whole = [
            &[0xff, 0xd8][..],
            &segment(0xfe, b"junk"),
            &[0x55, 0x55, 0xff],
            &segment(0xe1, &exif),
            &segment(0xda, b""),
        ]
        .concat();
        assert_eq!(orientation(&whole), 6);
        let behind = [
            &[0xff, 0xd8][..],
            &segment(0xda, b""),
            &segment(0xe1, &exif),
        ]
        .concat();
        assert_eq!(orientation(&behind), 1);
        for length in 0..whole.len() {
            orientation(&whole[..length]);
        }
        assert_eq!(orientation(&[0xff, 0xd8, 0xff, 0xe0, 0, 0, 0xff, 0xd9]), 1);
    }
}
