//! The small checkpoint that the official code wrote (`tests/official`), read as it is and damaged.

mod foreign;
mod hostile;
mod views;

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use serde_json::Value as Json;

use super::archive::{self, Archive, Elements};
use super::checkpoint::Checkpoint;
use super::pickle::{Dtype, Key, Node};
use super::zip::ZipWriter;
use crate::Error;
use crate::weights::{Data, Mapped};

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official");
    std::fs::read(folder.join(name)).unwrap()
}

/// Reads all of a checkpoint, its optimiser's state included.
fn read(file: &[u8], checked: bool) -> Result<(), Error> {
    let path = Path::new("x.pth.tar");
    let refuse = |fault| Error::official(path, fault);
    let archive = Archive::read(file, checked).map_err(refuse)?;
    let read = Checkpoint::read(path, &archive)?;
    read.epoch.map_err(refuse)?;
    Checkpoint::optimizer(&archive).map_err(refuse).map(drop)
}

/// Returns what reading the file says is wrong with it.
fn fault(file: &[u8]) -> String {
    read(file, true)
        .expect_err("a file with a fault")
        .to_string()
}

/// Makes an archive of this pickle and these storages.
fn pack(program: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut zip = ZipWriter::new(&mut file);
    zip.add("x/data.pkl", program).unwrap();
    for (key, storage) in storages.iter().enumerate() {
        zip.add(&format!("x/data/{key}"), storage).unwrap();
    }
    zip.finish().unwrap();
    file
}

#[test]
fn every_tensor_of_the_official_file_is_read_bit_by_bit() {
    let file = fixture("tiny.pth.tar");
    let expected: Json = serde_json::from_slice(&fixture("tiny.json")).unwrap();
    let archive = Archive::read(&file, true).unwrap();
    let read = Checkpoint::read(Path::new("tiny.pth.tar"), &archive).unwrap();
    assert_eq!(
        (&read.epoch, read.batch_size, read.world_size),
        (&Ok(Some(2)), Some(2), Some(1))
    );
    assert_eq!(read.loss, expected["loss"].as_f64());
    assert_eq!(read.networks.left.count, 0);
    assert_eq!(archive.foreign().count(), 0);

    let found =
        |data: &Data<'_>| serde_json::json!([data.shape(), crc32fast::hash(&data.to_bytes())]);
    let moment = |elements: &Elements<'_>| elements.dtype == Dtype::F32;
    let mut sums = BTreeMap::new();
    let networks = [
        ("encoder", &read.networks.encoder),
        ("predictor", &read.networks.predictor),
        ("target_encoder", &read.networks.target_encoder),
    ];
    for (network, tensors) in networks {
        for (name, data) in tensors {
            sums.insert(format!("{network}.{name}"), found(data));
        }
    }
    let tensors = expected["tensors"].as_object().unwrap();
    for (name, sum) in &sums {
        assert_eq!(tensors.get(name), Some(sum), "{name}");
    }
    let optimizer = Checkpoint::optimizer(&archive).unwrap().unwrap();
    let trained = tensors
        .keys()
        .filter(|name| name.starts_with("exp_avg."))
        .count();
    assert_eq!(optimizer.moments.len(), trained);
    assert!(
        optimizer
            .moments
            .values()
            .all(|moments| moments.step == 6.0 && moment(&moments.exp_avg))
    );
    let groups: Vec<u64> = optimizer
        .groups
        .iter()
        .map(|group| group.parameters)
        .collect();
    assert_eq!(
        groups.iter().sum::<u64>(),
        trained as u64 + 2,
        "the position embeddings have none"
    );
    // Which moments belong to which name is tested with the import.
    assert_eq!(sums.len() + 2 * trained + 1, tensors.len());
}

#[test]
fn what_is_written_is_read_back() {
    let tensor = Node::Tensor {
        storage: 1,
        dtype: Dtype::F32,
        shape: vec![2, 1],
    };
    let root = Node::Dict(vec![
        ("none".into(), Node::None),
        (
            "numbers".into(),
            Node::List([0, 255, 256, -1, 1 << 40, i64::MIN].map(Node::Int).into()),
        ),
        ("float".into(), Node::Float(-0.1)),
        (
            Key::Int(7),
            Node::Tuple(vec![Node::Bool(true), Node::Bool(false)]),
        ),
        ("weights".into(), Node::Ordered(vec![("w".into(), tensor)])),
    ]);
    let storages: [&[u8]; 2] = [b"", b"abcdefgh"];
    let mut file = Vec::new();
    archive::write(
        ZipWriter::new(&mut file),
        "anything",
        &root,
        storages.iter().map(|&bytes| bytes.into()),
    )
    .unwrap();
    let read = Archive::read(&file, true).unwrap();
    let numbers = read.root().get("numbers").unwrap().elements().unwrap();
    let numbers: Vec<_> = numbers.map(|item| format!("{:?}", item.value())).collect();
    assert_eq!(
        numbers,
        [
            "Int(0)",
            "Int(255)",
            "Int(256)",
            "Int(-1)",
            "Int(1099511627776)",
            "Int(-9223372036854775808)"
        ]
    );
    assert_eq!(read.root().get("float").unwrap().number(), Ok(-0.1));
    let weights = read.root().get("weights").unwrap().get("w").unwrap();
    assert_eq!(
        read.elements(weights.tensor().unwrap()).unwrap().bytes[..],
        *b"abcdefgh"
    );
}

#[test]
fn offsets_beyond_4_gib_are_written_and_read() {
    // A file of 5 GiB that takes a few kilobytes of the disk, for its beginning is a hole.
    let hole = 5 << 30;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.seek(SeekFrom::Start(hole)).unwrap();
    let tensor = Node::Tensor {
        storage: 0,
        dtype: Dtype::F32,
        shape: vec![2],
    };
    let storages: [&[u8]; 1] = [b"abcdefgh"];
    let storages = storages.iter().map(|&bytes| bytes.into());
    archive::write(ZipWriter::after(&mut file, hole), "x", &tensor, storages).unwrap();
    let mapped = Mapped::open(file.path()).unwrap();
    let read = Archive::read(mapped.bytes(), true).unwrap();
    let elements = read.elements(read.root().tensor().unwrap()).unwrap();
    assert_eq!(elements.bytes[..], *b"abcdefgh");
    let place = elements.bytes.as_ptr() as usize - mapped.bytes().as_ptr() as usize;
    assert!(place as u64 > hole && place.is_multiple_of(64), "{place}");
}

#[test]
fn other_files_are_told_apart() {
    let official = fixture("tiny.pth.tar");
    assert!(fault(b"").contains("without its directory"));
    assert!(fault(&official[..official.len() - 1]).contains("copied only in part"));
    assert!(fault(&official[..official.len() / 2]).contains("copied only in part"));
    assert!(fault(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").contains("before PyTorch 1.6"));
    let mut file = Vec::new();
    let mut zip = ZipWriter::new(&mut file);
    zip.add("readme.txt", b"hello").unwrap();
    zip.finish().unwrap();
    assert!(fault(&file).contains("not one of PyTorch's"));
    // A bit of a weight.
    let mut damaged = official.clone();
    let entries = super::zip::read(&official).unwrap();
    let weights = entries
        .iter()
        .find(|entry| entry.name.ends_with("data/1"))
        .unwrap();
    damaged[weights.offset as usize + 100] ^= 1;
    assert!(
        fault(&damaged).contains("is damaged: its checksum is"),
        "{}",
        fault(&damaged)
    );
}

/// Returns a generator of pseudo-random numbers (splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn damaged_files_are_read_or_refused_but_nothing_else() {
    let official = fixture("tiny.pth.tar");
    let pickle = official
        .windows(2)
        .position(|pair| pair == b"\x80\x02")
        .unwrap();
    let tail = official.len() - 20_000;
    let mut state = 1;
    let (mut whole, mut refused) = (0, 0);
    for round in 0..6000 {
        let mut file = official.clone();
        // Half in the pickle, a third in the zip directory, the rest anywhere.
        let (start, length) = match round % 6 {
            0..3 => (pickle, 24_000),
            3..5 => (tail, 20_000),
            _ => (0, official.len()),
        };
        for _ in 0..1 + random(&mut state) % 4 {
            let at = start + random(&mut state) as usize % length;
            match random(&mut state) % 4 {
                0 => file[at] = random(&mut state) as u8,
                1 => file[at] ^= 1 << (random(&mut state) % 8),
                2 => file[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
                _ => {
                    let from = start + random(&mut state) as usize % (length - 16);
                    file.copy_within(from..from + 16, at.min(official.len() - 16));
                }
            }
        }
        if random(&mut state).is_multiple_of(16) {
            file.truncate(random(&mut state) as usize % official.len());
        }
        // Without checksums, so that damage reaches the code behind them.
        match read(&file, false) {
            Ok(()) => whole += 1,
            Err(fault) => {
                assert!(!fault.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!(
        whole > 100 && refused > 1000,
        "{whole} read, {refused} refused"
    );
}
