//! Features of images by the target encoder of a run: for each image its name and the mean of its patches' encodings.
//!
//! ```sh
//! cargo run --release -p trainer --example features -- runs/tiny20 a.png b.png
//! ```
//!
//! The first argument is a run directory, whose latest checkpoint is taken, or a checkpoint. Images are PNG files of
//! 8-bit RGB, of any size: what is beyond whole patches is cut off at the right and at the bottom.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use png::{BitDepth, ColorType};
use shardtool::program::{self, Verbosity};
use shardtool::{Escaped, exit};
use tch::{Device, Tensor};
use trainer::checkpoint::Error as Checkpoint;
use trainer::evaluate::{self, Features};

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    program::run("features", &Verbosity::default(), |out| match &args[..] {
        [run, images @ ..] => write(run, images, out).map(|()| exit::FINE),
        [] => bail!("arguments are a run directory and PNG files"),
    })
}

/// Writes the features of each image.
fn write(run: &Path, images: &[PathBuf], out: &mut impl Write) -> Result<()> {
    let features = Features::load(run, Device::Cpu).map_err(|error| {
        let advice = advice(&error);
        anyhow::Error::new(error).context(advice)
    })?;
    let patch = features.encoder().config().patch_size;
    for path in images {
        let name = Escaped::new(path).to_string();
        let pixels = pixels(path, patch).with_context(|| name.clone())?;
        let pooled = features.pooled(&pixels).with_context(|| name.clone())?; // (1, D)
        let values = Vec::<f32>::try_from(pooled.f_view(-1)?)?;
        writeln!(out, "{name} {values:?}")?;
    }
    Ok(())
}

/// Reads an image as bytes (1, 3, height, width), cut to whole patches.
fn pixels(path: &Path, patch: i64) -> Result<Tensor> {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path)?)).read_info()?;
    let size = reader.output_buffer_size().context("too large an image")?;
    let mut bytes = vec![0; size];
    let info = reader.next_frame(&mut bytes)?;
    if (info.color_type, info.bit_depth) != (ColorType::Rgb, BitDepth::Eight) {
        bail!("an image of {:?}, not of 8-bit RGB", info.color_type);
    }
    let (width, height) = (i64::from(info.width), i64::from(info.height));
    ensure!(
        width >= patch && height >= patch,
        "smaller than a patch of {patch} pixels"
    );
    let image = Tensor::f_from_slice(&bytes)?.f_view([1, height, width, 3])?;
    let image = image.f_permute([0, 3, 1, 2])?;
    let image = image.f_narrow(2, 0, height / patch * patch)?;
    Ok(image.f_narrow(3, 0, width / patch * patch)?)
}

/// Says what can be done about an error.
fn advice(error: &evaluate::Error) -> &'static str {
    match error {
        evaluate::Error::Checkpoint(checkpoint) => match checkpoint {
            Checkpoint::Missing { .. } => "there is no checkpoint (has the run written one yet?)",
            Checkpoint::Foreign { .. } => "import that file first",
            Checkpoint::Damaged { .. } => {
                "the checkpoint is damaged: name an earlier one of the run"
            }
            Checkpoint::Version { .. } => "use the release that wrote the checkpoint",
            Checkpoint::Io { .. } => "the checkpoint cannot be read",
            _ => "the checkpoint cannot be used",
        },
        evaluate::Error::Config { .. } => "import the weights once more, with --config",
        evaluate::Error::Compute(trainer::Error::OutOfMemory { .. }) => {
            "this machine is too small for the network"
        }
        _ => "the encoder cannot be made",
    }
}
