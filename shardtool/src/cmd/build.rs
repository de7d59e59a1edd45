//! `shardtool build`: images become a dataset.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{bail, ensure};
use bytesize::ByteSize;
use shardtool::build::{self, Note, OnError, Options, Outcome};
use shardtool::dataset::{Bound, CodecOptions, EntropyCoding, Order};
use shardtool::exit;
use shardtool::program::{Results, arguments};
use shardtool::source::{self, LABELS_FILE, Request};
use shardtool::{Codec, Escaped, cpus};

use super::reading::Reading;
use super::{Meter, count, size};

/// Build a dataset from folders and archives of images
///
/// A source is a folder (of classes, of splits with classes, or of images alone), a tar archive (ImageNet's, one of an
/// image folder, WebDataset shards; under gzip too), a zip archive, Hugging Face parquet files, TFRecord files, or a
/// MosaicML dataset. A tar archive may come through a pipe, as the source "-"; until the end it takes room beside the
/// dataset. Several sources make one dataset; SPLIT=SOURCE says which split one is, and braces stand for several files:
/// train-{000..099}.tar. Images that cannot be kept, and whatever else may be an image and is not in the dataset, are
/// named in report.json in it, and the exit code is then 1.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders and archives with the images
    #[arg(value_name = "[SPLIT=]SOURCE", required_unless_present = "list", value_parser = super::source())]
    sources: Vec<PathBuf>,
    /// A list of image files: CSV with the columns path, label, split and further labels, or a JSON object a line
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    list: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// Directory to create [default: <SOURCE>.shards]
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    out: Option<PathBuf>,
    /// How images are stored: dct keeps a JPEG's coefficients (nothing is lost), jpeg the files' bytes, raw pixels
    /// under zstd
    #[arg(long, value_name = "dct|jpeg|raw", default_value = "dct", value_parser = codec)]
    codec: Codec,
    /// dct: make images smaller whose shorter side is longer than this many pixels. Such images lose detail
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(8..=65535))]
    short_side: Option<u32>,
    /// JPEG quality of images made smaller, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = 92, requires = "short_side")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Chroma of images made smaller: half the resolution each way, or all of it
    #[arg(long, value_name = "420|444", default_value = "420", requires = "short_side", value_parser = ["420", "444"])]
    chroma: String,
    /// dct: how coefficients are compressed
    #[arg(long, value_enum, default_value = "rans")]
    entropy: EntropyCoding,
    /// Size at which a shard is closed, such as 64MiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = bytes)]
    shard_size: u64,
    /// zstd level of raw images and of --entropy zstd, 1 to 22; 0 for the latter: Huffman coding alone
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(0..=22))]
    level: i32,
    /// Worker threads [default: one for each CPU this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// What to do with an image that cannot be kept: leave it out, or stop and build nothing
    #[arg(long, value_enum, default_value = "skip")]
    on_error: OnError,
    /// Check every image, but write nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace a dataset that exists already
    #[arg(long)]
    force: bool,
    /// Order of the samples: by class and path, the source's own, or by lot [default: sorted; source for records]
    #[arg(long, value_enum)]
    order: Option<OrderName>,
    /// Seed of --order shuffled
    #[arg(long, value_name = "N", default_value_t = 0)]
    order_seed: u64,
}

/// A name of an [`Order`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OrderName {
    Sorted,
    Source,
    Shuffled,
}

impl Args {
    fn codec_options(&self) -> anyhow::Result<CodecOptions> {
        let dct = self.codec == Codec::Dct;
        ensure!(
            dct || self.short_side.is_none(),
            "--short-side needs --codec dct: {} keeps images as they are",
            self.codec
        );
        ensure!(
            dct || self.level > 0,
            "--level 0 is for --codec dct with --entropy zstd; raw pixels have levels from 1"
        );
        Ok(CodecOptions {
            name: self.codec,
            level: self.level,
            entropy: dct.then_some(self.entropy),
            bound: self.short_side.map(|short_side| Bound {
                short_side,
                quality: self.quality,
                chroma: if self.chroma == "420" { 420 } else { 444 },
            }),
            shard_size: self.shard_size,
        })
    }
}

impl Args {
    fn order(&self) -> Option<Order> {
        self.order.map(|order| match order {
            OrderName::Sorted => Order::Sorted,
            OrderName::Source => Order::Source,
            OrderName::Shuffled => Order::Shuffled {
                seed: self.order_seed,
            },
        })
    }
}

fn codec(name: &str) -> Result<Codec, String> {
    let found = Codec::ALL.into_iter().find(|codec| codec.name() == name);
    found.ok_or_else(|| "expected dct, jpeg or raw".to_owned())
}

/// Reads `64MiB`, `1GiB`, `1.5GB`, `500000`.
fn bytes(text: &str) -> Result<u64, String> {
    let size: Result<ByteSize, _> = text.parse();
    let size = size.ok().map(|size| size.as_u64());
    // Saturated is too large, and a shard of nothing too small.
    size.filter(|&size| (1..u64::MAX).contains(&size))
        .ok_or_else(|| "expected a size such as 256MiB".to_owned())
}

pub fn run(args: &Args, results: &mut Results) -> anyhow::Result<u8> {
    let began = SystemTime::now();
    let out = match (&args.out, args.sources.first().or(args.list.first())) {
        (Some(out), _) => out.clone(),
        (None, Some(first)) if first.as_os_str() == "-" => {
            bail!("standard input has no name: --out names the dataset")
        }
        (None, Some(first)) => build::default_output(first)?,
        (None, None) => bail!("no source"),
    };
    let workers = args.workers.map_or_else(cpus::count, usize::from);
    let options = Options {
        out: out.clone(),
        codec: args.codec_options()?,
        workers,
        on_error: args.on_error,
        dry_run: args.dry_run,
        force: args.force,
        began,
    };
    let request = Request {
        order: args.order(),
        ..args.reading.request(&args.sources, &args.list, &out)?
    };
    let mut meter = Meter::new("building", 0);
    let source = source::open(&request)?;
    let result = build::run(&source, &options, &mut |progress| {
        meter.update(progress.done, progress.total, progress.rejected);
    });
    let seconds = meter.finish();
    let outcome = result.map_err(explain_full_disk)?;
    say(args, &out, &outcome, seconds, results);
    Ok(if outcome.report.is_clean() {
        exit::FINE
    } else {
        exit::FAULTS
    })
}

/// Says what the build did.
fn say(args: &Args, out: &Path, outcome: &Outcome, seconds: f64, results: &mut Results) {
    let report = &outcome.report;
    let to = Escaped::new(out);
    let kept = count(report.kept, "image");
    let payload = size(outcome.payload_bytes);
    if outcome.up_to_date {
        results.announce(format_args!(
            "{to}: up to date ({kept}, {payload}); --force builds it again"
        ));
    } else if args.dry_run {
        results.announce(format_args!(
            "{to}: would hold {kept}, {payload} ({seconds:.1} s); nothing written"
        ));
    } else {
        let rate = (report.kept + report.rejected.len() as u64) as f64 / seconds;
        results.announce(format_args!(
            "{to}: {kept}, {payload}, built in {seconds:.1} s ({rate:.0} images/s)"
        ));
        if outcome.resumed > 0 {
            let shards = count(outcome.resumed, "shard");
            results.announce(format_args!("  {shards} of an unfinished build kept"));
        }
        for split in &outcome.manifest.splits {
            let samples = count(split.samples, "image");
            let shards = count(split.shards.len() as u64, "shard");
            results.announce(format_args!("  {}: {samples} in {shards}", split.name));
        }
    }
    for remark in &report.remarks {
        results.announce(format_args!("  {}", Escaped::new(remark)));
    }
    let in_report = if args.dry_run {
        String::new()
    } else {
        let report = out.join(build::REPORT_FILE);
        format!("; see {}", Escaped::new(&report))
    };
    for (what, notes) in [
        ("stored otherwise", &report.stored_otherwise),
        ("named like another kind", &report.misnamed),
        ("ignored", &report.ignored),
    ] {
        summarize(results, what, notes, &in_report);
    }
    if let [first, ..] = &report.labels_without_image[..] {
        let lines = count(report.labels_without_image.len() as u64, "line");
        results.announce(format_args!(
            "  {lines} of {} without an image, such as {}",
            LABELS_FILE,
            Escaped::new(first)
        ));
    }
    if let [first, ..] = &report.classes_without_image[..] {
        let classes = report.classes_without_image.len();
        results.announce(format_args!(
            "  {classes} of {} CLASSES WITHOUT AN IMAGE, such as {}; their numbers stay",
            outcome.manifest.classes.len(),
            Escaped::new(first)
        ));
    }
    for (what, notes) in [
        ("FAULTY but kept", &report.faulty),
        ("LEFT OUT", &report.left_out),
        ("REJECTED", &report.rejected),
    ] {
        summarize(results, what, notes, &in_report);
    }
}

/// Says the first few of a list of files.
fn summarize(results: &mut Results, what: &str, notes: &[Note], in_report: &str) {
    const SHOWN: usize = 5;
    if notes.is_empty() {
        return;
    }
    let files = count(notes.len() as u64, "file");
    results.announce(format_args!("  {files} {what}{in_report}"));
    for note in notes.iter().take(SHOWN) {
        results.announce(format_args!("    {note}"));
    }
    if notes.len() > SHOWN {
        results.announce(format_args!("    and {} more", notes.len() - SHOWN));
    }
}

/// Adds the cure to the one system error that a build must expect.
fn explain_full_disk(error: build::Error) -> anyhow::Error {
    const CURE: &str = "the disk is full; what was not finished has been removed; \
        free space or name another place with --out";
    let full = error.is_disk_full();
    let error = anyhow::Error::from(error);
    if full { error.context(CURE) } else { error }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("256MiB"), Ok(256 << 20));
        assert_eq!(bytes("1GB"), Ok(1_000_000_000));
        assert_eq!(bytes("17"), Ok(17));
        assert_eq!(bytes("1.5KiB"), Ok(1536));
        for wrong in ["", "MiB", "0", "-1", "12 parsecs", "99999999999GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
