//! What the tests of both resizers need: the filter in floating point, Pillow's own output, pictures.

use std::io::Read;

use shardtool::codec::RgbView;

use crate::testing::{reference, reference_json};

/// Makes a view of packed pixels.
pub fn view(pixels: &[u8], stride: usize, width: u32, height: u32) -> RgbView<'_> {
    RgbView {
        pixels,
        stride_px: stride,
        width,
        height,
    }
}

/// Returns the samples of each output and their weights along an axis, by Pillow's bilinear filter: for `length`
/// samples from `start` on, cut out beforehand.
fn taps(start: f64, length: f64, side: usize) -> Vec<Vec<(usize, f64)>> {
    let scale = length / side as f64;
    let reach = scale.max(1.0);
    (0..side)
        .map(|at| {
            let centre = start + (at as f64 + 0.5) * scale;
            let weights: Vec<(usize, f64)> = (start as usize..(start + length).ceil() as usize)
                .map(|from| (from, 1.0 - ((from as f64 + 0.5 - centre) / reach).abs()))
                .filter(|(_, weight)| *weight > 0.0)
                .collect();
            let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
            weights
                .into_iter()
                .map(|(from, weight)| (from, weight / total))
                .collect()
        })
        .collect()
}

/// Filters a plane of bytes in floating point, without rounding between the passes. `part` is what is wanted of it:
/// left and top edge, width and height.
pub fn filtered(sample: impl Fn(usize, usize) -> u8, part: [f64; 4], side: usize) -> Vec<f64> {
    let [left, top, width, height] = part;
    let (columns, rows) = (taps(left, width, side), taps(top, height, side));
    let mut out = Vec::with_capacity(side * side);
    for row in &rows {
        for column in &columns {
            out.push(
                row.iter()
                    .map(|(y, down)| {
                        let across: f64 = column
                            .iter()
                            .map(|(x, weight)| weight * f64::from(sample(*x, *y)))
                            .sum();
                        down * across
                    })
                    .sum(),
            );
        }
    }
    out
}

/// Filters the whole of a packed picture in floating point, to red, green and blue planes.
pub fn definition(pixels: &[u8], width: usize, height: usize, side: usize) -> Vec<f64> {
    let whole = [0.0, 0.0, width as f64, height as f64];
    (0..3)
        .flat_map(|channel| filtered(|x, y| pixels[3 * (y * width + x) + channel], whole, side))
        .collect()
}

/// Returns how alike two pictures are, in decibels.
pub fn psnr(seen: &[u8], expected: &[f64]) -> f64 {
    assert_eq!(seen.len(), expected.len());
    let squares: f64 = seen
        .iter()
        .zip(expected)
        .map(|(&one, other)| (f64::from(one) - other).powi(2))
        .sum();
    10.0 * (255.0 * 255.0 * seen.len() as f64 / squares).log10()
}

/// Makes a picture of smooth colour with fine texture, in which missing and misplaced filtering would both show.
pub fn picture(width: usize, height: usize) -> Vec<u8> {
    (0..width * height * 3)
        .map(|at| {
            let (pixel, channel) = (at / 3, at % 3);
            let (x, y) = (pixel % width, pixel / width);
            let noise = (xxhash_rust::xxh3::xxh3_64(&(at as u64).to_le_bytes()) % 60) as f64;
            let wave = (x as f64 * 0.13 + channel as f64).sin()
                + (y as f64 * 0.07 * (channel + 1) as f64).cos();
            (98.0 + 40.0 * wave + noise) as u8
        })
        .collect()
}

/// Reads an array of bytes in an `.npz` file: its shape and its elements.
fn array(archive: &std::path::Path, name: &str) -> (Vec<usize>, Vec<u8>) {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(archive).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive
        .by_name(&format!("{name}.npy"))
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    // Version 1.0: magic, version, length of the header in two bytes, header as a Python literal.
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(
        header.contains("'|u1'") && header.contains("'fortran_order': False"),
        "{header}"
    );
    let shape = header
        .split_once("'shape': (")
        .unwrap()
        .1
        .split_once(')')
        .unwrap()
        .0;
    let shape = shape
        .split(',')
        .map(|side| side.trim().parse().unwrap())
        .collect();
    (shape, bytes.split_off(start))
}

/// Compares a resizer to planes of side 224 with what Pillow made of the same pictures, if the reference data are
/// there.
pub fn pillow(mut resize: impl FnMut(&RgbView<'_>, &mut [u8])) {
    let (Some(sources), Some(results), Some(listing)) = (
        reference("crops/resize_public_src.npz"),
        reference("crops/resize_public.npz"),
        reference_json("crops/resize_public.json"),
    ) else {
        return;
    };
    let items = listing["items"].as_array().unwrap().len();
    assert!(items > 0);
    for item in 0..items {
        let (size, pixels) = array(&sources, &format!("src{item}"));
        let (square, expected) = array(&results, &format!("out{item}"));
        assert_eq!(square, [224, 224, 3]);
        let mut planes = vec![0; 3 * 224 * 224];
        let (height, width) = (size[0] as u32, size[1] as u32);
        resize(&view(&pixels, width as usize, width, height), &mut planes);
        let expected: Vec<f64> = (0..3)
            .flat_map(|channel| {
                expected
                    .iter()
                    .skip(channel)
                    .step_by(3)
                    .map(|&value| f64::from(value))
            })
            .collect();
        let likeness = psnr(&planes, &expected);
        eprintln!("{width}x{height}: {likeness:.1} dB");
        assert!(
            likeness >= 50.0,
            "item {item}, {width}x{height}: {likeness:.1} dB"
        );
    }
}
