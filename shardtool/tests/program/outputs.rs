//! Where a dataset may go, and what an unfinished build leaves for the next.

use crate::common::*;
use shardtool::Dataset;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const SMALL: [&str; 2] = ["--shard-size", "8KiB"];

fn with_small<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &SMALL].concat()
}

#[test]
fn a_link_leads_to_the_dataset() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..3);
    fs::create_dir(root.join("empty")).unwrap();
    symlink("empty", root.join("to-empty")).unwrap();
    symlink("nothing-yet", root.join("to-nothing")).unwrap();
    for (link, target) in [("to-empty", "empty"), ("to-nothing", "nothing-yet")] {
        for args in [
            &["build", "photos", "--out", link][..],
            &["build", "photos", "--out", link, "--force"],
        ] {
            expect(0, root, args);
            assert!(root.join(link).is_symlink());
            Dataset::open(&root.join(target)).unwrap();
        }
    }
    assert_eq!(
        fs::read_dir(root).unwrap().count(),
        5,
        "nothing else was made"
    );
}

#[test]
fn nothing_is_written_into_the_source_or_around_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("above/photos"), 0..3);
    let before = files(&root.join("above/photos/a"));
    for out in [
        "above/photos",
        "above",
        ".",
        "above/photos/shards",
        "above/photos/a/x/y",
        "above/../above/photos/z",
    ] {
        for force in [&[][..], &["--force"]] {
            let args = [&["build", "above/photos", "--out", out], force].concat();
            let (_, stderr) = expect(2, root, &args);
            assert!(
                stderr.contains("--out") && !stderr.contains("remove"),
                "{stderr}"
            );
        }
    }
    assert!(files(&root.join("above/photos/a")) == before);
    assert_eq!(fs::read_dir(root.join("above/photos")).unwrap().count(), 3);
}

#[test]
fn what_was_changed_since_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..6);
    write(root, "photos/a/map.ppm", b"P6 2 1 255\n123456");
    write(root, "photos/a/locked.jpg", b"not yet");
    expect(1, root, &["build", "photos"]);
    let (stdout, _) = expect(1, root, &["build", "photos"]);
    assert!(stdout.contains("up to date"), "{stdout}");
    // As many bytes as before.
    write(root, "photos/a/map.ppm", b"P6 2 1 255\n654321");
    let (_, stderr) = expect(2, root, &["build", "photos"]);
    assert!(stderr.contains("before its source was changed"), "{stderr}");
    expect(1, root, &["build", "photos", "--force"]);
    // Of what was refused, the rights may have been mended.
    use std::os::unix::fs::PermissionsExt;
    let rights = fs::Permissions::from_mode(0o600);
    fs::set_permissions(root.join("photos/a/locked.jpg"), rights).unwrap();
    expect(2, root, &["build", "photos"]);
}

/// Leaves what a build leaves that died after some shards: all finished ones but the last, and one that is torn.
fn die_midway(root: &Path, whole: &Path) -> usize {
    let staging = root.join("out.building");
    fs::create_dir(&staging).unwrap();
    let program = env!("CARGO_BIN_EXE_shardtool");
    fs::remove_dir(&staging).unwrap();
    // A limit on the size of files is as good as a full disk, and ends the build at a shard of its own choosing.
    let status = Command::new("sh")
        .current_dir(root)
        .args(["-c", &format!("trap '' XFSZ; ulimit -f 40; exec {program} build photos --out out --shard-size 16KiB")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert_eq!(status.status.code(), Some(2), "{said}");
    assert!(
        said.contains("finished shard(s) stay in out.building"),
        "{said}"
    );
    assert!(!whole.exists());
    let shards = files(&staging)
        .into_iter()
        .filter(|(name, _)| name.ends_with(".shard"));
    shards.count()
}

#[test]
fn an_unfinished_build_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..150);
    write(root, "photos/a/bad.jpg", b"no image");
    // One image alone is larger than the limit, and comes after the others.
    write(
        root,
        "photos/b/z.jpg",
        &encoded(900, 900, 3, image::ImageFormat::Jpeg),
    );
    let args = ["build", "photos", "--out", "out", "--shard-size", "16KiB"];
    expect(
        1,
        root,
        &[
            "build",
            "photos",
            "--out",
            "reference",
            "--shard-size",
            "16KiB",
        ],
    );
    let reference = files(&root.join("reference"));
    let left = die_midway(root, &root.join("out"));
    assert!(left >= 2, "{left} shards");
    // Damage one of those that are finished: it is made again, and those behind it.
    let damaged = root.join("out.building/train-00001.shard");
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let (stdout, stderr) = expect(1, root, &args);
    assert!(
        stdout.contains("1 shard of an unfinished build kept"),
        "{stdout}"
    );
    assert!(stderr.contains("train-00001.shard: made again"), "{stderr}");
    assert!(
        files(&root.join("out")) == reference,
        "as if it had not been interrupted"
    );
    assert!(!root.join("out.building").exists());

    // Other options, or another source, begin anew.
    fs::remove_dir_all(root.join("out")).unwrap();
    die_midway(root, &root.join("out"));
    let (stdout, _) = expect(1, root, &[&args[..], &["--entropy", "zstd"]].concat());
    assert!(!stdout.contains("unfinished"), "{stdout}");
    fs::remove_dir_all(root.join("out")).unwrap();
    die_midway(root, &root.join("out"));
    write(root, "photos/a/000.JPEG", &jpeg(0));
    let (stdout, _) = expect(1, root, &args);
    assert!(
        !stdout.contains("unfinished"),
        "a file was written since: {stdout}"
    );
    assert!(files(&root.join("out")).len() == reference.len());
}

#[test]
fn of_builds_at_once_one_wins_whatever_a_dead_one_left() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..60);
    let args = with_small(&["build", "photos", "--out", "out"]);
    expect(
        0,
        root,
        &with_small(&["build", "photos", "--out", "reference"]),
    );
    let reference = files(&root.join("reference"));
    for round in 0..6 {
        let _ = fs::remove_dir_all(root.join("out"));
        write(root, "out.building/train-00000.shard", b"torn");
        let program = env!("CARGO_BIN_EXE_shardtool");
        let start = || {
            Command::new(program)
                .current_dir(root)
                .args(&args)
                .stdout(std::process::Stdio::null())
                .spawn()
        };
        let builds: Vec<_> = (0..4).map(|_| start().unwrap()).collect();
        let ended: Vec<_> = builds
            .into_iter()
            .map(|mut build| build.wait().unwrap().code().unwrap())
            .collect();
        // One that comes when another has finished finds it up to date.
        assert!(
            ended.contains(&0) && ended.iter().all(|code| [0, 2].contains(code)),
            "round {round}: {ended:?}"
        );
        assert!(files(&root.join("out")) == reference, "round {round}");
        let left: Vec<_> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 3, "round {round}: {left:?}");
    }
}

#[test]
fn samples_may_be_shuffled() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..60);
    let names = |out: &str| {
        let dataset = Dataset::open(&root.join(out)).unwrap();
        let train = dataset.split("train").unwrap();
        (0..train.len())
            .map(|id| train.sample(id).name().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let shuffled = |out: &str, seed: &str| {
        expect(
            0,
            root,
            &[
                "build",
                "photos",
                "--out",
                out,
                "--order",
                "shuffled",
                "--order-seed",
                seed,
            ],
        );
        names(out)
    };
    expect(0, root, &["build", "photos", "--out", "sorted"]);
    let sorted = names("sorted");
    let (one, two) = (shuffled("one", "1"), shuffled("two", "2"));
    assert!(one != sorted && one != two);
    let key = |name: &String| xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), 1);
    assert!(one.is_sorted_by_key(key), "as FORMAT.md says");
    let mut again = one.clone();
    again.sort_by_key(|name| sorted.iter().position(|other| other == name));
    assert_eq!(again, sorted);
    let (_, stderr) = expect(2, root, &["build", "photos", "--out", "one"]);
    assert!(stderr.contains("other options"), "{stderr}");
}

#[test]
fn what_is_no_dataset_is_never_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..3);
    // Another program's file of the same name, and names that a build would use.
    write(root, "coco/dataset.json", b"{\"images\": []}");
    write(root, "coco/thesis.txt", b"mine");
    write(root, "one.building/thesis.txt", b"mine");
    write(root, "two.replaced/thesis.txt", b"mine");
    fs::create_dir(root.join("three")).unwrap();
    write(root, "target/thesis.txt", b"mine");
    symlink("target", root.join("three.building")).unwrap();
    for out in ["coco", "one", "three"] {
        let (_, stderr) = expect(2, root, &["build", "photos", "--out", out, "--force"]);
        assert!(stderr.contains("is not a dataset"), "{stderr}");
    }
    expect(0, root, &["build", "photos", "--out", "two", "--force"]);
    // What somebody has laid into a dataset survives its replacement.
    expect(0, root, &["build", "photos", "--out", "four"]);
    write(root, "four/thesis.txt", b"mine");
    let (_, stderr) = expect(0, root, &["build", "photos", "--out", "four", "--force"]);
    assert!(stderr.contains("four.replaced: stays"), "{stderr}");
    for kept in [
        "coco",
        "one.building",
        "two.replaced",
        "target",
        "four.replaced",
    ] {
        assert!(root.join(kept).join("thesis.txt").exists(), "{kept}");
    }
}

#[test]
fn nothing_is_written_or_removed_through_links_beside_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..3);
    write_classes(&root.join("others"), 3..6);
    expect(0, root, &["build", "others", "--out", "precious"]);
    let precious = files(&root.join("precious"));
    let victim = root.join("victim");
    let is_whole = || {
        assert_eq!(fs::read(&victim).unwrap(), b"victim");
        assert_eq!(files(&root.join("precious")), precious);
    };
    fs::write(&victim, "victim").unwrap();
    // Among the files of an unfinished build.
    fs::create_dir(root.join("out.building")).unwrap();
    for name in [
        "journal.jsonl",
        "report.json",
        "dataset.json",
        "train-00000.shard",
    ] {
        symlink("../victim", root.join("out.building").join(name)).unwrap();
    }
    expect(0, root, &["build", "photos", "--out", "out"]);
    is_whole();
    for (name, _) in files(&root.join("out")) {
        assert!(!root.join("out").join(&name).is_symlink(), "{name}");
    }
    // In the place of a data set that was moved aside.
    symlink("precious", root.join("out.replaced")).unwrap();
    run(root, &["build", "others", "--out", "out", "--force"]);
    is_whole();
    assert!(root.join("out.replaced").is_symlink());
    fs::remove_file(root.join("out.replaced")).unwrap();
    // In the place of the directory that is written, and of a single result.
    symlink("precious", root.join("third.building")).unwrap();
    expect(2, root, &["build", "photos", "--out", "third"]);
    is_whole();
    symlink("victim", root.join("image.png")).unwrap();
    fs::hard_link(&victim, root.join("image.jpg")).unwrap();
    for out in ["image.png", "image.jpg"] {
        expect(0, root, &["extract", "out", "--sample", "0", "--out", out]);
        is_whole();
    }
}

#[test]
fn other_labels_are_another_dataset() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_classes(&root.join("photos"), 0..2);
    let list = |one: &str, two: &str| {
        let text = format!("path,label\nphotos/b/000.JPEG,{one}\nphotos/a/001.JPEG,{two}\n");
        write(root, "list.csv", text.as_bytes());
        // As old as any: only what it says tells it from the other.
        let file = fs::File::options()
            .write(true)
            .open(root.join("list.csv"))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    list("cat", "dog");
    let args = ["build", "--list", "list.csv", "--out", "out"];
    expect(0, root, &args);
    list("dog", "cat");
    let (_, stderr) = expect(2, root, &args);
    assert!(stderr.contains("other files"), "{stderr}");
    // A part of the source has its own labels, whatever the paths in others.
    write(root, "x/train/labels.csv", b"path,n\na/1.jpg,5\n");
    for split in ["train", "val"] {
        write(root, &format!("x/{split}/a/1.jpg"), &jpeg(1));
    }
    expect(
        0,
        root,
        &["build", "train=x/train", "val=x/val", "--out", "parts"],
    );
    let dataset = Dataset::open(&root.join("parts")).unwrap();
    let label = |split: &str| dataset.split(split).unwrap().sample(0).label("n");
    assert_eq!(label("train"), Some(shardtool::format::Label::Int(5)));
    assert_eq!(label("val"), None);
}
