//! The pipeline on small generated data sets, with rings inside this process.

mod dataset;

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use shardtool::Dataset;

use std::time::Duration;

use dataset::{SAMPLES, write_dataset};

use super::*;
use crate::config::{ConfigFile, LoaderConfig};
use crate::ring::{FLAG_REPLACED, SlotReader};

const LONG: Duration = Duration::from_secs(60);

/// A data set of `SAMPLES` JPEGs of different sizes in two classes, and a configuration for it.
pub(crate) struct Fixture {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) config: LoaderConfig,
}

impl Fixture {
    pub(crate) fn new(sets: &[&str]) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        write_dataset(directory.path());
        let text = "data: {batch_size: 4, crop_size: 64, use_horizontal_flip: true}\n\
                    mask: {patch_size: 8, min_keep: 4}\n\
                    loader: {slots: 2}\n\
                    optimization: {global_batch: 8}";
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        let file = ConfigFile::parse(Path::new("test.yaml"), text, &sets).unwrap();
        let config = LoaderConfig::from_file(&file).unwrap();
        Fixture { directory, config }
    }

    pub(crate) fn source(&self) -> OpenSplit {
        OpenSplit::open(self.directory.path(), "train").unwrap()
    }

    pub(crate) fn sampler(&self) -> Arc<PretrainingSampler> {
        let global_batch = self.config.global_batch(1);
        Arc::new(PretrainingSampler::new(&self.config, SAMPLES, global_batch).unwrap())
    }

    fn geometry(&self) -> Geometry {
        geometry(&self.config, &self.sampler())
    }

    fn pipeline(&self, workers: usize) -> Pipeline {
        Pipeline::start(self.source(), workers, &Loader::default()).unwrap()
    }

    /// Flips one byte in the middle of each of these samples' payloads.
    fn damage(&self, ids: impl IntoIterator<Item = u64>) {
        let dataset = Dataset::open(self.directory.path()).unwrap();
        let split = dataset.split("train").unwrap();
        for id in ids {
            let sample = split.sample(id);
            let middle = sample.payload().len() / 2;
            let mut file = std::fs::File::options()
                .write(true)
                .open(sample.shard().path())
                .unwrap();
            file.seek(SeekFrom::Start(sample.entry().offset + middle as u64))
                .unwrap();
            file.write_all(&[!sample.payload()[middle]]).unwrap();
        }
    }
}

/// All that a slot holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    step: u64,
    group: u64,
    images: Vec<u8>,
    masks: Vec<Vec<i64>>,
    labels: Vec<i64>,
    ids: Vec<u64>,
    flags: Vec<u8>,
}

impl Copied {
    pub(crate) fn of(slot: &SlotReader) -> Copied {
        Copied {
            step: slot.step(),
            group: slot.group(),
            images: slot.images().to_vec(),
            masks: [
                slot.context(0),
                slot.target(0),
                slot.target(1),
                slot.target(2),
                slot.target(3),
            ]
            .map(<[i64]>::to_vec)
            .to_vec(),
            labels: slot.labels().to_vec(),
            ids: slot.sample_ids().to_vec(),
            flags: slot.flags().to_vec(),
        }
    }
}

/// The slots of a share, up to its end.
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
        reason.to_string().contains("replacements are all damaged"),
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
    let (mut consumer, _attachment) = pipeline
        .local(geometry, fixture.sampler(), RankShare::steps(0, 3))
        .unwrap();
    assert!(matches!(consumer.next(LONG), Err(ring::Error::Failed)));
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
