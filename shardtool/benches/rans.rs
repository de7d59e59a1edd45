//! How fast the entropy stage is on one core, beside zstd's with hardly a match.
//!
//! ```text
//! taskset -c 1 cargo bench -p shardtool --bench rans [-- STREAMS]
//! ```
//!
//! `STREAMS` holds the streams of real images: for each image their number, and for each stream its table's number, its
//! length (all u32 little-endian) and its bytes. Without it, streams like those of photographs are drawn.

use std::hint::black_box;
use std::time::Instant;

use shardtool::rans::{DecodeTable, Decoder, EncodeTable, Encoder, normalize};
use shardtool::simd::Simd;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, Strategy};

/// Passes over all images for each figure.
const PASSES: usize = 15;

type Stream = (usize, Vec<u8>);
type Image = Vec<Stream>;

fn main() {
    // `cargo bench` adds `--bench`; `cargo test --benches` does not.
    let file = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let images = match file {
        Some(path) => read(&std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))),
        None => drawn(),
    };
    let streams = || images.iter().flatten();
    let tables = 1 + streams().map(|(table, _)| *table).max().expect("streams");
    let mut histograms = vec![[0u32; 256]; tables];
    for (table, symbols) in streams() {
        symbols
            .iter()
            .for_each(|symbol| histograms[*table][usize::from(*symbol)] += 1);
    }
    let frequencies: Vec<_> = histograms.iter().map(|h| normalize(h, true)).collect();
    let encode: Vec<_> = frequencies
        .iter()
        .map(|f| EncodeTable::new(f).unwrap())
        .collect();
    let decode: Vec<_> = frequencies
        .iter()
        .map(|f| DecodeTable::new(f).unwrap())
        .collect();
    let symbols: usize = streams().map(|(_, symbols)| symbols.len()).sum();
    let segments: Vec<Vec<(&EncodeTable, &[u8])>> = images
        .iter()
        .map(|image| {
            image
                .iter()
                .map(|(table, symbols)| (&encode[*table], &symbols[..]))
                .collect()
        })
        .collect();
    let entropy: f64 = histograms.iter().map(entropy).sum::<f64>() / 8.0;
    let promised: u64 = (histograms.iter().zip(&encode))
        .map(|(h, t)| t.cost(h).unwrap())
        .sum();
    let per_image = |bytes: f64| bytes / images.len() as f64;
    println!(
        "{} images, {:.0} symbols in {:.1} streams each; order-0 entropy {:.0} bytes, tables {:.0}",
        images.len(),
        per_image(symbols as f64),
        per_image(streams().count() as f64),
        per_image(entropy),
        per_image(promised as f64 / 8.0),
    );

    let mut runs: Vec<Vec<u8>> = vec![Vec::new(); images.len()];
    let mut out = vec![0; images.iter().map(size).max().unwrap()];
    let mut rows: Vec<Row> = Simd::available()
        .iter()
        .map(|simd| Row::new(format!("rans {simd:?}")))
        .chain([Row::new("zstd, hardly a match".to_string())])
        .collect();
    let mut zstd_writer = CCtx::create();
    // Matches are all but forbidden: little window, hardly any hashes, seven bytes at least.
    for parameter in [
        CParameter::CompressionLevel(1),
        CParameter::WindowLog(10),
        CParameter::HashLog(6),
        CParameter::MinMatch(7),
        CParameter::Strategy(Strategy::ZSTD_fast),
        CParameter::TargetLength(0),
    ] {
        zstd_writer
            .set_parameter(parameter)
            .expect("a valid parameter");
    }
    let mut zstd_reader = DCtx::create();
    let joined: Vec<Vec<u8>> = images
        .iter()
        .map(|image| image.iter().flat_map(|(_, s)| s.clone()).collect())
        .collect();
    for _ in 0..PASSES {
        for (simd, row) in Simd::available().iter().zip(&mut rows) {
            let mut encoder = Encoder::new(*simd);
            for (index, (segments, run)) in segments.iter().zip(&mut runs).enumerate() {
                row.encode.time(index, || {
                    run.clear();
                    encoder.encode(segments, run).unwrap();
                });
            }
            for (index, (image, run)) in images.iter().zip(&runs).enumerate() {
                row.decode.time(index, || {
                    let mut decoder = Decoder::new(*simd, run).unwrap();
                    let mut rest = &mut out[..];
                    for (table, symbols) in image {
                        let (part, after) = rest.split_at_mut(symbols.len());
                        decoder.next(&decode[*table], part).unwrap();
                        rest = after;
                    }
                    decoder.finish().unwrap();
                    black_box(&mut out);
                });
            }
            row.bytes = runs.iter().map(|run| run.len()).sum();
        }
        let row = rows.last_mut().unwrap();
        for (index, (joined, run)) in joined.iter().zip(&mut runs).enumerate() {
            row.encode.time(index, || {
                run.clear();
                run.reserve(zstd::zstd_safe::compress_bound(joined.len()));
                zstd_writer.compress2(run, joined).unwrap();
            });
        }
        for (index, run) in runs.iter().enumerate() {
            row.decode.time(index, || {
                zstd_reader.decompress(&mut out[..], run).unwrap();
                black_box(&mut out);
            });
        }
        row.bytes = runs.iter().map(|run| run.len()).sum();
    }
    println!(
        "{:<20} {:>12} {:>22} {:>22}",
        "", "bytes/image", "encode", "decode"
    );
    for row in &mut rows {
        let bytes = per_image(row.bytes as f64);
        let figure = |seconds: f64| {
            let (speed, each) = (symbols as f64 / seconds / 1e9, per_image(seconds) * 1e6);
            format!("{speed:.2} GB/s {each:.0} us")
        };
        let (encode, decode) = (figure(row.encode.median()), figure(row.decode.median()));
        println!("{:<20} {bytes:>12.0} {encode:>22} {decode:>22}", row.name);
    }
}

/// Seconds that each image took in each pass.
#[derive(Default)]
struct Times(Vec<Vec<f64>>);

impl Times {
    fn time(&mut self, image: usize, work: impl FnOnce()) {
        self.0.resize_with(self.0.len().max(image + 1), Vec::new);
        let start = Instant::now();
        work();
        self.0[image].push(start.elapsed().as_secs_f64());
    }

    /// The sum of each image's median, as a neighbour's burst of work does not hit the same image in most passes.
    fn median(&mut self) -> f64 {
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        self.0.iter_mut().map(median).sum()
    }
}

struct Row {
    name: String,
    bytes: usize,
    encode: Times,
    decode: Times,
}

impl Row {
    fn new(name: String) -> Row {
        Row {
            name,
            bytes: 0,
            encode: Times::default(),
            decode: Times::default(),
        }
    }
}

fn size(image: &Image) -> usize {
    image.iter().map(|(_, symbols)| symbols.len()).sum()
}

/// Bits.
fn entropy(histogram: &[u32; 256]) -> f64 {
    let total: f64 = histogram.iter().map(|count| f64::from(*count)).sum();
    let bits = |count: &u32| match *count {
        0 => 0.0,
        count => f64::from(count) * (total / f64::from(count)).log2(),
    };
    histogram.iter().map(bits).sum()
}

fn read(mut bytes: &[u8]) -> Vec<Image> {
    fn number(bytes: &mut &[u8]) -> usize {
        let (number, rest) = bytes.split_first_chunk().expect("a number");
        *bytes = rest;
        u32::from_le_bytes(*number) as usize
    }
    let mut images = Vec::new();
    while !bytes.is_empty() {
        let streams = 0..number(&mut bytes);
        let stream = |_| {
            let (table, length) = (number(&mut bytes), number(&mut bytes));
            let (symbols, rest) = bytes.split_at(length);
            bytes = rest;
            (table, symbols.to_vec())
        };
        images.push(streams.map(stream).collect());
    }
    images
}

/// Forty streams an image, half the bytes of which are small signed numbers of ever smaller spread and fewer of them.
fn drawn() -> Vec<Image> {
    let mut random = 1u64;
    let mut next = move || {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (random >> 33) as u32
    };
    let mut stream = |table: usize| {
        let length = 12_000 / (1 + table / 4);
        let spread = 40 / (1 + table as u32 / 3);
        let symbols = (0..length)
            .map(|_| {
                let magnitude = (next() % (spread + 1)) * (next() % (spread + 1)) / (spread + 1);
                let sign = 1 - 2 * (next() % 2) as i32;
                (magnitude as i32 * sign) as u8
            })
            .collect();
        (table, symbols)
    };
    (0..50)
        .map(|_| (0..40).map(&mut stream).collect())
        .collect()
}
