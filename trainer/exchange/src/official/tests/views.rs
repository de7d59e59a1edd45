//! Tensors as views of their storages.

use super::super::Archive;
use super::super::pickle::{self, Dtype, Key, Node};
use super::super::zip::ZipWriter;
use super::{fault, pack, read};

/// Makes a checkpoint whose encoder has one tensor, described by the pickle of its arguments after the storage.
fn one_tensor(kind: &str, length: &[u8], arguments: &[u8], storage: &[u8]) -> Vec<u8> {
    let mut program = b"\x80\x02}(X\x07\x00\x00\x00encoder}X\x01\x00\x00\x00w".to_vec();
    program.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    program.extend(b"X\x07\x00\x00\x00storage");
    program.extend(format!("ctorch\n{kind}Storage\n").bytes());
    program.extend(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu");
    program.extend(length);
    program.extend(b"tQ");
    program.extend(arguments);
    program.extend(b"\x89ccollections\nOrderedDict\n)RtRsu.");
    pack(&program, &[storage])
}

/// Returns its elements.
fn read_one(file: &[u8]) -> Result<Vec<u8>, String> {
    let archive = Archive::read(file, true).map_err(|fault| fault.to_string())?;
    let tensor = archive.root().get("encoder").unwrap().get("w").unwrap();
    let elements = tensor.tensor().and_then(|tensor| archive.elements(tensor));
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
        let entries = (0..count).map(|i| (Key::Text(format!("blocks.{i}")), tensor.clone()));
        Node::Dict(
            ["encoder", "predictor", "target_encoder"]
                .map(|key| (key.into(), Node::Ordered(entries.clone().collect())))
                .into(),
        )
    };
    let file = pack(&pickle::write(&dict(1)), &storages);
    assert!(read(&file, true).is_ok());
    assert!(
        fault(&pack(&pickle::write(&dict(100)), &storages))
            .contains("4 times as many bytes as the file")
    );
}

#[test]
fn big_endian_numbers_are_turned_round() {
    let mut file = Vec::new();
    let mut zip = ZipWriter::new(&mut file);
    let tensor = Node::Tensor {
        storage: 0,
        dtype: Dtype::F32,
        shape: vec![2],
    };
    zip.add("x/data.pkl", &pickle::write(&tensor)).unwrap();
    zip.add("x/byteorder", b"big").unwrap();
    zip.add("x/data/0", &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    zip.finish().unwrap();
    let archive = Archive::read(&file, true).unwrap();
    let elements = archive.elements(archive.root().tensor().unwrap()).unwrap();
    assert_eq!(elements.bytes[..], [4, 3, 2, 1, 8, 7, 6, 5]);
}
