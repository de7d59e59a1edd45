//! What folders are taken for, and what becomes of everything that has no place in them: nothing vanishes.

use crate::common::*;
use crate::testing::fixture;
use serde_json::Value;
use shardtool::Dataset;
use std::fs;
use std::path::Path;

/// Classes, images of each split, and the paths in a list of the report.
struct Built {
    classes: Vec<String>,
    splits: Vec<(String, u64)>,
    report: Value,
}

impl Built {
    fn paths(&self, list: &str) -> Vec<&str> {
        let notes = self.report[list].as_array().into_iter().flatten();
        notes.map(|note| note["path"].as_str().unwrap()).collect()
    }
}

/// Writes JPEG files, builds, and looks at the result.
#[track_caller]
fn build(code: i32, files: &[&str], prepare: impl FnOnce(&Path), options: &[&str]) -> Built {
    let dir = tempfile::tempdir().unwrap();
    for (i, path) in files.iter().enumerate() {
        write(&dir.path().join("in"), path, &jpeg(i as u32));
    }
    prepare(&dir.path().join("in"));
    expect(code, dir.path(), &[&["build", "in"], options].concat());
    let out = dir.path().join("in.shards");
    let dataset = Dataset::open(&out).unwrap();
    let splits = dataset.splits().iter();
    let report = fs::read(out.join("report.json")).unwrap();
    Built {
        classes: dataset.manifest().classes.clone(),
        splits: splits
            .map(|split| (split.name().to_owned(), split.len()))
            .collect(),
        report: serde_json::from_slice(&report).unwrap(),
    }
}

fn nothing(_: &Path) {}

fn splits(of: &[(&str, u64)]) -> Vec<(String, u64)> {
    of.iter()
        .map(|(name, count)| (name.to_string(), *count))
        .collect()
}

#[test]
fn a_class_may_be_called_train() {
    let files = ["train/1.jpg", "val/2.jpg", "bus/3.jpg"];
    let built = build(0, &files, nothing, &[]);
    assert_eq!(built.classes, ["bus", "train", "val"]);
    assert_eq!(built.splits, splits(&[("train", 3)]));
    let built = build(
        0,
        &["train/a/1.jpg", "val/a/2.jpg"],
        nothing,
        &["--layout", "classes"],
    );
    assert_eq!(built.classes, ["train", "val"]);
}

#[test]
fn splits_go_by_many_names() {
    let files = [
        "Train/a/1.jpg",
        "valid/a/2.jpg",
        "TEST/a/3.jpg",
        "dev/b/4.jpg",
        "extra/a/5.jpg",
    ];
    let built = build(1, &files, nothing, &[]);
    let expected = splits(&[("train", 1), ("val", 1), ("dev", 1), ("test", 1)]);
    assert_eq!(built.splits, expected);
    assert_eq!(built.classes, ["a", "b"]);
    assert_eq!(built.paths("left_out"), ["extra/a/5.jpg"]);
    let built = build(0, &files, nothing, &["--layout", "splits"]);
    assert_eq!(built.splits.len(), 5);
    let empty = |root: &Path| fs::create_dir(root.join("train")).unwrap();
    let built = build(1, &["val/a/1.jpg"], empty, &[]);
    assert_eq!(
        (&built.splits, built.paths("left_out")),
        (&splits(&[("val", 1)]), vec!["train"])
    );
}

#[test]
fn photographs_with_a_stray_folder_are_the_dataset() {
    let files = [
        "1.jpg",
        "2.jpg",
        "@eaDir/1.jpg",
        "stray/3.jpg",
        ".cache/4.jpg",
    ];
    let built = build(1, &files, nothing, &[]);
    assert_eq!(
        (built.classes.len(), &built.splits),
        (0, &splits(&[("train", 2)]))
    );
    assert_eq!(built.paths("left_out"), ["stray/3.jpg"]);
    assert_eq!(built.paths("ignored"), [".cache", "@eaDir"]);
    let built = build(0, &files, nothing, &["--exclude", "stray"]);
    assert_eq!(built.paths("ignored"), [".cache", "@eaDir", "stray"]);
    let built = build(0, &files, nothing, &["--layout", "flat"]);
    assert_eq!(built.splits, splits(&[("train", 3)]));
    let built = build(1, &files, nothing, &["--layout", "classes"]);
    assert_eq!(
        (&built.classes[..], built.paths("left_out")),
        (&["stray".to_owned()][..], vec!["1.jpg", "2.jpg"])
    );
}

#[test]
fn classes_do_not_vanish() {
    let built = build(
        1,
        &["a/1.jpg", "d/1.jpg", "e/1.jpg"],
        |root| {
            fs::create_dir(root.join("b")).unwrap();
            std::os::unix::fs::symlink("nowhere", root.join("c")).unwrap();
            std::os::unix::fs::symlink("..", root.join("a/loop")).unwrap();
            write(root, "d/1.jpg", b"no image");
            write(root, "f/archive.tar", &[0; 2048]);
        },
        &[],
    );
    assert_eq!(built.classes, ["a", "d", "e"], "d keeps its number");
    assert_eq!(
        built.report["classes_without_image"],
        serde_json::json!(["d"])
    );
    assert_eq!(built.paths("left_out"), ["a/loop", "b", "c", "f"]);
    assert_eq!(built.paths("rejected"), ["d/1.jpg"]);
    assert_eq!(built.paths("ignored"), ["f/archive.tar"]);
}

#[test]
fn content_decides_what_a_file_is() {
    let names = [
        "x.jfif",
        "x.jpe",
        "x.jpg_large",
        "x.jpg?w=640",
        "x.jpg.1",
        "x",
        "x.JPG",
        "x.gif",
    ];
    let files: Vec<String> = names.iter().map(|name| format!("a/{name}")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let further = |root: &Path| {
        write(root, "a/notes.txt", b"text");
        write(root, "a/x.avif", b"\0\0\0\x20ftypavif\0\0\0\0avif");
        write(root, "a/y", b"\0\0\0\x20ftypheic\0\0\0\0mif1");
        write(root, "a/pages.tar.gz", &[0x1f, 0x8b, 8, 0]);
    };
    let built = build(1, &files, further, &[]);
    assert_eq!(built.splits, splits(&[("train", 8)]));
    assert_eq!(built.paths("misnamed"), ["a/x.gif"]);
    assert_eq!(built.paths("ignored"), ["a/notes.txt"]);
    assert_eq!(built.paths("rejected"), ["a/x.avif"]);
    assert_eq!(built.paths("left_out"), ["a/pages.tar.gz", "a/y"]);
}

#[test]
fn classes_may_be_two_levels_deep_when_asked() {
    let files = ["a/abbey/1.jpg", "a/alley/2.jpg", "b/bar/3.jpg", "b/4.jpg"];
    assert_eq!(build(0, &files, nothing, &[]).classes, ["a", "b"]);
    let built = build(1, &files, nothing, &["--class-depth", "2"]);
    assert_eq!(built.classes, ["a/abbey", "a/alley", "b/bar"]);
    assert_eq!(built.paths("left_out"), ["b/4.jpg"]);
}

#[test]
fn tiny_imagenet_is_read_as_it_comes() {
    let files = [
        "train/n01/images/n01_0.JPEG",
        "train/n02/images/n02_0.JPEG",
        "val/images/val_0.JPEG",
        "val/images/val_1.JPEG",
        "test/images/test_0.JPEG",
    ];
    let annotations = |root: &Path| {
        let text = "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n";
        write(root, "val/val_annotations.txt", text.as_bytes());
    };
    let dir = tempfile::tempdir().unwrap();
    for (i, path) in files.iter().enumerate() {
        write(&dir.path().join("in"), path, &jpeg(i as u32));
    }
    annotations(&dir.path().join("in"));
    expect(0, dir.path(), &["build", "in"]);
    let dataset = Dataset::open(&dir.path().join("in.shards")).unwrap();
    assert_eq!(dataset.manifest().classes, ["n01", "n02"]);
    let val = dataset.split("val").unwrap();
    let classes: Vec<_> = (0..2)
        .map(|id| (val.sample(id).name().unwrap(), val.sample(id).entry().class))
        .collect();
    assert_eq!(
        classes,
        [
            ("val/images/val_1.JPEG", Some(0)),
            ("val/images/val_0.JPEG", Some(1))
        ]
    );
    assert_eq!(dataset.split("test").unwrap().sample(0).entry().class, None);
}

/// A JPEG file without the segments of these markers.
fn without(mut jpeg: Vec<u8>, marker: u8) -> Vec<u8> {
    let mut at = 2;
    while jpeg[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        if jpeg[at + 1] == marker {
            jpeg.drain(at..end);
        } else {
            at = end;
        }
    }
    jpeg
}

#[test]
fn nothing_carries_over_from_one_file_to_the_next() {
    const TABLES: u8 = 0xc4;
    const QUANTIZATION: u8 = 0xdb;
    let kinds = ["420", "gray", "progressive-420", "restarts", "cmyk", "444"];
    let all: Vec<Vec<u8>> = kinds.iter().map(|kind| fixture(kind)).collect();
    let standard = without(fixture("420"), TABLES);
    let mut alone: Option<Vec<u8>> = None;
    // Files without tables of their own, before, between and behind those that have others.
    for (round, workers) in [(0, "1"), (1, "2"), (2, "1"), (3, "3")] {
        let dir = tempfile::tempdir().unwrap();
        for (i, bytes) in all.iter().chain(&all).chain(&all).enumerate() {
            let place = (i * 7 + round * 5) % 40;
            write(dir.path(), &format!("in/{place:02}-{i:02}.jpg"), bytes);
            write(
                dir.path(),
                &format!("in/{place:02}-{i:02}-none.jpg"),
                &standard,
            );
            write(
                dir.path(),
                &format!("in/{place:02}-{i:02}-q.jpg"),
                &without(bytes.clone(), QUANTIZATION),
            );
        }
        let args = ["build", "in", "--workers", workers, "--entropy", "zstd"];
        expect(1, dir.path(), &args);
        let dataset = Dataset::open(&dir.path().join("in.shards")).unwrap();
        let train = dataset.split("train").unwrap();
        assert_eq!(
            train.len(),
            36,
            "no file without quantization tables is kept"
        );
        for id in 0..train.len() {
            let sample = train.sample(id);
            if sample.name().unwrap().ends_with("-none.jpg") {
                let alone = alone.get_or_insert_with(|| sample.payload().unwrap());
                assert!(
                    sample.payload().unwrap() == *alone,
                    "round {round}: {:?}",
                    sample.name()
                );
            }
        }
    }
    // Without tables it is what it is with the standard's.
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "in/1.jpg", &fixture("420"));
    expect(0, dir.path(), &["build", "in", "--entropy", "zstd"]);
    let dataset = Dataset::open(&dir.path().join("in.shards")).unwrap();
    assert!(dataset.split("train").unwrap().sample(0).payload().unwrap() == alone.unwrap());
}

#[test]
fn images_beside_records_do_not_vanish() {
    let beside = |root: &Path| {
        write(root, "thumbs.parquet", b"PAR1 and more");
        write(root, "data/index.json", b"{}");
    };
    let built = build(1, &["cat/1.jpg", "dog/1.jpg"], beside, &[]);
    assert_eq!(built.splits, splits(&[("train", 2)]));
    assert_eq!(built.paths("left_out"), ["data", "thumbs.parquet"]);
}

#[test]
fn names_of_splits_are_those_of_files() {
    let files = [
        "b c/dog/1.jpg",
        "A/cat/2.jpg",
        "a/cat/3.jpg",
        "t\u{e9}st/cat/4.jpg",
    ];
    let built = build(0, &files, nothing, &["--layout", "splits"]);
    let expected = splits(&[("a", 1), ("a-2", 1), ("b-c", 1), ("t-st", 1)]);
    assert_eq!(built.splits, expected);
    let files = ["train/images/cat/1.jpg", "train/images/dog/2.jpg"];
    assert_eq!(
        build(0, &files, nothing, &[]).splits,
        splits(&[("train", 2)])
    );
    let built = build(
        0,
        &["cat/1.jpg", "dog/2.jpg"],
        nothing,
        &["--exclude", "./cat/"],
    );
    assert_eq!(built.classes, ["dog"]);
}

#[test]
fn labels_for_validation_are_used_where_they_serve() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let kaggle = "in/ILSVRC/Data/CLS-LOC";
    write(root, &format!("{kaggle}/train/n00000001/1.JPEG"), &jpeg(1));
    write(root, &format!("{kaggle}/train/n00000002/2.JPEG"), &jpeg(2));
    for number in [1, 2] {
        let name = format!("{kaggle}/val/ILSVRC2012_val_0000000{number}.JPEG");
        write(root, &name, &jpeg(number));
    }
    let solution = "ImageId,PredictionString\nILSVRC2012_val_00000001,n00000002 1 2 3 4\n";
    write(root, "in/LOC_val_solution.csv", solution.as_bytes());
    let (stdout, _) = expect(0, root, &["build", "in"]);
    assert!(
        stdout.contains("of 1 images of split val, but not of 1"),
        "{stdout}"
    );
    let dataset = Dataset::open(&root.join("in.shards")).unwrap();
    let val = dataset.split("val").unwrap();
    let classes: Vec<_> = (0..2).map(|id| val.sample(id).entry().class).collect();
    assert_eq!(classes, [None, Some(1)]);
    // Where no image needs it, a file of that name is not even read; where the user names it, it has to serve.
    write(root, "photos/1.jpg", &jpeg(1));
    write(root, "photos/valprep.sh", b"\xff no script");
    expect(0, root, &["build", "photos", "--exclude", "valprep.sh"]);
    let args = [
        "build",
        "photos",
        "--out",
        "none",
        "--val-labels",
        "in/LOC_val_solution.csv",
    ];
    let (_, stderr) = expect(2, root, &args);
    assert!(
        stderr.contains("LOC_val_solution.csv: tells the class of no image"),
        "{stderr}"
    );
}
