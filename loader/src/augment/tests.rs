use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::testing::config;

#[cfg(feature = "serve")]
mod pixels;

/// Returns a file recorded from torchvision and Pillow by `tests/tools/make_augment_golden.py`.
fn recorded(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/augment");
    std::fs::read(folder.join(name)).unwrap()
}

/// Returns the recorded operations with their results, and the laws they were drawn by.
fn cases() -> Value {
    serde_json::from_slice(&recorded("cases.json")).unwrap()
}

fn law(sets: &[&str]) -> AugmentSampler {
    AugmentSampler::new(&config(14, sets).unwrap().data, 7)
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
    let recorded = &cases()["laws"];
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
