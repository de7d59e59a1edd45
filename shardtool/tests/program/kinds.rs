//! Whatever kind of image a file holds, it ends as coefficients, in the one path that the loader decodes; and images
//! that are to be stored smaller are.

use crate::common::*;
use crate::testing::{fixture, fixtures};
use image::{DynamicImage, ExtendedColorType, ImageFormat, Rgb, RgbImage};
use serde_json::Value;
use shardtool::codec::{Decoder, Picture};
use shardtool::dct::coefficients::Coefficients;
use shardtool::planes::{Area, Colour, Plane, Planes, Resolution};
use shardtool::{Codec, Dataset, Sample, turbo};
use std::fs;
use std::io::Cursor;
use std::path::Path;

fn report(dataset: &Path) -> Value {
    serde_json::from_slice(&fs::read(dataset.join("report.json")).unwrap()).unwrap()
}

/// Path and reason of each file in a list of the report.
fn notes(report: &Value, list: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let notes = report[list].as_array().unwrap().iter();
    notes
        .map(|note| (text(&note["path"]), text(&note["reason"])))
        .collect()
}

/// The value of a plane at the centre of a pixel as libjpeg has it: linear between samples where there is one for each
/// pixel or two ("fancy upsampling"), else that of the nearest.
fn value(plane: &Plane<'_>, (x, y): (usize, usize), (width, height): (u32, u32)) -> f64 {
    let share = |extent: f64, size: u32| (f64::from(size) / extent).round();
    let linear = share(plane.width, width).max(share(plane.height, height)) <= 2.0;
    let along = |at: usize, start: f64, extent: f64, size: u32| {
        // The plane ends with whole blocks; what is behind the image's edge belongs to no pixel.
        let last = extent.ceil() - 1.0;
        let at = start + (at as f64 + 0.5) * extent / f64::from(size) - 0.5;
        let at = if linear { at } else { at.round() }.clamp(0.0, last);
        (at as usize, (at + 1.0).min(last) as usize, at.fract())
    };
    let (x0, x1, across) = along(x, plane.left, plane.width, width);
    let (y0, y1, down) = along(y, plane.top, plane.height, height);
    let sample = |x: usize, y: usize| f64::from(plane.samples[y * plane.stride + x]);
    let row = |y| sample(x0, y) * (1.0 - across) + sample(x1, y) * across;
    row(y0) * (1.0 - down) + row(y1) * down
}

/// Planes of a whole image as RGB.
pub fn to_rgb(planes: &Planes<'_>, size: (u32, u32)) -> Vec<u8> {
    let mut pixels = Vec::new();
    for y in 0..size.1 as usize {
        for x in 0..size.0 as usize {
            let [a, b, c] = planes.planes.map(|plane| value(&plane, (x, y), size));
            let rgb = match planes.colour {
                Colour::Gray => [a; 3],
                Colour::Rgb => [a, b, c],
                Colour::YCbCr => {
                    let (b, c) = (b - 128.0, c - 128.0);
                    [
                        a + 1.402 * c,
                        a - 0.344_136 * b - 0.714_136 * c,
                        a + 1.772 * b,
                    ]
                }
            };
            pixels.extend(rgb.map(|value| value.round() as u8));
        }
    }
    pixels
}

fn decode(decoder: &mut Decoder, sample: &Sample<'_>) -> Vec<u8> {
    let size = (sample.entry().stored_width, sample.entry().stored_height);
    match decoder
        .decode(
            &sample.read(&mut Vec::new()).unwrap(),
            Area::whole(size),
            Resolution::Full,
        )
        .unwrap()
    {
        Picture::Planes(planes) => to_rgb(&planes, size),
        Picture::Rgb(_) => panic!("{:?} is stored as pixels", sample.name()),
    }
}

/// Peak signal-to-noise ratio in decibels.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    let error = a.iter().zip(b).map(square).sum::<f64>() / a.len() as f64;
    10.0 * (255.0 * 255.0 / error).log10()
}

#[test]
fn faulty_data_that_decoders_bear_with_is_kept_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut faulty = fixture("420");
    // Surplus before the end-of-image marker.
    let end = faulty.len() - 2;
    faulty.splice(end..end, [0x55; 40]);
    write(root, "images/a/faulty.jpg", &faulty);
    write(root, "images/a/good.jpg", &fixture("420"));
    let (output, _) = expect(1, root, &["build", "images"]);
    assert!(output.contains("1 file FAULTY but kept"), "{output}");
    let report = report(&root.join("images.shards"));
    assert_eq!(report["kept"], 2);
    let [(path, reason)] = &notes(&report, "faulty")[..] else {
        panic!("{report}");
    };
    assert_eq!(path, "a/faulty.jpg");
    assert!(reason.contains("extraneous bytes"), "{reason}");
    expect(0, root, &["verify", "images.shards"]);
}

#[test]
fn jpeg_files_of_every_kind_become_coefficients() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (name, jpeg) in fixtures() {
        write(root, &format!("kinds/{name}.jpg"), &jpeg);
    }
    expect(1, root, &["build", "kinds"]);
    let report = report(&root.join("kinds.shards"));
    let rejected = notes(&report, "rejected");
    let [(twelve, why)] = &rejected[..] else {
        panic!("{rejected:?}");
    };
    assert_eq!(twelve, "12-bit.jpg");
    assert!(why.contains("precision 12"), "{why}");
    let otherwise = notes(&report, "stored_otherwise");
    let paths: Vec<_> = otherwise.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["cmyk.jpg", "ycck.jpg"]);
    for (path, reason) in &otherwise {
        assert!(
            reason.contains("coded anew at quality 95, 4:4:4"),
            "{path}: {reason}"
        );
    }

    let dataset = Dataset::open(&root.join("kinds.shards")).unwrap();
    let train = dataset.split("train").unwrap();
    assert_eq!(train.len(), fixtures().len() as u64 - 1);
    let (mut decoder, mut turbo) = (Decoder::new(), turbo::Decoder::new());
    let mut source = Vec::new();
    for id in 0..train.len() {
        let sample = train.sample(id);
        let name = sample.name().unwrap().trim_end_matches(".jpg");
        let entry = sample.entry();
        assert_eq!(entry.codec, Codec::Dct, "{name}");
        let size = (entry.source_width, entry.source_height);
        assert_eq!(size, (entry.stored_width, entry.stored_height), "{name}");
        let jpeg = fixture(name);
        let least = match name {
            // Decoded, so coded anew.
            "cmyk" | "ycck" => 38.0,
            // Rounding alone is in the way of 52 dB and more.
            _ => 48.0,
        };
        turbo.decode_full(&jpeg, &mut source).unwrap();
        let got = psnr(&decode(&mut decoder, &sample), &source);
        assert!(got >= least, "{name}: {got:.1} dB");
    }
}

/// A picture such as cameras make: smooth, with an edge or two.
fn smooth(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x) / 10.0, f64::from(y) / 13.0);
        let inside = (x - 3.0).powi(2) + (y - 2.0).powi(2) < 2.0;
        let wave = |phase: f64| 127.0 + 90.0 * (x.sin() + phase + y / 2.0).cos();
        let far = if inside { 30.0 } else { 0.0 };
        Rgb([0.0, 1.0, 2.0].map(|phase| (wave(phase) + far) as u8))
    })
}

/// A picture in the bytes of a file format.
fn file(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn files_that_are_no_jpeg_become_coefficients() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let rgb = DynamicImage::from(smooth(61, 45));
    let gray = DynamicImage::from(rgb.to_luma8());
    let transparent = DynamicImage::from(rgb.to_rgba8());
    let deep = DynamicImage::from(rgb.to_rgb16());
    let deep_gray = DynamicImage::from(gray.to_luma16());
    let mut palette = Vec::new();
    let grays: Vec<[u8; 3]> = (0..=255).map(|value| [value, 255 - value, 90]).collect();
    image::codecs::bmp::BmpEncoder::new(&mut palette)
        .encode_with_palette(gray.as_bytes(), 61, 45, ExtendedColorType::L8, Some(&grays))
        .unwrap();
    let palette_png = fs::read(jpegs().with_file_name("palette.png")).unwrap();
    // The same picture, without loss.
    let palette_jxl = fs::read(jpegs().with_file_name("palette.jxl")).unwrap();
    for (name, bytes) in [
        ("bitmap.bmp", file(&rgb, ImageFormat::Bmp)),
        ("deep-gray.png", file(&deep_gray, ImageFormat::Png)),
        ("deep.png", file(&deep, ImageFormat::Png)),
        ("gray.png", file(&gray, ImageFormat::Png)),
        ("palette.bmp", palette),
        ("palette.jxl", palette_jxl),
        ("palette.png", palette_png),
        ("rgb.png", file(&rgb, ImageFormat::Png)),
        ("rgba.png", file(&transparent, ImageFormat::Png)),
        ("web.webp", file(&rgb, ImageFormat::WebP)),
    ] {
        write(root, &format!("kinds/{name}"), &bytes);
    }
    expect(0, root, &["build", "kinds"]);
    let report = report(&root.join("kinds.shards"));
    let otherwise = notes(&report, "stored_otherwise");
    let dataset = Dataset::open(&root.join("kinds.shards")).unwrap();
    let train = dataset.split("train").unwrap();
    assert_eq!((train.len(), otherwise.len()), (10, 10));
    let mut decoder = Decoder::new();
    for (id, (path, reason)) in (0..).zip(&otherwise) {
        let sample = train.sample(id);
        let name = sample.name().unwrap();
        assert_eq!(path, name);
        let kind = match name.rsplit('.').next().unwrap() {
            "jxl" => "JPEG XL".to_owned(),
            ending => ending.to_uppercase(),
        };
        let scaled = match name {
            "deep-gray.png" => "; 16 bits of a sample scaled to 8",
            _ => "",
        };
        assert_eq!(
            reason,
            &format!("is {kind}, not JPEG: coded at quality 95, 444{scaled}")
        );
        assert_eq!(sample.entry().codec, Codec::Dct, "{name}");
        let colour = decoder
            .coefficients(&sample.read(&mut Vec::new()).unwrap())
            .unwrap()
            .colour;
        let without = ["deep-gray.png", "gray.png"].contains(&name);
        assert_eq!(colour == Colour::Gray, without, "{name}");
        let name = name.replace(".jxl", ".png");
        let source = image::open(root.join("kinds").join(&name)).unwrap();
        let got = psnr(&decode(&mut decoder, &sample), &source.into_rgb8());
        assert!(got >= 36.0, "{name}: {got:.1} dB");
    }
}

/// The stored coefficients of every sample, and the sizes: (stored, source).
type Stored = Vec<(Coefficients, (u32, u32), (u32, u32))>;

fn stored(dataset: &Path) -> Stored {
    let dataset = Dataset::open(dataset).unwrap();
    let train = dataset.split("train").unwrap();
    let mut decoder = Decoder::new();
    (0..train.len())
        .map(|id| {
            let sample = train.sample(id);
            let entry = sample.entry();
            let stored = (entry.stored_width, entry.stored_height);
            let source = (entry.source_width, entry.source_height);
            (
                decoder
                    .coefficients(&sample.read(&mut Vec::new()).unwrap())
                    .unwrap(),
                stored,
                source,
            )
        })
        .collect()
}

#[test]
fn a_bound_makes_larger_images_smaller_and_no_other_larger() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let sizes = [
        (30, 90),
        (64, 48),
        (200, 120),
        (31, 31),
        (32, 32),
        (33, 70),
        (300, 33),
    ];
    for (number, (width, height)) in sizes.into_iter().enumerate() {
        let picture = DynamicImage::from(smooth(width, height));
        write(
            root,
            &format!("photos/{number}.jpg"),
            &file(&picture, ImageFormat::Jpeg),
        );
    }
    write(root, "photos/7.jpg", &fixture("third-sampling"));
    write(root, "photos/8.jpg", &fixture("cmyk"));
    write(
        root,
        "photos/9.png",
        &file(&smooth(99, 64).into(), ImageFormat::Png),
    );
    write(
        root,
        "photos/gray.png",
        &file(
            &DynamicImage::from(smooth(64, 99)).to_luma8().into(),
            ImageFormat::Png,
        ),
    );
    let bound = ["--short-side", "32"];
    expect(0, root, &["build", "photos", "--out", "whole"]);
    expect(
        0,
        root,
        &[&["build", "photos", "--out", "small"], &bound[..]].concat(),
    );
    let finer = ["--chroma", "444", "--quality", "100"];
    let finer = [&["build", "photos", "--out", "finer"], &bound[..], &finer].concat();
    expect(0, root, &finer);
    let (whole, small, finer) = (
        stored(&root.join("whole")),
        stored(&root.join("small")),
        stored(&root.join("finer")),
    );
    assert_eq!(whole.len(), 11);
    let mut smaller = 0;
    for ((whole, small), finer) in whole.iter().zip(&small).zip(&finer) {
        assert_eq!(whole.1, whole.2);
        assert_eq!(
            (small.2, finer.2),
            (whole.2, whole.2),
            "the source's size is kept"
        );
        let (width, height) = whole.2;
        let shorter = width.min(height);
        if shorter <= 32 {
            assert!(
                small == whole && finer == whole,
                "{width}x{height} has changed"
            );
            continue;
        }
        smaller += 1;
        assert_eq!((small.1.0.min(small.1.1), finer.1), (32, small.1));
        let longer = f64::from(width.max(height)) * 32.0 / f64::from(shorter);
        assert_eq!(
            small.1.0.max(small.1.1),
            longer.round() as u32,
            "{width}x{height}"
        );
        assert_eq!(small.1.0 < small.1.1, width < height);
        let coarse = if small.0.colour == Colour::Gray { 1 } else { 2 };
        assert_eq!(
            (small.0.sampling(), finer.0.sampling()),
            ((coarse, coarse), (1, 1))
        );
        assert_eq!(finer.0.components[0].quantization, [1; 64]);
    }
    assert_eq!(smaller, 8);

    // What is stored smaller is the same picture.
    let dataset = Dataset::open(&root.join("finer")).unwrap();
    let sample = dataset.split("train").unwrap().sample(2);
    let stored = decode(&mut Decoder::new(), &sample);
    let stored = RgbImage::from_raw(53, 32, stored).unwrap();
    let source = image::open(root.join("photos/2.jpg")).unwrap();
    let expected = source.resize_exact(53, 32, image::imageops::FilterType::Lanczos3);
    let got = psnr(&stored, &expected.into_rgb8());
    assert!(got >= 40.0, "{got:.1} dB");

    for codec in ["jpeg", "raw"] {
        let args = ["build", "photos", "--out", "none", "--codec", codec];
        let (_, stderr) = expect(2, root, &[&args[..], &bound].concat());
        assert!(
            stderr.contains("--short-side needs --codec dct"),
            "{stderr}"
        );
    }
    for option in [["--quality", "90"], ["--chroma", "444"]] {
        let (_, stderr) = expect(2, root, &[&["build", "photos"], &option[..]].concat());
        assert!(stderr.contains("--short-side"), "{stderr}");
    }
}

#[test]
fn level_0_is_for_coefficients_under_zstd() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..3);
    let zero = ["build", "photos", "--level", "0"];
    expect(0, root, &[&zero[..], &["--entropy", "zstd"]].concat());
    for codec in ["jpeg", "raw"] {
        let args = [&zero[..], &["--out", "none", "--codec", codec]].concat();
        let (_, stderr) = expect(2, root, &args);
        assert!(stderr.contains("--level 0"), "{stderr}");
    }
}
