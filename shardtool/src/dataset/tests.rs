//! Manifests and shards that do not fit the format or each other.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::format::{NewSample, ShardWriter};
use crate::{Codec, Error};

/// Writes a dataset of two shards in one split, with three classes, and returns its manifest.
fn dataset() -> (TempDir, Value) {
    let dir = tempfile::tempdir().unwrap();
    let shards = ["train-00000.shard", "train-00001.shard"].map(|file| {
        let mut writer = ShardWriter::create(&dir.path().join(file), &[], &[]).unwrap();
        for (i, payload) in [&b"one"[..], b"three", file.as_bytes()].iter().enumerate() {
            let sample = NewSample {
                payload,
                codec: Codec::Jpeg,
                stored: (1, 1),
                source: (1, 1),
                class: Some(i as u32),
                orientation: 1,
                labels: &[],
            };
            writer.append(&sample).unwrap();
        }
        let written = writer.finish().unwrap();
        ShardRecord {
            file: file.to_owned(),
            samples: written.samples,
            bytes: written.bytes,
            checksum: written.checksum,
        }
    });
    let source = SourceRecord {
        name: "photos".to_owned(),
        files: 6,
        bytes: 50,
        listing: 1,
    };
    let codec = CodecOptions {
        name: Codec::Jpeg,
        level: 3,
        entropy: None,
        bound: None,
        shard_size: 10,
    };
    let split = SplitRecord {
        name: "train".to_owned(),
        samples: 6,
        shards: shards.to_vec(),
    };
    let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    let manifest = Manifest::new(
        source,
        codec,
        Order::Sorted,
        classes,
        Vec::new(),
        vec![split],
    );
    std::fs::write(dir.path().join(MANIFEST_FILE), manifest.to_json()).unwrap();
    let read = Manifest::read(dir.path()).unwrap();
    assert_eq!(read, manifest, "checksum included");
    (dir, serde_json::from_str(&manifest.to_json()).unwrap())
}

/// Returns what opening says after `change` to the manifest.
fn fault(change: impl FnOnce(&mut Value)) -> Error {
    let (dir, mut tree) = dataset();
    change(&mut tree);
    std::fs::write(dir.path().join(MANIFEST_FILE), tree.to_string()).unwrap();
    Dataset::open(dir.path()).expect_err("the dataset is faulty")
}

#[track_caller]
fn expect_key(error: Error, key: &str) {
    match &error {
        Error::Manifest { key: found, .. } => assert_eq!(found, key, "{error}"),
        _ => panic!("{error}"),
    }
}

#[test]
fn samples_are_numbered_through_the_shards() {
    let (dir, _) = dataset();
    let dataset = Dataset::open(dir.path()).unwrap();
    let train = dataset.split("train").unwrap();
    assert_eq!((train.len(), train.name()), (6, "train"));
    assert!(dataset.split("val").is_none());
    let texts: Vec<_> = (0..6)
        .map(|id| train.sample(id).payload().unwrap())
        .collect();
    let first = [&b"one"[..], b"three", b"train-00000.shard"];
    let second = [&b"one"[..], b"three", b"train-00001.shard"];
    assert_eq!(texts, [first, second].concat());
    let last = train.sample(5);
    assert_eq!(
        (last.index(), last.entry().class, last.name()),
        (2, Some(2), None)
    );
    last.payload().unwrap();
}

#[test]
fn manifests_of_another_kind_are_refused() {
    expect_key(fault(|tree| tree["format"] = json!("zip")), "format");
    expect_key(fault(|tree| drop(tree["version"].take())), "version");
    let newer = fault(|tree| {
        *tree = json!({"format": "ijepa-shards", "version": 2, "shape": "unknown"});
    });
    assert!(
        newer.to_string().contains("version is 2, expected 1"),
        "{newer}"
    );
    let missing = fault(|tree| {
        tree.as_object_mut().unwrap().remove("classes");
    });
    assert!(matches!(missing, Error::Json { .. }), "{missing}");
    for text in ["12", "9F0C2B6A55D1E807"] {
        let checksum = fault(|tree| tree["splits"][0]["shards"][0]["checksum"] = json!(text));
        let wanted = "16 lower-case hexadecimal digits";
        assert!(checksum.to_string().contains(wanted), "{checksum}");
    }
    let dir = tempfile::tempdir().unwrap();
    let none = Dataset::open(dir.path()).unwrap_err();
    assert!(
        none.to_string().contains("dataset.json: cannot read"),
        "{none}"
    );
}

#[test]
fn unknown_keys_are_ignored() {
    let (dir, mut tree) = dataset();
    tree["note"] = json!({"by": "hand"});
    std::fs::write(dir.path().join(MANIFEST_FILE), tree.to_string()).unwrap();
    Dataset::open(dir.path()).unwrap();
}

#[test]
fn names_and_sums_are_checked() {
    expect_key(
        fault(|tree| tree["classes"] = json!(["a", "b", "a"])),
        "classes[2]",
    );
    for name in ["", "../x", "a/b", ".x", "train 1"] {
        expect_key(
            fault(|tree| tree["splits"][0]["name"] = json!(name)),
            "splits[0].name",
        );
        let file = fault(|tree| tree["splits"][0]["shards"][1]["file"] = json!(name));
        expect_key(file, "splits[0].shards[1].file");
    }
    let twice = fault(|tree| {
        let split = tree["splits"][0].clone();
        tree["splits"].as_array_mut().unwrap().push(split);
    });
    expect_key(twice, "splits[1].name");
    let same_file = fault(|tree| {
        tree["splits"][0]["shards"][1]["file"] = json!("train-00000.shard");
    });
    expect_key(same_file, "splits[0].shards[1].file");
    expect_key(
        fault(|tree| tree["splits"][0]["samples"] = json!(7)),
        "splits[0].samples",
    );
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["dataset.json", "train-00000.shard"] {
        let pipe = folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
    }
    let manifest = Manifest::read(folder.path()).unwrap_err().to_string();
    let shard = Shard::open(&folder.path().join("train-00000.shard"));
    for message in [manifest, shard.unwrap_err().to_string()] {
        assert!(
            message.contains("a named pipe, not a regular file"),
            "{message}"
        );
    }
}

#[test]
fn shards_must_be_those_listed() {
    let mismatch = |key: &str, value: Value| {
        let error = fault(|tree| {
            tree["splits"][0]["shards"][1][key] = value;
            if key == "samples" {
                tree["splits"][0]["samples"] = json!(7);
            }
        });
        match &error {
            Error::Mismatch { path, what, .. } => {
                assert!(path.ends_with("train-00001.shard"), "{error}");
                *what
            }
            _ => panic!("{error}"),
        }
    };
    assert_eq!(mismatch("bytes", json!(5)), "size in bytes");
    assert_eq!(mismatch("samples", json!(4)), "sample count");
    assert_eq!(mismatch("checksum", json!("0123456789abcdef")), "checksum");
    let class = fault(|tree| tree["classes"] = json!(["a", "b"]));
    assert!(
        matches!(
            class,
            Error::Class {
                sample: 2,
                classes: 2,
                got: 2,
                ..
            }
        ),
        "{class}"
    );
}
