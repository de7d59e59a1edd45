//! `shardtool synth`: a labelled image set of our own.

mod set;

use std::path::PathBuf;
use std::sync::Mutex;

use shardtool::program::{Results, arguments};
use shardtool::{Escaped, cpus, exit};

use super::{Meter, size};
use set::Recipe;

/// Make a labelled set of generated images: coloured shapes on textured ground
///
/// OUT becomes an image folder that `shardtool build` reads: train/<class>/ and val/<class>/ with
/// JPEGs, and labels.csv with the number of objects, the distance of the nearest one in metres and
/// the kind of ground. The class is the shape of the nearest object. The same options give the same
/// bytes, and image number N does not depend on how many there are.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to create
    #[arg(value_parser = arguments::path())]
    out: PathBuf,
    /// Training images
    #[arg(long, value_name = "N")]
    images: u64,
    /// Validation images
    #[arg(long, value_name = "N", default_value_t = 0)]
    val: u64,
    /// Number of classes, 1 to 12
    #[arg(long, value_name = "K", default_value_t = 10)]
    classes: u32,
    /// Another seed gives another set
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Size of every image, such as 64x64 [default: sizes as ImageNet has them, mostly 500x375]
    #[arg(long, value_name = "WxH", value_parser = dimensions)]
    size: Option<(u32, u32)>,
    /// Worker threads [default: one for each CPU this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
}

fn dimensions(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(width, height)| {
        let (width, height) = (width.parse().ok()?, height.parse().ok()?);
        Some((width, height))
    });
    sides.ok_or_else(|| "expected a width and a height, such as 500x375".to_owned())
}

pub fn run(args: &Args, results: &mut Results) -> anyhow::Result<u8> {
    let workers = args.workers.map_or_else(cpus::count, usize::from);
    let mut recipe = Recipe::new(args.images, args.val);
    (recipe.classes, recipe.seed, recipe.size) = (args.classes, args.seed, args.size);
    let total = args.images.saturating_add(args.val);
    let meter = Mutex::new(Meter::new("drawing", total));
    let made = set::generate(&args.out, &recipe, workers, &|done| {
        let mut meter = meter.lock().expect("no holder of the meter panics");
        meter.update(done, total, 0);
    });
    let meter = meter.into_inner().expect("no holder of the meter panics");
    let seconds = meter.finish();
    let summary = made?;

    let (out, images) = (Escaped::new(&args.out), summary.images);
    let bytes = size(summary.bytes);
    if summary.present {
        results.announce(format_args!(
            "{out}: this set is there already ({images} images, {bytes})"
        ));
    } else {
        let rate = images as f64 / seconds;
        results.announce(format_args!(
            "{out}: {images} images, {bytes}, made in {seconds:.1} s ({rate:.0} images/s)"
        ));
    }
    Ok(exit::FINE)
}
