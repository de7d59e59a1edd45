use super::*;
use crate::random::{Purpose, Stream};
use crate::testing::reference_json;
use proptest::prelude::*;

fn draws(step: u64, position: u32) -> Draws {
    Stream::new(1, Purpose::Crop, 0).at(step, position)
}

proptest! {
    #[test]
    fn boxes_lie_inside_the_image(width in 1u32..70_000, height in 1u32..70_000, step: u64) {
        let drawn = CropSampler::new([0.08, 1.0]).draw(&mut draws(step, 0), (width, height));
        prop_assert!(drawn.width >= 1 && drawn.height >= 1);
        prop_assert!(drawn.left + drawn.width <= width && drawn.top + drawn.height <= height);
    }

    #[test]
    fn a_box_keeps_its_place_on_another_grid(
        source in (1u32..5000, 1u32..5000), stored in (1u32..5000, 1u32..5000), step: u64,
    ) {
        let drawn = CropSampler::new([0.3, 1.0]).draw(&mut draws(step, 0), source);
        let numbers = |drawn: CropBox| Area {
            left: drawn.left.into(),
            top: drawn.top.into(),
            width: drawn.width.into(),
            height: drawn.height.into(),
        };
        prop_assert_eq!(drawn.on_grid(source, source), numbers(drawn));
        let mapped = drawn.on_grid(source, stored);
        prop_assert!(mapped.left >= 0.0 && mapped.width > 0.0);
        prop_assert!(mapped.left + mapped.width <= f64::from(stored.0));
        prop_assert!(mapped.top >= 0.0 && mapped.height > 0.0);
        prop_assert!(mapped.top + mapped.height <= f64::from(stored.1));
        let whole = CropBox { left: 0, top: 0, width: source.0, height: source.1 };
        let all = CropBox { left: 0, top: 0, width: stored.0, height: stored.1 };
        prop_assert_eq!(whole.on_grid(source, stored), numbers(all));
    }
}

#[test]
fn edges_keep_their_fractions() {
    let drawn = CropBox {
        left: 3,
        top: 100,
        width: 200,
        height: 5,
    };
    let mapped = drawn.on_grid((400, 300), (200, 30));
    assert_eq!((mapped.left, mapped.top), (1.5, 10.0));
    assert_eq!((mapped.width, mapped.height), (100.0, 0.5));
}

#[test]
fn an_image_too_long_falls_back_to_its_centre() {
    let law = CropSampler::new([0.3, 1.0]);
    let draw = |source| law.draw(&mut draws(0, 0), source);
    assert_eq!(
        draw((500, 100)),
        CropBox {
            left: 183,
            top: 0,
            width: 133,
            height: 100
        }
    );
    assert_eq!(
        draw((100, 500)),
        CropBox {
            left: 0,
            top: 183,
            width: 100,
            height: 133
        }
    );
    assert_eq!(
        draw((1, 1000)),
        CropBox {
            left: 0,
            top: 499,
            width: 1,
            height: 1
        }
    );
    // 18 / (3/4) = 24 exactly, 6 / (3/4) = 8; 33 · 4/3 = 44: exact quotients stay exact.
    assert_eq!(draw((18, 1000)).height, 24);
    assert_eq!(draw((1000, 33)).width, 44);
}

#[test]
fn crops_are_frozen() {
    let law = CropSampler::new([0.3, 1.0]);
    let seen: Vec<[u32; 4]> = [(0, 0), (0, 1), (1, 0), (1 << 33, 2047)]
        .map(|(step, position)| law.draw(&mut draws(step, position), (500, 375)))
        .map(|drawn| [drawn.left, drawn.top, drawn.width, drawn.height])
        .to_vec();
    assert_eq!(
        seen,
        [
            [145, 5, 326, 344],
            [83, 25, 286, 350],
            [110, 7, 272, 217],
            [127, 63, 283, 247]
        ]
    );
}

/// Means of a statistic over draws, as deviations from the reference's.
struct Comparison {
    deviations: Vec<f64>,
    spreads: Vec<f64>,
}

#[test]
fn crops_follow_torchvision() {
    let Some(reference) = reference_json("crops/rrc_stats.json") else {
        return;
    };
    let law = CropSampler::new([0.3, 1.0]);
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    let names = ["scale", "ratio", "crop_w", "crop_h", "x_rel", "y_rel"];
    let mut comparisons: Vec<Comparison> = names
        .iter()
        .map(|_| Comparison {
            deviations: vec![],
            spreads: vec![],
        })
        .collect();
    let mut tries_deviations = Vec::new();

    let rows = reference["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 300);
    for (index, row) in rows.iter().enumerate() {
        let (width, height) = (number(&row["w"]) as u32, number(&row["h"]) as u32);
        let count = number(&row["n"]) as usize;
        let mut values: [Vec<f64>; 6] = Default::default();
        let (mut tries_sum, mut tries_squares, mut fallbacks) = (0.0, 0.0, 0.0);
        for draw in 0..count {
            let (drawn, tries) =
                law.draw_counted(&mut draws(draw as u64, index as u32), (width, height));
            let (wide, high) = (f64::from(drawn.width), f64::from(drawn.height));
            values[0].push(wide * high / (f64::from(width) * f64::from(height)));
            values[1].push(wide / high);
            values[2].push(wide);
            values[3].push(high);
            if drawn.width < width {
                values[4].push(f64::from(drawn.left) / f64::from(width - drawn.width));
            }
            if drawn.height < height {
                values[5].push(f64::from(drawn.top) / f64::from(height - drawn.height));
            }
            fallbacks += f64::from(u8::from(tries > TRIES));
            let tries = tries.min(TRIES) as f64;
            tries_sum += tries;
            tries_squares += tries * tries;
        }
        let count = count as f64;
        let share = number(&row["fallback_frac"]);
        let doubt = 5.0 * (2.0 * share * (1.0 - share) / count).sqrt() + 5.0 / count;
        assert!(
            (fallbacks / count - share).abs() <= doubt,
            "{width}x{height}: fallbacks {fallbacks}, not {share}"
        );
        let tries_mean = tries_sum / count;
        let tries_variance = tries_squares / count - tries_mean * tries_mean;
        if tries_variance > 0.01 {
            let deviation =
                (tries_mean - number(&row["tries_mean"])) / (2.0 * tries_variance / count).sqrt();
            tries_deviations.push(deviation);
        } else {
            assert!(
                (tries_mean - number(&row["tries_mean"])).abs() < 0.02,
                "{width}x{height}"
            );
        }
        for ((name, seen), comparison) in names.iter().zip(&values).zip(&mut comparisons) {
            let expected = &row[name];
            if expected.is_null() {
                assert!(seen.is_empty(), "{width}x{height}: {name}");
                continue;
            }
            let mean = seen.iter().sum::<f64>() / seen.len() as f64;
            let std = (seen.iter().map(|value| (value - mean).powi(2)).sum::<f64>()
                / seen.len() as f64)
                .sqrt();
            let (expected_mean, expected_std) =
                (number(&expected["mean"]), number(&expected["std"]));
            if expected_std < 1e-3 * expected_mean {
                // A single box, or nearly so.
                assert!(
                    (mean - expected_mean).abs() <= 2e-3 * expected_mean,
                    "{width}x{height}: {name} {mean}"
                );
                continue;
            }
            let error = ((std * std + expected_std * expected_std) / seen.len() as f64).sqrt();
            comparison.deviations.push((mean - expected_mean) / error);
            comparison.spreads.push(std / expected_std);
        }
    }

    for (name, comparison) in names.iter().zip(&comparisons) {
        let many = comparison.deviations.len() as f64;
        let worst = comparison
            .deviations
            .iter()
            .fold(0.0, |worst: f64, value| worst.max(value.abs()));
        let drift = comparison.deviations.iter().sum::<f64>() / many.sqrt();
        let spread = comparison.spreads.iter().sum::<f64>() / many;
        eprintln!(
            "{name}: {many} sizes, worst {worst:.2}, joint {drift:.2} deviations, spread {spread:.4}"
        );
        assert!(
            many > 250.0 && worst < 5.0 && drift.abs() < 4.0 && (spread - 1.0).abs() < 0.01,
            "{name}"
        );
    }
    let many = tries_deviations.len() as f64;
    let drift = tries_deviations.iter().sum::<f64>() / many.sqrt();
    assert!(
        many > 250.0 && drift.abs() < 4.0,
        "tries: {many} sizes, joint {drift:.2} deviations"
    );
}
