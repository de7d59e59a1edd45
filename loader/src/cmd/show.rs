//! `loader show`: a contact sheet of what the model sees at a step.
//!
//! Each tile is a crop as it enters the model. Context patches are shown as they are; everything the context encoder
//! does not see lies behind a veil. The target blocks, which the predictor must fill in, are outlined, each in its own
//! colour.

use std::io::Cursor;
use std::path::PathBuf;

use anyhow::{Context, bail};
use image::{ImageFormat, Rgb, RgbImage};
use loader::ring::SlotReader;
use shardtool::program::{Results, arguments};
use shardtool::{Escaped, disk, exit};

use super::{PATIENCE, Selection, Session};

/// Draw a step's crops with their context patches lit and target blocks outlined
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Step to draw, counted from 0
    #[arg(long, value_name = "STEP", default_value_t = 0)]
    step: u64,
    /// PNG file to write, named *.png
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    out: PathBuf,
    /// Draw the first N images of the global batch, or all if there are fewer
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024))]
    images: u64,
}

/// Told apart by colour-blind readers too (Okabe and Ito's palette); more targets than colours start over.
const COLOURS: [(&str, Rgb<u8>); 7] = [
    ("orange", Rgb([255, 159, 28])),
    ("sky blue", Rgb([86, 190, 255])),
    ("green", Rgb([20, 214, 150])),
    ("pink", Rgb([255, 121, 198])),
    ("yellow", Rgb([250, 235, 80])),
    ("blue", Rgb([70, 110, 255])),
    ("red", Rgb([240, 80, 60])),
];
const GROUND: Rgb<u8> = Rgb([18, 20, 24]);
/// Smaller crops are enlarged to at least this side, by a whole factor, so that the blocks can be seen.
const SMALLEST_TILE: u32 = 224;

/// Runs the command.
pub fn run(args: &Args, results: &mut Results) -> anyhow::Result<u8> {
    // Before the work, not after it.
    if ImageFormat::from_path(&args.out).ok() != Some(ImageFormat::Png) {
        bail!(
            "{}: a PNG file is written; give a name that ends in .png",
            Escaped::new(&args.out)
        );
    }
    let session = args.selection.start()?;
    let (mut consumer, _attachment) = session.attach_steps("--step", args.step, 1)?;
    let wanted = args.images.min(session.sampler.global_batch()) as usize;
    let mut tiles = Vec::new();
    let mut drawn = 0;
    while drawn < wanted {
        let slot = consumer.next(PATIENCE)?;
        let images = slot.len().min(wanted - drawn);
        for image in 0..images {
            for context in 0..session.config.mask.num_enc_masks {
                tiles.push(tile(&session, &slot, image, context));
            }
        }
        drawn += images;
        consumer.release(slot);
    }
    let mut png = Cursor::new(Vec::new());
    sheet(&tiles)
        .write_to(&mut png, ImageFormat::Png)
        .context("encode a PNG")?;
    disk::write_output(&args.out, png.get_ref())
        .with_context(|| Escaped::new(&args.out).to_string())?;
    let targets = session.config.mask.num_pred_masks;
    let colours: Vec<&str> = (0..targets)
        .map(|target| COLOURS[target % COLOURS.len()].0)
        .collect();
    results.announce(format_args!(
        "{}: {drawn} images of step {}; context lit, targets outlined in {}",
        Escaped::new(&args.out),
        args.step,
        colours.join(", ")
    ));
    if let Some(relaxed) = session.pipeline.work_times().relaxed_contexts() {
        results.announce(format_args!("{relaxed}"));
    }
    Ok(exit::FINE)
}

/// Draws an image with one of its context masks.
fn tile(session: &Session, slot: &SlotReader, image: usize, context: usize) -> RgbImage {
    let side = slot.size().1;
    let (_, columns) = session.sampler.grid(slot.step());
    let patch = session.config.mask.patch_size as usize;
    let scale = (SMALLEST_TILE as usize).div_ceil(side).max(1);
    let planes = &slot.images()[image * 3 * side * side..][..3 * side * side];
    let of = |mask: &[i64], length: usize| -> Vec<usize> {
        mask[image * length..(image + 1) * length]
            .iter()
            .map(|&patch| patch as usize)
            .collect()
    };
    let lit = of(slot.context(context), slot.context_len());

    let mut tile = RgbImage::from_fn((side * scale) as u32, (side * scale) as u32, |x, y| {
        let (x, y) = (x as usize / scale, y as usize / scale);
        let pixel = Rgb([0, 1, 2].map(|channel| planes[channel * side * side + y * side + x]));
        if lit.contains(&(y / patch * columns + x / patch)) {
            pixel
        } else {
            veiled(pixel)
        }
    });
    let line = (side * scale / 90).max(2) as u32;
    for target in 0..session.config.mask.num_pred_masks {
        let patches = of(slot.target(target), slot.target_len());
        let rows = patches.iter().map(|number| number / columns);
        let (left, right) = (
            patches.iter().map(|number| number % columns).min(),
            patches.iter().map(|n| n % columns).max(),
        );
        let block = [
            left,
            rows.clone().min(),
            right.map(|right| right + 1),
            rows.max().map(|bottom| bottom + 1),
        ]
        .map(|edge| (edge.expect("a target holds patches") * patch * scale) as u32);
        // Each a little further inside than the last, so that blocks with a common edge both show it.
        let inset = line * (target as u32 % 4) / 2;
        let block = [
            block[0] + inset,
            block[1] + inset,
            block[2] - inset,
            block[3] - inset,
        ];
        outline(&mut tile, block, line, COLOURS[target % COLOURS.len()].1);
    }
    tile
}

/// Puts a pixel behind a slate veil: recognisable, and clearly unlike a dark patch that is lit.
fn veiled(Rgb([red, green, blue]): Rgb<u8>) -> Rgb<u8> {
    let grey = (u32::from(red) * 77 + u32::from(green) * 150 + u32::from(blue) * 29) / 256;
    let mut veil = [26, 29, 38].into_iter();
    Rgb([red, green, blue].map(|value| {
        let faded = (u32::from(value) + 2 * grey) / 3 * 132 / 256;
        (faded + veil.next().expect("three channels")) as u8
    }))
}

/// Draws the border of a block (left, top, right, bottom), inside it, and gives what it encloses a tinge of its colour.
fn outline(tile: &mut RgbImage, [left, top, right, bottom]: [u32; 4], line: u32, colour: Rgb<u8>) {
    for y in top..bottom {
        for x in left..right {
            let inside =
                x >= left + line && x + line < right && y >= top + line && y + line < bottom;
            let weight = if inside { 24 } else { 256 };
            let pixel = tile.get_pixel_mut(x, y);
            for (value, colour) in pixel.0.iter_mut().zip(colour.0) {
                *value =
                    ((u32::from(*value) * (256 - weight) + u32::from(colour) * weight) / 256) as u8;
            }
        }
    }
}

/// Lays tiles side by side on a dark ground, as nearly square as their number allows.
fn sheet(tiles: &[RgbImage]) -> RgbImage {
    let columns = (tiles.len() as f64).sqrt().ceil() as u32;
    let rows = (tiles.len() as u32).div_ceil(columns);
    let side = tiles[0].width();
    let gap = side / 28;
    let length = |count: u32| count * side + (count + 1) * gap;
    let mut sheet = RgbImage::from_pixel(length(columns), length(rows), GROUND);
    for (tile, number) in tiles.iter().zip(0..) {
        let place = |at: u32| i64::from(at * side + (at + 1) * gap);
        image::imageops::replace(
            &mut sheet,
            tile,
            place(number % columns),
            place(number / columns),
        );
    }
    sheet
}
