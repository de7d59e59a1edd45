//! What is done to the pixels, against recorded bytes of Pillow.

use serde_json::Value;
use shardtool::simd::Simd;

use super::{cases, law, recorded};
use crate::augment::{Augmentation, Augmenter, Change, colour};

/// What torchvision and Pillow made of a picture.
struct Golden {
    cases: Value,
    planes: Vec<u8>,
}

impl Golden {
    fn load() -> Golden {
        Golden {
            cases: cases(),
            planes: recorded("planes.bin"),
        }
    }

    fn side(&self) -> u32 {
        self.cases["side"].as_u64().unwrap() as u32
    }

    fn image(&self, number: usize) -> &[u8] {
        let bytes = 3 * self.side().pow(2) as usize;
        &self.planes[number * bytes..][..bytes]
    }
}

/// Returns the augmentation that does one recorded operation and nothing else.
fn single(operation: &str, parameter: f64) -> Augmentation {
    let factor = parameter as f32;
    let change = match operation {
        "brightness" => Change::Brightness(factor),
        "contrast" => Change::Contrast(factor),
        "saturation" => Change::Saturation(factor),
        "hue" => Change::Hue((parameter * 255.0) as i32 as u8),
        "grey" => {
            return Augmentation {
                grey: true,
                ..Augmentation::default()
            };
        }
        "blur" => {
            return Augmentation {
                blur: Some(factor),
                ..Augmentation::default()
            };
        }
        other => panic!("no operation is called {other}"),
    };
    Augmentation {
        // A factor of 1 changes nothing.
        jitter: Some([
            change,
            Change::Brightness(1.0),
            Change::Contrast(1.0),
            Change::Saturation(1.0),
        ]),
        ..Augmentation::default()
    }
}

#[test]
fn every_operation_gives_the_bytes_of_pillow() {
    let golden = Golden::load();
    let cases = golden.cases["cases"].as_array().unwrap();
    assert!(cases.len() >= 28);
    for (number, case) in (1..).zip(cases) {
        let operation = case["operation"].as_str().unwrap();
        let augmentation = single(operation, case["parameter"].as_f64().unwrap());
        for simd in Simd::available() {
            let mut planes = golden.image(0).to_vec();
            Augmenter::with(*simd).apply(&augmentation, &mut planes, golden.side());
            let wrong = planes.iter().zip(golden.image(number));
            let wrong = wrong.filter(|(ours, theirs)| ours != theirs).count();
            assert_eq!(wrong, 0, "{simd:?}: {case} differs in so many bytes");
        }
    }
}

#[test]
fn hues_of_many_colours_turn_as_in_pillow() {
    let golden = Golden::load();
    let levels = 0..52_usize;
    let grid: Vec<[u8; 3]> = levels
        .clone()
        .flat_map(|red| {
            let levels = levels.clone();
            levels
                .clone()
                .flat_map(move |green| levels.clone().map(move |blue| [red, green, blue]))
        })
        .map(|colour| colour.map(|level| 5 * level as u8))
        .collect();
    for case in golden.cases["hues"].as_array().unwrap() {
        let shift = case["shift"].as_u64().unwrap() as u8;
        let mut planes: Vec<u8> = (0..3)
            .flat_map(|channel| grid.iter().map(move |colour| colour[channel]))
            .collect();
        colour::change(Simd::best(), Change::Hue(shift), &mut planes);
        let mut sum = 0_u64;
        for at in 0..3 * grid.len() {
            let byte = planes[at % 3 * grid.len() + at / 3];
            sum = sum.wrapping_add((at as u64 + 1).wrapping_mul(byte.into()));
        }
        assert_eq!(
            format!("{sum:016x}"),
            case["sum"].as_str().unwrap(),
            "{case}"
        );
    }
}

#[test]
fn every_family_of_instructions_gives_the_same_bytes() {
    // Noise, at sizes around the lengths of vectors, with all operations one after the other.
    for side in [1_u32, 2, 3, 31, 33, 64, 100] {
        let bytes = 3 * (side * side) as usize;
        let noise: Vec<u8> = (0..bytes as u64)
            .map(|at| xxhash_rust::xxh3::xxh3_64(&at.to_le_bytes()) as u8)
            .collect();
        let law = law(&[
            "data.use_color_distortion=true",
            "data.color_jitter_strength=1.0",
            "data.use_gaussian_blur=true",
        ]);
        for position in 0..20 {
            let augmentation = law.draw(1, position);
            let results = Simd::available().iter().map(|simd| {
                let mut planes = noise.clone();
                Augmenter::with(*simd).apply(&augmentation, &mut planes, side);
                planes
            });
            let results: Vec<Vec<u8>> = results.collect();
            assert!(
                results.iter().all(|planes| *planes == results[0]),
                "side {side}, {augmentation:?}"
            );
        }
    }
}
