//! `shardtool verify`: reads all of a dataset, names what is damaged, and restores it from the source.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use shardtool::build::{Damage, Repair};
use shardtool::codec::Decoder;
use shardtool::dataset::{MOST_QUARANTINED, Quarantine, Quarantined, ShardRecord, today};
use shardtool::planes::{Area, Resolution};
use shardtool::program::{Results, arguments};
use shardtool::source::{self, Request};
use shardtool::{Codec, Error, Escaped, Manifest, Payload, Sample, Shard, cpus, exit};

use super::reading::Reading;
use super::{Meter, count, size};

/// Check a dataset: structure, checksums, and with --decode every image
///
/// Prints one line for each damaged sample; the exit code is then 1. With --repair it is 0 if all is whole afterwards.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the dataset
    #[arg(value_parser = arguments::path())]
    dataset: PathBuf,
    /// Decode every image as well
    #[arg(long)]
    decode: bool,
    /// Restore what is damaged from the folders and archives that the dataset was built from, given as for build, with
    /// the options that say how they are read
    #[arg(long, value_name = "[SPLIT=]SOURCE", num_args = 1.., value_parser = super::source())]
    repair: Vec<PathBuf>,
    /// Restore what is damaged from the images of a list that the dataset was built from
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    repair_list: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// List the samples that are damaged, and stay so, in quarantine.json, so that the loader leaves them out and says
    /// how many there are
    #[arg(long)]
    quarantine: bool,
    /// The largest share of a split's samples that may be in quarantine
    #[arg(long, value_name = "SHARE", default_value_t = MOST_QUARANTINED, requires = "quarantine")]
    at_most: f64,
}

impl Args {
    fn repairs(&self) -> bool {
        !self.repair.is_empty() || !self.repair_list.is_empty()
    }
}

/// What was found.
#[derive(Default)]
struct Found {
    images: u64,
    bytes: u64,
    damaged: u64,
    /// Numbers of split and shard, and what is damaged there.
    damage: Vec<(usize, usize, Damage)>,
    /// Why the first shard that cannot be used cannot.
    unusable: Option<Error>,
}

pub fn run(args: &Args, out: &mut Results) -> anyhow::Result<u8> {
    if !args.repairs() && !args.reading.is_default() {
        bail!(
            "options that say how a source is read need one: --repair SOURCE or --repair-list FILE"
        );
    }
    let manifest = Manifest::read(&args.dataset)?;
    let total = manifest.splits.iter().map(|split| split.samples).sum();
    let mut meter = Meter::new("verifying", total);
    let mut found = Found::default();
    check(args, &manifest, &mut found, &mut meter, out)?;
    let seconds = meter.finish();
    let (images, bytes, damaged) = (found.images, size(found.bytes), found.damaged);
    let name = Escaped::new(&args.dataset);
    if let Some(unusable) = found.unusable.filter(|_| !args.repairs()) {
        // A missing or damaged shard means that the dataset cannot be used: an error, not a fault found.
        return Err(unusable.into());
    }
    writeln!(
        out,
        "{name}: {images} images, {bytes}, {damaged} damaged ({seconds:.1} s)"
    )?;
    let code = match found.damage.is_empty() {
        true => exit::FINE,
        false if args.repairs() => repair(args, &manifest, &found.damage, out)?,
        false => exit::FAULTS,
    };
    note(args, &manifest, &found.damage, out)?;
    Ok(code)
}

/// Lists what stays damaged in the quarantine, if that is asked for; else takes out of it what is whole again.
fn note(
    args: &Args,
    manifest: &Manifest,
    damage: &[(usize, usize, Damage)],
    out: &mut Results,
) -> anyhow::Result<()> {
    let before = match Quarantine::read(&args.dataset, manifest) {
        // It is written anew.
        Err(_) if args.quarantine => None,
        read => read?,
    };
    let at_most = match (&before, args.quarantine) {
        (None, false) => return Ok(()),
        (Some(before), false) => before.at_most,
        (_, true) => args.at_most,
    };
    let known = before.map_or(Vec::new(), |before| before.samples);
    let (mut decoder, mut buffer) = (Decoder::new(), Vec::new());
    let mut listed = Vec::new();
    for (split, number, damage) in damage {
        let record = &manifest.splits[*split].shards[*number];
        let shard = Shard::open_listed(&args.dataset, record, manifest.classes.len(), None);
        let shard = match shard {
            Ok(shard) => shard,
            Err(error) if args.quarantine => {
                bail!(
                    "{error}; a shard that cannot be opened cannot be in quarantine, only repaired"
                )
            }
            Err(_) => continue,
        };
        let samples = match damage {
            Damage::Samples(samples) => samples.clone(),
            Damage::Whole => (0..shard.len()).collect(),
        };
        for sample in samples {
            let checked = examine(args, &shard.sample(sample), &mut decoder, &mut buffer);
            let Err(cause) = checked else { continue };
            let same =
                |listed: &&Quarantined| (&listed.shard, listed.sample) == (&record.file, sample);
            match known.iter().find(same) {
                Some(listed_before) => listed.push(listed_before.clone()),
                None if args.quarantine => listed.push(Quarantined {
                    shard: record.file.clone(),
                    sample,
                    cause: cause.to_string(),
                    date: today(),
                }),
                None => {}
            }
        }
    }
    let samples = listed.len();
    let quarantine = Quarantine::new(manifest, at_most, listed);
    quarantine.check(&args.dataset, manifest)?;
    quarantine.write(&args.dataset)?;
    let name = Escaped::new(&args.dataset);
    writeln!(
        out,
        "{name}: {} in quarantine",
        count(samples as u64, "sample")
    )?;
    Ok(())
}

/// Reads a sample, and decodes it if that is asked for.
fn examine(
    args: &Args,
    sample: &Sample<'_>,
    decoder: &mut Decoder,
    buffer: &mut Vec<u8>,
) -> Result<(), Error> {
    match sample.read(buffer) {
        Ok(payload) if args.decode => decode(decoder, &payload),
        read => read.map(drop),
    }
}

/// Reads all shards and names what is damaged.
fn check(
    args: &Args,
    manifest: &Manifest,
    found: &mut Found,
    meter: &mut Meter,
    out: &mut Results,
) -> anyhow::Result<()> {
    let total = manifest.splits.iter().map(|split| split.samples).sum();
    let (mut decoder, mut buffer) = (Decoder::new(), Vec::new());
    let mut sibling = None;
    for (split, of_split) in manifest.splits.iter().enumerate() {
        let mut id = 0;
        for (number, listed) in of_split.shards.iter().enumerate() {
            let first = id;
            id += u64::from(listed.samples);
            let Some(shard) = open(args, manifest, listed, sibling.as_ref(), found) else {
                found.damage.push((split, number, Damage::Whole));
                continue;
            };
            let mut damaged = Vec::new();
            for index in 0..shard.len() {
                let sample = shard.sample(index);
                if let Err(error) = examine(args, &sample, &mut decoder, &mut buffer) {
                    damaged.push(index);
                    found.damaged += 1;
                    let id = first + u64::from(index);
                    let (split, name) = (&of_split.name, sample.name().unwrap_or("no path"));
                    let (split, name) = (Escaped::new(split), Escaped::new(name));
                    writeln!(out, "{split} sample {id} ({name}): {error}")?;
                }
                found.images += 1;
                found.bytes += u64::from(sample.entry().length);
                meter.update(found.images, total, found.damaged);
            }
            if !damaged.is_empty() {
                let damage = Damage::Samples(damaged);
                found.damage.push((split, number, damage));
            }
            sibling = Some(shard);
        }
    }
    Ok(())
}

/// Opens a shard. One that cannot be used is named, and kept if it is the first.
fn open(
    args: &Args,
    manifest: &Manifest,
    listed: &ShardRecord,
    sibling: Option<&Shard>,
    found: &mut Found,
) -> Option<Shard> {
    let error = match Shard::open_listed(&args.dataset, listed, manifest.classes.len(), sibling) {
        Ok(shard) => return Some(shard),
        Err(error) => error,
    };
    if found.unusable.is_some() || args.repairs() {
        tracing::warn!("{error}");
    }
    found.unusable.get_or_insert(error);
    None
}

/// Decodes all of a sample. A `dct` sample's coefficients must use up its streams.
fn decode(decoder: &mut Decoder, payload: &Payload<'_>) -> Result<(), Error> {
    let sample = payload.sample();
    let entry = sample.entry();
    if entry.codec == Codec::Dct {
        return decoder.coefficients(payload).map(drop);
    }
    let whole = Area::whole((entry.stored_width, entry.stored_height));
    decoder.decode(payload, whole, Resolution::Full).map(drop)
}

/// Restores what is damaged, and names what stays so.
fn repair(
    args: &Args,
    manifest: &Manifest,
    damage: &[(usize, usize, Damage)],
    out: &mut Results,
) -> anyhow::Result<u8> {
    let request = Request {
        order: Some(manifest.order),
        ..args
            .reading
            .request(&args.repair, &args.repair_list, &args.dataset)?
    };
    let source = source::open(&request).context("--repair")?;
    let repair = Repair::new(&args.dataset, manifest, &source, cpus::count())?;
    let (mut shards, mut lost) = (0, 0);
    for (split, number, damage) in damage {
        let stays = repair.shard(&manifest.splits[*split], *number, damage)?;
        for note in &stays {
            writeln!(out, "NOT RESTORED: {note}")?;
        }
        shards += u64::from(stays.is_empty());
        lost += stays.len();
    }
    let (name, shards) = (Escaped::new(&args.dataset), count(shards, "shard"));
    if lost == 0 {
        writeln!(out, "{name}: {shards} restored, all is whole")?;
        return Ok(exit::FINE);
    }
    writeln!(out, "{name}: {shards} restored, {lost} not restored")?;
    Ok(exit::FAULTS)
}
