//! The small checkpoint that the official code wrote (`tests/official`), read as it is, damaged and forged.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use serde_json::Value as Json;

use super::archive::{Archive, Elements};
use super::checkpoint::Checkpoint;
use super::pickle::{Dtype, Tree};
use super::write::{Key, Node, Zip, archive, pickle};
use crate::weights::Mapped;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official");
    std::fs::read(folder.join(name)).unwrap()
}

/// What reading the file says is wrong with it.
fn fault(file: &[u8]) -> String {
    let read = Archive::read(file, true).and_then(|archive| Checkpoint::read(&archive).map(drop));
    read.expect_err("a file with a fault").to_string()
}

/// The same of a pickle alone, without an archive.
fn pickle_fault(program: &[u8]) -> String {
    let bytes = [b"\x80\x02", program].concat();
    Tree::read(&bytes, 0)
        .expect_err("a pickle with a fault")
        .to_string()
}

/// An archive of this pickle and these storages.
fn pack(program: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut zip = Zip::new(&mut file);
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
    let read = Checkpoint::read(&archive).unwrap();
    assert_eq!(
        (read.epoch, read.batch_size, read.world_size),
        (Some(2), Some(2), Some(1))
    );
    assert_eq!(read.loss, expected["loss"].as_f64());
    assert!(read.unknown.is_empty(), "{:?}", read.unknown);

    let found = |elements: &Elements<'_>| {
        serde_json::json!([elements.shape, crc32fast::hash(&elements.bytes)])
    };
    let mut sums = BTreeMap::new();
    let networks = [
        ("encoder", &read.encoder),
        ("predictor", &read.predictor),
        ("target_encoder", &read.target_encoder),
    ];
    for (network, tensors) in networks {
        for (name, elements) in tensors {
            assert_eq!(elements.dtype, Dtype::F32);
            sums.insert(format!("{network}.{name}"), found(elements));
        }
    }
    let tensors = expected["tensors"].as_object().unwrap();
    for (name, sum) in &sums {
        assert_eq!(tensors.get(name), Some(sum), "{name}");
    }
    let optimizer = read.optimizer.unwrap();
    let trained = tensors
        .keys()
        .filter(|name| name.starts_with("exp_avg."))
        .count();
    assert_eq!(optimizer.moments.len(), trained);
    assert!(
        optimizer
            .moments
            .values()
            .all(|moments| moments.step == 6.0)
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
fn nothing_in_a_hostile_pickle_is_executed() {
    for (program, cause) in [
        (
            &b"cos\nsystem\n(X\x02\x00\x00\x00lstR."[..],
            "byte 2: the pickle names `os.system`",
        ),
        (b"cposix\nsystem\n.", "names `posix.system`"),
        (b"c__builtin__\neval\n.", "names `__builtin__.eval`"),
        (
            b"ctorch._utils\n_rebuild_tensor\n.",
            "names `torch._utils._rebuild_tensor`",
        ),
        (
            b"(X\x02\x00\x00\x00lsios\nsystem\n.",
            "byte 10: the pickle instruction 0x69 (INST)",
        ),
        (b"(cos\nsystem\nX\x02\x00\x00\x00lso.", "names `os.system`"),
        (
            b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.",
            "0x93 (STACK_GLOBAL)",
        ),
        (b"ccollections\nOrderedDict\n)\x81.", "0x81 (NEWOBJ)"),
        (b"\x82\x01.", "0x82 (EXT)"),
        (b"Pid\n.", "0x50 (PERSID)"),
        (b"\x95\x00\x00\x00\x00\x00\x00\x00\x00.", "0x95 (FRAME)"),
    ] {
        let message = pickle_fault(program);
        assert!(message.contains(cause), "{message}");
    }
    // The name ends a terminal's line, and its escape sequences stay text.
    let message = pickle_fault(b"cos\n\x1b[2Jsystem\n.");
    assert!(message.contains("`os.\\u{1b}[2Jsystem`"), "{message}");
}

#[test]
fn a_pickle_that_is_no_checkpoint_is_refused() {
    for (program, cause) in [
        (&b"N"[..], "breaks off"),
        (b".", "unfinished"),
        (b"(.", "unfinished"),
        (b"NN.", "unfinished"),
        (b"N.N", "ends before its record"),
        (b"(N0.", "0x30 (POP)"),
        (b"(\x85.", "empty stack"),
        (b"t.", "a mark that was never set"),
        (b"h\x00.", "recalls value 0"),
        (b"Na.", "empty stack"),
        (b"NNa.", "appends to None"),
        (b"NNNs.", "sets items of None"),
        (b"}(Nu.", "a key without a value"),
        (b"}N}b.", "attributes of None"),
        (b"}}X\x01\x00\x00\x00xNsb.", "attributes other than"),
        (b"NNQ.", "no storage's"),
        (b"N)R.", "a call of None"),
        (
            b"ccollections\nOrderedDict\nN\x85R.",
            "a call of a name with 1 arguments",
        ),
        (b"ccollections\nOrderedDict\nNR.", "without a tuple"),
        (b"X\xff\xff\xff\xffa.", "breaks off"),
        (b"X\x01\x00\x00\x00\xff.", "not UTF-8"),
        (b"\x8a\x09123456789.", "integer of 9 bytes"),
        (b"cos", "a name that does not end"),
    ] {
        let message = pickle_fault(program);
        assert!(message.contains(cause), "{program:?}: {message}");
    }
    assert!(
        Tree::read(b"\x80\x04N.", 7)
            .unwrap_err()
            .to_string()
            .contains("byte 7: not a pickle of protocol 2")
    );
}

#[test]
fn bombs_go_out() {
    // A list that contains itself.
    let message = pickle_fault(b"]q\x00h\x00a.");
    assert!(message.contains("a list that contains itself"), "{message}");
    // Lists in lists in lists.
    let message = pickle_fault(&[&[b']'; 100_000][..], &[b'a'; 99_999], b"."].concat());
    assert!(
        message.contains("more than 32 containers inside each other"),
        "{message}"
    );
    // Each list holds the one before ten times: 10^30 elements, were they visited one by one.
    let mut doubling = b"]q\x00".to_vec();
    for level in 0..30u8 {
        doubling.extend([b']', b'q', level + 1, b'(']);
        doubling.extend([b'h', level].repeat(10));
        doubling.push(b'e');
    }
    doubling.push(b'.');
    // Thirty times `list in list` ends as an unfinished stack, not as a hang.
    assert!(pickle_fault(&doubling).contains("unfinished"));
    // More values than any checkpoint has.
    let message = pickle_fault(&[b'N'; 2_000_000]);
    assert!(message.contains("more than 1048576 values"), "{message}");
    let message = pickle_fault(&[&b"Nq\x00"[..], &b"h\x00".repeat(2_000_000)].concat());
    assert!(message.contains("more than 1048576 values"), "{message}");
    let message = pickle_fault(&vec![b'N'; 17 << 20]);
    assert!(message.contains("no checkpoint needs more"), "{message}");
}

/// A checkpoint whose encoder has one tensor, described by the pickle of its arguments after the storage.
fn one_tensor(kind: &str, length: &[u8], arguments: &[u8], storage: &[u8]) -> Vec<u8> {
    let mut program = b"\x80\x02}(X\x07\x00\x00\x00encoder}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    program.extend(b"X\x07\x00\x00\x00storage");
    program.extend(format!("ctorch\n{kind}Storage\n").bytes());
    program.extend(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu");
    program.extend(length);
    program.extend(b"tQ");
    program.extend(arguments);
    program.extend(b"\x89ccollections\nOrderedDict\n)RtRsu.");
    pack(&program, &[storage])
}

/// Its elements.
fn read_one(file: &[u8]) -> Result<Vec<u8>, String> {
    let archive = Archive::read(file, true).map_err(|fault| fault.to_string())?;
    let tensor = archive.root().get("encoder").unwrap().get("w").unwrap();
    let elements = archive.elements(tensor.tensor().unwrap());
    elements
        .map(|elements| elements.bytes.into_owned())
        .map_err(|fault| fault.to_string())
}

#[test]
fn views_of_a_storage_are_put_in_order() {
    let storage: Vec<u8> = (0..6u8).flat_map(|n| [n, 0]).collect();
    // Six halves as 3 x 2, transposed to 2 x 3: rows 0 2 4 and 1 3 5.
    let file = one_tensor(
        "Half",
        b"K\x06",
        b"K\x00K\x02K\x03\x86K\x01K\x02\x86",
        &storage,
    );
    assert_eq!(
        read_one(&file).unwrap(),
        [0, 0, 2, 0, 4, 0, 1, 0, 3, 0, 5, 0]
    );
    // From the second on, every other: 1 3 5.
    let file = one_tensor("Half", b"K\x06", b"K\x01K\x03\x85K\x02\x85", &storage);
    assert_eq!(read_one(&file).unwrap(), [1, 0, 3, 0, 5, 0]);
    // The middle two.
    let file = one_tensor("Half", b"K\x06", b"K\x02K\x02\x85K\x01\x85", &storage);
    assert_eq!(read_one(&file).unwrap(), [2, 0, 3, 0]);
    // One number without dimensions, and none at all.
    let file = one_tensor("Half", b"K\x06", b"K\x05))", &storage);
    assert_eq!(read_one(&file).unwrap(), [5, 0]);
    let file = one_tensor("Half", b"K\x06", b"K\x06K\x00\x85K\x01\x85", &storage);
    assert_eq!(read_one(&file).unwrap(), [0u8; 0]);
}

#[test]
fn a_tensor_outside_its_storage_is_refused() {
    let storage = [0; 24];
    for (length, arguments, cause) in [
        (
            &b"K\x06"[..],
            &b"K\x00K\x07\x85K\x01\x85"[..],
            "does not hold",
        ),
        (b"K\x06", b"K\x01K\x06\x85K\x01\x85", "does not hold"),
        (b"K\x06", b"K\x00K\x03\x85K\x03\x85", "does not hold"),
        // Expanded: six million elements out of one.
        (
            b"K\x06",
            b"K\x00J\x00\x00\x10\x00\x85K\x00\x85",
            "does not hold",
        ),
        (
            b"K\x06",
            b"J\xff\xff\xff\xffK\x01\x85K\x01\x85",
            "offset -1",
        ),
        (
            b"K\x06",
            b"K\x00J\xff\xff\xff\xff\x85K\x01\x85",
            "no int of 0 or more",
        ),
        (
            b"K\x06",
            b"K\x00K\x01\x85K\x01K\x01\x86",
            "1 lengths and 2 strides",
        ),
        // Products and sums beyond 64 bits.
        (
            b"K\x06",
            b"K\x00\x8a\x05\x00\x00\x00\x00\x01\x8a\x05\x00\x00\x00\x00\x01\x86K\x01K\x01\x86",
            "does not hold",
        ),
        (
            b"K\x06",
            b"K\x00K\x02\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85",
            "does not hold",
        ),
        (
            b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"K\x00K\x01\x85K\x01\x85",
            "does not hold",
        ),
        (
            b"K\x05",
            b"K\x00K\x05\x85K\x01\x85",
            "has 24 bytes, expected 5 elements of 4",
        ),
        (
            b"K\x07",
            b"K\x00K\x05\x85K\x01\x85",
            "has 24 bytes, expected 7 elements of 4",
        ),
    ] {
        let file = one_tensor("Float", length, arguments, &storage);
        let message = read_one(&file).unwrap_err();
        assert!(message.contains(cause), "{arguments:?}: {message}");
    }
    let file = one_tensor("Int", b"K\x06", b"K\x00K\x06\x85K\x01\x85", &storage);
    assert!(read_one(&file).unwrap_err().contains("`torch.IntStorage`"));
}

#[test]
fn sharing_a_storage_does_not_multiply_the_file() {
    let storages = [&[0u8; 4000][..]];
    let tensor = Node::Tensor {
        storage: 0,
        dtype: Dtype::F32,
        shape: vec![1000],
    };
    let dict = |count: usize| {
        let entries = (0..count).map(|i| (Key::Text(format!("w{i}")), tensor.clone()));
        Node::Dict(
            ["encoder", "predictor", "target_encoder"]
                .map(|key| (key.into(), Node::Ordered(entries.clone().collect())))
                .into(),
        )
    };
    let file = pack(&pickle(&dict(1)), &storages);
    assert!(Checkpoint::read(&Archive::read(&file, true).unwrap()).is_ok());
    assert!(
        fault(&pack(&pickle(&dict(100)), &storages)).contains("4 times as many bytes as the file")
    );
}

#[test]
fn big_endian_numbers_are_turned_round() {
    let mut file = Vec::new();
    let mut zip = Zip::new(&mut file);
    let tensor = Node::Tensor {
        storage: 0,
        dtype: Dtype::F32,
        shape: vec![2],
    };
    zip.add("x/data.pkl", &pickle(&tensor)).unwrap();
    zip.add("x/byteorder", b"big").unwrap();
    zip.add("x/data/0", &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    zip.finish().unwrap();
    let archive = Archive::read(&file, true).unwrap();
    let elements = archive.elements(archive.root().tensor().unwrap()).unwrap();
    assert_eq!(elements.bytes[..], [4, 3, 2, 1, 8, 7, 6, 5]);
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
    archive(
        Zip::new(&mut file),
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
    archive(Zip::after(&mut file, hole), "x", &tensor, storages).unwrap();
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
    let mut zip = Zip::new(&mut file);
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

/// A generator of pseudo-random numbers (splitmix64).
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
    let (mut read, mut refused) = (0, 0);
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
        match Archive::read(&file, false).and_then(|archive| Checkpoint::read(&archive).map(drop)) {
            Ok(()) => read += 1,
            Err(fault) => {
                assert!(!fault.cause.is_empty());
                refused += 1;
            }
        }
    }
    assert!(
        read > 100 && refused > 1000,
        "{read} read, {refused} refused"
    );
}
