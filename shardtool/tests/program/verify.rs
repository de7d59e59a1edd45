//! `shardtool verify` tells damage to a sample, which it names, from damage that makes a shard unusable.

use crate::common::*;
use shardtool::Dataset;
use std::fs;
use std::path::Path;

/// Where samples 1 and 2 of a dataset's training split begin.
fn second(dataset: &Path) -> (usize, usize) {
    let dataset = Dataset::open(dataset).unwrap();
    let train = dataset.split("train").unwrap();
    let [begin, end] = [1, 2].map(|id| train.sample(id).entry().offset as usize);
    (begin, end)
}

#[test]
fn verify_names_damage() {
    for codec in ["dct", "jpeg"] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write_classes(&root.join("photos"), 0..6);
        expect(0, root, &["build", "photos", "--codec", codec]);
        expect(0, root, &["verify", "photos.shards"]);
        let shard = root.join("photos.shards/train-00000.shard");
        let sound = fs::read(&shard).unwrap();

        // In the head of the payload, in the middle and at its end.
        let (begin, end) = second(&root.join("photos.shards"));
        for at in [begin, (begin + end) / 2, end - 1] {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            fs::write(&shard, &bytes).unwrap();
            for decode in [&["--decode"][..], &[]] {
                let (stdout, _) = expect(1, root, &[&["verify", "photos.shards"], decode].concat());
                let line = stdout.lines().next().unwrap();
                for part in [
                    "train sample 1 (a/004.JPEG)",
                    "train-00000.shard",
                    &format!("offset {begin}"),
                ] {
                    assert!(line.contains(part), "{codec}: {part}: {stdout}");
                }
                assert!(
                    stdout.contains("6 images") && stdout.contains("1 damaged"),
                    "{codec}: {stdout}"
                );
            }
            let extract = ["extract", "photos.shards", "--sample", "1", "--out", "out"];
            expect(2, root, &extract);
        }

        fs::write(&shard, &sound[..sound.len() - 1]).unwrap();
        let (_, stderr) = expect(2, root, &["verify", "photos.shards"]);
        assert!(
            stderr.contains("train-00000.shard") && stderr.contains("cut short"),
            "{stderr}"
        );
        fs::remove_file(&shard).unwrap();
        let (_, stderr) = expect(2, root, &["inspect", "photos.shards"]);
        assert!(
            stderr.contains("train-00000.shard: cannot open"),
            "{stderr}"
        );
    }
}

#[test]
fn damaged_tables_make_a_shard_unusable() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..6);
    expect(0, root, &["build", "photos"]);
    let shard = root.join("photos.shards/train-00000.shard");
    let sound = fs::read(&shard).unwrap();
    let dataset = Dataset::open(&root.join("photos.shards")).unwrap();
    let payloads = dataset.splits()[0].sample(0).entry().offset as usize;
    assert!(payloads > 96, "there are tables");
    drop(dataset);
    for at in [96, (96 + payloads) / 2, payloads - 1] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&shard, &bytes).unwrap();
        for command in ["verify", "inspect"] {
            let (_, stderr) = expect(2, root, &[command, "photos.shards"]);
            assert!(
                stderr.contains("train-00000.shard") && stderr.contains("codec data"),
                "byte {at}: {stderr}"
            );
        }
    }
}
