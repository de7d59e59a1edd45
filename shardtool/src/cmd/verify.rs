//! `shardtool verify`: reads all of a dataset and names what is damaged.

use std::io::Write;
use std::path::PathBuf;

use shardtool::codec::Decoder;
use shardtool::planes::{Area, Resolution};
use shardtool::program::Results;
use shardtool::{Codec, Dataset, Escaped, Payload, exit};

use super::{Meter, size};

/// Check a dataset: structure, checksums, and with --decode every image
///
/// Prints one line for each damaged sample; the exit code is then 1.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the dataset
    dataset: PathBuf,
    /// Decode every image as well
    #[arg(long)]
    decode: bool,
}

/// Decodes all of a sample. A `dct` sample's coefficients must use up its streams.
fn decode(decoder: &mut Decoder, payload: &Payload<'_>) -> Result<(), shardtool::Error> {
    let sample = payload.sample();
    let entry = sample.entry();
    if entry.codec == Codec::Dct {
        return decoder.coefficients(payload).map(drop);
    }
    let whole = Area::whole((entry.stored_width, entry.stored_height));
    decoder.decode(payload, whole, Resolution::Full).map(drop)
}

pub fn run(args: &Args, out: &mut Results) -> anyhow::Result<u8> {
    // A missing or damaged shard means that the dataset cannot be used: an error, not a fault found.
    let dataset = Dataset::open(&args.dataset)?;
    let total: u64 = dataset.splits().iter().map(|split| split.len()).sum();
    let mut meter = Meter::new("verifying", total);
    let (mut decoder, mut buffer) = (Decoder::new(), Vec::new());
    let (mut done, mut damaged, mut bytes) = (0, 0, 0);
    for split in dataset.splits() {
        for id in 0..split.len() {
            let sample = split.sample(id);
            let checked = match sample.read(&mut buffer) {
                Ok(payload) if args.decode => decode(&mut decoder, &payload),
                read => read.map(drop),
            };
            if let Err(error) = checked {
                damaged += 1;
                let name = sample.name().unwrap_or("no path");
                writeln!(
                    out,
                    "{} sample {id} ({}): {error}",
                    Escaped::new(split.name()),
                    Escaped::new(name)
                )?;
            }
            done += 1;
            bytes += u64::from(sample.entry().length);
            meter.update(done, total, damaged);
        }
    }
    let seconds = meter.finish();
    let (name, bytes) = (Escaped::new(&args.dataset), size(bytes));
    writeln!(
        out,
        "{name}: {total} images, {bytes}, {damaged} damaged ({seconds:.1} s)"
    )?;
    Ok(if damaged == 0 {
        exit::FINE
    } else {
        exit::FAULTS
    })
}
