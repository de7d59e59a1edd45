use super::*;
use crate::testing::config;
use xxhash_rust::xxh3::Xxh3;

fn sampler(samples: u64, global_batch: u64, sets: &[&str]) -> Result<PretrainingSampler, Error> {
    PretrainingSampler::new(&config(16, sets)?, samples, global_batch)
}

#[test]
fn an_epoch_shows_no_sample_twice() {
    let sampler = sampler(1000, 64, &["data.batch_size=32"]).unwrap();
    assert_eq!(
        (sampler.epoch_len(), sampler.groups(), sampler.grid(0)),
        (15, 2, (16, 16))
    );
    for epoch in 0..3 {
        let mut seen: Vec<u64> = (epoch * 15..(epoch + 1) * 15)
            .flat_map(|step| (0..64).map(move |position| (step, position)))
            .map(|(step, position)| sampler.sample_id(step, position))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 15 * 64);
        assert!(seen.iter().all(|&id| id < 1000));
    }
}

#[test]
fn what_an_epoch_leaves_out_differs_from_the_next() {
    let sampler = sampler(100, 64, &[]).unwrap();
    let shown = |step| {
        (0..64)
            .map(|position| sampler.sample_id(step, position))
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_ne!(shown(0), shown(1));
}

#[test]
fn replacements_depend_on_place_and_attempt_and_are_even() {
    let sampler = sampler(1000, 64, &[]).unwrap();
    let base = sampler.replacement(3, 5, 0);
    assert_eq!(base, sampler.replacement(3, 5, 0));
    let others = [
        sampler.replacement(3, 5, 1),
        sampler.replacement(3, 6, 0),
        sampler.replacement(18, 5, 0),
    ];
    assert!(!others.contains(&base), "{base} {others:?}");
    let mut tens = [0u32; 10];
    for step in 0..500 {
        for position in 0..20 {
            tens[sampler.replacement(step, position, 1) as usize / 100] += 1;
        }
    }
    assert!(
        tens.iter().all(|&count| (850..1150).contains(&count)),
        "{tens:?}"
    );
}

#[test]
fn flips_happen_to_half_of_the_images_and_only_if_asked_for() {
    let (with, without) = (
        sampler(64, 64, &["data.use_horizontal_flip=true"]).unwrap(),
        sampler(64, 64, &[]).unwrap(),
    );
    let count = |sampler: &PretrainingSampler| {
        (0..100)
            .map(|step| {
                (0..64)
                    .filter(|&position| sampler.flip(step, position))
                    .count()
            })
            .sum::<usize>()
    };
    assert!((2950..3450).contains(&count(&with)), "{}", count(&with));
    assert_eq!(count(&without), 0);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let message = |samples, batch| sampler(samples, batch, &[]).unwrap_err().to_string();
    assert!(message(100, 128).contains("100 samples are fewer than one global batch of 128"));
    let uneven = message(1000, 100);
    assert!(
        uneven.contains("100 is not a multiple of data.batch_size 64"),
        "{uneven}"
    );
    assert!(
        uneven.ends_with("the nearest that work are 64 and 128"),
        "{uneven}"
    );
    assert!(message(1000, 0).contains("not a multiple"));
    assert!(message(u64::MAX, 1 << 32).contains("optimization.global_batch: 4294967296"));
}

#[test]
fn crops_and_grids_are_those_of_the_steps_epoch() {
    let made = |sizes: &str| sampler(640, 64, &[&format!("data.crop_size={sizes}")]);
    let sampler = made("{0: 160, 2: 224, 3: 192}").unwrap();
    assert_eq!(sampler.epoch_len(), 10);
    for (step, size) in [
        (0, 160),
        (19, 160),
        (20, 224),
        (29, 224),
        (30, 192),
        (u64::MAX, 192),
    ] {
        let grid = size as usize / 16;
        let found = (sampler.crop_size(step), sampler.grid(step));
        assert_eq!(found, (size, (grid, grid)), "step {step}");
    }
    // The largest grid has the largest masks.
    let largest = made("224").unwrap();
    assert_eq!(sampler.mask_limits(), largest.mask_limits());
    assert_eq!(sampler.masks(25, 0), largest.masks(25, 0));
    // One grid without room for the masks is enough.
    for sizes in ["{0: 64, 5: 224}", "{0: 224, 5: 64}"] {
        let message = made(sizes).unwrap_err().to_string();
        assert!(message.contains("on the 4x4 grid"), "{sizes}: {message}");
    }
}

/// Order, crops, flips and masks of one configuration, as one number: whoever changes any law must raise
/// [`SAMPLING_VERSION`] and say so in the change log, since runs can no longer be resumed or repeated.
#[test]
fn the_sampler_is_frozen() {
    let sampler = sampler(
        1_281_167,
        256,
        &["loader.seed=42", "data.use_horizontal_flip=true"],
    )
    .unwrap();
    let mut hash = Xxh3::new();
    for step in [0, 1, 5003, 5004, 1_000_000] {
        for position in 0..256 {
            let id = sampler.sample_id(step, position);
            let source = (100 + (id % 700) as u32, 100 + (id % 555) as u32);
            let crop = sampler.crop(step, position, source);
            hash.update(&id.to_le_bytes());
            for value in [
                crop.left,
                crop.top,
                crop.width,
                crop.height,
                u32::from(sampler.flip(step, position)),
            ] {
                hash.update(&value.to_le_bytes());
            }
            hash.update(&sampler.replacement(step, position, 0).to_le_bytes());
        }
        for group in 0..sampler.groups() {
            let masks = sampler.masks(step, group);
            for patch in masks.context.iter().chain(&masks.targets).flatten() {
                hash.update(&patch.to_le_bytes());
            }
        }
    }
    assert_eq!(SAMPLING_VERSION, 1);
    assert_eq!(hash.digest(), 0x2f78_a045_47f0_0382, "{:#x}", hash.digest());
}
