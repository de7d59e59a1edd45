//! `shardtool inspect`: what a dataset holds.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};
use shardtool::dataset::{CodecOptions, EntropyCoding};
use shardtool::program::{Results, arguments};
use shardtool::{Codec, Dataset, Escaped, Split, exit};

use super::{count, size};

/// Print what a dataset holds
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the dataset
    #[arg(value_parser = arguments::path())]
    dataset: PathBuf,
    /// Print JSON: the manifest, and counts by class, codec and size
    #[arg(long)]
    json: bool,
}

/// Counts over the samples of a split.
struct Counts {
    bytes: u64,
    classes: Vec<u64>,
    unlabelled: u64,
    codecs: [(Codec, u64); 3],
    rotated: u64,
    /// Least, mean and greatest of the stored sizes.
    width: (u32, f64, u32),
    height: (u32, f64, u32),
}

impl Counts {
    fn of(split: &Split, classes: usize) -> Counts {
        let mut counts = Counts {
            bytes: 0,
            classes: vec![0; classes],
            unlabelled: 0,
            codecs: Codec::ALL.map(|codec| (codec, 0)),
            rotated: 0,
            width: (u32::MAX, 0.0, 0),
            height: (u32::MAX, 0.0, 0),
        };
        let share = 1.0 / split.len().max(1) as f64;
        let add = |side: &mut (u32, f64, u32), value: u32| {
            *side = (
                side.0.min(value),
                side.1 + share * f64::from(value),
                side.2.max(value),
            );
        };
        for entry in split.shards().iter().flat_map(|shard| shard.entries()) {
            counts.bytes += u64::from(entry.length);
            match entry.class {
                Some(class) => counts.classes[class as usize] += 1,
                None => counts.unlabelled += 1,
            }
            for (codec, count) in &mut counts.codecs {
                *count += u64::from(*codec == entry.codec);
            }
            counts.rotated += u64::from(entry.orientation != 1);
            add(&mut counts.width, entry.stored_width);
            add(&mut counts.height, entry.stored_height);
        }
        counts
    }

    fn to_json(&self) -> Value {
        let side = |(least, mean, greatest): (u32, f64, u32)| json!({"min": least, "mean": mean, "max": greatest});
        let codecs = self.codecs.iter();
        let codecs: serde_json::Map<_, _> = codecs
            .map(|(codec, count)| (codec.name().to_owned(), (*count).into()))
            .collect();
        json!({
            "payload_bytes": self.bytes,
            "class_counts": self.classes,
            "unlabelled": self.unlabelled,
            "codecs": codecs,
            "rotated_by_exif": self.rotated,
            "width": side(self.width),
            "height": side(self.height),
        })
    }
}

/// Returns the codec and the options that matter to it.
fn describe(codec: &CodecOptions) -> String {
    let coding = match codec.entropy {
        Some(EntropyCoding::Rans) => ", rANS".to_owned(),
        Some(EntropyCoding::Zstd) => format!(", zstd level {}", codec.level),
        None => format!(" (raw images: zstd level {})", codec.level),
    };
    let bound = codec.bound.map(|bound| {
        let (side, quality, chroma) = (bound.short_side, bound.quality, bound.chroma);
        format!(", shorter side at most {side} px (quality {quality}, chroma {chroma})")
    });
    format!("{}{coding}{}", codec.name, bound.unwrap_or_default())
}

pub fn run(args: &Args, out: &mut Results) -> anyhow::Result<u8> {
    let dataset = Dataset::open(&args.dataset)?;
    let manifest = dataset.manifest();
    let counts: Vec<Counts> = dataset
        .splits()
        .iter()
        .map(|split| Counts::of(split, manifest.classes.len()))
        .collect();
    if args.json {
        let mut tree = serde_json::to_value(manifest)?;
        tree["checksum"] = format!("{:016x}", manifest.checksum()).into();
        for (i, counts) in counts.iter().enumerate() {
            tree["splits"][i]["counts"] = counts.to_json();
        }
        writeln!(out, "{}", serde_json::to_string_pretty(&tree)?)?;
        return Ok(exit::FINE);
    }

    let (codec, source) = (&manifest.codec, &manifest.source);
    writeln!(
        out,
        "{}: checksum {:016x}",
        Escaped::new(dataset.path()),
        manifest.checksum()
    )?;
    writeln!(
        out,
        "  source   {}: {} image files, {}",
        Escaped::new(&source.name),
        source.files,
        size(source.bytes)
    )?;
    writeln!(out, "  codec    {}", describe(codec))?;
    writeln!(out, "  classes  {}", manifest.classes.len())?;
    let labels = manifest.labels.iter();
    let labels: Vec<String> = labels
        .map(|label| format!("{} ({:?})", Escaped::new(&label.name), label.kind).to_lowercase())
        .collect();
    writeln!(out, "  labels   {}", labels.join(", "))?;
    for (split, counts) in dataset.splits().iter().zip(&counts) {
        let samples = count(split.len(), "image");
        let shards = count(split.shards().len() as u64, "shard");
        let (name, bytes) = (Escaped::new(split.name()), size(counts.bytes));
        writeln!(out, "  split {name}: {samples} in {shards}, {bytes}")?;
        if split.is_empty() {
            continue;
        }
        let ((w0, w, w1), (h0, h, h1)) = (counts.width, counts.height);
        writeln!(
            out,
            "    size     {w:.0}x{h:.0} on average, widths {w0} to {w1}, heights {h0} to {h1}"
        )?;
        let codecs = counts.codecs.iter().filter(|(_, count)| *count > 0);
        let codecs: Vec<String> = codecs
            .map(|(codec, count)| format!("{count} {codec}"))
            .collect();
        writeln!(out, "    stored   {}", codecs.join(", "))?;
        if let (Some(least), Some(most)) =
            (counts.classes.iter().min(), counts.classes.iter().max())
        {
            writeln!(out, "    classes  {least} to {most} images each")?;
        }
        if counts.unlabelled > 0 {
            writeln!(out, "    {} images without a class", counts.unlabelled)?;
        }
        if counts.rotated > 0 {
            writeln!(
                out,
                "    {} images with an EXIF rotation (noted, not applied)",
                counts.rotated
            )?;
        }
    }
    Ok(exit::FINE)
}
