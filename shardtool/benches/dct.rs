//! How long the `dct` codec takes for one component on one core: medians in microseconds for each family.
//!
//! `cargo bench -p shardtool --bench dct`; pin it to a core (`taskset -c 1`) for steady figures. The families take
//! turns, so that a slow moment of the machine meets all of them.

use std::time::Instant;

use shardtool::dct::coefficients::{BLOCK, Component};
use shardtool::dct::pack::Packed;
use shardtool::dct::render::{Escapes, Renderer, SLACK, Scale, Streams, Window, factors};
use shardtool::dct::streams::stream;
use shardtool::simd::Simd;

/// Blocks across and down: luma of a photograph of 496 × 376 pixels.
const COLUMNS: usize = 62;
const ROWS: usize = 47;
const ROUNDS: usize = 1000;

fn main() {
    let component = component();
    let families = Simd::available();
    let mut header = format!("{:<16}", "µs");
    for family in families {
        header += &format!("{:>10}", format!("{family:?}"));
    }
    println!("{header}");

    let mut packed = Packed::default();
    line("pack", families, |family| {
        packed.fill(&component, family).expect("small coefficients");
    });
    let (bytes, places) = laid_out(&packed);
    let streams = streams(&packed, &bytes, &places);
    let factors = factors(&component.quantization);
    let window = Window {
        left: 3,
        top: 2,
        columns: COLUMNS - 5,
        rows: ROWS - 4,
    };
    for (columns, rows) in [
        (8, 8),
        (7, 7),
        (6, 5),
        (5, 5),
        (4, 4),
        (3, 3),
        (2, 2),
        (1, 1),
    ] {
        let scale = Scale { columns, rows };
        let mut samples = vec![0; scale.stride(window.columns) * rows * window.rows];
        let mut renderers = families
            .iter()
            .map(|&family| Renderer::new(family))
            .collect::<Vec<_>>();
        line(&format!("render {columns}x{rows}"), families, |family| {
            let renderer = &mut renderers[family as usize];
            let done = renderer.render(&streams, &factors, window, scale, &mut samples);
            done.expect("streams that fit together");
        });
    }
}

/// Times all families in turn and prints their medians.
fn line(name: &str, families: &[Simd], mut work: impl FnMut(Simd)) {
    let mut times = vec![Vec::with_capacity(ROUNDS); families.len()];
    for _ in 0..ROUNDS {
        for (times, &family) in times.iter_mut().zip(families) {
            let start = Instant::now();
            work(family);
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    let mut line = format!("{name:<16}");
    for times in &mut times {
        times.sort_by(f64::total_cmp);
        line += &format!("{:>10.1}", times[ROUNDS / 2]);
    }
    println!("{line}");
}

/// A component whose coefficients become smaller and rarer with their frequency, as in photographs.
fn component() -> Component {
    let mut blocks = vec![0i16; BLOCK * COLUMNS * ROWS];
    for (at, coefficient) in blocks.iter_mut().enumerate() {
        let frequency = (at % 8 + at % BLOCK / 8) as u64;
        let drawn = xxhash_rust::xxh3::xxh3_64(&at.to_le_bytes());
        if drawn.is_multiple_of(1 + frequency * frequency / 2) {
            let most = 1 + 200 / (1 + frequency * frequency) as i64;
            *coefficient = ((drawn >> 20) as i64 % (2 * most + 1) - most) as i16;
        }
    }
    Component {
        h: 1,
        v: 1,
        quantization: [5; BLOCK],
        blocks_wide: COLUMNS,
        blocks_high: ROWS,
        blocks,
    }
}

/// All streams in one buffer, and where each begins.
fn laid_out(packed: &Packed) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut places = Vec::new();
    for stream in &packed.streams {
        places.push(bytes.len());
        bytes.extend_from_slice(stream);
    }
    bytes.resize(bytes.len() + SLACK, 0);
    (bytes, places)
}

fn streams<'a>(packed: &'a Packed, bytes: &'a [u8], places: &[usize]) -> Streams<'a> {
    Streams {
        bytes,
        columns: COLUMNS,
        rows: ROWS,
        dc: [places[stream::DC_LOW], places[stream::DC_HIGH]],
        masks: std::array::from_fn(|u| places[stream::masks(u)]),
        values: std::array::from_fn(|u| {
            let number = stream::values(u);
            (
                places[number],
                places[number] + packed.streams[number].len(),
            )
        }),
        escapes: Escapes {
            steps: &packed.streams[stream::ESCAPE_STEPS],
            places: &packed.streams[stream::ESCAPE_PLACES],
            highs: &packed.streams[stream::ESCAPE_HIGHS],
        },
    }
}
