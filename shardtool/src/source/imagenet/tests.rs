use std::io::Write;

use ::tar::{Builder, Header};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Makes an element of a MATLAB file.
fn element(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Makes an element of at most 4 bytes.
fn small(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = (kind | (content.len() as u32) << 16).to_le_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(8, 0);
    bytes
}

fn array(class: u8, sizes: [u32; 2], name: &[u8], content: &[u8]) -> Vec<u8> {
    let flags = [class, 0, 0, 0, 0, 0, 0, 0];
    let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
    let parts = [
        element(6, &flags),
        element(5, &sizes),
        element(1, name),
        content.to_vec(),
    ];
    element(14, &parts.concat())
}

/// Makes a `meta.mat` in which classes have these numbers, ids and counts of children.
fn meta(synsets: &[(u16, &str, u8)], is_packed: bool) -> Vec<u8> {
    let mut names = Vec::new();
    for name in ["ILSVRC2012_ID", "WNID", "words", "num_children"] {
        let mut padded = name.as_bytes().to_vec();
        padded.resize(16, 0);
        names.extend(padded);
    }
    let mut content = [small(5, &16_u32.to_le_bytes()), element(1, &names)].concat();
    for (id, wnid, children) in synsets {
        let units: Vec<u8> = wnid.encode_utf16().flat_map(u16::to_le_bytes).collect();
        content.extend(array(6, [1, 1], b"", &small(4, &id.to_le_bytes())));
        content.extend(array(4, [1, 9], b"", &element(17, &units)));
        content.extend(array(4, [1, 2], b"", &small(16, b"hm")));
        content.extend(array(
            6,
            [1, 1],
            b"",
            &element(9, &f64::from(*children).to_le_bytes()),
        ));
    }
    let table = array(2, [synsets.len() as u32, 1], b"synsets", &content);
    let mut file = vec![b' '; 124];
    file.extend([0, 1, b'I', b'M']);
    file.extend(array(6, [1, 1], b"other", &small(2, &[1])));
    if is_packed {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&table).unwrap();
        let packed = encoder.finish().unwrap();
        file.extend(15_u32.to_le_bytes());
        file.extend((packed.len() as u32).to_le_bytes());
        file.extend(packed);
    } else {
        file.extend(table);
    }
    file
}

const SYNSETS: [(u16, &str, u8); 3] = [
    (2, "n00000001", 0),
    (1, "n00000002", 0),
    (3, "n00000003", 2),
];

fn devkit_bytes() -> Vec<u8> {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut archive = Builder::new(encoder);
    let truth = b"1\n2\n2\n".to_vec();
    for (path, bytes) in [
        ("kit/readme.txt", b"words".to_vec()),
        ("kit/data/ILSVRC2012_validation_ground_truth.txt", truth),
        ("kit/data/meta.mat", meta(&SYNSETS, true)),
    ] {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

fn classes(bytes: &[u8]) -> Result<HashMap<String, String>, Error> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("labels");
    std::fs::write(&path, bytes).unwrap();
    val_classes(&path)
}

fn check(bytes: &[u8], expected: [&str; 3]) {
    let classes = classes(bytes).unwrap();
    assert_eq!(classes.len(), 3);
    for (number, wnid) in (1..).zip(expected) {
        assert_eq!(classes[&stem(number)], wnid);
    }
}

#[test]
fn all_files_of_classes_say_the_same() {
    let expected = ["n00000002", "n00000001", "n00000001"];
    check(&devkit_bytes(), expected);
    check(b"n00000002\r\nn00000001\r\nn00000001\r\n", expected);
    check(
        b"ImageId,PredictionString\nILSVRC2012_val_00000003,n00000001 1 2 3 4 n00000001 5 6 7 8 \n\
          ILSVRC2012_val_00000001,n00000002 1 2 3 4 \nILSVRC2012_val_00000002,n00000001 1 2 3 4 \n",
        expected,
    );
    check(
        b"#!/bin/bash\nmkdir -p n00000001\nmv ILSVRC2012_val_00000001.JPEG n00000002/\n\
          mv ILSVRC2012_val_00000002.JPEG n00000001/\nmv -v val/ILSVRC2012_val_00000003.JPEG val/n00000001\n",
        expected,
    );
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    let error = |bytes: &[u8]| classes(bytes).unwrap_err().to_string();
    assert!(error(b"words\n").contains("no file of classes"));
    assert!(error(b"n00000001\nx\n").ends_with("line 2: \"x\" is no WordNet id"));
    let twice = b"mv ILSVRC2012_val_1.JPEG n00000002\nmv ILSVRC2012_val_1.JPEG n00000001\n";
    assert!(error(twice).contains("line 2: ILSVRC2012_val_1 is of class n00000001 and of class"));
    assert!(error(b"ImageId,PredictionString\na,\n").contains("line 2: no WordNet id"));
    let packed = devkit_bytes();
    for length in 0..packed.len() {
        assert!(classes(&packed[..length]).is_err());
    }
}

#[test]
fn tables_of_classes_are_read_packed_or_not() {
    let leaves: HashMap<u32, String> = SYNSETS[..2]
        .iter()
        .map(|(id, wnid, _)| ((*id).into(), (*wnid).to_owned()))
        .collect();
    for is_packed in [false, true] {
        let bytes = meta(&SYNSETS, is_packed);
        assert_eq!(matlab::synsets(&bytes).unwrap(), leaves);
        for length in 0..bytes.len() {
            let _ = matlab::synsets(&bytes[..length]);
            let mut flipped = bytes.clone();
            flipped[length] ^= 0xff;
            let _ = matlab::synsets(&flipped);
        }
    }
}

#[test]
fn names_tell_what_files_are() {
    assert!(is_flat_train(["n01440764_10026.JPEG"].into_iter()));
    assert!(!is_flat_train(
        ["n01440764_10026.JPEG", "a.jpg"].into_iter()
    ));
    assert!(!is_flat_train(
        ["n01440764/n01440764_10026.JPEG"].into_iter()
    ));
    assert!(!is_flat_train([].into_iter()));
    assert_eq!(
        split_of(["x/ILSVRC2012_val_00000001.JPEG"].into_iter()),
        Some("val")
    );
    assert_eq!(
        split_of(["ILSVRC2012_test_00000001.JPEG"].into_iter()),
        Some("test")
    );
    assert_eq!(split_of(["ILSVRC2012_val_1.JPEG"].into_iter()), None);
    assert_eq!(split_of([].into_iter()), None);
    let folder = TempDir::new().unwrap();
    assert_eq!(find_beside(folder.path()), None);
    let path = folder.path().join("valprep.sh");
    std::fs::write(&path, "").unwrap();
    assert_eq!(find_beside(folder.path()), Some(path));
}

proptest! {
    #[test]
    fn any_bytes_do(
        bytes in proptest::collection::vec(any::<u8>(), 0..2048),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let _ = classes(&bytes);
        let mut file = meta(&SYNSETS, false);
        let _ = matlab::synsets(&[&file[..128], &bytes].concat());
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = matlab::synsets(&file);
    }

    #[test]
    fn any_text_does(text in "(ImageId,P|n00000001|mv )?[a-z0-9, \"\n_/.]{0,200}") {
        let _ = classes(text.as_bytes());
    }
}
