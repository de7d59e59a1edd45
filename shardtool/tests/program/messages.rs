//! What cannot be written: a message or a closing word changes no exit code, a result does.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::*;

/// Where an output goes that cannot be written.
#[derive(Clone, Copy, Debug)]
enum Nowhere {
    /// A pipe whose reader has gone, as after `| head`.
    NoReader,
    /// A disk without room.
    Full,
}

impl Nowhere {
    const ALL: [Nowhere; 2] = [Nowhere::NoReader, Nowhere::Full];

    fn open(self) -> Stdio {
        match self {
            Nowhere::NoReader => std::io::pipe().unwrap().1.into(),
            Nowhere::Full => File::options()
                .write(true)
                .open("/dev/full")
                .unwrap()
                .into(),
        }
    }
}

/// Runs the program and returns its exit code with what it wrote to stderr, where that was a pipe.
fn ends(dir: &Path, args: &[&str], stdout: Stdio, stderr: Stdio) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardtool"));
    command.current_dir(dir).args(args);
    let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

/// A command on a sound dataset, on one with rejected images or damage, or that cannot run; with its exit code.
const COMMANDS: [(i32, &[&str]); 9] = [
    (0, &["build", "photos", "--out", "made", "--force"]),
    (1, &["build", "odd", "--out", "made", "--force"]),
    (2, &["build", "nowhere"]),
    (0, &["synth", "shapes", "--images", "3", "--size", "32x32"]),
    (
        0,
        &[
            "extract",
            "photos.shards",
            "--sample",
            "1",
            "--out",
            "out.jpg",
        ],
    ),
    (0, &["inspect", "photos.shards"]),
    (0, &["inspect", "photos.shards", "--json"]),
    (0, &["verify", "photos.shards"]),
    (2, &["verify", "photos"]),
];

/// Tells if a command writes results to stdout, other than closing words.
fn has_results(args: &[&str], code: i32) -> bool {
    matches!(args[0], "inspect" | "verify") && code != 2
}

fn prepare(root: &Path) {
    write_classes(&root.join("photos"), 0..6);
    write_classes(&root.join("odd"), 0..3);
    write(root, "odd/a/text.jpg", b"no image");
    expect(0, root, &["build", "photos"]);
}

#[test]
fn a_message_that_cannot_be_written_changes_no_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    for nowhere in Nowhere::ALL {
        for verbosity in [&[][..], &["-v"], &["-q"]] {
            for (code, args) in COMMANDS {
                let args = [args, verbosity].concat();
                let (got, _) = ends(dir.path(), &args, Stdio::null(), nowhere.open());
                assert_eq!(got, Some(code), "{args:?} with stderr {nowhere:?}");
            }
        }
    }
}

#[test]
fn a_result_that_cannot_be_written_ends_the_program() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    for nowhere in Nowhere::ALL {
        for (code, args) in COMMANDS {
            let (got, stderr) = ends(dir.path(), args, nowhere.open(), Stdio::piped());
            let expected = match nowhere {
                _ if !has_results(args, code) => code,
                Nowhere::NoReader => 141,
                Nowhere::Full => 2,
            };
            assert_eq!(got, Some(expected), "{args:?} to {nowhere:?}: {stderr}");
            match expected {
                141 => assert_eq!(stderr, "", "{args:?}"),
                2 => assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}"),
                _ => {}
            }
            // Both at once, as on a full disk with both in a log file.
            let (got, _) = ends(dir.path(), args, nowhere.open(), nowhere.open());
            assert_eq!(got, Some(expected), "{args:?} with both {nowhere:?}");
        }
    }
}

#[test]
fn names_from_files_cannot_drive_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "photos/a\x1b[2J/b\n\x07.jpg", &jpeg(1));
    write(root, "photos/a\x1b[2J/bad\x1b[1m.jpg", b"no image");
    let shown = |(stdout, stderr): (String, String)| {
        let all = stdout + &stderr;
        assert!(!all.chars().any(|c| c.is_control() && c != '\n'), "{all:?}");
        all
    };
    let built = shown(expect(1, root, &["build", "photos"]));
    assert!(built.contains("bad\\u{1b}[1m.jpg: not an image"), "{built}");
    let extract = [
        "extract",
        "photos.shards",
        "--sample",
        "0",
        "--out",
        "o\x1b.jpg",
    ];
    let extracted = shown(expect(0, root, &extract));
    assert!(extracted.contains("b\\n\\u{7}.jpg"), "{extracted}");
    shown(expect(0, root, &["inspect", "photos.shards"]));
    shown(expect(2, root, &["inspect", "no\x1b[2Jwhere"]));
    shown(expect(
        2,
        root,
        &[
            "extract",
            "photos.shards",
            "--sample",
            "0",
            "--out",
            "x",
            "--split",
            "\x1b",
        ],
    ));
    let shard = root.join("photos.shards/train-00000.shard");
    let mut bytes = std::fs::read(&shard).unwrap();
    let dataset = shardtool::Dataset::open(&root.join("photos.shards")).unwrap();
    let payload = dataset.splits()[0].sample(0).entry().offset as usize;
    drop(dataset);
    bytes[payload] ^= 1;
    std::fs::write(&shard, &bytes).unwrap();
    let verified = shown(expect(1, root, &["verify", "photos.shards"]));
    assert!(
        verified.contains("a\\u{1b}[2J/b\\n\\u{7}.jpg"),
        "{verified}"
    );
}
