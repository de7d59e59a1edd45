mod partition;
mod statistics;

use super::blocks::SizeSampler;
use super::*;
use crate::testing::{config, reference_json};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

fn made(grid: u32, sets: &[&str]) -> Result<MaskSampler, Error> {
    MaskSampler::new(&config(grid, sets).unwrap(), grid * 16)
}

fn sampler(grid: u32, sets: &[&str]) -> MaskSampler {
    made(grid, sets).unwrap()
}

fn refusal(grid: u32, sets: &[&str]) -> String {
    made(grid, sets).expect_err("must be refused").to_string()
}

fn pair(size: BlockSize) -> [usize; 2] {
    [size.height, size.width]
}

/// Returns a hash of everything in a group's masks.
fn fingerprint(masks: &GroupMasks) -> u64 {
    let lists = masks.context.iter().chain(&masks.targets);
    let mut bytes = [masks.context_len as i64, masks.target_len as i64]
        .map(i64::to_le_bytes)
        .concat();
    bytes.extend(lists.flatten().flat_map(|patch| patch.to_le_bytes()));
    xxh3_64(&bytes)
}

/// The first sizes of the released code, found by running it, on a 16×16 and an 8×8 grid.
#[test]
fn released_sizes_equal_the_released_code() {
    let large = sampler(16, &[]);
    let first: Vec<_> = (0..16)
        .map(|step| pair(large.block_sizes(step).0))
        .collect();
    assert_eq!(
        first,
        [
            [7, 6],
            [8, 6],
            [7, 6],
            [5, 7],
            [7, 6],
            [8, 6],
            [7, 6],
            [7, 6],
            [7, 6],
            [8, 6],
            [7, 6],
            [6, 7],
            [7, 6],
            [6, 7],
            [7, 6],
            [6, 7]
        ]
    );
    let small = sampler(8, &["mask.min_keep=4"]);
    let first: Vec<_> = (0..16)
        .map(|step| pair(small.block_sizes(step).0))
        .collect();
    assert_eq!(
        first,
        [
            [4, 3],
            [4, 3],
            [4, 3],
            [3, 3],
            [4, 3],
            [4, 3],
            [4, 3],
            [4, 3],
            [4, 3],
            [4, 3],
            [3, 3],
            [3, 3],
            [3, 3],
            [3, 3],
            [4, 3],
            [3, 3]
        ]
    );
    for step in 0..2000 {
        assert_eq!(pair(large.block_sizes(step).1), [15, 15]);
        assert_eq!(pair(small.block_sizes(step).1), [7, 7]);
    }
}

#[test]
fn released_sizes_do_not_depend_on_the_seed_and_repeat_after_32_bits() {
    let (one, other) = (sampler(16, &[]), sampler(16, &["loader.seed=9"]));
    for step in 0..100 {
        assert_eq!(one.block_sizes(step), other.block_sizes(step));
        assert_eq!(one.block_sizes(step), one.block_sizes(step + (1 << 32)));
    }
    assert_ne!(one.draw(0, 0, 4), other.draw(0, 0, 4));
}

#[test]
fn released_sizes_equal_the_reference() {
    for (name, grid, min_keep) in [
        ("masks/vith14_224.json", 16, 10),
        ("masks/grid8_64.json", 8, 4),
    ] {
        let Some(reference) = reference_json(name) else {
            return;
        };
        let masks = sampler(grid, &[&format!("mask.min_keep={min_keep}")]);
        let rows = reference["first_sizes"].as_array().unwrap();
        assert_eq!(rows.len(), 200);
        for row in rows {
            let (target, context) = masks.block_sizes(row["step"].as_u64().unwrap());
            assert_eq!(
                Value::from(pair(target).to_vec()),
                row["pred"],
                "step {}",
                row["step"]
            );
            assert_eq!(
                Value::from(pair(context).to_vec()),
                row["enc"],
                "step {}",
                row["step"]
            );
        }
    }
}

/// The enumeration of reachable sizes finds every size, each with its exact share, as trying all 2^24 draws does.
#[test]
fn reachable_sizes_are_exact() {
    for (grid, scale, aspect) in [(28, [0.15, 0.2], [0.75, 1.5]), (7, [0.05, 0.9], [0.3, 3.0])] {
        let grid = (grid, grid);
        let law =
            |drawn: u64| blocks::released(grid, blocks::released_uniform(drawn), scale, aspect);
        let mut counts = std::collections::BTreeMap::<[usize; 2], f64>::new();
        for drawn in 0..1 << 24 {
            *counts.entry(pair(law(drawn).1)).or_default() += 1.0 / (1u64 << 24) as f64;
        }
        let mut found = std::collections::BTreeMap::<[usize; 2], f64>::new();
        let runs = blocks::reachable(24, law);
        assert!(runs.len() < 200, "{} runs", runs.len());
        for (size, share) in runs {
            *found.entry(pair(size)).or_default() += share;
        }
        assert_eq!(found, counts);
    }
}

#[test]
fn a_block_that_could_never_do_is_refused_with_a_value_that_works() {
    let message = refusal(8, &["mask.min_keep=10"]);
    for part in [
        "mask.min_keep: 10",
        "8x8 grid",
        "mask.pred_mask_scale",
        "3x3 = 9 patches",
        "48.",
        "min_keep 8 works",
    ] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
    sampler(8, &["mask.min_keep=8"]);
    assert!(refusal(8, &["mask.min_keep=9"]).contains("min_keep 8 works"));
    assert!(refusal(6, &["mask.min_keep=10"]).contains("100.0 %"));

    let message = refusal(16, &["mask.enc_mask_scale=[0.02, 0.1]"]);
    assert!(
        message.contains("mask.enc_mask_scale lets the context block shrink to 2x2 = 4 patches"),
        "{message}"
    );
    assert!(message.contains("min_keep 3 works"), "{message}");
    // On a single patch every block is shortened to nothing.
    let message = refusal(1, &["mask.min_keep=0"]);
    assert!(
        message.contains("0x0 = 0 patches") && message.contains("no value of min_keep works"),
        "{message}"
    );

    let message = refusal(8, &["mask.min_keep=10", "loader.mask_law=unbiased"]);
    assert!(
        message.contains("3x3 = 9 patches") && message.contains("min_keep 8 works"),
        "{message}"
    );
    sampler(8, &["mask.min_keep=8", "loader.mask_law=unbiased"]);
}

/// The sizes a grid can have at all, and how often, agree with 20,000 steps of the released code.
#[test]
fn sizes_and_hangs_agree_with_the_reference() {
    let Some(reference) = reference_json("masks/hang_fraction.json") else {
        return;
    };
    const STEPS: u64 = 20_000;
    for grid in [6, 8, 12, 14, 16, 28] {
        let law = SizeSampler::new(&config(grid, &[]).unwrap(), (grid as usize, grid as usize));
        let mut areas = std::collections::BTreeMap::<usize, u64>::new();
        for step in 0..STEPS {
            *areas.entry(law.draw(step).0.area()).or_default() += 1;
        }
        let expected = &reference[format!("g{grid}")];
        let histogram: serde_json::Map<String, Value> = areas
            .iter()
            .map(|(area, count)| (area.to_string(), Value::from(*count as f64 / STEPS as f64)))
            .collect();
        assert_eq!(
            Value::Object(histogram),
            expected["area_hist"],
            "grid {grid}"
        );
        for min_keep in [4, 10] {
            let share = law.target_limits().share_up_to(min_keep);
            let seen = expected[format!("hang_frac_min_keep_{min_keep}")]
                .as_f64()
                .unwrap();
            assert!(
                (share - seen).abs() < 5.0 * (0.25 / STEPS as f64).sqrt(),
                "grid {grid}: {share}, not {seen}"
            );
            let set = format!("mask.min_keep={min_keep}");
            assert_eq!(made(grid, &[&set]).is_err(), seen > 0.0, "grid {grid}");
        }
    }
}

/// Returns the patches of one image in one mask.
fn image(mask: &[i64], index: usize, length: usize) -> &[i64] {
    &mask[index * length..(index + 1) * length]
}

#[test]
fn masks_are_well_formed_under_both_laws() {
    for law in ["loader.mask_law=released", "loader.mask_law=unbiased"] {
        for (grid, contexts, overlap) in [(16, 1, false), (8, 2, false), (14, 1, true)] {
            let contexts_set = format!("mask.num_enc_masks={contexts}");
            let overlap_set = format!("mask.allow_overlap={overlap}");
            let masks = sampler(grid, &[law, "mask.min_keep=2", &contexts_set, &overlap_set]);
            for step in 0..40 {
                let group = masks.draw(step, 64, 16);
                assert_eq!((group.context.len(), group.targets.len()), (contexts, 4));
                assert!(group.context_len > 2 && group.context_len <= masks.limits().context);
                assert!(group.target_len > 2 && group.target_len <= masks.limits().target);
                let (target, context) = masks.block_sizes(step);
                assert_eq!(group.target_len, target.area());
                for index in 0..16 {
                    let mut covered = vec![false; (grid * grid) as usize];
                    for mask in &group.targets {
                        let patches = image(mask, index, group.target_len);
                        let corner = patches[0] as usize;
                        let block = Block {
                            top: corner / grid as usize,
                            left: corner % grid as usize,
                            size: target,
                        };
                        let mut expected = Vec::new();
                        block.for_each_row(grid as usize, |row| {
                            expected.extend(row.map(|patch| patch as i64))
                        });
                        assert_eq!(patches, expected, "a target is a whole block");
                        patches
                            .iter()
                            .for_each(|&patch| covered[patch as usize] = true);
                    }
                    for mask in &group.context {
                        let patches = image(mask, index, group.context_len);
                        assert!(patches.is_sorted_by(|one, other| one < other));
                        assert!(
                            patches
                                .iter()
                                .all(|&patch| (patch as usize) < covered.len())
                        );
                        if !overlap {
                            assert!(patches.iter().all(|&patch| !covered[patch as usize]));
                        }
                    }
                }
                if overlap {
                    assert_eq!(group.context_len, context.area(), "nothing is taken out");
                }
            }
        }
    }
}

/// The masks of an image do not depend on which images it is drawn with, apart from the length they are cut to.
#[test]
fn images_of_a_group_are_independent() {
    let masks = sampler(16, &[]);
    let (all, last) = (masks.draw(5, 0, 32), masks.draw(5, 31, 1));
    for (mask, alone) in all.targets.iter().zip(&last.targets) {
        assert_eq!(image(mask, 31, all.target_len), alone);
    }
    assert_eq!(
        image(&all.context[0], 31, all.context_len),
        &last.context[0][..all.context_len]
    );
}

/// The official settings leave contexts their place; targets of nearly the whole grid leave none.
#[test]
fn contexts_without_a_place_of_their_own_are_counted() {
    for grid in [14, 16, 28] {
        let masks = sampler(grid, &[]);
        let relaxed: usize = (0..50).map(|step| masks.draw(step, 0, 64).relaxed).sum();
        assert_eq!(relaxed, 0, "grid {grid}");
    }
    let large = "mask.pred_mask_scale=[0.9, 1.0]";
    for (more, expected) in [
        ("mask.num_enc_masks=1", 8),
        ("mask.num_enc_masks=3", 24),
        ("mask.allow_overlap=true", 0),
    ] {
        assert_eq!(
            sampler(16, &[large, more]).draw(0, 0, 8).relaxed,
            expected,
            "{more}"
        );
    }
}

/// With every patch covered by a target, a context is found once as many targets are given up as stand in the way:
/// the last ones first, each after 20 failures.
#[test]
fn a_context_without_room_gives_up_the_last_targets_first() {
    let masks = sampler(16, &[]);
    let size = BlockSize {
        height: 15,
        width: 15,
    }; // one possible position, so one draw for each coordinate
    for (covering, failures) in [(3, 20), (2, 40), (1, 60), (0, 80)] {
        let mut cover = Cover::new(256);
        cover.add(0..256, covering);
        let mut draws = masks.positions.at(0, 0);
        let mut patches = vec![7];
        let is_relaxed = masks.place_context(size, &cover, &mut draws, &mut patches);
        assert!(is_relaxed);
        assert_eq!(
            patches.len(),
            1 + size.area(),
            "what stood there before is kept"
        );
        let mut expected = masks.positions.at(0, 0);
        for _ in 0..2 * (failures + 1) {
            expected.bits32();
        }
        assert_eq!(draws.bits64(), expected.bits64(), "target {covering}");
    }
    // Targets that leave no room for more than min_keep patches do not stop a real configuration either.
    let crowded = sampler(
        8,
        &[
            "mask.pred_mask_scale=[0.7, 0.75]",
            "mask.aspect_ratio=[1, 1]",
            "mask.min_keep=24",
        ],
    );
    let group = crowded.draw(0, 0, 64);
    assert!(group.context_len > 24);
}

#[test]
fn a_subset_is_sorted_and_even() {
    let patches: Vec<i64> = (100..120).collect();
    let mut counts = [0u32; 20];
    for position in 0..20_000 {
        let mut kept = Vec::new();
        keep_some(
            &patches,
            7,
            &mut Stream::new(0, Purpose::Truncation, 0).at(0, position),
            &mut kept,
        );
        assert!(kept.len() == 7 && kept.is_sorted_by(|one, other| one < other));
        kept.iter()
            .for_each(|&patch| counts[patch as usize - 100] += 1);
    }
    for count in counts {
        assert!(
            (f64::from(count) - 7000.0).abs() < 5.0 * (20_000.0f64 * 0.35 * 0.65).sqrt(),
            "{counts:?}"
        );
    }
}

/// Scale and shape are independent: the four quarters of (small or large) × (flat or tall) come equally often.
#[test]
fn unbiased_sizes_are_independent() {
    let law = |law: &str| {
        let masks = sampler(64, &[law]);
        let mut quarters = [0u32; 4];
        for step in 0..8000 {
            let (BlockSize { height, width }, _) = masks.block_sizes(step);
            let large = (height * width) as f64 > 0.175 * 4096.0;
            let tall = height as f64 / width as f64 > 1.125;
            quarters[2 * usize::from(large) + usize::from(tall)] += 1;
        }
        quarters
    };
    let unbiased = law("loader.mask_law=unbiased");
    assert!(
        unbiased.iter().all(|&count| (1750..2250).contains(&count)),
        "{unbiased:?}"
    );
    // The same measure sees the released law's coupling.
    let released = law("loader.mask_law=released");
    assert!(released[1] + released[2] < 800, "{released:?}");
}

#[test]
fn a_context_of_the_whole_grid_is_allowed_when_unbiased() {
    let masks = sampler(
        8,
        &[
            "loader.mask_law=unbiased",
            "mask.enc_mask_scale=[1, 1]",
            "mask.min_keep=4",
        ],
    );
    assert_eq!(pair(masks.block_sizes(0).1), [8, 8]);
    assert_eq!(masks.limits().context, 64);
}

#[test]
fn masks_are_frozen() {
    let seen: Vec<u64> = [
        (16, "loader.mask_law=released", "mask.num_enc_masks=1"),
        (16, "loader.mask_law=released", "mask.num_enc_masks=2"),
        (16, "loader.mask_law=unbiased", "mask.num_enc_masks=1"),
        (14, "loader.mask_law=unbiased", "mask.num_enc_masks=2"),
    ]
    .map(|(grid, law, contexts)| {
        fingerprint(&sampler(grid, &[law, contexts, "loader.seed=3"]).draw(11, 128, 64))
    })
    .to_vec();
    assert_eq!(
        seen,
        [
            0x17f6_5778_0907_7aa9,
            0xa3c2_5fcc_496f_aa2b,
            0x771c_8974_e3d8_ebb3,
            0x2dfe_9855_04e9_e515
        ],
        "{seen:#x?}"
    );
}
