//! The worker threads of a build: payloads in the order of the list, and statistics of a part of the files.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::budget::Memory;
use super::ingest::{Ingested, Worker};
use super::{Error, Options};
use crate::Codec;
use crate::dataset::EntropyCoding;
use crate::dct::encode::{Coding, Statistics};
use crate::dct::tables::Tables;
use crate::rans::EncodeTable;
use crate::source::{Source, SourceFile};

/// Chooses how streams are coded, and returns with it what shards have to hold so that they can be decoded.
pub fn coding(options: &Options, source: &Source, memory: &Memory) -> (Coding, Vec<u8>) {
    let codec = &options.codec;
    if codec.name != Codec::Dct || codec.entropy == Some(EntropyCoding::Zstd) {
        return (Coding::Zstd(codec.level), Vec::new());
    }
    let frequencies = statistics(options, source, memory).frequencies();
    let tables = frequencies.iter().map(|frequencies| {
        EncodeTable::new(frequencies).expect("normalized frequencies make a table")
    });
    (Coding::Rans(tables.collect()), Tables::write(&frequencies))
}

/// Counts the streams of files spread evenly over the source.
///
/// They are as many as it takes to know how bytes are distributed, and too few to matter in a large build.
fn statistics(options: &Options, source: &Source, memory: &Memory) -> Statistics {
    const ENOUGH_FILES: usize = 64;
    const ENOUGH_BYTES: u64 = 8 << 20;
    const MOST_FILES: usize = 2048;
    let listing = source.listing();
    let files: Vec<&SourceFile> = listing.files().collect();
    let average = (listing.record.bytes / listing.record.files.max(1)).max(1);
    let wanted = ((ENOUGH_BYTES / average) as usize).clamp(ENOUGH_FILES, MOST_FILES);
    let wanted = wanted.min(files.len());
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Statistics::default());
    std::thread::scope(|scope| {
        for _ in 0..options.workers {
            scope.spawn(|| {
                let mut worker =
                    Worker::new(options.codec.clone(), Coding::Zstd(1), memory.clone());
                let mut counted = Statistics::default();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= wanted {
                        break;
                    }
                    let file = files[number * files.len() / wanted];
                    worker.count(source, file, &mut counted);
                }
                total
                    .lock()
                    .expect("no thread panics with it")
                    .merge(&counted);
            });
        }
    });
    total.into_inner().expect("no thread panics with it")
}

/// Turns files into payloads on all workers and hands them to `take` in the order of the list.
pub fn in_order(
    options: &Options,
    source: &Source,
    coding: &Coding,
    memory: &Memory,
    files: &[SourceFile],
    mut take: impl FnMut(&SourceFile, Result<Ingested, String>) -> Result<(), Error>,
) -> Result<(), Error> {
    // Files between the list and `take`: enough to keep the workers busy past one slow file, unless they are huge.
    let window = 8 * options.workers;
    const MOST_WAITING: usize = 256 << 20;
    let (to_workers, jobs) = crossbeam::channel::bounded::<usize>(window);
    let (results, from_workers) = crossbeam::channel::bounded(window);
    std::thread::scope(|scope| {
        for _ in 0..options.workers {
            let (jobs, results) = (jobs.clone(), results.clone());
            scope.spawn(move || {
                let mut worker = Worker::new(options.codec.clone(), coding.clone(), memory.clone());
                for i in jobs {
                    let ingested = worker.ingest(source, &files[i]);
                    if results.send((i, ingested)).is_err() {
                        return; // the build has stopped at an error
                    }
                }
            });
        }
        drop((jobs, results));

        let mut sent = 0;
        let mut waiting: VecDeque<Option<Result<Ingested, String>>> = VecDeque::new();
        for (taken, file) in files.iter().enumerate() {
            let bytes = |ingested: &Option<Result<Ingested, String>>| match ingested {
                Some(Ok(image)) => image.payload.len(),
                _ => 0,
            };
            let held: usize = waiting.iter().map(bytes).sum();
            let window = if held > MOST_WAITING { 1 } else { window };
            while sent < files.len() && sent < taken + window {
                to_workers
                    .send(sent)
                    .expect("workers live until the list ends");
                waiting.push_back(None);
                sent += 1;
            }
            while waiting[0].is_none() {
                let (i, ingested) = from_workers.recv().expect("a sent job gives a result");
                waiting[i - taken] = Some(ingested);
            }
            let ingested = waiting.pop_front().flatten().expect("just found");
            if let Err(error) = take(file, ingested) {
                drop((to_workers, from_workers));
                return Err(error);
            }
        }
        drop(to_workers);
        Ok(())
    })
}
