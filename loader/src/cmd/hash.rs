//! `loader hash`: what each step draws, as hashes, for comparing machines, builds, thread counts and starting points.

use std::io::Write;

use loader::ring::SlotReader;
use shardtool::exit;
use shardtool::program::Results;
use xxhash_rust::xxh3::Xxh3;

use super::{PATIENCE, Selection, Session};

/// Print, per step, hashes (xxh3) of sample ids, crop boxes, masks and pixels
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// First step, counted from 0
    #[arg(long, value_name = "STEP", default_value_t = 0)]
    from_step: u64,
    /// Number of steps
    #[arg(long, value_name = "N", default_value_t = 1)]
    steps: u64,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut Results) -> anyhow::Result<u8> {
    let session = args.selection.start()?;
    let (mut consumer, _attachment) =
        session.attach_steps("--from-step", args.from_step, args.steps)?;
    if !args.json {
        writeln!(
            out,
            "{:>8}  {:16}  {:16}  {:16}  {:16}",
            "step", "samples", "crops", "masks", "pixels"
        )?;
    }
    for step in args.from_step..args.from_step + args.steps {
        let mut hashes = StepHashes::default();
        for _ in 0..session.sampler.groups() {
            let slot = consumer.next(PATIENCE)?;
            anyhow::ensure!(
                slot.step() == step,
                "expected step {step}, the ring brought step {}",
                slot.step()
            );
            hashes.add(&session, &slot);
            consumer.release(slot);
        }
        let [samples, crops, masks, pixels] = hashes.digests();
        if args.json {
            writeln!(
                out,
                r#"{{"step":{step},"samples":"{samples}","crops":"{crops}","masks":"{masks}","pixels":"{pixels}"}}"#
            )?;
        } else {
            writeln!(out, "{step:>8}  {samples}  {crops}  {masks}  {pixels}")?;
        }
    }
    Ok(exit::FINE)
}

/// Running hashes over the groups of a step, in the order of positions. All numbers enter as little-endian bytes.
#[derive(Default)]
struct StepHashes {
    samples: Xxh3,
    crops: Xxh3,
    masks: Xxh3,
    pixels: Xxh3,
}

impl StepHashes {
    fn add(&mut self, session: &Session, slot: &SlotReader) {
        let split = session.pipeline.source().split();
        let first = slot.group() * slot.len() as u64;
        for (&id, position) in slot.sample_ids().iter().zip(first..) {
            self.samples.update(&id.to_le_bytes());
            // Of the sample that is really there, which may be a replacement.
            let sample = split.sample(id);
            let source = (sample.entry().source_width, sample.entry().source_height);
            let crop = session.sampler.crop(slot.step(), position, source);
            let flip = session.sampler.flip(slot.step(), position);
            for value in [
                crop.left,
                crop.top,
                crop.width,
                crop.height,
                u32::from(flip),
            ] {
                self.crops.update(&value.to_le_bytes());
            }
        }
        let contexts = (0..session.config.mask.num_enc_masks).map(|number| slot.context(number));
        let targets = (0..session.config.mask.num_pred_masks).map(|number| slot.target(number));
        for mask in contexts.chain(targets) {
            self.masks.update(&(mask.len() as u64).to_le_bytes());
            for patch in mask {
                self.masks.update(&patch.to_le_bytes());
            }
        }
        self.pixels.update(slot.images());
    }

    fn digests(&self) -> [String; 4] {
        [&self.samples, &self.crops, &self.masks, &self.pixels]
            .map(|hash| format!("{:016x}", hash.digest()))
    }
}
