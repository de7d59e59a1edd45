//! The golden datasets fix format version 1: today's writer still gives their bytes, and today's reader reads them.
//! `tests/golden/dataset` holds files and pixels of `tests/golden/source`; `tests/golden/dct` the coefficients of every
//! kind of JPEG file in `shardtool/tests/fixtures/jpeg`.
//!
//! Should a new release of zstd compress differently, or better rANS tables be found, the bytes may be renewed, if the
//! old ones have been seen to read well:
//!
//! ```text
//! shardtool build tests/golden/source --out tests/golden/dataset --codec jpeg --shard-size 1KB --force
//! shardtool build shardtool/tests/fixtures/jpeg --out tests/golden/dct --shard-size 32KB --force
//! ```
//!
//! Any other difference is a change of the format.

use crate::common::*;
use shardtool::codec::Decoder;
use shardtool::dct::coefficients::Coefficients;
use shardtool::format::Label;
use shardtool::{Codec, Dataset, turbo};
use std::path::Path;

#[track_caller]
fn builds_to(code: i32, source: &Path, options: &[&str], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let args = ["build", source.to_str().unwrap(), "--out", "built"];
    expect(code, dir.path(), &[&args[..], options].concat());
    let (built, expected) = (
        files(&dir.path().join("built")),
        files(&golden().join(expected)),
    );
    assert_eq!(built.len(), expected.len());
    for (built, expected) in built.iter().zip(&expected) {
        assert_eq!(built.0, expected.0);
        assert!(built.1 == expected.1, "{} has changed", expected.0);
    }
}

#[test]
fn the_writer_gives_the_golden_bytes() {
    let options = ["--codec", "jpeg", "--shard-size", "1KB"];
    builds_to(0, &golden().join("source"), &options, "dataset");
    builds_to(1, &jpegs(), &["--shard-size", "32KB"], "dct");
}

#[test]
fn the_reader_reads_the_golden_dataset() {
    let dataset = Dataset::open(&golden().join("dataset")).unwrap();
    assert_eq!(dataset.manifest().classes, ["circle", "square"]);
    let train = dataset.split("train").unwrap();
    let names: Vec<_> = (0..train.len())
        .map(|id| train.sample(id).name().unwrap())
        .collect();
    let expected = [
        "train/circle/a.jpg",
        "train/circle/rotated.jpg",
        "train/square/png named.JPEG",
        "train/square/é.jpeg",
    ];
    assert_eq!(names, expected);
    assert_eq!(train.shards().len(), 3);

    // Kept as the files are, rotation noted but not applied.
    let rotated = train.sample(1);
    let entry = rotated.entry();
    assert_eq!(
        (entry.stored_width, entry.stored_height, entry.orientation),
        (20, 28, 6)
    );
    let source = golden().join("source");
    for id in [0, 1, 3] {
        let sample = train.sample(id);
        let file = std::fs::read(source.join(sample.name().unwrap())).unwrap();
        assert_eq!(sample.entry().codec, Codec::Jpeg);
        assert!(sample.payload().unwrap() == file);
    }

    let labels = |id, names: [&'static str; 3]| names.map(|name| train.sample(id).label(name));
    let names = ["objects", "distance", "note"];
    let near = [
        Some(Label::Int(1)),
        Some(Label::Float(2.5)),
        Some(Label::Text("near")),
    ];
    assert_eq!(labels(0, names), near);
    assert_eq!(labels(1, names), [None, Some(Label::Float(3.0)), None]);
    let quoted = Some(Label::Text("a \"quoted\", note"));
    assert_eq!(labels(2, names), [Some(Label::Int(-2)), None, quoted]);
    assert_eq!(labels(3, names), [None; 3]);

    // The PNG file under a JPEG's name has its very pixels.
    let mut decoder = Decoder::new();
    let png = train.sample(2);
    assert_eq!(png.entry().codec, Codec::Raw);
    let file = std::fs::read(source.join("train/square/png named.JPEG")).unwrap();
    let pixels = image::load_from_memory(&file).unwrap().to_rgb8();
    assert!(pixels_of(&mut decoder, &png).pixels == pixels.as_raw());

    // Colours of the CMYK and the gray file as Pillow converts them.
    let cmyk = dataset.split("val").unwrap().sample(0);
    assert_eq!(cmyk.entry().class, Some(1));
    let mut color = |sample, x: usize, y: usize| {
        let view = pixels_of(&mut decoder, &sample);
        let pixel: &[u8; 3] = view.rows().nth(y).unwrap()[3 * x..].first_chunk().unwrap();
        pixel.map(i32::from)
    };
    let near = |a: [i32; 3], b: [i32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2);
    let (ground, square) = (color(cmyk, 0, 0), color(cmyk, 8, 4));
    assert!(
        near(ground, [46, 162, 184]) && near(square, [164, 104, 46]),
        "{ground:?} {square:?}"
    );
    let gray = color(train.sample(3), 8, 8);
    assert!(near(gray, [200; 3]), "{gray:?}");
}

#[test]
fn the_reader_reads_the_golden_coefficients() {
    let dataset = Dataset::open(&golden().join("dct")).unwrap();
    let train = dataset.split("train").unwrap();
    let (mut decoder, mut reader) = (Decoder::new(), turbo::Reader::new());
    let mut file = Coefficients::empty();
    let mut anew = Vec::new();
    for id in 0..train.len() {
        let sample = train.sample(id);
        let name = sample.name().unwrap();
        assert_eq!(sample.entry().codec, Codec::Dct, "{name}");
        let stored = decoder
            .coefficients(&sample.read(&mut Vec::new()).unwrap())
            .unwrap();
        let jpeg = std::fs::read(jpegs().join(name)).unwrap();
        match reader.read_coefficients(&jpeg, &mut file) {
            Ok(_) => assert!(stored == file, "{name}"),
            Err(_) => anew.push(name),
        }
    }
    assert_eq!(anew, ["cmyk.jpg", "ycck.jpg"]);
    assert_eq!(train.len(), 20);
}
