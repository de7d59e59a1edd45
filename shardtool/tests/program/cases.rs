//! The images of `shared/cases`, in every codec: each is right, or rejected, or named as faulty with exit code 1.

use std::fs;

use serde_json::Value;
use shardtool::codec::{Decoder, Picture};
use shardtool::planes::{Area, Resolution};
use shardtool::{Dataset, Sample};

use crate::common::*;
use crate::kinds::to_rgb;
use crate::testing::shared;

/// Levels by which the mean of a cell may differ from Pillow's.
const TOLERANCE: f64 = 6.0;

#[test]
fn every_case_is_right_or_named() {
    let Some(cases) = shared("cases") else { return };
    let expected = fs::read(cases.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let ways: [(&str, &[&str]); 5] = [
        ("dct", &[]),
        ("zstd", &["--entropy", "zstd"]),
        // 160 × 120 pixels become 128 × 96, so that cells have edges between pixels.
        ("smaller", &["--short-side", "96", "--chroma", "444"]),
        ("jpeg", &["--codec", "jpeg"]),
        ("raw", &["--codec", "raw"]),
    ];
    let mut wrong = Vec::new();
    for (way, options) in ways {
        let dir = tempfile::tempdir().unwrap();
        let images = cases.join("images");
        let args = ["build", images.to_str().unwrap(), "--out", "out"];
        expect(1, dir.path(), &[&args[..], options].concat());
        let out = dir.path().join("out");
        let report: Value =
            serde_json::from_slice(&fs::read(out.join("report.json")).unwrap()).unwrap();
        let dataset = Dataset::open(&out).unwrap();
        let train = dataset.split("train").unwrap();
        let samples: Vec<_> = (0..train.len()).map(|id| train.sample(id)).collect();
        for (path, case) in expected.as_object().unwrap() {
            let named = |list: &str| {
                let notes = report[list].as_array().unwrap().iter();
                notes.clone().any(|note| note["path"] == path.as_str())
            };
            let sample = samples.iter().find(|sample| sample.name() == Some(path));
            let verdict = match sample {
                None if named("rejected") => Ok(()),
                None => Err("vanished".to_owned()),
                Some(_) if named("faulty") => Ok(()),
                // Floating-point RGB, which Pillow does not know, by a rule in shardtool/README.md.
                Some(_) if path.starts_with("20-tiff/float_rgb") && named("stored_otherwise") => {
                    Ok(())
                }
                Some(_) if case["pillow"] == "refuses" => Err("kept without a word".to_owned()),
                Some(sample) => compare(sample, case),
            };
            if let Err(why) = verdict {
                wrong.push(format!("{way}: {path}: {why}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Compares size and means of a grid of cells.
fn compare(sample: &Sample<'_>, case: &Value) -> Result<(), String> {
    let entry = sample.entry();
    let source = (entry.source_width, entry.source_height);
    let size = |at: usize| case["size"][at].as_u64().unwrap() as u32;
    if source != (size(0), size(1)) {
        return Err(format!("{source:?} instead of {}", case["size"]));
    }
    // Pillow clips what has more than 8 bits; shardtool/README.md states another rule.
    if ["I", "I;16", "F"].contains(&case["mode"].as_str().unwrap()) {
        return Ok(());
    }
    let stored = (entry.stored_width, entry.stored_height);
    let mut decoder = Decoder::new();
    let pixels = match decoder.decode(
        &sample.read(&mut Vec::new()).unwrap(),
        Area::whole(stored),
        Resolution::Full,
    ) {
        Err(error) => return Err(error.to_string()),
        Ok(Picture::Planes(planes)) => to_rgb(&planes, stored),
        Ok(Picture::Rgb(view)) => view.rows().flatten().copied().collect(),
    };
    // The smallest images have no grid of means.
    let Some(cells) = case["mean8x8"].as_array() else {
        return Ok(());
    };
    let (width, height) = (stored.0 as usize, stored.1 as usize);
    let mut worst: f64 = 0.0;
    for (j, row) in cells.iter().enumerate() {
        for (i, cell) in row.as_array().unwrap().iter().enumerate() {
            let along = |at: usize, length: usize| {
                let first = (at * length / 8).min(length - 1);
                first..((at + 1) * length / 8).max(first + 1)
            };
            let mut sums = [0.0; 3];
            let mut count = 0.0;
            for y in along(j, height) {
                for x in along(i, width) {
                    for (sum, value) in sums.iter_mut().zip(&pixels[3 * (y * width + x)..]) {
                        *sum += f64::from(*value);
                    }
                    count += 1.0;
                }
            }
            for (channel, sum) in sums.iter().enumerate() {
                let expected = cell[channel].as_f64().unwrap();
                worst = worst.max((sum / count - expected).abs());
            }
        }
    }
    // What is black or white alone has steep edges, which making smaller overshoots.
    let shrunk = stored != source && case["mode"] == "1";
    if worst <= if shrunk { 2.0 * TOLERANCE } else { TOLERANCE } {
        Ok(())
    } else {
        Err(format!("a mean is {worst:.0} levels off"))
    }
}
