//! `loader compare`: the codecs and libjpeg-turbo side by side, on one core and on equal terms.
//!
//! Every method makes the same crop of the same image into the same square. They take turns, a whole pass over the
//! images each, so that what else goes on in the machine meets all of them; each method's median over the rounds
//! counts. Before that, each method's squares are compared with the full-precision reference.

mod conversion;
mod methods;
mod quality;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use loader::crop::{CropBox, CropSampler};
use loader::pipeline::{allowed_cpus, pin};
use loader::random::{Purpose, Stream};
use loader::render::{MARGIN, Times};
use serde::Serialize;
use shardtool::exit;
use shardtool::program::{Results, arguments};
use shardtool::simd::Simd;
use shardtool::turbo;

use conversion::Conversion;
use methods::{Method, Shards};
use quality::Likeness;

/// Compare the codecs and libjpeg-turbo on one pinned core, each on the same crops of the same images
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of JPEG files
    #[arg(long, value_name = "DIR", value_parser = arguments::path())]
    images: PathBuf,
    /// Rounds, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Margins of scaled decoding, instead of the loader's
    #[arg(long, value_name = "M,M…", value_delimiter = ',')]
    margins: Vec<f64>,
    /// Widest instructions that our own code may use: scalar, avx2 or avx512 [default: the machine's]
    #[arg(long, value_name = "FAMILY")]
    simd: Option<Simd>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Side of the squares in pixels, and the crops' share of the image: those of every official configuration at 224 px.
const SIDE: u32 = 224;
const CROP_SCALE: [f64; 2] = [0.3, 1.0];

/// A method's line.
#[derive(Debug, Serialize)]
struct Row {
    method: String,
    images_per_second: f64,
    /// Against libjpeg-turbo's partial decoding with our resizer.
    ratio: f64,
    microseconds: f64,
    read: f64,
    entropy: f64,
    decode: f64,
    resize: f64,
    bytes_per_image: f64,
    psnr_mean: f64,
    psnr_p1: f64,
    psnr_min: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    images: usize,
    rounds: usize,
    side: u32,
    turbo_simd: bool,
    simd: String,
    methods: Vec<Row>,
    conversion: Conversion,
}

/// Time of one pass: as a whole, and by stage.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    whole: Duration,
    stages: Times,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut Results) -> anyhow::Result<u8> {
    let rounds = usize::from(args.rounds);
    let simd = args.simd.unwrap_or(Simd::best()).min(Simd::best());
    let margins = if args.margins.is_empty() {
        &[MARGIN][..]
    } else {
        &args.margins
    };
    let scratch = tempfile::tempdir().context("a place for shards")?;
    let shards = Shards::build(&args.images, scratch.path())?;
    let cpu = allowed_cpus().pop();
    cpu.into_iter().for_each(pin);
    let law = CropSampler::new(CROP_SCALE);
    let stream = Stream::new(0, Purpose::Crop, 0);
    let crops: Vec<CropBox> = (0..shards.len())
        .map(|image| law.draw(&mut stream.at(0, image as u32), shards.size(image)))
        .collect();

    let mut methods = Method::all(margins, simd);
    let mut square = vec![0; 3 * (SIDE * SIDE) as usize];
    let mut likenesses = vec![Likeness::default(); methods.len()];
    let mut reference = quality::Reference::new();
    for (image, crop) in crops.iter().enumerate() {
        let expected = reference.square(&shards, image, *crop)?;
        for (method, likeness) in methods.iter_mut().zip(&mut likenesses) {
            method.render(&shards, image, *crop, &mut square)?;
            likeness.add(&square, expected);
        }
    }
    let mut passes = vec![Vec::with_capacity(rounds); methods.len()];
    for round in 0..rounds {
        for (method, passes) in methods.iter_mut().zip(&mut passes) {
            let mut pass = Pass::default();
            for (image, crop) in crops.iter().enumerate() {
                pass.add(method.render(&shards, image, *crop, &mut square)?);
            }
            passes.push(pass);
        }
        tracing::info!("round {} of {rounds}", round + 1);
    }

    let conversion = conversion::measure(&args.images, &shards, scratch.path(), rounds)?;

    let baseline = methods.iter().position(Method::is_baseline);
    let baseline = median(&passes[baseline.expect("one of the methods")]).whole;
    let rows = methods.iter().zip(&passes).zip(&mut likenesses);
    let rows = rows.map(|((method, passes), likeness)| {
        let pass = median(passes);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / crops.len() as f64;
        let [psnr_mean, psnr_p1, psnr_min] = likeness.summary();
        Row {
            method: method.name().to_owned(),
            images_per_second: crops.len() as f64 / pass.whole.as_secs_f64(),
            ratio: baseline.as_secs_f64() / pass.whole.as_secs_f64(),
            microseconds: each(pass.whole),
            read: each(pass.stages.read),
            entropy: each(pass.stages.entropy),
            decode: each(pass.stages.decode),
            resize: each(pass.stages.resize),
            bytes_per_image: method.bytes(&shards) as f64 / crops.len() as f64,
            psnr_mean,
            psnr_p1,
            psnr_min,
        }
    });
    let report = Report {
        images: crops.len(),
        rounds,
        side: SIDE,
        turbo_simd: turbo::simd(),
        simd: format!("{simd:?}"),
        methods: rows.collect(),
        conversion,
    };
    ensure!(report.images > 0, "no images");
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        report.print(cpu, out)?;
    }
    Ok(exit::FINE)
}

impl Pass {
    fn add(&mut self, image: Pass) {
        self.whole += image.whole;
        self.stages.read += image.stages.read;
        self.stages.entropy += image.stages.entropy;
        self.stages.decode += image.stages.decode;
        self.stages.resize += image.stages.resize;
    }
}

/// Returns the pass of median length.
fn median(passes: &[Pass]) -> Pass {
    let mut passes = passes.to_vec();
    passes.sort_by_key(|pass| pass.whole);
    passes[passes.len() / 2]
}

impl Report {
    fn print(&self, cpu: Option<usize>, out: &mut Results) -> anyhow::Result<()> {
        let core = cpu.map_or("one thread, not pinned".to_owned(), |cpu| {
            format!("one thread on CPU {cpu}")
        });
        writeln!(
            out,
            "{} images, one crop each (scale {:.1} to {:.1}) to {SIDE}x{SIDE}, {core}, median of {} rounds; \
             ours: {}; libjpeg-turbo: {}",
            self.images,
            CROP_SCALE[0],
            CROP_SCALE[1],
            self.rounds,
            self.simd,
            if self.turbo_simd {
                "SIMD"
            } else {
                "NO SIMD (built without nasm): not a fair comparison"
            },
        )?;
        writeln!(
            out,
            "{:<42} {:>8} {:>6} {:>7} {:>5} {:>7} {:>6} {:>6} {:>8}  {:>5} {:>5} {:>5}",
            "",
            "images/s",
            "ratio",
            "µs",
            "read",
            "entropy",
            "decode",
            "resize",
            "bytes",
            "dB",
            "p1",
            "min"
        )?;
        for row in &self.methods {
            writeln!(
                out,
                "{:<42} {:>8.0} {:>6.2} {:>7.1} {:>5.1} {:>7.1} {:>6.1} {:>6.1} {:>8.0}  {:>5.1} {:>5.1} {:>5.1}",
                row.method,
                row.images_per_second,
                row.ratio,
                row.microseconds,
                row.read,
                row.entropy,
                row.decode,
                row.resize,
                row.bytes_per_image,
                row.psnr_mean,
                row.psnr_p1,
                row.psnr_min
            )?;
        }
        writeln!(
            out,
            "ratio: to libjpeg-turbo's partial decoding with our resizer. dB: PSNR of mean, 1st percentile and worst image \
             against the crop of a full decode, filtered in double precision."
        )?;
        let conversion = &self.conversion;
        writeln!(
            out,
            "conversion: libjpeg-turbo reads coefficients in {:.0} µs an image, shardtool build takes {:.0} ({:.2} of the speed)",
            conversion.coefficients,
            conversion.build,
            conversion.ratio()
        )?;
        Ok(())
    }
}
