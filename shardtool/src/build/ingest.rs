//! One source file becomes one payload, or a reason why not.
//!
//! What a file is, is decided by its content. Everything kept has been decoded here by the very
//! decoder that will read it later.

use super::jpeg;
use super::source::SourceFile;
use crate::Codec;
use crate::codec::{Decoder, Region};
use crate::dataset::CodecOptions;
use crate::dct::coefficients::Coefficients;
use crate::dct::encode::{Coding, Encoder, Statistics};
use crate::panics;
use crate::simd::Simd;
use crate::turbo::{self, Chroma};
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions};
use image::ImageDecoder;
use image::metadata::Orientation;
use std::io::Cursor;
use std::panic::AssertUnwindSafe;
use std::path::Path;

/// What a file of an unexpected type may make its decoder allocate.
const MAX_ALLOCATION: u64 = 1 << 30;

/// A file ready to be written.
#[derive(Debug)]
pub struct Image {
    pub payload: Vec<u8>,
    pub codec: Codec,
    /// Size of what the payload holds.
    pub stored: (u32, u32),
    /// Size of the file's image.
    pub source: (u32, u32),
    pub orientation: u8,
    /// Why it is stored otherwise than asked for, and how.
    pub change: Option<String>,
    /// libjpeg's complaint about faulty data that it read all the same.
    pub warning: Option<String>,
}

/// Quality at which pixels of unbounded resolution become coefficients: what comes from no JPEG file, or from one whose
/// coefficients have no place in the codec.
const QUALITY: u8 = 95;

/// One thread's decoders and buffers.
pub struct Worker {
    options: CodecOptions,
    coding: Coding,
    decoder: Decoder,
    turbo: turbo::Reader,
    turbo_pixels: turbo::Decoder,
    pixels: Vec<u8>,
    coefficients: Coefficients,
    encoder: Encoder,
    resizer: fast_image_resize::Resizer,
}

/// Pixels on their way to a codec that keeps none.
struct Pixels<'a> {
    bytes: &'a [u8],
    size: (u32, u32),
    /// One byte a pixel instead of three.
    gray: bool,
}

impl Worker {
    /// A worker that codes `dct` streams as `coding` says.
    pub fn new(options: CodecOptions, coding: Coding) -> Worker {
        Worker {
            options,
            coding,
            decoder: Decoder::new(),
            turbo: turbo::Reader::new(),
            turbo_pixels: turbo::Decoder::new(),
            pixels: Vec::new(),
            coefficients: Coefficients::empty(),
            encoder: Encoder::new(Simd::best()),
            resizer: fast_image_resize::Resizer::new(),
        }
    }

    /// Reads and codes one file.
    pub fn ingest(&mut self, root: &Path, file: &SourceFile) -> Result<Image, String> {
        self.guard(root, file, |worker, bytes| match jpeg::is_jpeg(&bytes) {
            true => worker.convert_jpeg(bytes),
            false => worker.convert_other(&bytes),
        })
    }

    /// Counts the streams of one file, if it can be had as coefficients.
    pub fn count(&mut self, root: &Path, file: &SourceFile, statistics: &mut Statistics) {
        // What is wrong with a file is found, and reported, when it is built.
        let _ = self.guard(root, file, |worker, bytes| {
            match jpeg::is_jpeg(&bytes) {
                true => worker.jpeg_to_coefficients(&bytes).map(drop)?,
                false => worker.other_to_coefficients(&bytes).map(drop)?,
            }
            let counted = worker.encoder.count(&worker.coefficients, statistics);
            counted.map_err(|error| error.to_string())
        });
    }

    /// Reads a file and does something with it that may panic: a decoder that does so at one odd file must not end a build
    /// of a million.
    fn guard<T>(
        &mut self,
        root: &Path,
        file: &SourceFile,
        work: impl FnOnce(&mut Worker, Vec<u8>) -> Result<T, String>,
    ) -> Result<T, String> {
        if let Some(fault) = &file.fault {
            return Err(fault.clone());
        }
        let bytes = std::fs::read(root.join(&file.path))
            .map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.is_empty() {
            return Err("empty file".to_owned());
        }
        std::panic::catch_unwind(AssertUnwindSafe(|| work(self, bytes))).unwrap_or_else(|panic| {
            // Dropped with whatever state its parts were left in.
            *self = Worker::new(self.options.clone(), self.coding.clone());
            Err(format!(
                "the decoder panicked: {}",
                panics::message(&*panic)
            ))
        })
    }

    fn convert_jpeg(&mut self, bytes: Vec<u8>) -> Result<Image, String> {
        if self.options.name == Codec::Dct {
            let converted = self.jpeg_to_coefficients(&bytes)?;
            return self.finish_dct(converted, Some(bytes));
        }
        jpeg::check_complete(&bytes)?;
        let (size, orientation) = jpeg::read_header(&bytes)?;
        let view =
            self.decoder
                .decode_payload(Codec::Jpeg, &bytes, size.0, size.1, Region::whole(size));
        let view = view.map_err(|fault| fault.to_string())?;
        let payload = match self.options.name {
            Codec::Raw => compress(view.pixels, self.options.level)?,
            Codec::Jpeg | Codec::Dct => bytes,
        };
        Ok(Image {
            payload,
            codec: self.options.name,
            stored: size,
            source: size,
            orientation,
            change: None,
            warning: None,
        })
    }

    fn convert_other(&mut self, bytes: &[u8]) -> Result<Image, String> {
        if self.options.name == Codec::Dct {
            let converted = self.other_to_coefficients(bytes)?;
            return self.finish_dct(converted, None);
        }
        let (image, kind, orientation) = decode_other(bytes)?;
        let size = (image.width(), image.height());
        Ok(Image {
            payload: compress(&image.into_rgb8(), self.options.level)?,
            codec: Codec::Raw,
            stored: size,
            source: size,
            orientation,
            change: (self.options.name != Codec::Raw)
                .then(|| format!("is {kind}, not JPEG: stored as raw pixels")),
            warning: None,
        })
    }

    /// Codes the coefficients at hand. Of a JPEG file that the codec's arithmetic cannot take, the file itself is kept.
    fn finish_dct(&mut self, converted: Converted, jpeg: Option<Vec<u8>>) -> Result<Image, String> {
        let mut payload = Vec::new();
        let coded = self
            .encoder
            .encode(&self.coefficients, &self.coding, &mut payload);
        let mut image = Image {
            payload,
            codec: Codec::Dct,
            stored: (self.coefficients.width, self.coefficients.height),
            source: converted.source,
            orientation: converted.orientation,
            change: converted.change,
            warning: converted.warning,
        };
        match (coded, jpeg) {
            (Ok(()), _) => {}
            (Err(error), Some(jpeg)) if image.stored == image.source => {
                image.payload = jpeg;
                image.codec = Codec::Jpeg;
                image.change = Some(format!("{error}: stored as the JPEG file"));
            }
            (Err(error), _) => return Err(error.to_string()),
        }
        Ok(image)
    }

    /// A JPEG file's own coefficients where they can be had and its resolution is within the bound.
    fn jpeg_to_coefficients(&mut self, bytes: &[u8]) -> Result<Converted, String> {
        jpeg::check_complete(bytes)?;
        let (source, orientation) = jpeg::read_header(bytes)?;
        let mut change = None;
        if self.bounded(source).is_none() {
            match self.turbo.read_coefficients(bytes, &mut self.coefficients) {
                Ok(reading) => {
                    return Ok(Converted {
                        source,
                        orientation,
                        change,
                        warning: reading.warning,
                    });
                }
                Err(turbo::Error::Unsupported(reason)) => {
                    change = Some(format!(
                        "is {reason}: coded anew at quality {QUALITY}, 4:4:4"
                    ));
                }
                Err(turbo::Error::Damaged(reason)) => return Err(format!("JPEG: {reason}")),
            }
        }
        // Taken out so that the rest of the worker can work on them.
        let mut pixels = std::mem::take(&mut self.pixels);
        let coded = self.decode_jpeg(bytes, source, &mut pixels).and_then(|()| {
            self.pixels_to_coefficients(Pixels {
                bytes: &pixels,
                size: source,
                gray: false,
            })
        });
        self.pixels = pixels;
        coded.map(|()| Converted {
            source,
            orientation,
            change,
            warning: None,
        })
    }

    /// A JPEG file's pixels: from libjpeg-turbo, or of the kinds it does not make RGB of (CMYK) from the other decoder.
    fn decode_jpeg(
        &mut self,
        bytes: &[u8],
        size: (u32, u32),
        into: &mut Vec<u8>,
    ) -> Result<(), String> {
        match self.turbo_pixels.decode_full(bytes, into) {
            Ok(got) if got == size => Ok(()),
            Ok((width, height)) => Err(format!(
                "JPEG: {width}x{height} pixels, but {}x{} in its header",
                size.0, size.1
            )),
            Err(turbo::Error::Damaged(reason)) => Err(format!("JPEG: {reason}")),
            Err(turbo::Error::Unsupported(_)) => {
                let region = Region::whole(size);
                let view = self
                    .decoder
                    .decode_payload(Codec::Jpeg, bytes, size.0, size.1, region)
                    .map_err(|fault| fault.to_string())?;
                into.clear();
                into.extend_from_slice(view.pixels);
                Ok(())
            }
        }
    }

    fn other_to_coefficients(&mut self, bytes: &[u8]) -> Result<Converted, String> {
        let (image, kind, orientation) = decode_other(bytes)?;
        let source = (image.width(), image.height());
        let gray = !image.color().has_color();
        let pixels = match gray {
            true => image.into_luma8().into_raw(),
            false => image.into_rgb8().into_raw(),
        };
        self.pixels_to_coefficients(Pixels {
            bytes: &pixels,
            size: source,
            gray,
        })?;
        let (quality, chroma) = match &self.options.bound {
            Some(bound) if self.bounded(source).is_some() => (bound.quality, bound.chroma),
            _ => (QUALITY, 444),
        };
        Ok(Converted {
            source,
            orientation,
            change: Some(format!(
                "is {kind}, not JPEG: coded at quality {quality}, {chroma}"
            )),
            warning: None,
        })
    }

    /// The size of an image whose shorter side is beyond the bound, once it is within.
    fn bounded(&self, (width, height): (u32, u32)) -> Option<(u32, u32)> {
        let bound = self.options.bound?.short_side;
        let shorter = width.min(height);
        // Rounded to the nearest; the shorter side becomes the bound itself.
        let scale = |side: u32| {
            let scaled = u64::from(side) * u64::from(bound) + u64::from(shorter) / 2;
            (scaled / u64::from(shorter)) as u32
        };
        (shorter > bound).then(|| (scale(width), scale(height)))
    }

    /// Codes pixels, made smaller if they are beyond the bound.
    fn pixels_to_coefficients(&mut self, pixels: Pixels<'_>) -> Result<(), String> {
        let Some((bound, size)) = self.options.bound.zip(self.bounded(pixels.size)) else {
            return encode(&pixels, QUALITY, Chroma::Yuv444, &mut self.coefficients);
        };
        // The library is compiled for each type of pixel it is called with, which takes long: gray borrows RGB's.
        let spread: Vec<u8>;
        let packed = match pixels.gray {
            true => {
                spread = pixels.bytes.iter().flat_map(|&gray| [gray; 3]).collect();
                &spread
            }
            false => pixels.bytes,
        };
        let (width, height) = pixels.size;
        let wrong = |error: &dyn std::error::Error| error.to_string();
        let source = TypedImageRef::<U8x3>::from_buffer(width, height, packed);
        let mut smaller = TypedImage::<U8x3>::new(size.0, size.1);
        // Lanczos, as Pillow's thumbnails are made: the sharpest of the usual filters.
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
        self.resizer
            .resize_typed(
                &source.map_err(|error| wrong(&error))?,
                &mut smaller,
                &options,
            )
            .map_err(|error| wrong(&error))?;
        let mut bytes: Vec<u8> = smaller.pixels().iter().flat_map(|pixel| pixel.0).collect();
        if pixels.gray {
            bytes = bytes.into_iter().step_by(3).collect();
        }
        let smaller = Pixels {
            bytes: &bytes,
            size,
            gray: pixels.gray,
        };
        let chroma = match bound.chroma {
            420 => Chroma::Yuv420,
            _ => Chroma::Yuv444,
        };
        encode(&smaller, bound.quality, chroma, &mut self.coefficients)
    }
}

/// What is known of a file besides its coefficients.
struct Converted {
    source: (u32, u32),
    orientation: u8,
    change: Option<String>,
    warning: Option<String>,
}

fn encode(
    pixels: &Pixels<'_>,
    quality: u8,
    chroma: Chroma,
    into: &mut Coefficients,
) -> Result<(), String> {
    let (width, height) = pixels.size;
    let encoded = match pixels.gray {
        true => turbo::encode_gray(pixels.bytes, width, height, quality, into),
        false => turbo::encode_rgb(pixels.bytes, width, height, quality, chroma, into),
    };
    encoded.map_err(|error| error.to_string())
}

/// Decodes a file that is not JPEG; gives its type and orientation as well.
fn decode_other(bytes: &[u8]) -> Result<(image::DynamicImage, String, u8), String> {
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
    Ok((image, kind, orientation.to_exif()))
}

fn compress(pixels: &[u8], level: i32) -> Result<Vec<u8>, String> {
    let payload = zstd::bulk::compress(pixels, level);
    payload.map_err(|error| format!("cannot be compressed: {error}"))
}

/// Refuses images that a shard's index has no room for.
pub fn check_size(width: u32, height: u32) -> Result<(), String> {
    match crate::format::fits(width, height) {
        true => Ok(()),
        false => Err(format!(
            "{width}x{height} pixels, more than an image may have"
        )),
    }
}
