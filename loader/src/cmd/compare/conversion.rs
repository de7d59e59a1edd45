//! What building a dataset costs beyond what it cannot do without: undoing JPEG's Huffman coding.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use shardtool::Codec;
use shardtool::build;
use shardtool::dct::coefficients::Coefficients;
use shardtool::source::Source;
use shardtool::turbo;

use super::methods::{Shards, options};

/// Medians over the rounds, in microseconds of one core per image.
#[derive(Debug, Serialize)]
pub struct Conversion {
    /// libjpeg-turbo's reading of coefficients alone, from memory.
    pub coefficients: f64,
    /// The whole of `shardtool build`: files, tables, coding, checksums, and waiting for the disk at the end.
    pub build: f64,
}

/// Measures both in turns. Threads stay on the caller's core.
pub fn measure(
    images: &Path,
    shards: &Shards,
    scratch: &Path,
    rounds: usize,
) -> anyhow::Result<Conversion> {
    let mut reader = turbo::Reader::new();
    let mut coefficients = Coefficients::empty();
    let mut options = options(&scratch.join("conversion"), Codec::Dct);
    (options.force, options.workers) = (true, 1);
    let (mut reading, mut building) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut took = Duration::ZERO;
        for image in 0..shards.len() {
            let jpeg = shards.jpeg(image)?;
            let start = Instant::now();
            reader.read_coefficients(&jpeg, &mut coefficients)?;
            took += start.elapsed();
        }
        reading.push(took);
        let start = Instant::now();
        build::run(&Source::folder(images)?, &options, &mut |_| {})?;
        building.push(start.elapsed());
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e6 / shards.len() as f64
    };
    Ok(Conversion {
        coefficients: median(&mut reading),
        build: median(&mut building),
    })
}

impl Conversion {
    /// Returns the speed of the build as a share of that of reading coefficients.
    pub fn ratio(&self) -> f64 {
        self.coefficients / self.build
    }
}
