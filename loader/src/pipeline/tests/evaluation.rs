//! The plan of evaluation: every sample once, in order, and places without an image.

use shardtool::dataset::{Quarantine, Quarantined};

use super::LONG;
use crate::pipeline::Pipeline;
use crate::ring::{self, FLAG_ABSENT, NO_LABEL, NO_SAMPLE};
use crate::sampler::{Plan, Sampler};
use crate::share::RankShare;
use crate::testing::{Fixture, SAMPLES};

/// What a slot without masks holds.
#[derive(Debug, PartialEq)]
struct Shown {
    step: u64,
    images: Vec<u8>,
    labels: Vec<i64>,
    ids: Vec<u64>,
    flags: Vec<u8>,
}

/// Returns the slots of an evaluation from a step on, up to its end.
fn collect(fixture: &Fixture, pipeline: &Pipeline, first: u64) -> Vec<Shown> {
    let sampler = Sampler::new(Plan::Evaluation, &fixture.config, SAMPLES, 1).unwrap();
    let geometry = sampler.geometry(&fixture.config);
    let share = RankShare::from_step(first);
    let (mut consumer, _attachment) = pipeline.local(geometry, sampler, share).unwrap();
    let mut shown = Vec::new();
    loop {
        match consumer.next(LONG) {
            Ok(slot) => {
                shown.push(Shown {
                    step: slot.step(),
                    images: slot.images().to_vec(),
                    labels: slot.labels().to_vec(),
                    ids: slot.sample_ids().to_vec(),
                    flags: slot.flags().to_vec(),
                });
                consumer.release(slot);
            }
            Err(ring::Error::Ended) => return shown,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn every_sample_is_shown_once_and_the_last_group_may_be_partial() {
    let fixture = Fixture::new(&["data.batch_size=5", "optimization.global_batch=10"]);
    let shown = collect(&fixture, &fixture.pipeline(1), 0);
    let ids: Vec<u64> = shown.iter().flat_map(|slot| slot.ids.clone()).collect();
    assert!(ids.iter().copied().eq((0..SAMPLES).chain([NO_SAMPLE])));
    for slot in &shown {
        let images = slot.images.chunks(slot.images.len() / 5);
        let places = slot.ids.iter().zip(&slot.labels).zip(&slot.flags);
        for (((id, label), flags), image) in places.zip(images) {
            match *id {
                NO_SAMPLE => {
                    assert_eq!((*label, *flags), (NO_LABEL, FLAG_ABSENT));
                    assert!(image.iter().all(|byte| *byte == 0));
                }
                id => {
                    assert_eq!((*label, *flags), (id as i64 % 2, 0));
                    assert!(image.iter().any(|byte| *byte != image[0]));
                }
            }
        }
    }
    // Neither workers nor the first step change anything.
    let pipeline = fixture.pipeline(3);
    assert_eq!(collect(&fixture, &pipeline, 0), shown);
    assert_eq!(collect(&fixture, &pipeline, 3), shown[3..]);
    assert!(collect(&fixture, &pipeline, 5).is_empty());
}

#[test]
fn a_sample_that_cannot_be_read_leaves_its_place_empty() {
    let fixture = Fixture::new(&[]);
    let whole = collect(&fixture, &fixture.pipeline(2), 0);
    fixture.damage([6]);
    let source = fixture.source();
    let listed = Quarantined {
        shard: "train-00000.shard".to_owned(),
        sample: 13,
        cause: "flipped".to_owned(),
        date: "2026-11-26".to_owned(),
    };
    Quarantine::new(source.dataset().manifest(), 0.2, vec![listed])
        .write(fixture.directory.path())
        .unwrap();
    let pipeline = fixture.pipeline(2);
    let shown = collect(&fixture, &pipeline, 0);
    assert_eq!(pipeline.damaged(), 1);
    let absent = shown.iter().flat_map(|slot| &slot.flags);
    let absent = absent
        .enumerate()
        .filter(|(_, flags)| **flags == FLAG_ABSENT);
    assert_eq!(absent.map(|(at, _)| at).collect::<Vec<_>>(), [6, 13]);
    for (before, after) in whole.iter().zip(&shown) {
        let is_whole = after.flags.iter().all(|flags| *flags == 0);
        assert_eq!(before == after, is_whole, "step {}", after.step);
    }
}
