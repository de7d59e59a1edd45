//! Decoded pictures as one plane per colour component, each on a grid of its own.
//!
//! The `dct` codec decodes to these: luma and chroma keep their own resolutions, and all are as small as the crop's
//! purpose allows, so that a resizer touches no sample twice.

/// What the components of [`Planes`] mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// One component: luma.
    Gray,
    /// Three components: luma and two chroma planes by JFIF (BT.601, full range).
    YCbCr,
    /// Three components: red, green, blue.
    Rgb,
}

impl Colour {
    /// Returns how many planes there are.
    pub fn planes(self) -> usize {
        match self {
            Colour::Gray => 1,
            Colour::YCbCr | Colour::Rgb => 3,
        }
    }
}

/// A colour component, and where the wanted part lies on its grid.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    /// Samples, row by row, `stride` apart. At least [`Plane::PADDING`] more bytes than the last row needs can be read.
    pub samples: &'a [u8],
    /// Distance between rows, in samples.
    pub stride: usize,
    /// Samples in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Left edge of the wanted part, in samples from the left edge of sample 0; at least 0.
    pub left: f64,
    /// Top edge.
    pub top: f64,
    /// Width of the wanted part, above 0; `left + width` is at most `columns`.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Area {
    /// Returns the whole of an image of this size.
    pub fn whole((width, height): (u32, u32)) -> Area {
        Area {
            left: 0.0,
            top: 0.0,
            width: f64::from(width),
            height: f64::from(height),
        }
    }
}

impl Plane<'_> {
    /// Readable bytes behind the last row, for vector loads that go past it.
    pub const PADDING: usize = 64;
}

/// A decoded crop.
#[derive(Debug, Clone, Copy)]
pub struct Planes<'a> {
    /// What the planes mean.
    pub colour: Colour,
    /// The planes; the first [`Colour::planes`] count, the others repeat the first.
    pub planes: [Plane<'a>; 3],
}

/// The part of an image that is wanted, in pixels of the stored grid; edges may lie between pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    /// Left edge.
    pub left: f64,
    /// Top edge.
    pub top: f64,
    /// Width, above 0.
    pub width: f64,
    /// Height, above 0.
    pub height: f64,
}

/// How fine the planes have to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Resolution {
    /// As fine as the image is stored.
    Full,
    /// As coarse as will do for a square made of the area: along each side at least `margin` times the square's
    /// samples, if the image has them, and more where it has so much fine detail that the difference would show. The
    /// inverse DCT then leaves out the frequencies that the square has no use for.
    Fit {
        /// Side of the square, in samples.
        side: u32,
        /// How much finer, at least 1.
        margin: f64,
    },
}
