//! One source file becomes one payload, or a reason why not.
//!
//! A file's content decides what it is. Everything kept has been decoded here by the very decoder that will read it
//! later.

mod jpeg;
mod other;
mod size;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;

use super::budget::{Memory, Taken};
use crate::Codec;
use crate::codec::Decoder;
use crate::dataset::CodecOptions;
use crate::dct::coefficients::Coefficients;
use crate::dct::encode::{Coding, Encoder, Statistics};
use crate::format::{Label, NewSample};
use crate::panics;
use crate::simd::Simd;
use crate::source::{Kind, Source, SourceFile, kind};
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
    /// What is wrong with a file that was read all the same.
    pub warning: Option<String>,
    /// What its name says of its kind, if that is another.
    pub misnamed: Option<String>,
}

impl Ingested {
    /// Returns the sample of it that a shard takes.
    pub fn sample<'a>(
        &'a self,
        class: Option<u32>,
        labels: &'a [Option<Label<'a>>],
    ) -> NewSample<'a> {
        NewSample {
            payload: &self.payload,
            codec: self.codec,
            stored: self.stored,
            source: self.source,
            class,
            orientation: self.orientation,
            labels,
        }
    }
}

/// The largest file that is read: whatever an image of the most pixels may take.
const MAX_FILE: u64 = 1 << 30;

/// Size beyond which a file's beginning is looked at before all of it is read.
const LARGE_FILE: u64 = 1 << 20;

/// Quality at which pixels of unbounded resolution become coefficients: what comes from no JPEG file, or from one whose
/// coefficients have no place in the codec.
const QUALITY: u8 = 95;

/// A thread's decoders and buffers.
pub struct Worker {
    options: CodecOptions,
    coding: Coding,
    memory: Memory,
    /// Whether buffers have grown so large that they must not be kept for the next file.
    is_swollen: Cell<bool>,
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
    pub fn new(options: CodecOptions, coding: Coding, memory: Memory) -> Worker {
        Worker {
            options,
            coding,
            memory,
            is_swollen: Cell::new(false),
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
    pub fn ingest(&mut self, source: &Source, file: &SourceFile) -> Result<Ingested, String> {
        self.guard(source, file, |worker, kind, bytes| {
            let mut ingested = match kind {
                "JPEG" => worker.convert_jpeg(bytes)?,
                kind => worker.convert_other(&bytes, kind)?,
            };
            let named = kind::named(&file.path).filter(|named| *named != kind);
            ingested.misnamed = named.map(|named| format!("named like {named}, is {kind}"));
            Ok(ingested)
        })
    }

    /// Counts the streams of one file, if it can be had as coefficients.
    pub fn count(&mut self, source: &Source, file: &SourceFile, statistics: &mut Statistics) {
        // What is wrong with a file is found, and reported, when it is built.
        let _ = self.guard(source, file, |worker, kind, bytes| {
            match kind {
                "JPEG" => worker.jpeg_to_coefficients(&bytes)?,
                kind => worker.other_to_coefficients(&bytes, kind)?,
            };
            let counted = worker.encoder.count(&worker.coefficients, statistics);
            counted.map_err(|error| error.to_string())
        });
    }

    /// Reads a file and works on it, even if that panics. The work is told the file's kind.
    ///
    /// A decoder that panics at one odd file must not end a build of a million.
    fn guard<T>(
        &mut self,
        source: &Source,
        file: &SourceFile,
        work: impl FnOnce(&mut Worker, &'static str, Vec<u8>) -> Result<T, String>,
    ) -> Result<T, String> {
        if let Some(fault) = &file.fault {
            return Err(fault.clone());
        }
        let unread = |error| format!("cannot be read: {error}");
        if file.size > MAX_FILE {
            let limit = MAX_FILE >> 20;
            return Err(format!(
                "{} bytes, more than the {limit} MiB that a file may have",
                file.size
            ));
        }
        if file.size > LARGE_FILE {
            image_kind(&source.head(file, kind::HEAD).map_err(unread)?)?;
        }
        let files = self.memory.files.clone();
        let _held = files.take(file.size);
        let bytes = source.read(file).map_err(unread)?;
        if bytes.is_empty() {
            return Err("empty file".to_owned());
        }
        let kind = image_kind(&bytes[..bytes.len().min(kind::HEAD)])?;
        let worked = std::panic::catch_unwind(AssertUnwindSafe(|| work(self, kind, bytes)));
        if worked.is_err() || self.is_swollen.get() {
            // Dropped with whatever state its parts were left in.
            *self = Worker::new(
                self.options.clone(),
                self.coding.clone(),
                self.memory.clone(),
            );
        }
        worked.unwrap_or_else(|panic| {
            let said = panics::message(&*panic);
            Err(format!("the decoder panicked: {said}"))
        })
    }

    /// Waits until there is memory for decoding, and takes it. An image that needs more than there will ever be is
    /// refused: the system would end the whole build for it.
    fn room(&self, bytes: u64) -> Result<Taken, String> {
        const SWOLLEN: u64 = 256 << 20;
        let total = self.memory.pixels.total();
        if bytes > total {
            let (needed, total) = (bytes >> 20, total >> 20);
            return Err(format!(
                "takes {needed} MiB of memory to convert, of which {total} are free"
            ));
        }
        self.is_swollen
            .set(self.is_swollen.get() || bytes > SWOLLEN);
        Ok(self.memory.pixels.take(bytes))
    }

    fn convert_other(&mut self, bytes: &[u8], kind: &'static str) -> Result<Ingested, String> {
        if self.options.name == Codec::Dct {
            let converted = self.other_to_coefficients(bytes, kind)?;
            return self.finish_dct(converted, None);
        }
        let other = self.decode_other(bytes, kind)?;
        let rgb: Vec<u8>;
        let pixels = if other.gray {
            rgb = other.pixels.iter().flat_map(|&gray| [gray; 3]).collect();
            &rgb
        } else {
            &other.pixels
        };
        let stored = (self.options.name != Codec::Raw)
            .then(|| format!("is {kind}, not JPEG: stored as raw pixels"));
        Ok(Ingested {
            payload: compress(pixels, self.options.level)?,
            codec: Codec::Raw,
            stored: other.size,
            source: other.size,
            orientation: other.orientation,
            change: join(stored, other.scaled),
            warning: other.flaw,
            misnamed: None,
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
            misnamed: None,
        };
        match (coded, jpeg) {
            (Ok(()), _) => {}
            (Err(error), Some(jpeg)) if image.stored == image.source => {
                let how = self.keep_file(jpeg, &mut image)?;
                image.change = Some(format!("{error}: {how}"));
            }
            (Err(error), _) => return Err(error.to_string()),
        }
        Ok(image)
    }

    fn decode_other(&self, bytes: &[u8], kind: &'static str) -> Result<Other, String> {
        other::decode(bytes, kind, &|bytes| self.room(bytes))
    }

    /// Codes the pixels of a file that is not JPEG.
    fn other_to_coefficients(
        &mut self,
        bytes: &[u8],
        kind: &'static str,
    ) -> Result<Converted, String> {
        let other = self.decode_other(bytes, kind)?;
        self.pixels_to_coefficients(Pixels {
            bytes: &other.pixels,
            size: other.size,
            gray: other.gray,
        })?;
        let (quality, chroma) = match &self.options.bound {
            Some(bound) if self.bounded(other.size).is_some() => (bound.quality, bound.chroma),
            _ => (QUALITY, 444),
        };
        let coded = format!("is {kind}, not JPEG: coded at quality {quality}, {chroma}");
        Ok(Converted {
            source: other.size,
            orientation: other.orientation,
            change: join(Some(coded), other.scaled),
            warning: other.flaw,
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

/// Returns the kind of an image from its first bytes, or why it is none that is read.
fn image_kind(head: &[u8]) -> Result<&'static str, String> {
    match Kind::of(head) {
        Kind::Image(kind) => Ok(kind),
        kind => Err(kind.refusal()),
    }
}

fn join(one: Option<String>, other: Option<String>) -> Option<String> {
    match (one, other) {
        (Some(one), Some(other)) => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
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
