//! `shardtool build` and its sisters, run as users run them.

use crate::common::*;
use crate::testing::fixtures;
use image::ImageFormat;
use serde_json::{Value, json};
use shardtool::codec::Decoder;
use shardtool::{Codec, Dataset, turbo};
use std::fs;
use std::path::Path;

fn report(dataset: &Path) -> Value {
    serde_json::from_slice(&fs::read(dataset.join("report.json")).unwrap()).unwrap()
}

#[test]
fn output_depends_on_content_alone() {
    let dir = tempfile::tempdir().unwrap();
    write_classes(&dir.path().join("one/photos"), 0..60);
    write_classes(&dir.path().join("two/photos"), (0..60).map(|i| i * 37 % 60));
    let ways: [(&str, &[&str]); 4] = [
        ("rans", &[]),
        ("zstd", &["--entropy", "zstd"]),
        ("smaller", &["--short-side", "16"]),
        ("jpeg", &["--codec", "jpeg"]),
    ];
    for (name, options) in ways {
        let out = |number: u32| format!("{name}{number}");
        for (number, source, workers) in [(1, "one", "1"), (2, "one", "2"), (3, "two", "3")] {
            let (source, out) = (format!("{source}/photos"), out(number));
            let args = ["build", &source, "--out", &out, "--workers", workers];
            let args = [&args[..], &["--shard-size", "8KiB"], options].concat();
            expect(0, dir.path(), &args);
        }
        let [one, two, other] = [1, 2, 3].map(|number| files(&dir.path().join(out(number))));
        assert!(one.len() > 5, "{name}: several shards");
        assert!(one == two, "{name}: one worker and two differ");
        assert!(one == other, "{name}: orders of creation differ");

        let dataset = Dataset::open(&dir.path().join(out(1))).unwrap();
        assert_eq!(dataset.manifest().classes, ["a", "a-b", "b"]);
        let train = dataset.split("train").unwrap();
        let samples = (0..train.len()).map(|id| train.sample(id));
        let keys: Vec<_> = samples
            .map(|s| (s.entry().class, s.name().unwrap()))
            .collect();
        assert!(keys.is_sorted() && keys.len() == 60, "{name}");
        assert!(train.shards().iter().all(|shard| shard.bytes() < 12 << 10));
    }
}

#[test]
fn odd_files_are_kept_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("odd");
    let whole = jpeg(1);
    let golden = |name: &str| fs::read(golden().join("source").join(name)).unwrap();
    write(&root, "c/plain.jpg", &whole);
    write(&root, "c/cmyk.jpg", &golden("val/square/cmyk.jpg"));
    write(&root, "c/rotated.jpg", &golden("train/circle/rotated.jpg"));
    write(
        &root,
        "c/trailing.jpg",
        &[&whole[..], b"trailing bytes"].concat(),
    );
    write(&root, "c/really.png", &whole);
    write(&root, "c/png.JPEG", &encoded(9, 5, 2, ImageFormat::Png));
    write(&root, "c/bitmap.bmp", &encoded(9, 5, 3, ImageFormat::Bmp));
    write(
        &root,
        "c/lossless.webp",
        &encoded(9, 5, 4, ImageFormat::WebP),
    );
    write(&root, "c/map.ppm", &encoded(9, 5, 5, ImageFormat::Pnm));
    write(&root, "c/scan.TIFF", &encoded(9, 5, 6, ImageFormat::Tiff));

    write(&root, "c/half.jpg", &whole[..whole.len() / 2]);
    write(&root, "c/no-end.jpg", &whole[..whole.len() - 2]);
    write(
        &root,
        "c/half.png",
        &encoded(90, 50, 2, ImageFormat::Png)[..300],
    );
    write(&root, "c/empty.jpg", b"");
    write(&root, "c/text.jpg", b"this is no picture");
    write(&root, "c/start.jpg", b"\xff\xd8\xff\xd9");
    std::os::unix::fs::symlink("nowhere", root.join("c/unreadable.jpg")).unwrap();
    write(&root, "c/notes.txt", b"ignored");
    write(&root, "top.jpg", &whole);
    write(&root, ".hidden/x.jpg", &whole);
    write(
        &root,
        "labels.csv",
        b"path,n\nc/plain.jpg,4\nc/gone.jpg,1\n",
    );

    let (stdout, _) = expect(1, dir.path(), &["build", "odd", "--codec", "jpeg"]);
    assert!(
        stdout.contains("11 images") && stdout.contains("6 files REJECTED"),
        "{stdout}"
    );
    let report = report(&dir.path().join("odd.shards"));
    assert_eq!(report["kept"], 11);
    let paths = |key: &str| {
        let notes = report[key].as_array().unwrap().iter();
        notes
            .map(|note| note["path"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    let rejected = [
        "c/empty.jpg",
        "c/half.jpg",
        "c/half.png",
        "c/start.jpg",
        "c/text.jpg",
        "c/unreadable.jpg",
    ];
    assert_eq!(paths("rejected"), rejected);
    let reasons = [
        "empty",
        "missing SOS",
        "PNG",
        "JPEG",
        "not an image",
        "cannot be read",
    ];
    for (note, reason) in report["rejected"].as_array().unwrap().iter().zip(reasons) {
        assert!(note["reason"].as_str().unwrap().contains(reason), "{note}");
    }
    let raw = [
        "c/bitmap.bmp",
        "c/lossless.webp",
        "c/map.ppm",
        "c/no-end.jpg",
        "c/png.JPEG",
        "c/scan.TIFF",
    ];
    assert_eq!(paths("stored_otherwise"), raw);
    assert_eq!(
        report["stored_otherwise"][3]["reason"],
        "a JPEG file without its end marker: stored as its coefficients"
    );
    assert_eq!(
        report["stored_otherwise"][4]["reason"],
        "is PNG, not JPEG: stored as raw pixels"
    );
    assert_eq!(paths("faulty"), ["c/no-end.jpg"]);
    assert_eq!(paths("misnamed"), ["c/png.JPEG", "c/really.png"]);
    assert_eq!(paths("left_out"), ["top.jpg"]);
    assert_eq!(paths("ignored"), [".hidden", "c/notes.txt"]);
    assert_eq!(report["labels_without_image"], json!(["c/gone.jpg"]));

    // What is kept is kept exactly, and decodes.
    let dataset = Dataset::open(&dir.path().join("odd.shards")).unwrap();
    let train = dataset.split("train").unwrap();
    let mut decoder = Decoder::new();
    for id in 0..train.len() {
        let sample = train.sample(id);
        sample.payload().unwrap();
        let file = fs::read(root.join(sample.name().unwrap())).unwrap();
        match sample.entry().codec {
            Codec::Jpeg => {
                pixels_of(&mut decoder, &sample);
                assert!(sample.payload().unwrap() == file);
            }
            Codec::Raw => {
                let view = pixels_of(&mut decoder, &sample);
                let pixels = image::load_from_memory(&file).unwrap().to_rgb8();
                assert!(view.pixels == pixels.as_raw(), "{:?}", sample.name());
            }
            Codec::Dct => assert_eq!(sample.name(), Some("c/no-end.jpg")),
        }
    }
    expect(0, dir.path(), &["verify", "odd.shards", "--decode"]);

    // The same again is up to date, and as faulty as before.
    let (stdout, _) = expect(1, dir.path(), &["build", "odd", "--codec", "jpeg"]);
    assert!(
        stdout.contains("up to date") && stdout.contains("6 files REJECTED"),
        "{stdout}"
    );

    // As coefficients, the same files are kept and the same rejected.
    for codec in ["jpeg", "dct"] {
        let args = ["build", "odd", "--codec", codec, "--out", "none"];
        let (_, stderr) = expect(
            2,
            dir.path(),
            &[&args[..], &["--on-error", "fail"]].concat(),
        );
        assert!(stderr.contains("odd/c/empty.jpg: empty file"), "{stderr}");
        let (stdout, _) = expect(1, dir.path(), &[&args[..], &["--dry-run"]].concat());
        assert!(
            stdout.contains("would hold 11 images") && stdout.contains("6 files REJECTED"),
            "{stdout}"
        );
    }
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(
        left, 2,
        "the folder and its shards, no trace of the stopped build"
    );
}

#[test]
fn layouts_give_splits_and_classes() {
    let dir = tempfile::tempdir().unwrap();
    for (i, path) in [
        "split/train/dog/deep/1.jpg",
        "split/train/cat/2.jpg",
        "split/val/emu/3.jpg",
        "split/val/dog/4.jpg",
        "split/test/dog/5.jpg",
        "flat/6.jpg",
        "flat/7.jpg",
        "half/train/cat/8.jpg",
        "half/val/9.jpg",
    ]
    .into_iter()
    .enumerate()
    {
        write(dir.path(), path, &jpeg(i as u32));
    }
    let build = |name: &str| {
        expect(0, dir.path(), &["build", &format!("{name}/")]);
        let dataset = Dataset::open(&dir.path().join(format!("{name}.shards"))).unwrap();
        let splits = dataset.splits().iter();
        let listed: Vec<_> = splits
            .flat_map(|split| {
                (0..split.len()).map(|id| {
                    let sample = split.sample(id);
                    let name = sample.name().unwrap().to_owned();
                    (split.name().to_owned(), sample.entry().class, name)
                })
            })
            .collect();
        (dataset.manifest().classes.clone(), listed)
    };
    let sample = |split: &str, class, path: &str| (split.to_owned(), class, path.to_owned());
    let (classes, listed) = build("split");
    assert_eq!(classes, ["cat", "dog", "emu"]);
    let expected = [
        sample("train", Some(0), "train/cat/2.jpg"),
        sample("train", Some(1), "train/dog/deep/1.jpg"),
        sample("val", Some(1), "val/dog/4.jpg"),
        sample("val", Some(2), "val/emu/3.jpg"),
        sample("test", Some(1), "test/dog/5.jpg"),
    ];
    assert_eq!(listed, expected);

    let (classes, listed) = build("flat");
    assert_eq!(classes, [""; 0]);
    assert_eq!(
        listed,
        [
            sample("train", None, "6.jpg"),
            sample("train", None, "7.jpg")
        ]
    );
    let (_, listed) = build("half");
    let expected = [
        sample("train", Some(0), "train/cat/8.jpg"),
        sample("val", None, "val/9.jpg"),
    ];
    assert_eq!(listed, expected);
}

#[test]
fn raw_holds_what_libjpeg_turbo_decodes_and_jpeg_what_the_loader_decodes_alike() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..6);
    for (name, jpeg) in fixtures() {
        write(root, &format!("photos/b/{name}.jpg"), &jpeg);
    }
    expect(1, root, &["build", "photos", "--codec", "jpeg"]);
    let raw = [
        "build", "photos", "--codec", "raw", "--level", "1", "--out", "raw",
    ];
    expect(1, root, &raw);
    let open = |name: &str| Dataset::open(&root.join(name)).unwrap();
    let (jpeg, raw) = (open("photos.shards"), open("raw"));
    let (jpeg, raw) = (jpeg.split("train").unwrap(), raw.split("train").unwrap());
    assert_eq!((jpeg.len(), raw.len()), (26, 26));
    let (mut decoder, mut turbo) = (Decoder::new(), turbo::Decoder::new());
    let mut otherwise = Vec::new();
    for id in 0..raw.len() {
        let (jpeg, raw) = (jpeg.sample(id), raw.sample(id));
        let name = raw.name().unwrap();
        assert_eq!(jpeg.name(), Some(name));
        let file = fs::read(root.join("photos").join(name)).unwrap();
        let mut pixels = Vec::new();
        turbo.decode_full(&file, &mut pixels).unwrap();
        assert_eq!(raw.entry().codec, Codec::Raw);
        assert!(pixels_of(&mut decoder, &raw).pixels == pixels, "{name}");
        if jpeg.entry().codec == Codec::Dct {
            otherwise.push(name.to_owned());
            continue;
        }
        assert!(jpeg.payload().unwrap() == file, "{name}");
        let view = pixels_of(&mut decoder, &jpeg);
        let differ = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b));
        let sum: f64 = view.pixels.iter().zip(&pixels).map(differ).sum();
        assert!(sum / (pixels.len() as f64) < 4.0, "{name}");
    }
    // What the loader's decoder reads otherwise, or not at all, is kept as coefficients.
    let expected = [
        "b/arithmetic.jpg",
        "b/separate-scans.jpg",
        "b/third-sampling.jpg",
    ];
    assert_eq!(otherwise, expected);
}

#[test]
fn what_exists_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..3);
    fs::create_dir(root.join("photos.shards")).unwrap();
    expect(0, root, &["build", "photos"]); // an empty directory is a free place
    let before = files(&root.join("photos.shards"));
    let (stdout, _) = expect(0, root, &["build", "photos"]);
    assert!(stdout.contains("up to date"), "{stdout}");

    for other in [
        ["--codec", "raw"],
        ["--entropy", "zstd"],
        ["--short-side", "8"],
    ] {
        let (_, stderr) = expect(2, root, &[&["build", "photos"], &other[..]].concat());
        assert!(
            stderr.contains("other options") && stderr.contains("--force"),
            "{stderr}"
        );
    }
    write(root, "photos/a/new.jpg", &jpeg(7));
    let (_, stderr) = expect(2, root, &["build", "photos"]);
    assert!(
        stderr.contains("other files") && stderr.contains("--force"),
        "{stderr}"
    );
    assert!(files(&root.join("photos.shards")) == before);
    expect(0, root, &["build", "photos", "--force"]);
    assert_eq!(
        Dataset::open(&root.join("photos.shards"))
            .unwrap()
            .manifest()
            .source
            .files,
        4
    );

    write(root, "mine/thesis.txt", b"");
    let (_, stderr) = expect(2, root, &["build", "photos", "--out", "mine", "--force"]);
    assert!(stderr.contains("not a dataset"), "{stderr}");
    assert!(root.join("mine/thesis.txt").exists());
    let (_, stderr) = expect(2, root, &["build", "nowhere"]);
    assert!(
        stderr.contains("nowhere: cannot open: No such file"),
        "{stderr}"
    );
    fs::create_dir(root.join("empty")).unwrap();
    let (_, stderr) = expect(2, root, &["build", "empty"]);
    assert!(stderr.contains("empty: no image files found"), "{stderr}");
    write(&root.join("bad"), "c/line\nbreak.jpg", b"no image");
    let (_, stderr) = expect(2, root, &["build", "bad"]);
    let reason = "none of 1 image files could be kept; the first: c/line\\nbreak.jpg: not an image";
    assert!(stderr.contains(reason), "{stderr}");
}

#[test]
fn an_interrupted_build_leaves_nothing_under_the_final_name() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let large = encoded(1500, 1500, 1, ImageFormat::Jpeg);
    for i in 0..40 {
        write(root, &format!("photos/a/{i}.jpg"), &large);
    }
    let args = ["build", "photos", "--workers", "1", "--shard-size", "1MB"];
    let program = env!("CARGO_BIN_EXE_shardtool");
    let mut child = std::process::Command::new(program)
        .current_dir(root)
        .args(args)
        .spawn()
        .unwrap();
    let staging = root.join("photos.shards.building");
    while !staging.join("train-00000.shard").exists() {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "the build ended before it could be killed"
        );
        std::thread::yield_now();
    }
    let (_, stderr) = expect(2, root, &args);
    assert!(stderr.contains("is writing here"), "{stderr}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(staging.exists() && !root.join("photos.shards").exists());

    expect(0, root, &args);
    assert!(!staging.exists());
    expect(0, root, &["verify", "photos.shards"]);

    // Killed between the two renames of --force: the old dataset returns.
    fs::rename(
        root.join("photos.shards"),
        root.join("photos.shards.replaced"),
    )
    .unwrap();
    let (stdout, _) = expect(0, root, &args);
    assert!(stdout.contains("up to date"), "{stdout}");
}

#[test]
fn inspect_counts() {
    let dir = tempfile::tempdir().unwrap();
    write_classes(&dir.path().join("photos"), 0..7);
    expect(0, dir.path(), &["build", "photos"]);
    let (text, _) = expect(0, dir.path(), &["inspect", "photos.shards"]);
    assert!(text.contains("split train: 7 images"), "{text}");
    let (json, _) = expect(0, dir.path(), &["inspect", "photos.shards", "--json"]);
    let tree: Value = serde_json::from_str(&json).unwrap();
    let counts = &tree["splits"][0]["counts"];
    assert_eq!(counts["class_counts"], json!([2, 2, 3]));
    assert_eq!(counts["codecs"], json!({"dct": 7, "jpeg": 0, "raw": 0}));
    assert_eq!(counts["width"]["min"], 20);
    assert_eq!(counts["width"]["max"], 26);
    assert_eq!(counts["width"]["mean"].as_f64().unwrap().round(), 23.0);
}
