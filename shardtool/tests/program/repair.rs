//! `shardtool verify --repair` gives back the dataset that was built, to the last byte, or names what it cannot.

use crate::common::*;
use shardtool::Dataset;
use std::fs;
use std::path::Path;

/// Flips a byte in the middle of each of these samples of the split `train`.
fn damage(dataset: &Path, samples: &[u64]) {
    let opened = Dataset::open(dataset).unwrap();
    for &id in samples {
        let sample = opened.split("train").unwrap().sample(id);
        let mut bytes = fs::read(sample.shard().path()).unwrap();
        let entry = sample.entry();
        bytes[entry.offset as usize + entry.length as usize / 2] ^= 0x10;
        fs::write(sample.shard().path(), bytes).unwrap();
    }
}

/// Builds a dataset of several shards, one of whose source's images could not be kept.
fn build(root: &Path, codec: &str) {
    write_classes(&root.join("photos"), 0..24);
    write(root, "photos/a/010b.JPEG", b"\xff\xd8\xff\xe0 no image");
    let build = ["build", "photos", "--codec", codec, "--shard-size", "6KiB"];
    expect(1, root, &build);
    let dataset = Dataset::open(&root.join("photos.shards")).unwrap();
    assert!(dataset.splits()[0].shards().len() > 2);
}

#[test]
fn damaged_samples_come_back_from_the_source() {
    for codec in ["dct", "jpeg", "raw"] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        build(root, codec);
        let (dataset, sound) = (
            root.join("photos.shards"),
            files(&root.join("photos.shards")),
        );
        damage(&dataset, &[0, 3, 23]);
        // The folder may have another name meanwhile.
        fs::rename(root.join("photos"), root.join("moved")).unwrap();
        let (stdout, _) = expect(1, root, &["verify", "photos.shards"]);
        assert!(stdout.contains("3 damaged"), "{stdout}");
        let repair = ["verify", "photos.shards", "--repair", "moved"];
        let (stdout, _) = expect(0, root, &repair);
        assert!(stdout.contains("all is whole"), "{codec}: {stdout}");
        assert!(files(&dataset) == sound, "{codec}");
        expect(0, root, &["verify", "photos.shards", "--decode"]);
        expect(0, root, &repair);
    }
}

#[test]
fn shards_that_cannot_be_opened_are_built_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    build(root, "dct");
    let (dataset, sound) = (
        root.join("photos.shards"),
        files(&root.join("photos.shards")),
    );
    let of = |name: &str| {
        sound
            .iter()
            .find(|(file, _)| file == name)
            .unwrap()
            .1
            .clone()
    };
    let repair = ["verify", "photos.shards", "--repair", "photos"];
    for name in ["train-00000.shard", "train-00001.shard"] {
        let (path, bytes) = (dataset.join(name), of(name));
        let spoils: [&dyn Fn(); 5] = [
            &|| fs::remove_file(&path).unwrap(),
            &|| fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
            &|| fs::write(&path, vec![0; bytes.len()]).unwrap(),
            &|| fs::write(&path, [&bytes[..bytes.len() - 1], b"!"].concat()).unwrap(), // index
            &|| fs::write(&path, [&bytes[..100], b"?", &bytes[101..]].concat()).unwrap(), // tables
        ];
        for spoil in spoils {
            spoil();
            let (_, stderr) = expect(2, root, &["verify", "photos.shards"]);
            assert!(stderr.contains(name), "{stderr}");
            let (stdout, _) = expect(0, root, &repair);
            assert!(
                stdout.contains("1 shard restored, all is whole"),
                "{stdout}"
            );
            assert!(files(&dataset) == sound, "{name}");
        }
    }
    // All of them at once: nothing but the manifest is left.
    for (name, _) in &sound {
        if name.ends_with(".shard") {
            fs::remove_file(dataset.join(name)).unwrap();
        }
    }
    expect(0, root, &repair);
    assert!(files(&dataset) == sound);
}

#[test]
fn a_source_is_read_as_the_build_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for i in 0..12 {
        let folder = ["a/abbey", "a/arch", "skip"][i as usize % 3];
        let name = format!("photos/{folder}/ILSVRC2012_val_{i:08}.JPEG");
        write(root, &name, &jpeg(i));
    }
    write(root, "names.txt", b"skip\na\nunused\n");
    let answers: String = (0..12)
        .map(|i| format!("ILSVRC2012_val_{i:08},n0000000{} 1 2 3 4\n", i % 2))
        .collect();
    let answers = format!("ImageId,PredictionString\n{answers}");
    write(root, "answers.csv", answers.as_bytes());
    for options in [
        &["--layout", "flat"][..],
        &["--layout", "splits"],
        &["--class-depth", "2", "--exclude", "skip"],
        &["--classes", "names.txt"],
        &["--layout", "flat", "--val-labels", "answers.csv"],
    ] {
        let build = ["build", "--out", "set", "--force", "--shard-size", "6KiB"];
        let source = match options.contains(&"--val-labels") {
            true => "val=photos",
            false => "photos",
        };
        // Classes that nothing lies in, and what is excluded, are faults of a source.
        let built = run(root, &[&build[..], &[source], options].concat());
        assert!(
            matches!(built.status.code(), Some(0 | 1)),
            "{options:?}: {built:?}"
        );
        let sound = files(&root.join("set"));
        let shards = sound.iter().filter(|(name, _)| name.ends_with(".shard"));
        for (name, _) in shards {
            fs::remove_file(root.join("set").join(name)).unwrap();
        }
        let repair = ["verify", "set", "--repair", source];
        let (stdout, _) = expect(1, root, &repair);
        assert!(stdout.contains("read with these options"), "{stdout}");
        let (stdout, _) = expect(0, root, &[&repair[..], options].concat());
        assert!(stdout.contains("all is whole"), "{options:?}: {stdout}");
        assert!(files(&root.join("set")) == sound, "{options:?}");
    }
    let (_, stderr) = expect(2, root, &["verify", "set", "--layout", "flat"]);
    assert!(stderr.contains("--repair SOURCE"), "{stderr}");
}

#[test]
fn what_the_source_does_not_give_back_is_named_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    build(root, "dct");
    let dataset = root.join("photos.shards");
    let names = |ids: [u64; 3]| {
        let opened = Dataset::open(&dataset).unwrap();
        let train = opened.split("train").unwrap();
        ids.map(|id| train.sample(id).name().unwrap().to_owned())
    };
    let [changed, gone, whole] = names([1, 2, 3]);
    damage(&dataset, &[1, 2, 3]);
    write(root, &format!("photos/{changed}"), &jpeg(77));
    fs::remove_file(root.join("photos").join(&gone)).unwrap();
    let repair = ["verify", "photos.shards", "--repair", "photos"];
    let (stdout, _) = expect(1, root, &repair);
    for (name, reason) in [(&changed, "other bytes"), (&gone, "no such image")] {
        let line = format!("({name}): ");
        let line = stdout
            .lines()
            .find(|found| found.starts_with("NOT") && found.contains(&line));
        assert!(line.is_some_and(|line| line.contains(reason)), "{stdout}");
    }
    let (stdout, _) = expect(1, root, &["verify", "photos.shards"]);
    assert!(
        stdout.contains("2 damaged") && !stdout.contains(&whole),
        "{stdout}"
    );
    // A whole shard is built again from exactly the same files only.
    let shard = dataset.join("train-00001.shard");
    fs::write(&shard, b"gone").unwrap();
    let (stdout, _) = expect(1, root, &repair);
    assert!(
        stdout.contains("NOT RESTORED: train-00001.shard: a whole shard can be built again only"),
        "{stdout}"
    );
    assert_eq!(fs::read(&shard).unwrap(), b"gone");
    assert!(
        files(&dataset)
            .iter()
            .all(|(name, _)| !name.ends_with(".repair"))
    );
}

#[test]
fn damaged_samples_are_listed_in_quarantine_until_they_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    build(root, "dct");
    let (dataset, sound) = (
        root.join("photos.shards"),
        files(&root.join("photos.shards")),
    );
    let file = dataset.join("quarantine.json");
    let quarantine = ["verify", "photos.shards", "--quarantine"];
    expect(0, root, &quarantine);
    assert!(!file.exists(), "nothing is damaged");
    damage(&dataset, &[0, 3]);
    let (_, stderr) = expect(2, root, &quarantine);
    assert!(stderr.contains("at most 1 % of the 24"), "{stderr}");
    assert!(!file.exists());
    let asked = [&quarantine[..], &["--at-most", "0.25"]].concat();
    let (stdout, _) = expect(1, root, &asked);
    assert!(stdout.contains("2 samples in quarantine"), "{stdout}");
    let listed: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let first = &listed["samples"][0];
    assert_eq!(
        (&first["shard"], &first["sample"]),
        (&"train-00000.shard".into(), &0.into())
    );
    assert!(first["cause"].as_str().unwrap().contains("checksum"));
    // One comes back, the other does not.
    let opened = Dataset::open(&dataset).unwrap();
    let gone = opened.splits()[0].sample(3).name().unwrap().to_owned();
    let image = root.join("photos").join(&gone);
    fs::rename(&image, root.join("away")).unwrap();
    let repair = ["verify", "photos.shards", "--repair", "photos"];
    let (stdout, _) = expect(1, root, &repair);
    assert!(stdout.contains("1 sample in quarantine"), "{stdout}");
    fs::rename(root.join("away"), &image).unwrap();
    expect(0, root, &repair);
    assert!(files(&dataset) == sound, "the list is gone as well");
    // A list of another dataset is refused.
    let other = fs::read_to_string(dataset.join("dataset.json")).unwrap() + " ";
    damage(&dataset, &[0]);
    expect(1, root, &asked);
    fs::write(dataset.join("dataset.json"), other).unwrap();
    let (_, stderr) = expect(2, root, &["verify", "photos.shards"]);
    assert!(stderr.contains("quarantine.json: dataset is"), "{stderr}");
}
