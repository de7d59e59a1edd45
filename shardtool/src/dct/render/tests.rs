use proptest::prelude::*;

use super::*;
use crate::dct::idct::FRACTION;

/// A component with random streams, in one buffer as the renderer wants it.
struct Made {
    bytes: Vec<u8>,
    columns: usize,
    rows: usize,
    dc: [usize; 2],
    masks: [usize; 8],
    values: [(usize, usize); 8],
    escapes: [Vec<u8>; 3],
}

impl Made {
    /// Masks have about `density` of 255 bits set.
    fn random(columns: usize, rows: usize, density: u8, seed: u64) -> Made {
        let count = columns * rows;
        let mut drawn = 0u64;
        let mut draw = || {
            drawn += 1;
            xxhash_rust::xxh3::xxh3_64_with_seed(&drawn.to_le_bytes(), seed)
        };
        let mut made = Made {
            bytes: Vec::new(),
            columns,
            rows,
            dc: [0; 2],
            masks: [0; 8],
            values: [(0, 0); 8],
            escapes: Default::default(),
        };
        for part in 0..2 {
            made.dc[part] = made.bytes.len();
            // High bytes near 0: larger steps wrap, which is allowed, but all paths saturate then.
            let limit = if part == 0 { 256 } else { 3 };
            made.bytes
                .extend((0..count).map(|_| (draw() % limit) as u8));
        }
        for u in 0..8 {
            made.masks[u] = made.bytes.len();
            for _ in 0..count {
                let mask = (0..8).fold(0, |mask, bit| {
                    mask | u8::from(draw() as u8 <= density) << bit
                });
                made.bytes.push(mask);
            }
            let values = made.bytes[made.masks[u]..]
                .iter()
                .map(|mask| mask.count_ones());
            let values = values.sum::<u32>() as usize;
            made.values[u] = (made.bytes.len(), made.bytes.len() + values);
            made.bytes.extend((0..values).map(|_| draw() as u8));
        }
        let mut since = 0;
        for _ in 0..count {
            while draw() % 5 == 0 {
                let [steps, places, highs] = &mut made.escapes;
                steps.push(since);
                places.push(draw() as u8);
                highs.push(draw() as u8);
                since = 0;
            }
            since += 1;
        }
        made.bytes.resize(made.bytes.len() + SLACK, 0xa5);
        made
    }

    fn streams(&self) -> Streams<'_> {
        Streams {
            bytes: &self.bytes,
            columns: self.columns,
            rows: self.rows,
            dc: self.dc,
            masks: self.masks,
            values: self.values,
            escapes: Escapes {
                steps: &self.escapes[0],
                places: &self.escapes[1],
                highs: &self.escapes[2],
            },
        }
    }

    /// Returns the window's samples, row by row without padding.
    fn render(&self, simd: Simd, factors: &Factors, window: Window, scale: Scale) -> Vec<u8> {
        let stride = scale.stride(window.columns);
        let rows = scale.rows * window.rows;
        let mut samples = vec![0; stride * rows];
        Renderer::new(simd)
            .render(&self.streams(), factors, window, scale, &mut samples)
            .unwrap();
        let width = scale.columns * window.columns;
        let lines = samples.chunks_exact(stride);
        lines.flat_map(|line| &line[..width]).copied().collect()
    }
}

fn steps(seed: u64, limit: u64) -> [u16; BLOCK] {
    std::array::from_fn(|at| {
        (1 + xxhash_rust::xxh3::xxh3_64_with_seed(&at.to_le_bytes(), seed) % limit) as u16
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 300 }))]

    #[test]
    fn vector_paths_give_the_scalar_bytes(
        (columns, rows) in (1usize..20, 1usize..5),
        density in any::<u8>(),
        seed in any::<u64>(),
        limit in prop_oneof![Just(4u64), Just(100), Just(3000)],
        corner in any::<[prop::sample::Index; 4]>(),
        (across, down) in (1usize..=8, 1usize..=8),
    ) {
        let made = Made::random(columns, rows, density, seed);
        let (left, top) = (corner[0].index(columns), corner[1].index(rows));
        let window = Window {
            left,
            top,
            columns: 1 + corner[2].index(columns - left),
            rows: 1 + corner[3].index(rows - top),
        };
        let scale = Scale { columns: across, rows: down };
        let factors = factors(&steps(seed, limit));
        let expected = made.render(Simd::Scalar, &factors, window, scale);
        for &simd in Simd::available() {
            prop_assert_eq!(&made.render(simd, &factors, window, scale), &expected, "{:?}", simd);
        }
    }

    #[test]
    fn a_window_is_a_part_of_the_whole(seed in any::<u64>(), corner in any::<[prop::sample::Index; 4]>()) {
        let (columns, rows) = (9, 4);
        let made = Made::random(columns, rows, 90, seed);
        let (left, top) = (corner[0].index(columns), corner[1].index(rows));
        let window = Window {
            left,
            top,
            columns: 1 + corner[2].index(columns - left),
            rows: 1 + corner[3].index(rows - top),
        };
        let scale = Scale { columns: 5, rows: 6 };
        let factors = factors(&steps(seed, 30));
        let all = Window { left: 0, top: 0, columns, rows };
        let whole = made.render(Simd::best(), &factors, all, scale);
        let part = made.render(Simd::best(), &factors, window, scale);
        let lines = whole.chunks(columns * 5).skip(top * 6).take(window.rows * 6);
        let cut: Vec<u8> = lines
            .flat_map(|line| &line[left * 5..(left + window.columns) * 5])
            .copied()
            .collect();
        prop_assert_eq!(part, cut);
    }
}

#[test]
fn missing_values_are_an_error() {
    let made = Made::random(7, 5, 120, 1);
    let mut streams = made.streams();
    streams.values[3].1 -= 1;
    let window = Window {
        left: 0,
        top: 0,
        columns: 7,
        rows: 5,
    };
    for &simd in Simd::available() {
        let render = |window: Window, across| {
            let scale = Scale {
                columns: across,
                rows: 8,
            };
            let mut samples = vec![0; scale.stride(7) * 40];
            let factors = factors(&[1; BLOCK]);
            Renderer::new(simd).render(&streams, &factors, window, scale, &mut samples)
        };
        let error = render(window, 8).unwrap_err();
        assert_eq!(error, StreamError::TooFewValues { frequency: 3 });
        // Neither what is above the last row nor what is below frequency 3 has anything to do with it.
        render(Window { rows: 4, ..window }, 8).unwrap();
        render(window, 3).unwrap();
    }
}

/// Returns a floating-point inverse DCT of the eight-sample kind, from the definition in the JPEG standard (A.3.3).
fn reference(block: &[i16; 64]) -> [[f64; 8]; 8] {
    let amplitude = |f: usize| if f == 0 { 0.5f64.sqrt() } else { 1.0 };
    let cosine = |at: usize, f: usize| {
        ((2 * at + 1) as f64 * f as f64 * std::f64::consts::PI / 16.0).cos() * amplitude(f) / 2.0
    };
    std::array::from_fn(|y| {
        std::array::from_fn(|x| {
            let terms = (0..64).map(|at| {
                let (u, v) = (at / 8, at % 8);
                f64::from(block[at]) * cosine(x, u) * cosine(y, v)
            });
            128.0 + terms.sum::<f64>()
        })
    })
}

#[test]
fn the_transform_is_within_half_a_level_and_rounding_of_the_exact_one() {
    let (mut squares, mut worst) = (0.0, 0.0f64);
    for seed in 0..500u64 {
        // Natural blocks: energy falls with frequency, and samples mostly stay within range.
        let block: [i16; 64] = std::array::from_fn(|at| {
            let fall = 1 + (at / 8 + at % 8) as i64;
            let random = xxhash_rust::xxh3::xxh3_64_with_seed(&at.to_le_bytes(), seed) as i64;
            (random % (350 / (fall * fall))) as i16
        });
        let fixed = block.map(|coefficient| coefficient << FRACTION);
        let got = crate::dct::idct::samples(&fixed, 8, 8);
        for (got, exact) in got
            .as_flattened()
            .iter()
            .zip(reference(&block).as_flattened())
        {
            let error = f64::from(*got) - exact.clamp(0.0, 255.0);
            squares += error * error;
            worst = worst.max(error.abs());
        }
    }
    let mean = squares / (500.0 * 64.0);
    // Rounding alone gives 1/12.
    assert!(
        worst < 0.85 && mean < 0.095,
        "worst {worst:.3}, mean square {mean:.4}"
    );
}

#[test]
fn a_flat_block_is_flat_at_every_scale() {
    for level in [0u8, 1, 77, 128, 254, 255] {
        let mut block = [0; 64];
        block[0] = ((i16::from(level) - 128) * 8) << FRACTION;
        for columns in 1..=8 {
            for rows in 1..=8 {
                let samples = crate::dct::idct::samples(&block, columns, rows);
                for line in &samples[..rows] {
                    assert_eq!(line[..columns], vec![level; columns], "{columns}x{rows}");
                }
            }
        }
    }
}
