//! Over many steps: the released law against the released code's statistics, the unbiased law against theory.

use super::*;
use crate::testing::deviations_from_chance;

/// Totals over many steps, in the terms of the reference files.
struct Totals {
    target_top: Vec<u64>,
    target_left: Vec<u64>,
    target_union: Vec<u64>,
    context_before: Vec<u64>,
    context_after: Vec<u64>,
    truncated: u64,
    context_rows: Vec<f64>,
    context_columns: Vec<f64>,
    target_rows: Vec<f64>,
    target_columns: Vec<f64>,
}

fn totals(masks: &MaskSampler, steps: u64, images: usize) -> Totals {
    let (height, width) = masks.grid();
    let mut totals = Totals {
        target_top: vec![0; height],
        target_left: vec![0; width],
        target_union: vec![0; height * width + 1],
        context_before: vec![0; height * width + 1],
        context_after: vec![0; height * width + 1],
        truncated: 0,
        context_rows: vec![0.0; height],
        context_columns: vec![0.0; width],
        target_rows: vec![0.0; height],
        target_columns: vec![0.0; width],
    };
    let drawn = (steps * images as u64) as f64;
    let context_weight = 1.0 / (drawn * width as f64);
    let target_weight = 1.0 / (drawn * masks.targets as f64 * width as f64);
    for step in 0..steps {
        let group = masks.draw(step, 0, images);
        totals.context_after[group.context_len] += 1;
        for patch in &group.context[0] {
            totals.context_rows[*patch as usize / width] += context_weight;
            totals.context_columns[*patch as usize % width] += context_weight;
        }
        for patch in group.targets.iter().flatten() {
            totals.target_rows[*patch as usize / width] += target_weight;
            totals.target_columns[*patch as usize % width] += target_weight;
        }
        let (_, context) = masks.block_sizes(step);
        for index in 0..images {
            let mut covered = vec![false; height * width];
            for mask in &group.targets {
                let patches = image(mask, index, group.target_len);
                totals.target_top[patches[0] as usize / width] += 1;
                totals.target_left[patches[0] as usize % width] += 1;
                patches
                    .iter()
                    .for_each(|&patch| covered[patch as usize] = true);
            }
            totals.target_union[covered.iter().filter(|seen| **seen).count()] += 1;
            // With a context block that spans all but one row and column there is one position, so what the context
            // was before it was cut follows from the targets.
            if context.height + 1 == height && context.width + 1 == width {
                let free = |patch: &usize| {
                    patch / width < height - 1 && patch % width < width - 1 && !covered[*patch]
                };
                let before = (0..height * width).filter(free).count();
                totals.context_before[before] += 1;
                totals.truncated += u64::from(before > group.context_len);
            }
        }
    }
    totals
}

#[test]
fn released_masks_follow_the_reference() {
    for (name, grid, min_keep) in [
        ("masks/vith14_224.json", 16, 10),
        ("masks/grid8_64.json", 8, 4),
    ] {
        let Some(reference) = reference_json(name) else {
            return;
        };
        let (steps, images) = (
            reference["batches"].as_u64().unwrap(),
            reference["batch"].as_u64().unwrap(),
        );
        let masks = sampler(grid, &[&format!("mask.min_keep={min_keep}")]);
        let totals = totals(&masks, steps, images as usize);
        for (key, counts) in [
            ("pred_top", &totals.target_top),
            ("pred_left", &totals.target_left),
            ("target_union", &totals.target_union),
            ("context_before", &totals.context_before),
            ("context_after", &totals.context_after),
        ] {
            let expected: Vec<u64> = (0..counts.len())
                .map(|cell| {
                    reference[key]["hist"][cell.to_string()]
                        .as_u64()
                        .unwrap_or(0)
                })
                .collect();
            let deviation = deviations_from_chance(counts, &expected);
            eprintln!("{name}: {key} {deviation:.2} deviations");
            assert!(
                deviation.abs() < 4.5,
                "{name}: {key} {deviation:.2} deviations"
            );
        }
        for (key, shares, tolerance) in [
            ("context_row_frequency", &totals.context_rows, 0.008),
            ("context_col_frequency", &totals.context_columns, 0.008),
            ("target_row_frequency", &totals.target_rows, 0.002),
            ("target_col_frequency", &totals.target_columns, 0.002),
        ] {
            let expected = reference[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|share| share.as_f64().unwrap());
            let worst = shares
                .iter()
                .zip(expected)
                .map(|(seen, wanted)| (seen - wanted).abs())
                .fold(0.0, f64::max);
            eprintln!("{name}: {key} differs by at most {worst:.5}");
            assert!(worst < tolerance, "{name}: {key} {worst}");
            assert_eq!(
                shares.last(),
                Some(&0.0),
                "the last row and column are never seen"
            );
        }
        let truncated = totals.truncated as f64 / (steps * images) as f64;
        let expected = reference["images_truncated_frac"].as_f64().unwrap();
        assert!(
            (truncated - expected).abs() < 0.002,
            "{name}: {truncated} of the images cut, not {expected}"
        );
    }
}

/// Every row and column is covered as often as blocks of the drawn sizes at uniform positions cover it.
#[test]
fn unbiased_targets_reach_every_row_and_column_evenly() {
    let masks = sampler(16, &["loader.mask_law=unbiased"]);
    const STEPS: u64 = 1000;
    let totals = totals(&masks, STEPS, 64);
    let (mut rows, mut columns) = (vec![0.0; 16], vec![0.0; 16]);
    for step in 0..STEPS {
        let (BlockSize { height, width }, _) = masks.block_sizes(step);
        // Of the 17 - height tops, those from row - height + 1 to row cover the row.
        let covering =
            |at: usize, side: usize| (at.min(16 - side) + 1 - (at + 1).saturating_sub(side)) as f64;
        for at in 0..16 {
            rows[at] +=
                covering(at, height) / (17 - height) as f64 * width as f64 / 16.0 / STEPS as f64;
            columns[at] +=
                covering(at, width) / (17 - width) as f64 * height as f64 / 16.0 / STEPS as f64;
        }
    }
    for at in 0..16 {
        assert!(
            (totals.target_rows[at] - rows[at]).abs() < 0.003,
            "row {at}: {} {}",
            totals.target_rows[at],
            rows[at]
        );
        assert!(
            (totals.target_columns[at] - columns[at]).abs() < 0.003,
            "column {at}"
        );
        assert!(rows[at] > 0.03);
    }
    // Nothing prefers the top to the bottom or the left to the right, in contexts too: no truncation bias.
    for shares in [
        &totals.context_rows,
        &totals.context_columns,
        &totals.target_rows,
        &totals.target_columns,
    ] {
        for (near, far) in shares.iter().zip(shares.iter().rev()) {
            assert!((near - far).abs() < 0.02 && *near > 0.02, "{shares:?}");
        }
    }
}
