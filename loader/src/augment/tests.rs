use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::testing::config;

fn law(sets: &[&str]) -> AugmentLaw {
    AugmentLaw::new(&config(14, sets).unwrap().data, 7)
}

/// What torchvision and Pillow made of a picture, recorded by `tests/tools/make_augment_golden.py`.
struct Golden {
    cases: Value,
    planes: Vec<u8>,
}

impl Golden {
    fn load() -> Golden {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/augment");
        let text = std::fs::read(folder.join("cases.json")).unwrap();
        Golden {
            cases: serde_json::from_slice(&text).unwrap(),
            planes: std::fs::read(folder.join("planes.bin")).unwrap(),
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

/// The augmentation that does one recorded operation and nothing else.
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

#[test]
fn nothing_is_drawn_unless_asked_for() {
    let both = "data.color_jitter_strength=0.0";
    for sets in [&[][..], &["data.color_jitter_strength=1.0"]] {
        let law = law(sets);
        assert!((0..200).all(|at| law.draw(at, 3) == Augmentation::default()));
    }
    // At strength 0 only grey is left of the distortion.
    let law = law(&["data.use_color_distortion=true", both]);
    assert!((0..200).all(|at| law.draw(at, 3).jitter.is_none()));
    assert!((0..200).any(|at| law.draw(at, 3).grey));
}

/// Deviations of a share from the one expected, in standard errors.
fn off(count: u64, draws: u64, share: f64) -> f64 {
    let expected = draws as f64 * share;
    (count as f64 - expected).abs() / (expected * (1.0 - share)).sqrt()
}

#[test]
fn draws_follow_the_law_of_torchvision() {
    const DRAWS: u64 = 100_000;
    let law = law(&[
        "data.use_color_distortion=true",
        "data.color_jitter_strength=0.5",
        "data.use_gaussian_blur=true",
    ]);
    let recorded = &Golden::load().cases["laws"];
    let (mut grey, mut jittered, mut blurred, mut both) = (0, 0, 0, 0);
    let mut sigmas = (0.0, 0.0);
    let mut values = [(0.0, 0.0); 4];
    let mut orders = BTreeMap::<String, u64>::new();
    for at in 0..DRAWS {
        let Augmentation {
            jitter,
            grey: is_grey,
            blur,
        } = law.draw(at / 64, (at % 64) as u32);
        grey += u64::from(is_grey);
        jittered += u64::from(jitter.is_some());
        both += u64::from(is_grey && jitter.is_some());
        if let Some(sigma) = blur.map(f64::from) {
            assert!((0.1..=2.0).contains(&sigma));
            blurred += 1;
            sigmas = (sigmas.0 + sigma, sigmas.1 + sigma * sigma);
        }
        let mut order = String::new();
        for change in jitter.iter().flatten() {
            let (number, value) = match *change {
                Change::Brightness(factor) => (0, f64::from(factor)),
                Change::Contrast(factor) => (1, f64::from(factor)),
                Change::Saturation(factor) => (2, f64::from(factor)),
                Change::Hue(shift) => (3, f64::from(shift as i8)),
            };
            order.push_str(&number.to_string());
            values[number].0 += value;
            values[number].1 += value * value;
        }
        if jitter.is_some() {
            *orders.entry(order).or_default() += 1;
        }
    }
    assert!(off(jittered, DRAWS, 0.8) < 4.0, "{jittered} jittered");
    assert!(off(grey, DRAWS, 0.2) < 4.0, "{grey} grey");
    assert!(off(both, DRAWS, 0.16) < 4.0, "{both} both");
    assert!(off(blurred, DRAWS, 0.5) < 4.0, "{blurred} blurred");
    // Uniform from 0.1 to 2: deviation 1.9 / √12.
    let blurred = blurred as f64;
    let error = 1.9 / 12_f64.sqrt() / blurred.sqrt();
    assert!((sigmas.0 / blurred - 1.05).abs() < 4.0 * error);
    assert!((sigmas.1 / blurred - 1.05 * 1.05 - 1.9 * 1.9 / 12.0).abs() < 4.0 * 1.1 * error * 2.0);

    // Two samples of the same law differ by the errors of both.
    let theirs = recorded["draws"].as_f64().unwrap();
    let scale = (1.0 / jittered as f64 + 1.0 / theirs).sqrt();
    let number = |key: &str, i: usize| recorded[key][i].as_f64().unwrap();
    for (i, (sum, square)) in values.into_iter().enumerate() {
        for (ours, mean, deviation) in [
            (sum, number("mean", i), number("deviation", i)),
            (
                square,
                number("square", i),
                number("deviation_of_square", i),
            ),
        ] {
            let off = (ours / jittered as f64 - mean).abs() / (deviation * scale);
            assert!(off < 4.0, "change {i}: {off} standard errors off");
        }
    }
    assert_eq!(orders.len(), 24);
    for (order, count) in orders {
        assert!(off(count, jittered, 1.0 / 24.0) < 4.5, "{order}: {count}");
        assert!(recorded["orders"][&order].is_u64(), "{order}");
    }
}

#[test]
fn augmentations_are_frozen() {
    let law = law(&[
        "data.use_color_distortion=true",
        "data.color_jitter_strength=1.0",
        "data.use_gaussian_blur=true",
    ]);
    let drawn = (0..64).map(|at| law.draw(5 + (at << 30), at as u32));
    let text: String = drawn.map(|one| format!("{one:?}")).collect();
    let hash = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    assert_eq!(hash, 0xbb02_9426_ef8b_327a, "{hash:#x}");
}
