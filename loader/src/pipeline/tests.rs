//! The pipeline on small generated data sets, with rings inside this process.

use std::time::Duration;

use super::*;
use shardtool::dataset::{Quarantine, Quarantined};

use crate::ring::FLAG_REPLACED;
use crate::storage::Shards;
use crate::testing::{Copied, Fixture, SAMPLES};

mod evaluation;

const LONG: Duration = Duration::from_secs(60);

/// Returns the slots of a share, up to its end.
fn collect(fixture: &Fixture, pipeline: &Pipeline, share: RankShare) -> Vec<Copied> {
    let (mut consumer, _attachment) = pipeline
        .local(fixture.geometry(), fixture.sampler(), share)
        .unwrap();
    let mut copies = Vec::new();
    loop {
        match consumer.next(LONG) {
            Ok(slot) => {
                copies.push(Copied::of(&slot));
                consumer.release(slot);
            }
            Err(ring::Error::Ended) => return copies,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn slots_do_not_depend_on_workers_or_start() {
    let fixture = Fixture::new(&[]);
    // Five steps cross the border between epochs (three steps each).
    let one = collect(&fixture, &fixture.pipeline(1), RankShare::steps(0, 5));
    let pipeline = fixture.pipeline(4);
    assert_eq!(one.len(), 10);
    assert!(one.iter().all(|slot| slot.flags == [0; 4]));
    assert!(one.windows(2).all(|pair| pair[0].images != pair[1].images));
    assert!(one.iter().all(|slot| {
        slot.ids
            .iter()
            .zip(&slot.labels)
            .all(|(id, label)| *id as i64 % 2 == *label)
    }));
    assert_eq!(collect(&fixture, &pipeline, RankShare::steps(0, 5)), one);
    assert_eq!(
        collect(&fixture, &pipeline, RankShare::steps(3, 2)),
        one[6..]
    );
    let stages = pipeline.work_times();
    assert_eq!(
        (stages.images, stages.groups, pipeline.damaged()),
        (56, 14, 0)
    );
    assert!(
        stages.decode > Duration::ZERO && stages.masks > Duration::ZERO && stages.bytes > 56 * 100
    );
}

/// Crops of another size from an epoch on: each step holds what it holds in a run of its size alone, whichever steps a
/// ring begins and ends with, and whatever the workers have rendered before.
#[test]
fn a_step_holds_what_it_holds_in_a_run_of_its_size_alone() {
    let steps = RankShare::steps(0, 9); // three epochs of three
    let alone = |side: &str| {
        let fixture = Fixture::new(&[&format!("data.crop_size={side}")]);
        collect(&fixture, &fixture.pipeline(1), steps)
    };
    let [small, middle, large] = ["64", "72", "96"].map(alone);
    for (sizes, epochs) in [
        ("{0: 64, 1: 96, 2: 72}", [&small, &large, &middle]),
        ("{0: 96, 2: 64}", [&large, &large, &small]),
    ] {
        let fixture = Fixture::new(&[&format!("data.crop_size={sizes}")]);
        let expected = Vec::from_iter((0..18).map(|slot| &epochs[slot / 6][slot]));
        let pipeline = fixture.pipeline(3);
        for share in [
            steps,
            RankShare::steps(2, 2),
            RankShare::steps(3, 4),
            RankShare::steps(0, 3),
        ] {
            let found = collect(&fixture, &pipeline, share);
            let wanted = &expected[2 * share.first_step as usize..][..found.len()];
            assert!(
                found.iter().eq(wanted.iter().copied()),
                "{sizes}, {share:?}"
            );
            assert_eq!(
                found.len() as u64,
                2 * (share.end_step.unwrap() - share.first_step)
            );
        }
    }
}

#[test]
fn ranks_share_a_step_and_a_pipeline() {
    let fixture = Fixture::new(&[]);
    let pipeline = fixture.pipeline(2);
    let all = collect(&fixture, &pipeline, RankShare::steps(1, 3));
    let rank = |rank| RankShare {
        rank,
        world: 2,
        ..RankShare::steps(1, 3)
    };
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| collect(&fixture, &pipeline, rank(0)));
        let second = collect(&fixture, &pipeline, rank(1));
        (first.join().unwrap(), second)
    });
    let mut both: Vec<Copied> = first.into_iter().chain(second).collect();
    both.sort_by_key(|slot| (slot.step, slot.group));
    assert_eq!(both, all);
}

#[test]
fn a_damaged_sample_is_replaced_and_flagged() {
    let fixture = Fixture::new(&[]);
    let whole = collect(&fixture, &fixture.pipeline(2), RankShare::steps(0, 3));
    let sampler = fixture.sampler();
    let lost = sampler.sample_id(1, 5);
    fixture.damage([lost]);
    let pipeline = fixture.pipeline(2);
    let mended = collect(&fixture, &pipeline, RankShare::steps(0, 3));
    assert_eq!(pipeline.damaged(), 1);
    for (before, after) in whole.iter().zip(&mended) {
        if (after.step, after.group) != (1, 1) {
            assert_eq!(before, after, "nothing else changes");
            continue;
        }
        assert_eq!(after.flags, [0, FLAG_REPLACED, 0, 0]);
        let expected = (0..)
            .map(|attempt| sampler.replacement(1, 5, attempt))
            .find(|id| *id != lost);
        assert_eq!(Some(after.ids[1]), expected);
        assert_eq!(after.masks, before.masks);
        assert_ne!(after.images, before.images);
    }
}

#[test]
fn a_shard_that_is_cut_short_while_it_is_read_costs_the_samples_behind_the_cut() {
    let fixture = Fixture::new(&[]);
    let whole = collect(&fixture, &fixture.pipeline(2), RankShare::steps(0, 3));
    let pipeline = fixture.pipeline(2);
    let (source, kept) = (fixture.source(), SAMPLES - 5);
    let cut = source.split().sample(kept).entry().offset;
    let path = source.split().shards()[0].path();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(cut).unwrap();
    let mended = collect(&fixture, &pipeline, RankShare::steps(0, 3));
    assert_eq!(pipeline.damaged(), 5);
    for (before, after) in whole.iter().zip(&mended) {
        let lost = before.ids.iter().map(|&id| id >= kept);
        let flags: Vec<u8> = lost
            .map(|lost| if lost { FLAG_REPLACED } else { 0 })
            .collect();
        assert_eq!(after.flags, flags);
        assert!(after.ids.iter().all(|&id| id < kept));
    }
}

#[test]
fn a_quarantine_changes_no_draw() {
    let fixture = Fixture::new(&[]);
    let lost = [1, 5, 17];
    let all = || RankShare::steps(0, 6);
    let shard = fixture.directory.path().join("train-00000.shard");
    let sound = std::fs::read(&shard).unwrap();
    let whole = collect(&fixture, &fixture.pipeline(2), all());
    fixture.damage(lost);
    let damaged = fixture.pipeline(2);
    let expected = collect(&fixture, &damaged, all());
    assert_ne!(expected, whole);
    assert_eq!(damaged.damaged(), 3);
    let dir = fixture.directory.path();
    let source = fixture.source();
    let manifest = source.dataset().manifest();
    let listed = lost.map(|sample| Quarantined {
        shard: "train-00000.shard".to_owned(),
        sample: sample as u32,
        cause: "flipped".to_owned(),
        date: "2026-11-26".to_owned(),
    });
    let few = Quarantine::new(manifest, 0.01, listed.to_vec());
    few.write(dir).unwrap();
    let error = OpenSplit::open(dir, "train").unwrap_err().to_string();
    assert!(
        error.contains("quarantine.json: samples is 3 of them, expected at most 1 % of the 24"),
        "{error}"
    );
    Quarantine::new(manifest, 0.2, listed.to_vec())
        .write(dir)
        .unwrap();
    for workers in [1, 3] {
        let pipeline = fixture.pipeline(workers);
        assert_eq!(collect(&fixture, &pipeline, all()), expected);
        let late = collect(&fixture, &pipeline, RankShare::steps(4, 2));
        assert_eq!(late, expected[8..]);
        assert_eq!(pipeline.damaged(), 0, "none of them was read");
    }
    // It is the list that counts, not what a reader happens to find.
    std::fs::write(&shard, sound).unwrap();
    assert_eq!(collect(&fixture, &fixture.pipeline(2), all()), expected);
    Quarantine::new(manifest, 0.2, Vec::new())
        .write(dir)
        .unwrap();
    assert_eq!(collect(&fixture, &fixture.pipeline(2), all()), whole);
}

#[test]
fn what_is_damaged_in_a_copy_alone_is_read_from_the_original() {
    let (fixture, copy) = (Fixture::new(&[]), Fixture::new(&[]));
    let whole = collect(&fixture, &fixture.pipeline(2), RankShare::steps(0, 3));
    let shards = Shards {
        dir: copy.directory.path().to_owned(),
        original: Some(fixture.directory.path().to_owned()),
    };
    let pipeline = || {
        let source = OpenSplit::open_shards(&shards, "train").unwrap();
        Pipeline::start(source, 2, &Loader::default()).unwrap()
    };
    copy.damage(0..SAMPLES);
    let mended = pipeline();
    assert_eq!(collect(&copy, &mended, RankShare::steps(0, 3)), whole);
    assert_eq!(mended.damaged(), 0);
    let file = "train-00000.shard";
    assert!(
        !shards.dir.join(file).exists(),
        "the next start copies it again"
    );

    // What is damaged in both is replaced, as without a copy, and the copy stays.
    let original = fixture.directory.path().join(file);
    std::fs::copy(&original, shards.dir.join(file)).unwrap();
    for both in [&fixture, &copy] {
        both.damage([3]);
    }
    let replaced = pipeline();
    let got = collect(&copy, &replaced, RankShare::steps(0, 3));
    assert_eq!(replaced.damaged(), 1);
    assert_eq!(
        got,
        collect(&fixture, &fixture.pipeline(1), RankShare::steps(0, 3))
    );
    assert!(shards.dir.join(file).exists());
}

#[test]
fn a_data_set_that_is_gone_fails_the_ring() {
    let fixture = Fixture::new(&[]);
    fixture.damage(0..SAMPLES);
    let pipeline = fixture.pipeline(2);
    let (ended, end) = std::sync::mpsc::channel();
    let memory = Arc::new(
        Mapping::create(fixture.geometry().total_len().unwrap())
            .unwrap()
            .0,
    );
    let share = RankShare::steps(0, 3);
    let attachment = pipeline
        .attach(
            memory.clone(),
            fixture.geometry(),
            fixture.sampler(),
            share,
            move |end| ended.send(end).unwrap(),
        )
        .unwrap();
    let mut consumer = ring::attach(memory).unwrap();
    assert!(matches!(consumer.next(LONG), Err(ring::Error::Failed)));
    let End::Failed(reason) = end.recv_timeout(LONG).unwrap() else {
        panic!("should have failed")
    };
    assert!(
        reason
            .to_string()
            .contains("replacements are all damaged; the last: ")
            && reason.to_string().contains("train-00000.shard: sample "),
        "{reason}"
    );
    assert_eq!(attachment.images(), 0);
}

#[test]
fn a_panicking_worker_closes_its_ring_and_no_other() {
    let fixture = Fixture::new(&[]);
    let pipeline = fixture.pipeline(1);
    // A ring too small for the sampler's masks is the caller's mistake, which the mask job meets with a panic.
    let geometry = Geometry {
        max_target: 1,
        ..fixture.geometry()
    };
    let (ended, end) = std::sync::mpsc::channel();
    let memory = Arc::new(Mapping::create(geometry.total_len().unwrap()).unwrap().0);
    let share = RankShare::steps(0, 3);
    let _attachment = pipeline
        .attach(
            memory.clone(),
            geometry,
            fixture.sampler(),
            share,
            move |end| ended.send(end).unwrap(),
        )
        .unwrap();
    let mut consumer = ring::attach(memory).unwrap();
    assert!(matches!(consumer.next(LONG), Err(ring::Error::Failed)));
    // What the panic said is in the report, and nowhere else.
    let End::Failed(failure) = end.recv_timeout(LONG).unwrap() else {
        panic!("should have failed")
    };
    assert!(
        matches!(&failure, Failure::Panic { what: "the masks of group", message, .. } if message.contains("patches in a ring")),
        "{failure}"
    );
    assert_eq!(
        collect(&fixture, &pipeline, RankShare::steps(0, 1)).len(),
        2
    );
}

#[test]
fn a_consumer_may_leave_while_slots_are_filled_and_held() {
    let fixture = Fixture::new(&[]);
    let pipeline = fixture.pipeline(2);
    let endless = RankShare::from_step(0);
    let (ended, end) = std::sync::mpsc::channel();
    let memory = Arc::new(
        Mapping::create(fixture.geometry().total_len().unwrap())
            .unwrap()
            .0,
    );
    let attachment = pipeline
        .attach(
            memory.clone(),
            fixture.geometry(),
            fixture.sampler(),
            endless,
            move |end| ended.send(end).unwrap(),
        )
        .unwrap();
    let mut consumer = ring::attach(memory.clone()).unwrap();
    let held = consumer.next(LONG).unwrap();
    drop(consumer);
    assert_eq!(end.recv_timeout(LONG).unwrap(), End::Left);
    assert_eq!(held.step(), 0);
    drop((held, attachment, pipeline));
    assert_eq!(
        Arc::strong_count(&memory),
        1,
        "nobody holds the memory any more"
    );
}

#[test]
fn a_pipeline_that_is_dropped_ends_its_rings() {
    let fixture = Fixture::new(&[]);
    let pipeline = fixture.pipeline(2);
    let endless = RankShare::from_step(0);
    let (mut consumer, _attachment) = pipeline
        .local(fixture.geometry(), fixture.sampler(), endless)
        .unwrap();
    let slot = consumer.next(LONG).unwrap();
    drop(pipeline);
    consumer.release(slot);
    let end = (0..3).find_map(|_| consumer.next(LONG).map(|slot| consumer.release(slot)).err());
    assert!(matches!(end, Some(ring::Error::Failed)));
}

#[test]
fn an_unknown_split_is_named_with_those_there_are() {
    let fixture = Fixture::new(&[]);
    let error = OpenSplit::open(fixture.directory.path(), "val")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"val\"") && error.contains("it has: train"),
        "{error}"
    );
}
