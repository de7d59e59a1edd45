//! Nothing is lost: what `shardtool build` keeps of a JPEG file by default, and `shardtool extract` gives back, has the
//! file's coefficients and quantization tables, and decodes to its very pixels.

use crate::common::*;
use crate::testing::photographs;
use image::ImageFormat;
use shardtool::codec::Decoder;
use shardtool::dct::coefficients::Coefficients;
use shardtool::{Codec, Dataset, Sample, turbo};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// One thread's decoders.
struct Comparison {
    decoder: Decoder,
    reader: turbo::Reader,
    turbo: turbo::Decoder,
    coefficients: Coefficients,
    jpeg: Vec<u8>,
    pixels: [Vec<u8>; 2],
}

impl Comparison {
    fn new() -> Comparison {
        Comparison {
            decoder: Decoder::new(),
            reader: turbo::Reader::new(),
            turbo: turbo::Decoder::new(),
            coefficients: Coefficients::empty(),
            jpeg: Vec::new(),
            pixels: Default::default(),
        }
    }

    /// Compares a sample with the file it was made from.
    fn compare(&mut self, sample: &Sample<'_>, file: &[u8]) {
        let name = sample.name().unwrap();
        assert_eq!(sample.entry().codec, Codec::Dct, "{name}");
        let stored = self
            .decoder
            .coefficients(&sample.read(&mut Vec::new()).unwrap())
            .unwrap();
        let read = self.reader.read_coefficients(file, &mut self.coefficients);
        read.unwrap_or_else(|error| panic!("{name}: {error}"));
        for (stored, read) in stored.components.iter().zip(&self.coefficients.components) {
            assert_eq!(stored.quantization, read.quantization, "{name}");
        }
        assert!(stored == self.coefficients, "{name}: coefficients differ");

        turbo::write_jpeg(&stored, &mut self.jpeg).unwrap();
        let [ours, theirs] = &mut self.pixels;
        let size = self.turbo.decode_full(&self.jpeg, ours).unwrap();
        assert_eq!(
            size,
            self.turbo.decode_full(file, theirs).unwrap(),
            "{name}"
        );
        assert!(ours == theirs, "{name}: pixels differ");
    }
}

/// Compares every sample with its file, on all processors, and says how many there were.
fn compare_all(root: &Path, dataset: &Dataset) -> u64 {
    let threads = std::thread::available_parallelism().unwrap().get();
    let split = dataset.split("train").unwrap();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut comparison = Comparison::new();
                loop {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    if id >= split.len() {
                        break;
                    }
                    let sample = split.sample(id);
                    let file = fs::read(root.join(sample.name().unwrap())).unwrap();
                    comparison.compare(&sample, &file);
                }
            });
        }
    });
    split.len()
}

#[test]
fn photographs_come_back_bit_for_bit() {
    let photographs = photographs(1);
    if photographs.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (name, file) in &photographs {
        write(&root.join("photos"), name, file);
    }
    let (stdout, _) = expect(0, root, &["build", "photos"]);
    let dataset = Dataset::open(&root.join("photos.shards")).unwrap();
    let photos = root.join("photos");
    let compared = compare_all(&photos, &dataset);
    assert_eq!(compared, photographs.len() as u64, "{stdout}");

    // The program gives back what was compared just now.
    let last = compared - 1;
    let number = last.to_string();
    let args = [
        "extract",
        "photos.shards",
        "--sample",
        &number,
        "--out",
        "x.jpg",
    ];
    expect(0, root, &args);
    let sample = dataset.split("train").unwrap().sample(last);
    let source = fs::read(photos.join(sample.name().unwrap())).unwrap();
    let extracted = fs::read(root.join("x.jpg")).unwrap();
    let [ours, theirs] = [extracted, source].map(|file| {
        let mut pixels = Vec::new();
        let size = turbo::Decoder::new()
            .decode_full(&file, &mut pixels)
            .unwrap();
        (size, pixels)
    });
    assert!(ours == theirs);
}

#[test]
fn extract_gives_the_file_back() {
    let dir = tempfile::tempdir().unwrap();
    write_classes(&dir.path().join("photos"), 0..3);
    write(
        dir.path(),
        "photos/a/x.png",
        &encoded(7, 8, 9, ImageFormat::Png),
    );
    expect(0, dir.path(), &["build", "photos", "--codec", "jpeg"]);
    let extract = |n: &str| {
        let args = ["extract", "photos.shards", "--sample", n, "--out", "out"];
        let (stdout, _) = expect(0, dir.path(), &args);
        (stdout, fs::read(dir.path().join("out")).unwrap())
    };
    let (stdout, bytes) = extract("0");
    assert!(stdout.contains("a/001.JPEG"), "{stdout}");
    assert!(bytes == jpeg(1));
    let (_, bytes) = extract("1");
    assert_eq!(image::guess_format(&bytes).unwrap(), ImageFormat::Png);
    assert!(image::load_from_memory(&bytes).unwrap().to_rgb8() == picture(7, 8, 9));
    let beyond = ["extract", "photos.shards", "--sample", "4", "--out", "out"];
    let (_, stderr) = expect(2, dir.path(), &beyond);
    assert!(stderr.contains("photos.shards: no sample 4 in"), "{stderr}");
    let split = [
        "extract",
        "photos.shards",
        "--sample",
        "0",
        "--out",
        "out",
        "--split",
        "val",
    ];
    let (_, stderr) = expect(2, dir.path(), &split);
    assert!(stderr.contains("no split \"val\", but train"), "{stderr}");
}

#[test]
fn extract_gives_the_coefficients_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..3);
    write(root, "photos/a/x.png", &encoded(7, 8, 9, ImageFormat::Png));
    for (entropy, out) in [("rans", "one"), ("zstd", "two")] {
        expect(
            0,
            root,
            &["build", "photos", "--entropy", entropy, "--out", out],
        );
        let mut comparison = Comparison::new();
        let dataset = Dataset::open(&root.join(out)).unwrap();
        let train = dataset.split("train").unwrap();
        for id in 0..4 {
            let sample = train.sample(id);
            let file = root.join("photos").join(sample.name().unwrap());
            let args = [
                "extract",
                out,
                "--sample",
                &id.to_string(),
                "--out",
                "x.jpg",
            ];
            let (stdout, _) = expect(0, root, &args);
            assert!(stdout.contains(sample.name().unwrap()), "{stdout}");
            let extracted = fs::read(root.join("x.jpg")).unwrap();
            comparison.compare(&sample, &extracted);
            if id != 1 {
                comparison.compare(&sample, &fs::read(file).unwrap());
            }
        }
    }
}
