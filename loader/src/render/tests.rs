//! The centres of evaluation, against recorded bytes of Pillow and against whole images.

use std::path::{Path, PathBuf};

use serde_json::Value;
use shardtool::Dataset;
use shardtool::codec::RgbView;

use super::*;
use crate::config::LoaderConfig;
use crate::sampler::EvaluationSampler;
use crate::testing::{Fixture, parsed};

fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    folder.join(name)
}

fn config(crop: u64, resize: u64) -> LoaderConfig {
    let text = format!(
        "data: {{batch_size: 1, crop_size: {crop}}}\nmask: {{patch_size: 1}}\n\
         loader: {{eval_resize: {resize}}}"
    );
    parsed(&text, &[]).unwrap()
}

/// Returns the area that evaluation shows of an image, and the view of it.
fn view(crop: u32, resize: u32, size: (u32, u32)) -> View {
    let sampler = EvaluationSampler::new(&config(crop.into(), resize.into()), 1).unwrap();
    View {
        area: sampler.area(size, size),
        surround: true,
        resolution: Resolution::Full,
        side: crop,
        mirror: false,
    }
}

/// Returns the largest difference of two images, and the mean one.
fn difference(one: &[u8], other: &[u8]) -> (u8, f64) {
    assert_eq!(one.len(), other.len());
    let each = one
        .iter()
        .zip(other)
        .map(|(one, other)| one.abs_diff(*other));
    let sum: f64 = each.clone().map(f64::from).sum();
    (each.max().unwrap(), sum / one.len() as f64)
}

#[test]
fn centres_are_those_of_pillow_to_the_last_row_and_column() {
    let listed: Value =
        serde_json::from_slice(&std::fs::read(golden("centre/cases.json")).unwrap()).unwrap();
    let pixels = std::fs::read(golden("centre/pixels.bin")).unwrap();
    let mut rest = &pixels[..];
    let mut take = |count: u32| {
        let (taken, left) = rest.split_at(count as usize);
        rest = left;
        taken
    };
    let cases = listed["cases"].as_array().unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        let number = |key: &str| case[key].as_u64().unwrap() as u32;
        let (width, height, crop) = (number("width"), number("height"), number("crop"));
        let source = RgbView {
            pixels: take(3 * width * height),
            stride_px: width as usize,
            width,
            height,
        };
        let expected = take(3 * crop * crop);
        let view = view(crop, number("resize"), (width, height));
        for &simd in Simd::available() {
            let mut seen = vec![0; expected.len()];
            PlanarResizer::new(simd).resize_packed_within(
                &source,
                view.within(Area::whole((width, height))),
                crop,
                false,
                &mut seen,
            );
            // Pillow rounds to bytes between the passes; at the edge of the crop nothing is worse.
            let (most, mean) = difference(&seen, expected);
            assert!(
                most <= 2 && mean < 0.35,
                "{simd:?} {case}: {most}, {mean:.3}"
            );
        }
    }
    assert!(rest.is_empty());
}

#[test]
fn a_centre_is_decoded_as_finely_as_its_area_would_be_alone() {
    for stored in [(500, 375), (375, 500), (40, 30), (224, 224)] {
        for (crop, resize) in [(16, 18), (30, 60), (20, 20), (224, 256)] {
            let resolution = Fidelity::Fast.resolution(crop);
            let view = View {
                resolution,
                ..view(crop, resize, stored)
            };
            let (outer, decoded) = view.decoded(stored);
            let (Resolution::Fit { side, .. }, Resolution::Fit { side: alone, .. }) =
                (decoded, resolution)
            else {
                panic!("{decoded:?} for {resolution:?}");
            };
            let shares = [
                view.area.width / outer.width,
                view.area.height / outer.height,
            ];
            let samples = shares.map(|share| f64::from(side) * share);
            let fewest = samples[0].min(samples[1]);
            let wanted = f64::from(alone);
            assert!(
                (wanted - 1e-6..wanted + 1.0).contains(&fewest),
                "{crop} of {resize} of {stored:?}: {samples:?} for {wanted}"
            );
        }
    }
}

#[test]
fn what_lies_around_an_area_is_decoded_as_far_as_it_is_seen() {
    let fixture = Fixture::new(&[]);
    let mut looked_at = 0;
    for folder in [fixture.directory.path(), &golden("dct")] {
        let dataset = Dataset::open(folder).unwrap();
        let split = dataset.split("train").unwrap();
        for id in 0..split.len() {
            let sample = split.sample(id);
            let entry = sample.entry();
            let stored = (entry.stored_width, entry.stored_height);
            if stored.0.min(stored.1) < 8 {
                continue;
            }
            for (crop, resize) in [(16, 18), (30, 60), (20, 20)] {
                let view = view(crop, resize, stored);
                let (outer, _) = view.decoded(stored);
                let mut seen = vec![0; 3 * (crop * crop) as usize];
                Renderer::new().render(&sample, view, &mut seen).unwrap();
                let mut expected = seen.clone();
                let mut whole = Renderer::new();
                let payload = sample.read(&mut whole.payload).unwrap();
                let all = Area::whole(stored);
                let picture = whole.decoder.decode(&payload, all, Resolution::Full);
                let (resizer, area) = (&mut whole.resizer, view.within(all));
                match picture.unwrap() {
                    Picture::Rgb(pixels) => {
                        resizer.resize_packed_within(&pixels, area, crop, false, &mut expected);
                    }
                    Picture::Planes(planes) => {
                        resizer.resize_within(&planes, area, crop, false, &mut expected);
                    }
                }
                let (most, mean) = difference(&seen, &expected);
                assert!(
                    most <= 1 && mean < 0.02,
                    "sample {id} of {stored:?}, {crop} of {resize}, {outer:?}: {most}, {mean}"
                );
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 72, "{looked_at}");
}
