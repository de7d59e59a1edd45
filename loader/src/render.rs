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
        let picture = self.decoder.decode(&payload, view.area, view.resolution)?;
        let decoded = Instant::now();
        match picture {
            Picture::Rgb(pixels) => {
                self.resizer
                    .resize_packed(&pixels, view.side, view.mirror, planes);
            }
            Picture::Planes(source) => {
                self.resizer.resize(&source, view.side, view.mirror, planes);
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
