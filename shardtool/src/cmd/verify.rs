//! `shardtool verify`: reads all of a dataset, names what is damaged, and restores it from the source.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use shardtool::build::{Damage, Repair};
use shardtool::codec::Decoder;
use shardtool::dataset::ShardRecord;
use shardtool::planes::{Area, Resolution};
use shardtool::program::Results;
use shardtool::source::{self, Request};
use shardtool::{Codec, Error, Escaped, Manifest, Payload, Shard, cpus, exit};

use super::{Meter, count, size};

/// Check a dataset: structure, checksums, and with --decode every image
///
/// Prints one line for each damaged sample; the exit code is then 1. With --repair it is 0 if all is whole afterwards.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the dataset
    dataset: PathBuf,
    /// Decode every image as well
    #[arg(long)]
    decode: bool,
    /// Restore what is damaged from the folders and archives that the dataset was built from, given as for build
    #[arg(long, value_name = "[SPLIT=]SOURCE", num_args = 1..)]
    repair: Vec<PathBuf>,
    /// Restore what is damaged from the images of a list that the dataset was built from
    #[arg(long, value_name = "FILE")]
    repair_list: Vec<PathBuf>,
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
    let manifest = Manifest::read(&args.dataset)?;
    let repairs = !args.repair.is_empty() || !args.repair_list.is_empty();
    let total = manifest.splits.iter().map(|split| split.samples).sum();
    let mut meter = Meter::new("verifying", total);
    let mut found = Found::default();
    check(args, &manifest, &mut found, &mut meter, out)?;
    let seconds = meter.finish();
    let (images, bytes, damaged) = (found.images, size(found.bytes), found.damaged);
    let name = Escaped::new(&args.dataset);
    if let Some(unusable) = found.unusable.filter(|_| !repairs) {
        // A missing or damaged shard means that the dataset cannot be used: an error, not a fault found.
        return Err(unusable.into());
    }
    writeln!(
        out,
        "{name}: {images} images, {bytes}, {damaged} damaged ({seconds:.1} s)"
    )?;
    if found.damage.is_empty() {
        return Ok(exit::FINE);
    }
    if repairs {
        return repair(args, &manifest, &found.damage, out);
    }
    Ok(exit::FAULTS)
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
                let checked = match sample.read(&mut buffer) {
                    Ok(payload) if args.decode => decode(&mut decoder, &payload),
                    read => read.map(drop),
                };
                if let Err(error) = checked {
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
    if found.unusable.is_some() || !args.repair.is_empty() || !args.repair_list.is_empty() {
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
        sources: args.repair.clone(),
        lists: args.repair_list.clone(),
        order: Some(manifest.order),
        ..Request::default()
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
