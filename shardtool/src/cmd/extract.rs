//! `shardtool extract`: one sample back into a file.

use std::path::PathBuf;

use anyhow::{Context, bail};
use shardtool::codec::{Decoder, Region};
use shardtool::program::{Results, arguments};
use shardtool::{Codec, Dataset, Escaped, disk, exit, turbo};

/// Write one sample to a file: the JPEG file (jpeg), one with the same coefficients (dct), or a PNG (raw)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the dataset
    #[arg(value_parser = arguments::path())]
    dataset: PathBuf,
    /// Number of the sample in its split, from 0
    #[arg(long, value_name = "N")]
    sample: u64,
    /// File to write
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    out: PathBuf,
    /// The sample's split
    #[arg(long, value_name = "NAME", default_value = "train", value_parser = arguments::text())]
    split: String,
}

pub fn run(args: &Args, results: &mut Results) -> anyhow::Result<u8> {
    let dataset = Dataset::open(&args.dataset)?;
    let Some(split) = dataset.split(&args.split) else {
        let names: Vec<&str> = dataset.splits().iter().map(|split| split.name()).collect();
        bail!(
            "{}: no split {:?}, but {}",
            Escaped::new(&args.dataset),
            Escaped::new(&args.split),
            names.join(", ")
        );
    };
    if args.sample >= split.len() {
        bail!(
            "{}: no sample {} in split {:?}, which has {}, numbered from 0",
            Escaped::new(&args.dataset),
            args.sample,
            Escaped::new(&args.split),
            split.len()
        );
    }
    let sample = split.sample(args.sample);
    let mut buffer = Vec::new();
    let payload = sample.read(&mut buffer)?;
    let entry = sample.entry();
    let bytes = match entry.codec {
        Codec::Jpeg => payload.bytes().to_vec(),
        Codec::Dct => {
            let coefficients = Decoder::new().coefficients(&payload)?;
            let mut jpeg = Vec::new();
            turbo::write_jpeg(&coefficients, &mut jpeg)?;
            jpeg
        }
        Codec::Raw => {
            let (width, height) = (entry.stored_width, entry.stored_height);
            let mut decoder = Decoder::new();
            let view = decoder
                .decode_payload(
                    Codec::Raw,
                    payload.bytes(),
                    width,
                    height,
                    Region::whole((width, height)),
                )
                .map_err(anyhow::Error::msg)?;
            let mut png = std::io::Cursor::new(Vec::new());
            let (pixels, format) = (view.pixels, image::ImageFormat::Png);
            let color = image::ExtendedColorType::Rgb8;
            image::write_buffer_with_format(
                &mut png,
                pixels,
                view.width,
                view.height,
                color,
                format,
            )
            .context("encode a PNG")?;
            png.into_inner()
        }
    };
    disk::write_output(&args.out, &bytes)
        .with_context(|| format!("{}: cannot write", Escaped::new(&args.out)))?;
    let (codec, width, height) = (entry.codec, entry.stored_width, entry.stored_height);
    let class = match entry.class {
        Some(class) => dataset.manifest().classes[class as usize].clone(),
        None => "no class".to_owned(),
    };
    let name = sample.name().unwrap_or("no path");
    results.announce(format_args!(
        "{}: {}, {}, {width}x{height}, {codec}",
        Escaped::new(&args.out),
        Escaped::new(name),
        Escaped::new(&class)
    ));
    for label in &dataset.manifest().labels {
        if let Some(value) = sample
            .label(&label.name)
            .filter(|_| label.name != shardtool::format::PATH_COLUMN)
        {
            results.announce(format_args!("  {}: {value}", label.name));
        }
    }
    Ok(exit::FINE)
}
