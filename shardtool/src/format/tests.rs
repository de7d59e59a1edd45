//! Shards built by hand, byte for byte as `FORMAT.md` has them: one for each sentence that a shard
//! can violate. And whatever is written is read back.

use proptest::prelude::*;

use super::*;
use crate::{Error, Fault};

mod faults;

/// A shard with two samples, "abc" and "defgh", and the parts of it that a test may change.
struct Hand {
    header: Vec<u8>,
    payloads: Vec<u8>,
    /// Fixed columns, then label columns.
    index: Vec<u8>,
    /// The compressed index, if it shall not be that of `index`.
    frame: Option<Vec<u8>>,
    /// Bytes behind the index.
    tail: Vec<u8>,
    /// Header fields to overwrite before the header's checksum is taken.
    fields: Vec<(usize, Vec<u8>)>,
}

impl Hand {
    fn new() -> Hand {
        let u32s = |values: &[u32]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let u64s = |values: &[u64]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let index = [
            u64s(&[96, 99]),                               // offset at 0
            u64s(&[checksum(b"abc"), checksum(b"defgh")]), // checksum at 16
            u32s(&[3, 5]),                                 // length at 32
            u32s(&[10, 20]),                               // stored width at 40
            u32s(&[11, 21]),                               // stored height at 48
            u32s(&[30, 40]),                               // source width at 56
            u32s(&[31, 41]),                               // source height at 64
            u32s(&[7, u32::MAX]),                          // class at 72
            vec![0, 0, 0, 0],                              // flags at 80
            vec![1, 2],                                    // codec at 84
            vec![1, 6],                                    // orientation at 86
            // utf8 column "path" at 88, data at 100, text at 108
            vec![3, 4, 0, 0, 11, 0, 0, 0],
            b"path".to_vec(),
            u32s(&[1, 3]),
            "aé".as_bytes().to_vec(),
            // int64 column "n" at 111, data at 120
            vec![1, 1, 0, 0, 16, 0, 0, 0],
            b"n".to_vec(),
            u64s(&[5, i64::MIN as u64]),
        ];
        Hand {
            header: b"\x89IJSHARD\x01\0\0\0\0\0\0\0\x02\0\0\0\x02\0\0\0".to_vec(),
            payloads: b"abcdefgh".to_vec(),
            index: index.concat(),
            frame: None,
            tail: Vec::new(),
            fields: Vec::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let compressed = zstd::bulk::compress(&self.index, 1).unwrap();
        let frame = self.frame.clone().unwrap_or(compressed);
        let mut bytes = self.header.clone();
        bytes.extend_from_slice(&0u64.to_le_bytes()); // codec data length at 24
        bytes.extend_from_slice(&(96 + self.payloads.len() as u64).to_le_bytes()); // at 32
        bytes.extend_from_slice(&(frame.len() as u64).to_le_bytes()); // at 40
        bytes.extend_from_slice(&(self.index.len() as u64).to_le_bytes()); // at 48
        bytes.extend_from_slice(&checksum(&frame).to_le_bytes()); // at 56
        bytes.resize(88, 0);
        for (at, field) in &self.fields {
            bytes[*at..at + field.len()].copy_from_slice(field);
        }
        bytes.extend_from_slice(&checksum(&bytes).to_le_bytes());
        [bytes, self.payloads.clone(), frame, self.tail.clone()].concat()
    }
}

fn open(bytes: &[u8]) -> Result<Shard, Fault> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Shard::open(file.path()).map_err(|error| match error {
        Error::Shard { path, fault } => {
            assert_eq!(path, file.path());
            fault
        }
        other => panic!("{other}"),
    })
}

/// Returns the fault of the shard that `change` makes.
fn fault(change: impl FnOnce(&mut Hand)) -> Fault {
    let mut hand = Hand::new();
    change(&mut hand);
    open(&hand.bytes()).expect_err("the shard is faulty")
}

#[test]
fn a_sound_shard_opens() {
    let shard = open(&Hand::new().bytes()).unwrap();
    assert_eq!(shard.len(), 2);
    let expected = Entry {
        offset: 99,
        checksum: checksum(b"defgh"),
        length: 5,
        stored_width: 20,
        stored_height: 21,
        source_width: 40,
        source_height: 41,
        class: None,
        codec: Codec::Raw,
        orientation: 6,
    };
    assert_eq!(*shard.entry(1), expected);
    assert_eq!(shard.entry(0).class, Some(7));
    assert_eq!(shard.payload(0).unwrap(), b"abc");
    assert_eq!(shard.payload(1).unwrap(), b"defgh");
    assert_eq!(shard.label(1, "path"), Some(Label::Text("é")));
    assert_eq!(shard.label(0, "n"), Some(Label::Int(5)));
    assert_eq!(shard.label(1, "n"), None);
    assert_eq!(shard.label(0, "no such column"), None);
    let labels: Vec<_> = shard.labels().collect();
    assert_eq!(labels, [("path", LabelType::Utf8), ("n", LabelType::Int64)]);
}

#[test]
fn a_file_that_is_cut_short_while_it_is_open_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Hand::new().bytes()).unwrap();
    let shard = Shard::open(file.path()).unwrap();
    file.as_file().set_len(101).unwrap(); // within sample 1
    assert_eq!(shard.payload(0).unwrap(), b"abc");
    let error = shard.payload(1).unwrap_err();
    let Error::Unreadable { sample, offset, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((sample, offset), (1, 99));
    assert!(error.to_string().contains("cut short since it was opened"));
    // A buffer that held another payload gives no more of it than of a fresh one.
    file.as_file().set_len(0).unwrap();
    let mut buffer = b"abc".to_vec();
    assert!(shard.read(0, &mut buffer).is_err());
}

#[test]
fn an_index_longer_than_a_frame_can_be_is_refused_before_it_is_read() {
    let got = fault(|hand| hand.frame = Some(vec![0; (1 << 20) + 4096]));
    assert!(
        matches!(&got, Fault::IndexFrame { got, .. } if got.contains("compressed bytes, at most")),
        "{got}"
    );
}

#[test]
fn unused_bits_are_ignored() {
    let mut hand = Hand::new();
    hand.fields.push((14, vec![0xff, 0xff]));
    hand.index[81] = 0xff;
    open(&hand.bytes()).unwrap();
}

#[test]
fn damage_costs_one_sample() {
    let mut hand = Hand::new();
    hand.payloads[4] ^= 1;
    let shard = open(&hand.bytes()).unwrap();
    shard.payload(0).unwrap();
    let error = shard.payload(1).unwrap_err();
    let Error::Payload {
        sample: 1,
        offset: 99,
        expected,
        got,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(expected, checksum(b"defgh"));
    assert_eq!(got, checksum(b"ddfgh"));
    let text = error.to_string();
    let path = shard.path().to_str().unwrap();
    assert!(
        text.contains(path) && text.contains("sample 1 at offset 99"),
        "{text}"
    );
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.shard");
    let columns = [("n", LabelType::Int64)];
    let labels = [Some(Label::Int(1))];
    let sound = NewSample {
        payload: b"x",
        codec: Codec::Jpeg,
        stored: (1, 1),
        source: (1, 1),
        class: None,
        orientation: 1,
        labels: &labels,
    };
    let text = [Some(Label::Text("x"))];
    let faulty = [
        NewSample {
            payload: b"",
            ..sound
        },
        NewSample {
            stored: (0, 1),
            ..sound
        },
        NewSample {
            source: (65_535, 65_535),
            ..sound
        },
        NewSample {
            class: Some(u32::MAX),
            ..sound
        },
        NewSample {
            orientation: 0,
            ..sound
        },
        NewSample {
            orientation: 9,
            ..sound
        },
        NewSample {
            labels: &[],
            ..sound
        },
        NewSample {
            labels: &text,
            ..sound
        },
    ];
    let mut writer = ShardWriter::create(&path, &columns, &[]).unwrap();
    for sample in faulty {
        let result = writer.append(&sample);
        assert!(
            matches!(result, Err(Error::Unwritable { sample: 0, .. })),
            "{sample:?}"
        );
    }
    assert!(matches!(writer.finish(), Err(Error::Unwritable { .. })));
    let twice = [("n", LabelType::Int64), ("n", LabelType::Utf8)];
    for columns in [&twice[..], &[("", LabelType::Utf8)]] {
        let result = ShardWriter::create(&path, columns, &[]);
        assert!(matches!(result, Err(Error::Unwritable { .. })));
    }
    // An unfinished shard begins with zeros.
    let magic = Shard::open(&path).unwrap_err().to_string();
    assert!(magic.contains("not a shard"), "{magic}");
}

/// Everything of a sample that a property test draws.
type Drawn = (
    Vec<u8>,
    bool,
    (u32, u32),
    (u32, u32),
    Option<u32>,
    u8,
    (Option<i64>, Option<f64>, String),
);

fn drawn() -> impl Strategy<Value = Drawn> {
    let size = || (1..2000u32, 1..2000u32);
    let labels = (any::<Option<i64>>(), any::<Option<f64>>(), ".{0,8}");
    let payload = proptest::collection::vec(any::<u8>(), 1..100);
    let class = proptest::option::of(0..u32::MAX);
    (
        payload,
        any::<bool>(),
        size(),
        size(),
        class,
        1..=8u8,
        labels,
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(samples in proptest::collection::vec(drawn(), 1..20)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let columns = [("i", LabelType::Int64), ("f", LabelType::Float64), ("t", LabelType::Utf8)];
        let mut writer = ShardWriter::create(file.path(), &columns, &[]).unwrap();
        for (payload, jpeg, stored, source, class, orientation, (int, float, text)) in &samples {
            let codec = if *jpeg { Codec::Jpeg } else { Codec::Raw };
            let labels = [int.map(Label::Int), float.map(Label::Float), Some(Label::Text(text))];
            writer.append(&NewSample {
                payload,
                codec,
                stored: *stored,
                source: *source,
                class: *class,
                orientation: *orientation,
                labels: &labels,
            }).unwrap();
        }
        let written = writer.finish().unwrap();
        let shard = Shard::open(file.path()).unwrap();
        prop_assert_eq!(shard.len(), samples.len() as u32);
        prop_assert_eq!(written, Written {
            samples: shard.len(),
            bytes: shard.bytes(),
            checksum: shard.checksum(),
        });
        for (i, (payload, jpeg, stored, source, class, orientation, labels)) in samples.iter().enumerate() {
            let i = i as u32;
            let entry = shard.entry(i);
            prop_assert_eq!(shard.payload(i).unwrap(), &payload[..]);
            prop_assert_eq!(entry.codec == Codec::Jpeg, *jpeg);
            prop_assert_eq!((entry.stored_width, entry.stored_height), *stored);
            prop_assert_eq!((entry.source_width, entry.source_height), *source);
            prop_assert_eq!(entry.class, *class);
            prop_assert_eq!(entry.orientation, *orientation);
            let (int, float, text) = labels;
            prop_assert_eq!(shard.label(i, "i"), int.filter(|&v| v != i64::MIN).map(Label::Int));
            prop_assert_eq!(shard.label(i, "f"), float.filter(|v| !v.is_nan()).map(Label::Float));
            let text = Some(text.as_str()).filter(|text| !text.is_empty());
            prop_assert_eq!(shard.label(i, "t"), text.map(Label::Text));
        }
    }

    /// No bytes make the reader panic, and no change of one byte goes unnoticed: it is a fault at
    /// opening, or else the damage of one payload.
    #[test]
    fn a_changed_byte_is_noticed(at in 0usize..1000, change in 1u8..) {
        let mut bytes = Hand::new().bytes();
        let at = at % bytes.len();
        bytes[at] ^= change;
        match open(&bytes) {
            Err(_) => prop_assert!(!(96..104).contains(&at)),
            Ok(shard) => {
                let damaged = u32::from(at >= 99);
                prop_assert!((96..104).contains(&at));
                prop_assert!(shard.payload(damaged).is_err());
                prop_assert!(shard.payload(1 - damaged).is_ok());
            }
        }
    }

    #[test]
    fn no_index_makes_the_reader_panic(changes in proptest::collection::vec((0usize..136, any::<u8>()), 1..6)) {
        let mut hand = Hand::new();
        for (at, value) in changes {
            hand.index[at] = value;
        }
        if let Ok(shard) = open(&hand.bytes()) {
            for i in 0..shard.len() {
                let _ = (shard.payload(i), shard.label(i, "path"), shard.label(i, "n"));
            }
        }
    }
}
