//! The laws of the paper's table 6: every patch is in one mask.

use super::*;

const BLOCK: [&str; 3] = [
    "loader.mask_law=block",
    "mask.num_pred_masks=1",
    "mask.pred_mask_scale=[0.6, 0.6]",
];
const RANDOM: [&str; 3] = ["loader.mask_law=random", BLOCK[1], BLOCK[2]];
const RASTERIZED: [&str; 2] = ["loader.mask_law=rasterized", "mask.num_pred_masks=3"];

/// Returns the masks of each image of a group: the context, then the targets.
fn images(group: &GroupMasks, count: usize) -> Vec<Vec<&[i64]>> {
    let of = |index| {
        let targets = group.targets.iter();
        let targets = targets.map(move |mask| image(mask, index, group.target_len));
        let context = image(&group.context[0], index, group.context_len);
        std::iter::once(context).chain(targets).collect()
    };
    (0..count).map(of).collect()
}

#[test]
fn what_is_not_hidden_is_seen() {
    for (grid, law, targets) in [
        (14, &BLOCK[..], 1),
        (6, &RANDOM, 1),
        (14, &RANDOM, 1),
        (6, &RASTERIZED, 3),
    ] {
        let masks = sampler(grid, &[law, &["mask.min_keep=3"]].concat());
        for step in 0..20 {
            let group = masks.draw(step, 64, 16);
            assert_eq!((group.context.len(), group.targets.len()), (1, targets));
            assert!(group.context_len <= masks.limits().context);
            assert!(group.target_len <= masks.limits().target);
            for masks in images(&group, 16) {
                assert!(masks.iter().all(|mask| mask.is_sorted()));
                let mut all = masks.concat();
                all.sort_unstable();
                assert!(all.into_iter().eq(0..i64::from(grid * grid)), "{law:?}");
            }
        }
    }
}

/// The table's shares: 0.6 of the patches hidden as one block or anywhere, or three quarters of the grid.
#[test]
fn hidden_patches_have_the_form_of_their_law() {
    let patch = |row: i64, column: i64| row * 14 + column;
    let block = sampler(14, &BLOCK).draw(3, 0, 64);
    assert!(
        (110..=126).contains(&block.target_len),
        "{}",
        block.target_len
    );
    let mut corners = std::collections::BTreeSet::new();
    for masks in images(&block, 64) {
        let (first, last) = (masks[1][0], *masks[1].last().unwrap());
        let rows = first / 14..=last / 14;
        let columns = || first % 14..=last % 14;
        let whole = rows.flat_map(|row| columns().map(move |column| patch(row, column)));
        assert!(masks[1].iter().copied().eq(whole));
        corners.insert(first);
    }
    assert!(corners.len() > 1, "{corners:?}");

    // As many patches as a block has at the step, each patch as often as another.
    let random = sampler(14, &RANDOM);
    assert_eq!(random.draw(3, 0, 1).target_len, block.target_len);
    let group = random.draw(3, 0, 4000);
    let mut counts = [0u32; 196];
    group.targets[0]
        .iter()
        .for_each(|&patch| counts[patch as usize] += 1);
    let share = group.target_len as f64 / 196.0;
    let (mean, deviation) = (4000.0 * share, (4000.0 * share * (1.0 - share)).sqrt());
    for count in counts {
        assert!(
            (f64::from(count) - mean).abs() < 5.0 * deviation,
            "{counts:?}"
        );
    }

    let rasterized = sampler(14, &RASTERIZED).draw(3, 0, 4000);
    let mut seen = std::collections::BTreeMap::<i64, u32>::new();
    for masks in images(&rasterized, 4000) {
        *seen.entry(masks[0][0]).or_default() += 1;
        for mask in masks {
            let corner = mask[0];
            assert!([patch(0, 0), patch(0, 7), patch(7, 0), patch(7, 7)].contains(&corner));
            let whole =
                (0..7).flat_map(|row| (0..7).map(move |column| corner + patch(row, column)));
            assert!(mask.iter().copied().eq(whole));
        }
    }
    assert_eq!(seen.len(), 4);
    assert!(
        seen.values().all(|&count| (850..1150).contains(&count)),
        "{seen:?}"
    );
}

#[test]
fn the_middle_of_an_odd_grid_is_in_no_quarter() {
    let group = sampler(7, &[&RASTERIZED[..], &["mask.min_keep=3"]].concat()).draw(0, 0, 8);
    assert_eq!((group.context_len, group.target_len), (9, 9));
    for masks in images(&group, 8) {
        let mut all = masks.concat();
        all.sort_unstable();
        let corners = (0..49).filter(|patch| patch / 7 != 3 && patch % 7 != 3);
        assert!(all.into_iter().eq(corners));
    }
}

#[test]
fn numbers_and_sizes_that_fit_no_such_law_are_refused() {
    let refused = |sets: &[&str]| match config(14, sets) {
        Ok(config) => MaskSampler::new(&config, 14 * 16).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    for (sets, words) in [
        (
            &["loader.mask_law=block"][..],
            "mask.num_pred_masks: 4 must be 1 under loader.mask_law: block",
        ),
        (
            &["loader.mask_law=rasterized"],
            "mask.num_pred_masks: 4 must be 3 under loader.mask_law: rasterized",
        ),
        (
            &[&RANDOM[..], &["mask.num_enc_masks=2"]].concat(),
            "mask.num_enc_masks: 2 must be 1",
        ),
        (
            &[&BLOCK[..2], &["mask.pred_mask_scale=[0.6, 1.0]"]].concat(),
            "mask.pred_mask_scale: [0.6, 1] leaves as few as 0 of 196 patches to be seen",
        ),
        (
            &[&RASTERIZED[..], &["mask.min_keep=49"]].concat(),
            "loader.mask_law lets the context block shrink to 7x7 = 49 patches",
        ),
    ] {
        let message = refused(sets);
        assert!(message.contains(words), "{sets:?}: {message}");
    }
}

#[test]
fn the_laws_are_frozen() {
    let seen = [&BLOCK[..], &RANDOM, &RASTERIZED].map(|law| {
        fingerprint(&sampler(14, &[law, &["loader.seed=3"]].concat()).draw(11, 128, 64))
    });
    assert_eq!(
        seen,
        [
            0x4613_f780_feb8_3ac0,
            0xdcca_dc53_8288_ed08,
            0x0153_8f4e_5329_1545
        ],
        "{seen:#x?}"
    );
}
