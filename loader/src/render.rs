//! A sample's crop, from its payload to the planes of a slot.
//!
//! This is the only way from shard to slot: workers and the comparison of codecs take it, with a [`Renderer`] each.

use std::time::{Duration, Instant};

use shardtool::Sample;
use shardtool::codec::{Decoder, Largest, Picture};
use shardtool::planes::{Area, Resolution};
use shardtool::simd::Simd;

use crate::config::Fidelity;
use crate::resize::PlanarResizer;

/// How much finer than the square the planes are at [`Fidelity::Fast`], at least. Measured on 700 photographs (`loader
/// compare`): from here on a finer margin costs time and gains little.
pub const MARGIN: f64 = 1.2;

/// Decodes, crops and resizes; keep one per thread. Its buffers grow to what the largest image needs and stay;
/// [`Renderer::reserve`] lets them be so from the start.
pub struct Renderer {
    /// Stored bytes of the sample at hand.
    payload: Vec<u8>,
    decoder: Decoder,
    resizer: PlanarResizer,
}

/// What to make of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// The part of the image, on its stored grid.
    pub area: Area,
    /// Pixels around the part count in its resizing, as where an image is resized before it is cropped.
    pub surround: bool,
    /// How fine it is decoded before it is resized.
    pub resolution: Resolution,
    /// Side of the square it becomes, in pixels.
    pub side: u32,
    /// It is mirrored left to right.
    pub mirror: bool,
}

/// Where the time of one image went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Reading the stored bytes, and comparing them with their checksum.
    pub read: Duration,
    /// Undoing the entropy coding, where the codec tells it apart.
    pub entropy: Duration,
    /// The rest of decoding.
    pub decode: Duration,
    /// Resampling to the crop size.
    pub resize: Duration,
}

impl View {
    /// Returns what has to be decoded of an image of this stored size: the area, or whole pixels around it as far as
    /// its outputs see. "The centre" in `PIXELS.md`.
    fn decoded(&self, stored: (u32, u32)) -> (Area, Resolution) {
        if !self.surround {
            return (self.area, self.resolution);
        }
        let along = |start: f64, length: f64, stored: u32| {
            let more = 2.0 * (length / f64::from(self.side)).max(2.0);
            let first = (start - more).floor().max(0.0);
            let end = (start + length + more).ceil().min(f64::from(stored));
            (first, end - first)
        };
        let (left, width) = along(self.area.left, self.area.width, stored.0);
        let (top, height) = along(self.area.top, self.area.height, stored.1);
        let outer = Area {
            left,
            top,
            width,
            height,
        };
        let resolution = match self.resolution {
            Resolution::Full => Resolution::Full,
            Resolution::Fit { side, margin } => {
                // As many samples for the area as if it were decoded alone.
                let more = (width / self.area.width).max(height / self.area.height);
                let side = (f64::from(side) * more).ceil() as u32;
                Resolution::Fit { side, margin }
            }
        };
        (outer, resolution)
    }

    /// Returns the area in shares of a larger one.
    fn within(&self, outer: Area) -> Area {
        Area {
            left: (self.area.left - outer.left) / outer.width,
            top: (self.area.top - outer.top) / outer.height,
            width: self.area.width / outer.width,
            height: self.area.height / outer.height,
        }
    }
}

impl Fidelity {
    /// Returns how fine an image has to be decoded for a square of this side.
    pub fn resolution(self, side: u32) -> Resolution {
        match self {
            Fidelity::Exact => Resolution::Full,
            Fidelity::Fast => Resolution::Fit {
                side,
                margin: MARGIN,
            },
        }
    }
}

impl Default for Renderer {
    fn default() -> Renderer {
        Renderer::new()
    }
}

impl Renderer {
    /// Makes a renderer with empty buffers.
    pub fn new() -> Renderer {
        Renderer::with(Simd::best())
    }

    /// Makes a renderer that uses no wider instructions than these.
    pub fn with(simd: Simd) -> Renderer {
        let simd = simd.min(Simd::best());
        Renderer {
            payload: Vec::new(),
            decoder: Decoder::with(simd),
            resizer: PlanarResizer::new(simd),
        }
    }

    /// Makes room for rendering samples like these to squares of `side`, so that nothing is allocated for one; only the
    /// decoder of `jpeg` payloads gives no such promise. The room is address space: [`Decoder::reserve`].
    pub fn reserve(&mut self, largest: &Largest, side: u32) {
        // Where there is not so much, the buffer grows later.
        let _ = self.payload.try_reserve(largest.payload);
        self.decoder.reserve(largest);
        self.resizer.reserve((largest.width, largest.height), side);
    }

    /// Reads a sample and renders it into `planes`: red, green, blue, each `side` × `side`.
    ///
    /// # Errors
    /// What is wrong with the payload, or why it cannot be read.
    pub fn render(
        &mut self,
        sample: &Sample<'_>,
        view: View,
        planes: &mut [u8],
    ) -> Result<Times, shardtool::Error> {
        let start = Instant::now();
        let payload = sample.read(&mut self.payload)?;
        let read = Instant::now();
        let entry = sample.entry();
        let (outer, resolution) = view.decoded((entry.stored_width, entry.stored_height));
        let picture = self.decoder.decode(&payload, outer, resolution)?;
        let decoded = Instant::now();
        let (area, side, mirror) = (view.within(outer), view.side, view.mirror);
        match picture {
            Picture::Rgb(pixels) => {
                self.resizer
                    .resize_packed_within(&pixels, area, side, mirror, planes);
            }
            Picture::Planes(source) => {
                self.resizer
                    .resize_within(&source, area, side, mirror, planes);
            }
        }
        let resize = decoded.elapsed();
        let entropy = self.decoder.entropy_time();
        Ok(Times {
            read: read - start,
            entropy,
            decode: (decoded - read).saturating_sub(entropy),
            resize,
        })
    }
}

#[cfg(test)]
mod tests;
