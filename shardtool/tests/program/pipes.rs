//! Archives on standard input: through a pipe, which comes once, and as a file that a shell has opened.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::*;

/// A tar archive of two classes.
fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for i in 0..12 {
        let bytes = jpeg(i);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        let path = format!("photos/{}/{i:03}.jpg", ["b", "a"][i as usize % 2]);
        archive.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// The same archive with other pixels, of equal sizes.
fn edited(archive: &[u8]) -> Vec<u8> {
    let mut edited = archive.to_vec();
    let at = edited.windows(2).rposition(|pair| pair == [0xff, 0xd9]);
    edited[at.expect("the end of a JPEG") - 5] ^= 1;
    edited
}

/// Builds from standard input.
fn build(root: &Path, out: &str, stdin: Stdio, bytes: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardtool"));
    command.current_dir(root).args(["build", "-", "--out", out]);
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(bytes).unwrap();
    }
    child.wait_with_output().unwrap()
}

/// The shards of a dataset.
fn shards(root: &Path, out: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = files(&root.join(out));
    files.retain(|(name, _)| name.ends_with(".shard"));
    assert!(!files.is_empty());
    files
}

#[test]
fn a_pipe_gives_the_shards_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let bytes = archive();
    write(root, "x.tar", &bytes);
    expect(0, root, &["build", "x.tar", "--out", "file"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    let gzip = gzip.finish().unwrap();
    write(root, "x.tar.gz", &gzip);

    let redirected = |name: &str| Stdio::from(File::open(root.join(name)).unwrap());
    for (out, stdin, bytes) in [
        ("pipe", Stdio::piped(), &bytes[..]),
        ("pipe-gz", Stdio::piped(), &gzip[..]),
        ("redirected", redirected("x.tar"), &[]),
        ("redirected-gz", redirected("x.tar.gz"), &[]),
    ] {
        let output = build(root, out, stdin, bytes);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{out}: {said}");
        assert_eq!(shards(root, out), shards(root, "file"), "{out}");
        // A file is read where it lies.
        assert_eq!(said.contains("room"), out != "redirected", "{out}: {said}");
    }
    let mut left: Vec<String> = files_in(root);
    left.retain(|name| !name.starts_with('x'));
    assert_eq!(
        left,
        ["file", "pipe", "pipe-gz", "redirected", "redirected-gz"]
    );
}

/// Names of all that is in a directory, sorted.
fn files_in(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn up_to_date_is_what_has_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let bytes = archive();
    let other = edited(&bytes);
    let again = |bytes: &[u8]| {
        let output = build(root, "out", Stdio::piped(), bytes);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    assert_eq!(again(&bytes).0, Some(0));
    let (code, said) = again(&bytes);
    assert!(code == Some(0) && said.contains("up to date"), "{said}");
    let (code, said) = again(&other);
    assert!(code == Some(2) && said.contains("--force"), "{said}");

    // A file has a date.
    write(root, "x.tar", &bytes);
    let redirected = || {
        let stdin = File::open(root.join("x.tar")).unwrap();
        let output = build(root, "file", Stdio::from(stdin), &[]);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(redirected().0, Some(0));
    assert_eq!(redirected().0, Some(0));
    write(root, "x.tar", &other);
    let (code, said) = redirected();
    assert!(code == Some(2) && said.contains("--force"), "{said}");
}

#[test]
fn a_pipe_that_ends_too_early_or_finds_no_room_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let bytes = archive();
    let cut = build(root, "cut", Stdio::piped(), &bytes[..5000]);
    assert_eq!(cut.status.code(), Some(2));
    assert!(!root.join("cut").exists());

    // Files may not grow beyond a limit, as on a full disk.
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_shardtool");
    let line = format!("trap '' XFSZ; ulimit -f 8; cat x.tar | '{program}' build - --out full");
    write(root, "x.tar", &bytes);
    let full = command
        .current_dir(root)
        .args(["-c", &line])
        .output()
        .unwrap();
    let said = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(2), "{said}");
    assert!(
        said.contains("keep what comes through standard input"),
        "{said}"
    );
    assert!(!root.join("full").exists());
}
