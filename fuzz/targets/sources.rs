//! Everything that images are read from: archives, tables, lists, labels. No bytes make a reader panic or allocate
//! without limit, and what is listed without a fault is as long as the listing says, if it can be read.

#![no_main]

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use fuzz::{Input, end_at_our_panics, folder};
use libfuzzer_sys::{Corpus, fuzz_target};
use shardtool::source::{Layout, Options, Request, Source, open};

/// Most files of a source that are read.
const MOST_FILES: usize = 64;

thread_local! {
    static FOLDER: PathBuf = prepare().expect("room for small files");
}

fuzz_target!(
    init: end_at_our_panics(),
    |bytes: &[u8]| -> Corpus {
        let mut input = Input(bytes);
        let kind = input.byte();
        let options = Options {
            layout: [Layout::Auto, Layout::Classes, Layout::Splits, Layout::Flat][usize::from(input.byte() % 4)],
            ..Options::default()
        };
        // A table's sizes are about right, as finding out would mean reading all.
        let is_exact = !input.0.starts_with(b"PAR1");
        let opened = FOLDER.with(|folder| request(kind, input, folder));
        let Some(request) = opened else {
            return Corpus::Reject;
        };
        if let Ok(source) = open(&Request { options, ..request }) {
            read_all(&source, is_exact);
        }
        Corpus::Keep
    }
);

/// Makes the folders that are the same for all inputs.
fn prepare() -> std::io::Result<PathBuf> {
    let root = folder("sources");
    for path in [
        "images/a/x.jpg",
        "images/b/y.jpg",
        "val/val/ILSVRC2012_val_00000001.JPEG",
        "mds/none",
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("it is in one"))?;
        fs::write(path, b"\xff\xd8\xff some image")?;
    }
    Ok(root)
}

/// Lays an input out as files, and says how to open them. Checksums are made to fit, as no fuzzer guesses one.
fn request(kind: u8, mut input: Input<'_>, folder: &Path) -> Option<Request> {
    let file = folder.join("train");
    let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).expect("room for an input");
    let mut request = Request::default();
    match kind {
        b'f' => write(&file, input.0),
        b't' => write(&file, &tar(input.0)),
        b'g' => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&tar(input.0)).expect("memory into memory");
            write(&file, &packed.finish().expect("memory into memory"));
        }
        b'r' => write(&file, &records(&mut input)),
        b'm' => {
            let (is_packed, length) = (input.byte() % 2 == 1, usize::from(input.number()));
            let (index, shard) = input.0.split_at(length.min(input.0.len()));
            let folder = folder.join("mds");
            let (plain, packed) = (folder.join("x.mds"), folder.join("x.mds.zstd"));
            let _ = fs::remove_file(if is_packed { &plain } else { &packed });
            if is_packed {
                write(
                    &packed,
                    &zstd::bulk::compress(shard, 1).expect("memory into memory"),
                );
            } else {
                write(&plain, shard);
            }
            write(&folder.join("index.json"), index);
            request.sources.push(folder);
            return Some(request);
        }
        b'l' => {
            let list = folder.join("images/list");
            write(&list, input.0);
            request.lists.push(list);
            return Some(request);
        }
        b'c' => {
            let images = folder.join("images");
            write(&images.join("labels.csv"), input.0);
            request.sources.push(images);
            return Some(request);
        }
        b'v' | b'k' => {
            let labels = folder.join("classes");
            let kit = (kind == b'k').then(|| tar(input.0));
            write(&labels, kit.as_deref().unwrap_or(input.0));
            request.val_labels = Some(labels);
            request.sources.push(folder.join("val"));
            return Some(request);
        }
        _ => return None,
    }
    request.sources.push(file);
    Some(request)
}

/// Gives all that looks like a header of a tar archive its checksum.
fn tar(bytes: &[u8]) -> Vec<u8> {
    let mut archive = bytes.to_vec();
    for block in archive.as_chunks_mut::<512>().0 {
        if block[257..].starts_with(b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    archive
}

/// Makes records of messages, each of which has its length before it.
fn records(input: &mut Input<'_>) -> Vec<u8> {
    let checksum = |bytes: &[u8]| {
        let masked = crc32c::crc32c(bytes)
            .rotate_right(15)
            .wrapping_add(0xa282_ead8);
        masked.to_le_bytes()
    };
    let mut records = Vec::new();
    while !input.0.is_empty() {
        let length = usize::from(input.number()).min(input.0.len());
        let (message, rest) = input.0.split_at(length);
        input.0 = rest;
        let length = (length as u64).to_le_bytes();
        for part in [&length[..], &checksum(&length), message, &checksum(message)] {
            records.extend(part);
        }
    }
    records
}

/// Reads what a source lists.
fn read_all(source: &Source, is_exact: bool) {
    let listing = source.listing();
    let mut paths: Vec<&str> = listing.files().map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    assert!(
        paths.windows(2).all(|pair| pair[0] != pair[1]),
        "two files have one path"
    );
    let columns = listing.labels.columns();
    let names: HashSet<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let are_good = names.iter().all(|name| (1..=255).contains(&name.len()));
    assert!(
        are_good && names.len() == columns.len() && names.len() <= 256,
        "no columns for a shard: {names:?}"
    );
    for file in listing.files().take(MOST_FILES) {
        assert!(
            file.class
                .is_none_or(|class| (class as usize) < listing.classes.len())
        );
        assert_eq!(listing.labels.of(file).len(), columns.len());
        let head = source.head(file, 10);
        let Ok(bytes) = source.read(file) else {
            continue;
        };
        if file.fault.is_none() {
            assert_eq!(
                head.expect("all of it can be read"),
                bytes[..bytes.len().min(10)]
            );
            assert!(
                !is_exact || bytes.len() as u64 == file.size,
                "{}",
                file.path
            );
        }
    }
}
