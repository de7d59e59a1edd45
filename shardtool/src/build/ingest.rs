//! One source file becomes one payload, or a reason why not.
//!
//! A file's content decides what it is. Everything kept has been decoded here by the very decoder that will read it
//! later.

mod jpeg;
mod other;
mod size;

use std::panic::AssertUnwindSafe;

use crate::Codec;
use crate::codec::{Decoder, Region};
use crate::dataset::CodecOptions;
use crate::dct::coefficients::Coefficients;
use crate::dct::encode::{Coding, Encoder, Statistics};
use crate::panics;
use crate::simd::Simd;
use crate::source::{Source, SourceFile};
use crate::turbo::{self, Chroma};
use other::Other;
use size::Pixels;

/// A file ready to be written.
#[derive(Debug)]
pub struct Ingested {
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

/// A thread's decoders and buffers.
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

impl Worker {
    /// Returns a worker that codes `dct` streams as `coding` says.
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
    pub fn ingest(&mut self, source: &dyn Source, file: &SourceFile) -> Result<Ingested, String> {
        self.guard(source, file, |worker, bytes| {
            if jpeg::is_jpeg(&bytes) {
                worker.convert_jpeg(bytes)
            } else {
                worker.convert_other(&bytes)
            }
        })
    }

    /// Counts the streams of one file, if it can be had as coefficients.
    pub fn count(&mut self, source: &dyn Source, file: &SourceFile, statistics: &mut Statistics) {
        // What is wrong with a file is found, and reported, when it is built.
        let _ = self.guard(source, file, |worker, bytes| {
            if jpeg::is_jpeg(&bytes) {
                worker.jpeg_to_coefficients(&bytes)?;
            } else {
                worker.other_to_coefficients(&bytes)?;
            }
            let counted = worker.encoder.count(&worker.coefficients, statistics);
            counted.map_err(|error| error.to_string())
        });
    }

    /// Reads a file and works on it, even if that panics.
    ///
    /// A decoder that panics at one odd file must not end a build of a million.
    fn guard<T>(
        &mut self,
        source: &dyn Source,
        file: &SourceFile,
        work: impl FnOnce(&mut Worker, Vec<u8>) -> Result<T, String>,
    ) -> Result<T, String> {
        if let Some(fault) = &file.fault {
            return Err(fault.clone());
        }
        let bytes = source
            .read(file)
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

    fn convert_jpeg(&mut self, bytes: Vec<u8>) -> Result<Ingested, String> {
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
        Ok(Ingested {
            payload,
            codec: self.options.name,
            stored: size,
            source: size,
            orientation,
            change: None,
            warning: None,
        })
    }

    fn convert_other(&mut self, bytes: &[u8]) -> Result<Ingested, String> {
        if self.options.name == Codec::Dct {
            let converted = self.other_to_coefficients(bytes)?;
            return self.finish_dct(converted, None);
        }
        let Other {
            image,
            kind,
            orientation,
        } = other::decode(bytes)?;
        let size = (image.width(), image.height());
        Ok(Ingested {
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

    /// Codes the coefficients of a file. Where the codec's arithmetic cannot take those of a JPEG file, keeps the file.
    fn finish_dct(
        &mut self,
        converted: Converted,
        jpeg: Option<Vec<u8>>,
    ) -> Result<Ingested, String> {
        let mut payload = Vec::new();
        let coded = self
            .encoder
            .encode(&self.coefficients, &self.coding, &mut payload);
        let mut image = Ingested {
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

    /// Finds a JPEG file's own coefficients, or codes its pixels where there are none or the image is beyond the bound.
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

    /// Decodes a JPEG file: with libjpeg-turbo, or where that makes no RGB of it (CMYK) with the other decoder.
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

    /// Codes the pixels of a file that is not JPEG.
    fn other_to_coefficients(&mut self, bytes: &[u8]) -> Result<Converted, String> {
        let Other {
            image,
            kind,
            orientation,
        } = other::decode(bytes)?;
        let source = (image.width(), image.height());
        let gray = !image.color().has_color();
        let pixels = if gray {
            image.into_luma8().into_raw()
        } else {
            image.into_rgb8().into_raw()
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

    /// Returns the size of an image made smaller, if it is beyond the bound.
    fn bounded(&self, size: (u32, u32)) -> Option<(u32, u32)> {
        size::bounded(size, self.options.bound?.short_side)
    }

    /// Codes pixels, made smaller if they are beyond the bound.
    fn pixels_to_coefficients(&mut self, pixels: Pixels<'_>) -> Result<(), String> {
        let Some((bound, size)) = self.options.bound.zip(self.bounded(pixels.size)) else {
            return encode(&pixels, QUALITY, Chroma::Yuv444, &mut self.coefficients);
        };
        let bytes = size::shrink(&mut self.resizer, &pixels, size)?;
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
    let encoded = if pixels.gray {
        turbo::encode_gray(pixels.bytes, width, height, quality, into)
    } else {
        turbo::encode_rgb(pixels.bytes, width, height, quality, chroma, into)
    };
    encoded.map_err(|error| error.to_string())
}

fn compress(pixels: &[u8], level: i32) -> Result<Vec<u8>, String> {
    let payload = zstd::bulk::compress(pixels, level);
    payload.map_err(|error| format!("cannot be compressed: {error}"))
}
