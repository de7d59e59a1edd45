//! What is compared: ways from an image file, or from a shard made of it, to a square.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use loader::crop::CropBox;
use loader::render::{Renderer, Times, View};
use loader::resize::{PlanarResizer, Resizer};
use shardtool::build::{self, OnError, Options};
use shardtool::codec::{Region, RgbView};
use shardtool::dataset::{Bound, CodecOptions, EntropyCoding};
use shardtool::planes::Resolution;
use shardtool::simd::Simd;
use shardtool::source::Source;
use shardtool::turbo;
use shardtool::{Codec, Dataset, Sample};

use super::{Pass, SIDE};

/// The images as shards of every kind.
pub struct Shards([Dataset; 5]);

/// A kind of shards; its number is its place in [`Shards`].
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Jpeg,
    Raw,
    Dct,
    DctZstd,
    DctBounded,
}

impl Shards {
    /// Builds all kinds from a folder. Images of which one of them cannot be made are left out of all.
    pub fn build(images: &Path, scratch: &Path) -> anyhow::Result<Shards> {
        let bound = Bound {
            short_side: 320,
            quality: 92,
            chroma: 420,
        };
        let rans = Some(EntropyCoding::Rans);
        let kinds = [
            ("jpeg", Codec::Jpeg, None, None),
            ("raw", Codec::Raw, None, None),
            ("dct", Codec::Dct, rans, None),
            ("dct-zstd", Codec::Dct, Some(EntropyCoding::Zstd), None),
            ("dct-320", Codec::Dct, rans, Some(bound)),
        ];
        let folder = Source::folder(images)?;
        let build = |(name, codec, entropy, bound): (&str, Codec, _, Option<Bound>)| {
            let out = scratch.join(name);
            let mut options = options(&out, codec);
            (options.codec.entropy, options.codec.bound) = (entropy, bound);
            tracing::info!("building {name}");
            build::run(&folder, &options, &mut |_| {}).with_context(|| format!("build {name}"))?;
            Ok::<_, anyhow::Error>(Dataset::open(&out)?)
        };
        let [jpeg, raw, dct, zstd, bounded] = kinds.map(build);
        let shards = Shards([jpeg?, raw?, dct?, zstd?, bounded?]);
        for image in 0..shards.len() {
            let name = shards.sample(Kind::Jpeg, image).name();
            for kind in [Kind::Raw, Kind::Dct, Kind::DctZstd, Kind::DctBounded] {
                let other = shards.sample(kind, image).name();
                ensure!(
                    other == name,
                    "{name:?} is missing in one of the shard sets"
                );
            }
            let codec = shards.sample(Kind::Jpeg, image).entry().codec;
            ensure!(
                codec == Codec::Jpeg,
                "{name:?} is not a JPEG file; the comparison takes nothing else"
            );
        }
        Ok(shards)
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        let splits = self.0.iter().map(|dataset| dataset.splits()[0].len());
        splits.min().unwrap_or(0) as usize
    }

    /// Returns the width and height of an image.
    pub fn size(&self, image: usize) -> (u32, u32) {
        let entry = self.sample(Kind::Jpeg, image).entry();
        (entry.source_width, entry.source_height)
    }

    /// Reads the JPEG file of an image.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn jpeg(&self, image: usize) -> Result<Vec<u8>, shardtool::Error> {
        self.sample(Kind::Jpeg, image).payload()
    }

    fn sample(&self, kind: Kind, image: usize) -> Sample<'_> {
        self.0[kind as usize].splits()[0].sample(image as u64)
    }
}

/// Returns how a folder is built with a codec's usual options.
pub fn options(out: &Path, codec: Codec) -> Options {
    Options {
        out: out.to_owned(),
        codec: CodecOptions {
            name: codec,
            level: if codec == Codec::Raw { 3 } else { 0 },
            entropy: (codec == Codec::Dct).then_some(EntropyCoding::Rans),
            bound: None,
            shard_size: 1 << 28,
        },
        workers: shardtool::cpus::count(),
        on_error: OnError::Skip,
        dry_run: false,
        force: false,
        began: std::time::SystemTime::now(),
    }
}

/// A way to the square.
pub struct Method {
    name: String,
    kind: Kind,
    way: Way,
    /// The stored bytes of the image at hand.
    payload: Vec<u8>,
}

enum Way {
    /// libjpeg-turbo decodes all of the image, the resizer library does the rest.
    TurboFull(turbo::Decoder, Resizer, Vec<u8>),
    /// libjpeg-turbo decodes the crop, our resizer does the rest.
    TurboPartial(turbo::Decoder, Box<PlanarResizer>, Vec<u8>),
    /// As the loader does.
    Ours(Box<Renderer>, Resolution),
}

impl Method {
    /// Returns all methods, with scaled decoding at each of these margins. Our own code uses no wider instructions than
    /// these.
    pub fn all(margins: &[f64], simd: Simd) -> Vec<Method> {
        let ours = |name: &str, kind: Kind, resolution: Resolution| Method {
            name: name.to_owned(),
            kind,
            way: Way::Ours(Box::new(Renderer::with(simd)), resolution),
            payload: Vec::new(),
        };
        let mut methods = vec![
            Method {
                name: "libjpeg-turbo full + fast_image_resize".to_owned(),
                kind: Kind::Jpeg,
                way: Way::TurboFull(turbo::Decoder::new(), Resizer::new(), Vec::new()),
                payload: Vec::new(),
            },
            Method {
                name: "libjpeg-turbo partial + our resizer".to_owned(),
                kind: Kind::Jpeg,
                way: Way::TurboPartial(
                    turbo::Decoder::new(),
                    Box::new(PlanarResizer::new(simd)),
                    Vec::new(),
                ),
                payload: Vec::new(),
            },
            ours("jpeg", Kind::Jpeg, Resolution::Full),
            ours("raw, zstd 3", Kind::Raw, Resolution::Full),
            ours("dct lossless, exact", Kind::Dct, Resolution::Full),
        ];
        for margin in margins {
            let scaled = Resolution::Fit {
                side: SIDE,
                margin: *margin,
            };
            for (name, kind) in [
                ("dct lossless", Kind::Dct),
                ("dct lossless, zstd", Kind::DctZstd),
                ("dct 320 px q92 4:2:0", Kind::DctBounded),
            ] {
                methods.push(ours(
                    &format!("{name}, fast (margin {margin})"),
                    kind,
                    scaled,
                ));
            }
        }
        methods
    }

    /// Tells if this is what the others are compared with.
    pub fn is_baseline(&self) -> bool {
        matches!(self.way, Way::TurboPartial(..))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the bytes of all its images.
    pub fn bytes(&self, shards: &Shards) -> u64 {
        let lengths = (0..shards.len()).map(|image| shards.sample(self.kind, image).entry().length);
        lengths.map(u64::from).sum()
    }

    /// Makes the square of an image's crop.
    pub fn render(
        &mut self,
        shards: &Shards,
        image: usize,
        crop: CropBox,
        square: &mut [u8],
    ) -> anyhow::Result<Pass> {
        let sample = shards.sample(self.kind, image);
        let start = Instant::now();
        let stages = match &mut self.way {
            Way::TurboFull(decoder, resizer, pixels) => {
                let payload = sample.read(&mut self.payload)?;
                let read = Instant::now();
                let (width, _) = decoder.decode_full(payload.bytes(), pixels)?;
                let decoded = Instant::now();
                let first = 3 * (crop.top as usize * width as usize + crop.left as usize);
                let last =
                    first + 3 * ((crop.height - 1) as usize * width as usize + crop.width as usize);
                let view = RgbView {
                    pixels: &pixels[first..last],
                    stride_px: width as usize,
                    width: crop.width,
                    height: crop.height,
                };
                resizer.resize(&view, SIDE, false, square);
                times(start, read, decoded)
            }
            Way::TurboPartial(decoder, resizer, pixels) => {
                let region = Region {
                    x: crop.left,
                    y: crop.top,
                    width: crop.width,
                    height: crop.height,
                };
                let payload = sample.read(&mut self.payload)?;
                let read = Instant::now();
                decoder.decode_partial(payload.bytes(), region, pixels)?;
                let decoded = Instant::now();
                let view = RgbView {
                    pixels,
                    stride_px: crop.width as usize,
                    width: crop.width,
                    height: crop.height,
                };
                resizer.resize_packed(&view, SIDE, false, square);
                times(start, read, decoded)
            }
            Way::Ours(renderer, resolution) => {
                let entry = sample.entry();
                let source = (entry.source_width, entry.source_height);
                let view = View {
                    area: crop.on_grid(source, (entry.stored_width, entry.stored_height)),
                    surround: false,
                    resolution: *resolution,
                    side: SIDE,
                    mirror: false,
                };
                renderer.render(&sample, view, square)?
            }
        };
        Ok(Pass {
            whole: start.elapsed(),
            stages,
        })
    }
}

fn times(start: Instant, read: Instant, decoded: Instant) -> Times {
    Times {
        read: read - start,
        decode: decoded - read,
        resize: decoded.elapsed(),
        ..Times::default()
    }
}
