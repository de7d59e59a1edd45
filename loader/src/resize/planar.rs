//! Antialiased bilinear resize of planes, each on its own grid, to a square of RGB.
//!
//! `PIXELS.md` is the definition, to the last rounding, under "Resize" and "Colour"; `scalar.rs` follows it word by
//! word. All arithmetic but that of the weights is on integers, so every machine writes the same bytes.

mod across;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lines;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod shared;
mod strand;
mod taps;
#[cfg(test)]
mod tests;
mod windows;

use shardtool::codec::RgbView;
use shardtool::planes::{Area, Colour, Plane, Planes};
use shardtool::simd::Simd;

use across::{Across, split_row};
use lines::Lines;
use strand::Rows;
use taps::{Axis, Taps};

/// All of the part that planes hold.
const ALL: Area = Area {
    left: 0.0,
    top: 0.0,
    width: 1.0,
    height: 1.0,
};

/// Resizes planes to squares; keep one per thread. Its buffers grow to the largest image seen, and stay.
pub struct PlanarResizer {
    simd: Simd,
    across: [Across; 3],
    down: [Taps; 3],
    rows: Rows,
    /// Two rows of packed RGB, taken apart: red, green and blue of the first, then of the second.
    split: Vec<u8>,
}

impl PlanarResizer {
    /// Returns a resizer with empty buffers.
    ///
    /// # Panics
    /// If this machine lacks the instructions.
    pub fn new(simd: Simd) -> PlanarResizer {
        assert!(
            Simd::available().contains(&simd),
            "this machine has no {simd:?}"
        );
        PlanarResizer {
            simd,
            across: Default::default(),
            down: Default::default(),
            rows: Rows::default(),
            split: Vec::new(),
        }
    }

    /// Makes room for resizing any part of an image of at most this size to squares of `side`.
    pub fn reserve(&mut self, (width, height): (u32, u32), side: u32) {
        // More samples make longer lists of taps, and lists of different lengths have tables of different kinds. Blocks
        // may extend up to eight samples beyond the image.
        let lengths = |limit: u32| {
            let kinds = [1, 2, 4, 8].map(|share| share * side as usize);
            kinds.into_iter().chain([limit as usize + 8])
        };
        let side = side as usize;
        for plane in 0..3 {
            for length in lengths(width) {
                let axis = Axis::across(0.0, length as f64, length, side, false);
                self.across[plane].prepare(&axis, self.simd);
            }
            for length in lengths(height) {
                let axis = Axis::down(0.0, length as f64, length, side);
                self.down[plane].prepare(&axis, self.simd);
            }
        }
        let padded = self.across[0].taps.padded;
        self.rows.prepare(padded, self.down.each_ref());
        let pitch = width as usize + Plane::PADDING;
        if self.split.len() < 6 * pitch {
            self.split.resize(6 * pitch, 0);
        }
    }

    /// Fills `out` (red, green, blue, each `side` × `side`) with the wanted part of the planes, mirrored left to right
    /// if asked.
    ///
    /// # Panics
    /// If `out` is not three times `side` × `side` bytes, `side` is 0, or a plane lacks samples that it promises.
    pub fn resize(&mut self, planes: &Planes<'_>, side: u32, mirror: bool, out: &mut [u8]) {
        self.resize_within(planes, ALL, side, mirror, out);
    }

    /// Does what [`PlanarResizer::resize`] does with an area of the planes' wanted part, in shares of that; outputs at
    /// its edges see what lies around it in that part.
    ///
    /// # Panics
    /// As [`PlanarResizer::resize`], and if the area is not inside.
    pub fn resize_within(
        &mut self,
        planes: &Planes<'_>,
        area: Area,
        side: u32,
        mirror: bool,
        out: &mut [u8],
    ) {
        check_shares(area);
        let side = side as usize;
        let mut lines = Lines::new(out, side);
        let count = planes.colour.planes();
        let given = &planes.planes[..count];
        given.iter().for_each(check);
        let axes = |plane: &Plane<'_>| Axes {
            across: {
                let start = plane.left + area.left * plane.width;
                Axis::across(start, area.width * plane.width, plane.columns, side, mirror)
                    .seeing(plane.left, plane.width)
            },
            down: {
                let start = plane.top + area.top * plane.height;
                Axis::down(start, area.height * plane.height, plane.rows, side)
                    .seeing(plane.top, plane.height)
            },
        };
        let axes: [Axes; 3] = [0, 1, 2].map(|plane| axes(&given[plane.min(count - 1)]));
        let tables = self.prepare(&axes);

        for y in 0..side {
            for (plane, given) in given.iter().enumerate() {
                let Table { across, down } = tables[plane];
                while let Some(row) = self.rows.missing(plane, &self.down[down], y) {
                    let samples = |row: usize| {
                        let start = row * given.stride;
                        &given.samples[start..start + given.columns + Plane::PADDING]
                    };
                    let pair = [samples(row), samples((row + 1).min(given.rows - 1))];
                    self.across[across].filter(self.simd, pair, self.rows.pair(plane));
                }
            }
            self.filter_down(tables, planes.colour, y, &mut lines);
        }
    }

    /// Does what [`PlanarResizer::resize`] does, with all of an image of packed RGB.
    ///
    /// # Panics
    /// If `out` is not three times `side` × `side` bytes, `side` is 0, or the view's pixels do not fit its size.
    pub fn resize_packed(&mut self, view: &RgbView<'_>, side: u32, mirror: bool, out: &mut [u8]) {
        self.resize_packed_within(view, ALL, side, mirror, out);
    }

    /// Does what [`PlanarResizer::resize_within`] does, with packed RGB.
    ///
    /// # Panics
    /// As [`PlanarResizer::resize_packed`], and if the area is not inside.
    pub fn resize_packed_within(
        &mut self,
        view: &RgbView<'_>,
        area: Area,
        side: u32,
        mirror: bool,
        out: &mut [u8],
    ) {
        check_shares(area);
        let side = side as usize;
        let mut lines = Lines::new(out, side);
        let (columns, rows) = (view.width as usize, view.height as usize);
        assert!(columns > 0 && rows > 0, "a view without pixels");
        let (wide, high) = (columns as f64, rows as f64);
        let across = Axis::across(area.left * wide, area.width * wide, columns, side, mirror);
        let down = Axis::down(area.top * high, area.height * high, rows, side);
        let axes = Axes {
            across: across.seeing(0.0, wide),
            down: down.seeing(0.0, high),
        };
        let tables = self.prepare(&[axes; 3]);
        let pitch = columns + Plane::PADDING;
        if self.split.len() < 6 * pitch {
            self.split.resize(6 * pitch, 0);
        }

        for y in 0..side {
            while let Some(row) = self.rows.missing(0, &self.down[0], y) {
                for (line, split) in self.split.chunks_exact_mut(3 * pitch).take(2).enumerate() {
                    let start = 3 * view.stride_px * (row + line).min(rows - 1);
                    split_row(
                        self.simd,
                        &view.pixels[start..start + 3 * columns],
                        split,
                        pitch,
                    );
                }
                let mut split = self.split.chunks_exact(pitch);
                let upper: [&[u8]; 3] = std::array::from_fn(|_| split.next().expect("six"));
                let lower: [&[u8]; 3] = std::array::from_fn(|_| split.next().expect("six"));
                for plane in 0..3 {
                    let pair = [upper[plane], lower[plane]];
                    self.across[0].filter(self.simd, pair, self.rows.pair(plane));
                }
            }
            self.filter_down(tables, Colour::Rgb, y, &mut lines);
        }
    }

    /// Makes the tables of all planes. Returns which each plane uses: planes of equal geometry share theirs.
    fn prepare(&mut self, axes: &[Axes; 3]) -> [Table; 3] {
        let mut tables = [Table { across: 0, down: 0 }; 3];
        for plane in 0..3 {
            let same = |of: &dyn Fn(&Axes) -> Axis| {
                axes.iter().position(|other| of(other) == of(&axes[plane]))
            };
            let across = same(&|axes| axes.across).expect("itself at least");
            let down = same(&|axes| axes.down).expect("itself at least");
            if across == plane {
                self.across[plane].prepare(&axes[plane].across, self.simd);
            }
            if down == plane {
                self.down[plane].prepare(&axes[plane].down, self.simd);
            }
            tables[plane] = Table { across, down };
        }
        let width = self.across[0].taps.padded;
        self.rows
            .prepare(width, tables.map(|table| &self.down[table.down]));
        tables
    }

    /// Writes an output row, for which all rows are there.
    fn filter_down(&self, tables: [Table; 3], colour: Colour, y: usize, lines: &mut Lines<'_>) {
        let last = colour.planes() - 1;
        let taps = |plane: usize| &self.down[tables[plane].down];
        let strands = [
            self.rows.strand(0, taps(0), y),
            self.rows.strand(1.min(last), taps(1.min(last)), y),
            self.rows.strand(2.min(last), taps(2.min(last)), y),
        ];
        let out = lines.line(y);
        match self.simd {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` made sure that the machine has this family.
            Simd::Avx2 => unsafe { avx2::down(&strands, colour, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { avx512::down(&strands, colour, out) },
            _ => scalar::down(&strands, colour, out),
        }
    }
}

/// Both axes of a plane.
#[derive(Clone, Copy)]
struct Axes {
    across: Axis,
    down: Axis,
}

/// Which plane's tables a plane uses.
#[derive(Clone, Copy)]
struct Table {
    across: usize,
    down: usize,
}

/// Checks that an area is inside what it is a share of.
///
/// # Panics
/// If it is not.
fn check_shares(area: Area) {
    // What rounding may add is cut off by the limits of the taps.
    let inside =
        |start: f64, length: f64| start >= 0.0 && length > 0.0 && start + length <= 1.0 + 1e-9;
    assert!(
        inside(area.left, area.width) && inside(area.top, area.height),
        "{area:?}, in shares"
    );
}

/// Checks that a plane is as its fields promise.
///
/// # Panics
/// If it is not.
fn check(plane: &Plane<'_>) {
    let inside = |start: f64, length: f64, samples: usize| {
        start >= 0.0 && length > 0.0 && start + length <= samples as f64
    };
    assert!(
        inside(plane.left, plane.width, plane.columns)
            && inside(plane.top, plane.height, plane.rows),
        "a part of {}x{} at {}, {} of {}x{} samples",
        plane.width,
        plane.height,
        plane.left,
        plane.top,
        plane.columns,
        plane.rows
    );
    // Far beyond any image, and far enough from where these sums could overflow.
    const MOST: usize = 1 << 24;
    assert!(
        plane.columns <= MOST && plane.rows <= MOST && plane.stride <= u32::MAX as usize,
        "{}x{} samples",
        plane.columns,
        plane.rows
    );
    let needed = (plane.rows - 1) * plane.stride + plane.columns + Plane::PADDING;
    assert!(
        plane.stride >= plane.columns && plane.samples.len() >= needed,
        "{} samples for {} rows of {} in steps of {}",
        plane.samples.len(),
        plane.rows,
        plane.columns,
        plane.stride
    );
}
