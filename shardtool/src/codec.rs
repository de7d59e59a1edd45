//! Payloads to pictures: one [`Decoder`] per worker thread turns an area of a sample into pixels or planes.
//!
//! Scratch buffers and the zstd context live in the decoder, so that decoding allocates nothing
//! per image beyond what the decoder of `jpeg` payloads itself does. An image of other dimensions than
//! the entry's is an error.
//!
//! # Memory
//!
//! Whatever the bytes say, decoding takes no more than
//!
//! * `raw`: 3 bytes for each pixel of the entry, and at most 2^15 for each byte of the payload, which is what zstd
//!   makes of a byte at best;
//! * `dct`: of streams, 267 bytes for each of a component's blocks, of which an entry has at most three for every 8 × 8
//!   pixels, and at most 2^15 for each byte of the payload, as rANS does no better; of samples, one for each pixel and
//!   component of the blocks that an area touches, with rows filled up to a multiple of 64 blocks' width, and none
//!   before the streams are there;
//! * `jpeg`: 3 bytes for each pixel of the entry, and what its decoder takes for a file of that size.
//!
//! A tiny payload of `raw` or `dct` that claims the largest image thus gets nothing but an error.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use zstd::zstd_safe;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::dct::coefficients::Coefficients;
use crate::dct::{self, decode::MOST_PER_BYTE};
use crate::planes::{Area, Planes, Resolution};
use crate::simd::Simd;
use crate::{Codec, Corrupt, Entry, Error, Payload, Sample, panics};

/// A rectangle on the stored grid, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width, at least 1.
    pub width: u32,
    /// Height, at least 1.
    pub height: u32,
}

impl Region {
    /// Returns the whole of an image of this size.
    pub fn whole((width, height): (u32, u32)) -> Region {
        Region {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// Returns the pixels that come nearest to an area of an image of this size; at least one.
    fn around(area: Area, (width, height): (u32, u32)) -> Region {
        let along = |start: f64, length: f64, limit: u32| {
            // A float that is no number or out of range becomes the nearest limit.
            let first = (start.round() as u32).min(limit.saturating_sub(1));
            let end = ((start + length).round() as u32).clamp(first + 1, limit.max(first + 1));
            (first, end - first)
        };
        let (x, width) = along(area.left, area.width, width);
        let (y, height) = along(area.top, area.height, height);
        Region {
            x,
            y,
            width,
            height,
        }
    }

    pub(crate) fn is_inside(&self, width: u32, height: u32) -> bool {
        let end = |start: u32, length: u32| u64::from(start) + u64::from(length);
        self.width > 0
            && self.height > 0
            && end(self.x, self.width) <= u64::from(width)
            && end(self.y, self.height) <= u64::from(height)
    }
}

/// Decoded pixels: exactly the region asked for, possibly a window in a larger image.
#[derive(Debug, Clone, Copy)]
pub struct RgbView<'a> {
    /// RGB8 from the region's first pixel to its last: rows are `3 * stride_px` bytes apart, and
    /// the last one ends after `3 * width` bytes.
    pub pixels: &'a [u8],
    /// Distance between rows, in pixels.
    pub stride_px: usize,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl<'a> RgbView<'a> {
    /// Returns the rows, top to bottom, each `3 * width` bytes.
    pub fn rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (pixels, width) = (self.pixels, 3 * self.width as usize);
        let pitch = 3 * self.stride_px;
        (0..self.height as usize).map(move |y| &pixels[y * pitch..y * pitch + width])
    }
}

/// A decoded area: what it is depends on the codec.
#[derive(Debug, Clone, Copy)]
pub enum Picture<'a> {
    /// Pixels, from `jpeg` and `raw`.
    Rgb(RgbView<'a>),
    /// A plane for each component, from `dct`.
    Planes(Planes<'a>),
}

/// What the largest of some samples ask of a decoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Largest {
    /// The largest stored width.
    pub width: u32,
    /// The largest stored height.
    pub height: u32,
    /// Bytes of the longest payload.
    pub payload: usize,
    /// Bytes of the pixels of the largest image in a codec of pixels.
    pixels: usize,
    dct: dct::decode::Room,
}

impl Largest {
    /// Returns the largest of these.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Largest {
        let mut largest = Largest::default();
        for entry in entries {
            let (width, height) = (entry.stored_width, entry.stored_height);
            largest.width = largest.width.max(width);
            largest.height = largest.height.max(height);
            largest.payload = largest.payload.max(entry.length as usize);
            match entry.codec {
                Codec::Jpeg | Codec::Raw => {
                    let bytes = 3 * width as usize * height as usize;
                    largest.pixels = largest.pixels.max(bytes);
                }
                Codec::Dct => largest.dct.include((width, height)),
            }
        }
        largest
    }
}

/// Decodes samples; keep one per thread.
pub struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
    dct: dct::decode::Decoder,
    pixels: Vec<u8>,
    entropy: Duration,
    last: Codec,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Decoder {
    /// Makes a decoder with empty buffers.
    pub fn new() -> Decoder {
        Decoder::with(Simd::best())
    }

    /// Makes a decoder that uses no wider instructions than these.
    pub fn with(simd: Simd) -> Decoder {
        Decoder {
            zstd: zstd::bulk::Decompressor::default(),
            dct: dct::decode::Decoder::new(simd),
            pixels: Vec::new(),
            entropy: Duration::ZERO,
            last: Codec::Raw,
        }
    }

    /// Makes room for decoding any part of samples like these, so that nothing is allocated for one, unless it is a
    /// `jpeg`. The room is for the worst of payloads, but of address space: memory is used as images come to need it.
    /// Where there is not so much, buffers grow later.
    pub fn reserve(&mut self, largest: &Largest) {
        let _ = self.pixels.try_reserve(largest.pixels);
        self.dct.reserve(&largest.dct);
    }

    /// Decodes an area of a sample, given on its stored grid. The codecs of pixels round it to whole ones, and know but
    /// one resolution.
    ///
    /// # Errors
    /// [`Error::Decode`] with why the payload makes no picture.
    pub fn decode(
        &mut self,
        payload: &Payload<'_>,
        area: Area,
        resolution: Resolution,
    ) -> Result<Picture<'_>, Error> {
        let (sample, bytes) = (payload.sample(), payload.bytes());
        let entry = sample.entry();
        let size = (entry.stored_width, entry.stored_height);
        self.last = entry.codec;
        let picture = match entry.codec {
            Codec::Jpeg | Codec::Raw => {
                let region = Region::around(area, size);
                let pixels = self.decode_payload(entry.codec, bytes, size.0, size.1, region);
                pixels.map(Picture::Rgb)
            }
            Codec::Dct => {
                let tables = sample.shard().tables();
                let planes = self.dct.decode(bytes, tables, size, area, resolution);
                planes.map(Picture::Planes)
            }
        };
        picture.map_err(|cause| damaged(&sample, cause))
    }

    /// Returns the coefficients of a `dct` sample.
    ///
    /// # Errors
    /// [`Error::Decode`] for another codec, or with why the payload holds none.
    pub fn coefficients(&mut self, payload: &Payload<'_>) -> Result<Coefficients, Error> {
        let sample = payload.sample();
        let entry = sample.entry();
        let coefficients = match entry.codec {
            Codec::Dct => self.dct.coefficients(
                payload.bytes(),
                sample.shard().tables(),
                (entry.stored_width, entry.stored_height),
            ),
            codec => Err(Corrupt::Unsupported {
                codec,
                what: "coefficients",
            }),
        };
        coefficients.map_err(|cause| damaged(&sample, cause))
    }

    /// Returns how much of the last decoding went into undoing the entropy coding. Zero for JPEG, whose
    /// decoder does it together with the rest.
    pub fn entropy_time(&self) -> Duration {
        match self.last {
            Codec::Dct => self.dct.entropy_time(),
            Codec::Jpeg | Codec::Raw => self.entropy,
        }
    }

    /// Decodes `region` of a payload of pixels that is in no shard yet, whose image must be `width` by
    /// `height` pixels. An error is the reason alone.
    ///
    /// # Errors
    /// [`Corrupt`] with why the payload makes no picture.
    pub fn decode_payload(
        &mut self,
        codec: Codec,
        payload: &[u8],
        width: u32,
        height: u32,
        region: Region,
    ) -> Result<RgbView<'_>, Corrupt> {
        if !region.is_inside(width, height) {
            return Err(Corrupt::Area {
                area: format!("{region:?}"),
                size: (width, height),
            });
        }
        if !crate::format::fits(width, height) {
            return Err(format!("{width}x{height} is larger than an image may be").into());
        }
        self.entropy = Duration::ZERO;
        match codec {
            Codec::Jpeg => self.decode_jpeg(payload, width, height)?,
            Codec::Raw => self.decode_raw(payload, width, height)?,
            Codec::Dct => {
                return Err(Corrupt::Unsupported {
                    codec,
                    what: "pixels",
                });
            }
        }
        let at = |x: u32, y: u32| 3 * (y as usize * width as usize + x as usize);
        let first = at(region.x, region.y);
        let last = at(region.x + region.width, region.y + region.height - 1);
        Ok(RgbView {
            pixels: &self.pixels[first..last],
            stride_px: width as usize,
            width: region.width,
            height: region.height,
        })
    }

    fn decode_jpeg(&mut self, payload: &[u8], width: u32, height: u32) -> Result<(), Corrupt> {
        let options = DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(width as usize)
            .set_max_height(height as usize)
            .jpeg_set_out_colorspace(ColorSpace::RGB);
        // On faulty data the decoder has been seen to index out of its own bounds. That is one damaged sample, no
        // reason to lose a worker; what the panic leaves behind are pixels that nobody reads.
        let pixels = &mut self.pixels;
        let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut jpeg = JpegDecoder::new_with_options(ZCursor::new(payload), options);
            jpeg.decode_headers()
                .map_err(|error| Corrupt::Library(error.to_string()))?;
            let got = jpeg.dimensions().unwrap_or_default();
            if got != (width as usize, height as usize) {
                return Err(Corrupt::Size {
                    codec: Codec::Jpeg,
                    expected: (width, height),
                    got: (got.0 as u32, got.1 as u32),
                });
            }
            jpeg.decode_into(buffer(pixels, width, height))
                .map_err(|error| Corrupt::Library(error.to_string()))
        }));
        decoded.unwrap_or_else(|panic| Err(Corrupt::Panicked(panics::message(&*panic))))
    }

    fn decode_raw(&mut self, payload: &[u8], width: u32, height: u32) -> Result<(), Corrupt> {
        let length = 3 * width as usize * height as usize;
        match zstd_safe::get_frame_content_size(payload) {
            Ok(Some(content)) if content == length as u64 => {}
            Ok(Some(content)) => {
                return Err(format!("{content} bytes of pixels, expected {length}").into());
            }
            _ => return Err("not a zstd frame that records its content size".into()),
        }
        if length > MOST_PER_BYTE.saturating_mul(payload.len()) {
            return Err(format!("{} bytes cannot hold {length}", payload.len()).into());
        }
        let pixels = buffer(&mut self.pixels, width, height);
        let start = Instant::now();
        let got = self
            .zstd
            .decompress_to_buffer(payload, pixels)
            .map_err(|error| Corrupt::Library(error.to_string()))?;
        self.entropy = start.elapsed();
        if got == length {
            Ok(())
        } else {
            Err(format!("{got} bytes of pixels, expected {length}").into())
        }
    }
}

fn damaged(sample: &Sample<'_>, cause: Corrupt) -> Error {
    Error::Decode {
        path: sample.shard().path().to_owned(),
        sample: sample.index(),
        offset: sample.entry().offset,
        cause,
    }
}

/// Returns the front of the scratch buffer, for an image of this size. It is grown, never cut: cutting
/// would clear the difference again for each larger image.
fn buffer(pixels: &mut Vec<u8>, width: u32, height: u32) -> &mut [u8] {
    let length = 3 * width as usize * height as usize;
    if pixels.len() < length {
        pixels.resize(length, 0);
    }
    &mut pixels[..length]
}

#[cfg(test)]
mod tests;
