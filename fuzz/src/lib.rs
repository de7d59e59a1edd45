//! What the targets share: how they take inputs apart, and when two decoders agree.

use std::io::Cursor;
use std::panic;
use std::path::PathBuf;

use image::ImageReader;
use shardtool::Corrupt;
use shardtool::dct::decode::Decoder;
use shardtool::dct::tables::Tables;
use shardtool::planes::{Area, Plane, Planes, Resolution};
use shardtool::rans::{Frequencies, SCALE_BITS};
use shardtool::simd::Simd;

/// The rANS tables that the seeds of target `dct` are coded with, as a shard's codec data.
pub static TABLES: &[u8] = include_bytes!("../tables.bin");

/// Most pixels of an image. Larger ones only take longer: every loop goes round often enough with these.
pub const MAX_PIXELS: u64 = 1 << 20;

/// An input that is taken apart from its front; zeros follow its end.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Takes the next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// Takes the next two bytes as a number.
    pub fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Takes frequencies for rANS: of some values, and the rest for two of them.
    pub fn frequencies(&mut self) -> Frequencies {
        let every = u16::from(self.byte() & 1);
        let mut frequencies = [every; 256];
        // No value may have all slots.
        frequencies[0] += 1;
        frequencies[1] += 1;
        let mut left = (1 << SCALE_BITS) - 256 * every - 2;
        for _ in 0..self.byte() % 16 {
            let symbol = usize::from(self.byte());
            let share = self.number().min(left / 2);
            frequencies[symbol] += share;
            left -= share;
        }
        frequencies[0] += left / 2;
        frequencies[1] += left - left / 2;
        frequencies
    }

    /// Takes an image's size, not too large.
    pub fn size(&mut self) -> (u32, u32) {
        let mut side = || 1 + u32::from(self.number() % 512);
        (side(), side())
    }

    /// Takes a part of an image of this size, and how fine it shall be.
    pub fn view(&mut self, (width, height): (u32, u32)) -> (Area, Resolution) {
        let mut part = |length: u32| {
            let length = f64::from(length);
            let start = f64::from(self.byte()) / 256.0 * length;
            (
                start,
                f64::from(1 + u16::from(self.byte())) / 256.0 * (length - start),
            )
        };
        let ((left, width), (top, height)) = (part(width), part(height));
        let area = Area {
            left,
            top,
            width,
            height,
        };
        let resolution = match self.byte() {
            0 => Resolution::Full,
            side => Resolution::Fit {
                side: u32::from(side),
                margin: 1.2,
            },
        };
        (area, resolution)
    }
}

/// Returns the size that the first frame header of a JPEG file announces, unless the image would be too large.
pub fn jpeg_size(jpeg: &[u8]) -> Option<(u32, u32)> {
    let is_frame =
        |marker: u8| matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
    let mut headers = jpeg
        .windows(9)
        .filter(|bytes| bytes[0] == 0xff && is_frame(bytes[1]));
    let size = |bytes: &[u8]| {
        let number = |at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        (number(7), number(5))
    };
    // Which of several bytes that look like a header is one, only a decoder knows.
    let first = headers.next().map(size)?;
    let fits = |(width, height): (u32, u32)| u64::from(width) * u64::from(height) <= MAX_PIXELS;
    (fits(first) && headers.map(size).all(fits)).then_some(first)
}

/// Tells if no decoder will find an image of more than [`MAX_PIXELS`] in a file.
pub fn is_small(file: &[u8]) -> bool {
    let fits = |(width, height): (u32, u32)| u64::from(width) * u64::from(height) <= MAX_PIXELS;
    if file.starts_with(&[0xff, 0xd8, 0xff]) {
        return jpeg_size(file).is_some();
    }
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format();
    let size = reader.ok().and_then(|reader| reader.into_dimensions().ok());
    // What the one refuses the other may take.
    let tiff = tiff::decoder::Decoder::new(Cursor::new(file)).ok();
    let tiff_size = tiff.and_then(|mut decoder| decoder.dimensions().ok());
    [size, tiff_size].into_iter().flatten().all(fits)
}

/// Returns a path for files of this process, which does not exist yet.
pub fn folder(target: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{target}-{}", std::process::id()))
}

/// Lets a panic of a library below get to whoever may catch it, in silence. One of our own ends the process, as all do
/// that nobody catches.
pub fn end_at_our_panics() {
    let end = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |location| location.file());
        if ["shardtool/src/", "targets/"]
            .iter()
            .any(|ours| file.contains(ours))
        {
            end(panic);
        }
    }));
}

/// Decodes a `dct` payload with every family of instructions, and with a decoder that has seen other payloads.
///
/// # Panics
/// If they do not all come to the same planes, or all to the same error.
pub fn decode_dct(
    used: &mut Decoder,
    tables: Option<&Tables>,
    payload: &[u8],
    size: (u32, u32),
    (area, resolution): (Area, Resolution),
) {
    let mut definition = Decoder::new(Simd::Scalar);
    let expected = definition.decode(payload, tables, size, area, resolution);
    let agree = |got: Result<Planes<'_>, Corrupt>, who: &str| match (&expected, &got) {
        (Ok(expected), Ok(got)) => {
            assert_eq!(expected.colour, got.colour, "{who}");
            for (expected, got) in expected.planes.iter().zip(&got.planes) {
                assert!(same(expected, got), "{who} gives other samples");
            }
        }
        (Err(expected), Err(got)) => assert_eq!(expected, got, "{who}"),
        _ => panic!(
            "{who}: {:?} instead of {:?}",
            got.map(|_| ()),
            expected.as_ref().map(|_| ())
        ),
    };
    for &simd in Simd::available() {
        let mut fresh = Decoder::new(simd);
        agree(
            fresh.decode(payload, tables, size, area, resolution),
            &format!("{simd:?}"),
        );
    }
    agree(
        used.decode(payload, tables, size, area, resolution),
        "a used decoder",
    );
}

/// Tells whether planes agree in their geometry and in the samples that count.
fn same(one: &Plane<'_>, other: &Plane<'_>) -> bool {
    let geometry = |plane: &Plane<'_>| {
        let place = [plane.left, plane.top, plane.width, plane.height].map(f64::to_bits);
        (plane.stride, plane.columns, plane.rows, place)
    };
    let row = |plane: &Plane<'_>, row: usize| {
        plane.samples[row * plane.stride..][..plane.columns].to_vec()
    };
    geometry(one) == geometry(other) && (0..one.rows).all(|at| row(one, at) == row(other, at))
}
