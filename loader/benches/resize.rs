//! How long the resizers take for one crop on one core: medians in microseconds, tables included.
//!
//! `cargo bench -p loader --bench resize`; pin it to a core (`taskset -c 0`) for steady figures. The variants take
//! turns, so that a slow moment of the machine meets all of them.

use std::time::Instant;

use loader::resize::{PlanarResizer, Resizer};
use shardtool::codec::RgbView;
use shardtool::planes::{Colour, Plane, Planes};
use shardtool::simd::Simd;

const SIDE: u32 = 224;
const ROUNDS: usize = 400;

/// What is resized: luma's size, chroma's, and the colour.
const CASES: [([usize; 2], [usize; 2], Colour); 9] = [
    ([230, 230], [230, 230], Colour::YCbCr),
    ([260, 260], [260, 260], Colour::YCbCr),
    ([260, 260], [130, 130], Colour::YCbCr),
    ([300, 300], [300, 300], Colour::YCbCr),
    ([400, 330], [400, 330], Colour::YCbCr),
    ([400, 330], [200, 165], Colour::YCbCr),
    ([460, 460], [460, 460], Colour::YCbCr),
    ([260, 260], [260, 260], Colour::Rgb),
    ([260, 260], [260, 260], Colour::Gray),
];

fn main() {
    let families = Simd::available();
    let mut header = format!("{:<28}", "µs");
    for family in families {
        header += &format!("{:>10}", format!("{family:?}"));
    }
    for family in families {
        header += &format!("{:>17}", format!("packed {family:?}"));
    }
    println!("{header}{:>20}", "fast_image_resize");
    for case in CASES {
        run(case, families);
    }
}

fn run((luma, chroma, colour): ([usize; 2], [usize; 2], Colour), families: &[Simd]) {
    let sizes = [luma, chroma, chroma];
    let samples = sizes.map(|[columns, rows]| noise((columns + 8) * (rows + 8) + Plane::PADDING));
    // A box a little within the plane and off its grid, as drawn crops have it.
    let planes = Planes {
        colour,
        planes: [0, 1, 2].map(|plane| {
            let [columns, rows] = sizes[plane];
            Plane {
                samples: &samples[plane],
                stride: columns + 8,
                columns: columns + 8,
                rows: rows + 8,
                left: 3.25,
                top: 2.5,
                width: columns as f64,
                height: rows as f64,
            }
        }),
    };
    let pixels = noise(3 * luma[0] * luma[1]);
    let view = RgbView {
        pixels: &pixels,
        stride_px: luma[0],
        width: luma[0] as u32,
        height: luma[1] as u32,
    };
    let mut out = vec![0; 3 * (SIDE * SIDE) as usize];
    let mut own: Vec<PlanarResizer> = families.iter().map(|&f| PlanarResizer::new(f)).collect();
    let mut library = Resizer::new();
    let mut times = vec![Vec::with_capacity(ROUNDS); 2 * own.len() + 1];
    for round in 0..ROUNDS {
        let mirror = round % 2 == 1;
        for (at, resizer) in own.iter_mut().enumerate() {
            times[at].push(time(|| resizer.resize(&planes, SIDE, mirror, &mut out)));
        }
        for (at, resizer) in own.iter_mut().enumerate() {
            let packed = time(|| resizer.resize_packed(&view, SIDE, mirror, &mut out));
            times[families.len() + at].push(packed);
        }
        let last = times.last_mut().expect("the library's");
        last.push(time(|| library.resize(&view, SIDE, mirror, &mut out)));
    }
    let name = format!(
        "{colour:?} {}x{}, {}x{}",
        luma[0], luma[1], chroma[0], chroma[1]
    );
    let mut line = format!("{name:<28}");
    for (at, times) in times.iter_mut().enumerate() {
        times.sort_by(f64::total_cmp);
        let width = [10, 17, 20][at / families.len()];
        line += &format!("{:>width$.1}", times[ROUNDS / 2]);
    }
    println!("{line}");
}

fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e6
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64)
        .map(|at| xxhash_rust::xxh3::xxh3_64(&at.to_le_bytes()) as u8)
        .collect()
}
