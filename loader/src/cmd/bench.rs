//! `loader bench`: how fast the loader is when nobody makes it wait, and where its time goes.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use loader::pipeline::WorkTimes;
use loader::share::RankShare;
use serde::Serialize;
use shardtool::exit;
use shardtool::program::Results;

use super::{PATIENCE, Selection};

/// Measure the loader alone: a consumer that takes every group at once
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// How long to measure, once the first group is there
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    threads: usize,
    seconds: f64,
    images: u64,
    images_per_second: f64,
    images_per_second_per_thread: f64,
    microseconds_per_image: StageTimes,
    bytes_per_image: f64,
    startup_seconds: f64,
    replaced_images: u64,
    contexts: u64,
    relaxed_contexts: u64,
    rss_bytes: u64,
    rss_ring_bytes: u64,
}

/// Time of one thread per image.
#[derive(Debug, Serialize)]
struct StageTimes {
    read: f64,
    /// `None`: the codec cannot tell it from the rest of decoding, in which it is counted.
    entropy: Option<f64>,
    decode: f64,
    resize: f64,
    /// Changes of colours and blur, where the configuration asks for them.
    augment: f64,
    masks: f64,
    /// Threads' time in none of the stages: hand-over, publishing, waiting for a free slot.
    other: f64,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut Results) -> anyhow::Result<u8> {
    let duration = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    anyhow::ensure!(duration > Duration::ZERO, "--seconds must be above 0");
    let begin = Instant::now();
    let session = args.selection.start()?;
    let share = RankShare::from_step(0);
    let (mut consumer, attachment) = session.attach(share)?;
    let slot = consumer.next(PATIENCE)?;
    consumer.release(slot);

    let (start, before) = (Instant::now(), session.pipeline.work_times());
    let startup = start - begin;
    while start.elapsed() < duration {
        let slot = consumer.next(PATIENCE)?;
        consumer.release(slot);
    }
    let (seconds, work) = (
        start.elapsed().as_secs_f64(),
        session.pipeline.work_times().since(&before),
    );
    let memory = Memory::now().context("/proc/self/status")?;

    let threads = session.pipeline.workers();
    let rate = work.images as f64 / seconds;
    let report = Report {
        threads,
        seconds,
        images: work.images,
        images_per_second: rate,
        images_per_second_per_thread: rate / threads as f64,
        microseconds_per_image: StageTimes::of(&work, seconds * threads as f64),
        bytes_per_image: work.bytes as f64 / work.images as f64,
        startup_seconds: startup.as_secs_f64(),
        replaced_images: attachment.replaced(),
        contexts: work.contexts,
        relaxed_contexts: work.relaxed,
        rss_bytes: memory.all,
        rss_ring_bytes: memory.shared,
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        report.print(out)?;
        if let Some(relaxed) = work.relaxed_contexts() {
            writeln!(out, "{relaxed}")?;
        }
    }
    Ok(exit::FINE)
}

impl StageTimes {
    fn of(work: &WorkTimes, thread_seconds: f64) -> StageTimes {
        let images = work.images as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / images;
        let stages = [
            work.read,
            work.entropy,
            work.decode,
            work.resize,
            work.augment,
            work.masks,
        ];
        let counted: f64 = stages.iter().map(|&time| each(time)).sum();
        StageTimes {
            read: each(work.read),
            entropy: (work.entropy > Duration::ZERO).then(|| each(work.entropy)),
            decode: each(work.decode),
            resize: each(work.resize),
            augment: each(work.augment),
            masks: each(work.masks),
            // Jobs under way at the two readings make it a little uncertain, and never less than nothing.
            other: (thread_seconds * 1e6 / images - counted).max(0.0),
        }
    }
}

impl Report {
    fn print(&self, out: &mut Results) -> anyhow::Result<()> {
        let mebibytes = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        writeln!(
            out,
            "{:.0} images/s with {} thread(s) ({:.0} per thread), {} images in {:.1} s",
            self.images_per_second,
            self.threads,
            self.images_per_second_per_thread,
            self.images,
            self.seconds
        )?;
        let times = &self.microseconds_per_image;
        writeln!(out, "per image, in µs of one thread:")?;
        writeln!(out, "  read    {:8.1}", times.read)?;
        match times.entropy {
            Some(time) => writeln!(out, "  entropy {time:8.1}")?,
            None => writeln!(out, "  entropy        –  (this codec's is part of decode)")?,
        }
        writeln!(out, "  decode  {:8.1}", times.decode)?;
        writeln!(out, "  resize  {:8.1}", times.resize)?;
        writeln!(out, "  augment {:8.1}", times.augment)?;
        writeln!(out, "  masks   {:8.1}", times.masks)?;
        writeln!(out, "  other   {:8.1}", times.other)?;
        writeln!(out, "{:.0} bytes read per image", self.bytes_per_image)?;
        writeln!(
            out,
            "{:.0} MiB resident, of which {:.0} are the ring",
            mebibytes(self.rss_bytes),
            mebibytes(self.rss_ring_bytes)
        )?;
        writeln!(out, "first group after {:.2} s", self.startup_seconds)?;
        if self.replaced_images > 0 {
            writeln!(
                out,
                "{} images stood in for damaged samples",
                self.replaced_images
            )?;
        }
        Ok(())
    }
}

/// Resident memory of this process, in bytes.
struct Memory {
    all: u64,
    shared: u64,
}

impl Memory {
    fn now() -> anyhow::Result<Memory> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes = line
                .and_then(|rest| rest.split_whitespace().next())
                .with_context(|| format!("no {name}"))?;
            Ok(kibibytes.parse::<u64>()? * 1024)
        };
        Ok(Memory {
            all: field("VmRSS:")?,
            shared: field("RssShmem:")?,
        })
    }
}
