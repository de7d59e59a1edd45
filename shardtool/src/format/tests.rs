//! Shards built by hand, byte for byte as `FORMAT.md` has them: one for each sentence that a shard
//! can violate. And whatever is written is read back.

use super::*;
use crate::{Error, Fault};
use proptest::prelude::*;

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

/// The fault of the shard that `change` makes.
fn fault(change: impl FnOnce(&mut Hand)) -> Fault {
    let mut hand = Hand::new();
    change(&mut hand);
    open(&hand.bytes()).expect_err("the shard is faulty")
}

/// The fault of a shard with other bytes at a place of its header.
fn header_fault(at: usize, bytes: &[u8]) -> Fault {
    fault(|hand| hand.fields.push((at, bytes.to_vec())))
}

/// The fault of a shard with other bytes at a place of its index.
fn index_fault(at: usize, bytes: &[u8]) -> Fault {
    fault(|hand| hand.index[at..at + bytes.len()].copy_from_slice(bytes))
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
    assert_eq!(shard.payload(0), b"abc");
    assert_eq!(shard.payload(1), b"defgh");
    assert_eq!(shard.label(1, "path"), Some(Label::Text("é")));
    assert_eq!(shard.label(0, "n"), Some(Label::Int(5)));
    assert_eq!(shard.label(1, "n"), None);
    assert_eq!(shard.label(0, "no such column"), None);
    let labels: Vec<_> = shard.labels().collect();
    assert_eq!(labels, [("path", LabelType::Utf8), ("n", LabelType::Int64)]);
    shard.verify(0).unwrap();
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
    shard.verify(0).unwrap();
    let error = shard.verify(1).unwrap_err();
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
fn every_header_fault_is_found() {
    let sound = Hand::new().bytes();
    assert_eq!(
        open(&[]).unwrap_err(),
        Fault::TooShort {
            expected: 96,
            got: 0
        }
    );
    assert_eq!(
        open(&sound[..95]).unwrap_err(),
        Fault::TooShort {
            expected: 96,
            got: 95
        }
    );
    let magic = header_fault(0, b"PK");
    let got = *b"PKJSHARD";
    assert_eq!(
        magic,
        Fault::Magic {
            expected: MAGIC,
            got
        }
    );
    let version = header_fault(8, &[2]);
    assert_eq!(
        version,
        Fault::Version {
            expected: 1,
            got: 2,
            offset: 8
        }
    );

    let mut damaged = sound.clone();
    damaged[60] ^= 1;
    let expected = u64::from_le_bytes(sound[88..96].try_into().unwrap());
    let got = checksum(&damaged[..88]);
    let checksum_fault = Fault::HeaderChecksum {
        expected,
        got,
        offset: 88,
    };
    assert_eq!(open(&damaged).unwrap_err(), checksum_fault);

    let flags = Fault::HeaderFlags {
        reserved: 0xffff,
        got: 0x8000,
        offset: 12,
    };
    assert_eq!(header_fault(13, &[0x80]), flags);
    assert_eq!(
        header_fault(64, &[9]),
        Fault::CodecDataChecksum {
            expected: 9,
            got: 0,
            offset: 64
        }
    );
    assert_eq!(
        header_fault(72, &[9]),
        Fault::HeaderReserved { got: 9, offset: 72 }
    );
    assert_eq!(
        header_fault(87, &[1]),
        Fault::HeaderReserved { got: 1, offset: 87 }
    );
    let count = |got| Fault::SampleCount {
        max: 1 << 20,
        got,
        offset: 16,
    };
    assert_eq!(header_fault(16, &[0; 4]), count(0));
    assert_eq!(header_fault(16, &[1, 0, 16, 0]), count((1 << 20) + 1));
    let labels = Fault::LabelCount {
        max: 256,
        got: 257,
        offset: 20,
    };
    assert_eq!(header_fault(20, &[1, 1]), labels);
    let codec_data = Fault::CodecDataLength {
        max: 1 << 20,
        got: (1 << 20) + 1,
        offset: 24,
    };
    let long = |hand: &mut Hand| {
        hand.fields.push((24, vec![1, 0, 16, 0]));
        hand.tail = vec![0; 2 << 20];
    };
    assert_eq!(fault(long), codec_data);
    assert!(matches!(
        header_fault(24, &[255, 255]),
        Fault::CodecDataLength { max: ..300, .. }
    ));
    let checksum_of_four = checksum(b"abcd");
    assert_eq!(
        header_fault(24, &[4]),
        Fault::CodecDataChecksum {
            expected: 0,
            got: checksum_of_four,
            offset: 64
        }
    );
    assert_eq!(
        header_fault(64, &[1]),
        Fault::CodecDataChecksum {
            expected: 1,
            got: 0,
            offset: 64
        }
    );
    assert_eq!(
        header_fault(32, &[95]),
        Fault::IndexOffset {
            min: 96,
            got: 95,
            offset: 32
        }
    );
}

#[test]
fn cut_and_extended_files_are_found() {
    let sound = Hand::new().bytes();
    let size = sound.len() as u64;
    let cut = open(&sound[..sound.len() - 1]).unwrap_err();
    assert_eq!(
        cut,
        Fault::FileSize {
            expected: size,
            got: size - 1
        }
    );
    let extended = fault(|hand| hand.tail = vec![0]);
    assert_eq!(
        extended,
        Fault::FileSize {
            expected: size,
            got: size + 1
        }
    );
    let endless = header_fault(40, &[0xff; 8]);
    assert_eq!(
        endless,
        Fault::FileSize {
            expected: u64::MAX,
            got: size
        }
    );
}

#[test]
fn every_fault_of_the_index_as_a_whole_is_found() {
    let length = |got| Fault::IndexLength {
        min: 88,
        max: 1 << 28,
        got,
        offset: 48,
    };
    assert_eq!(header_fault(48, &[87]), length(87));
    assert_eq!(header_fault(48, &[1, 0, 0, 16]), length((1 << 28) + 1));
    let damaged = header_fault(56, &[0; 8]);
    assert!(
        matches!(
            damaged,
            Fault::IndexChecksum {
                expected: 0,
                offset: 104,
                ..
            }
        ),
        "{damaged}"
    );

    let frame =
        |make: &dyn Fn(&[u8]) -> Vec<u8>| fault(|hand| hand.frame = Some(make(&hand.index)));
    let is_frame_fault = |fault: Fault, reason: &str| {
        let Fault::IndexFrame {
            expected: 136,
            offset: 104,
            ref got,
        } = fault
        else {
            panic!("{fault}");
        };
        assert!(got.contains(reason), "{got}");
    };
    let compress = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
    is_frame_fault(frame(&|index| index.to_vec()), "Unknown frame");
    is_frame_fault(
        frame(&|index| compress(&index[1..])),
        "content is 135 bytes",
    );
    let twice = |index: &[u8]| [compress(index), compress(b"")].concat();
    is_frame_fault(frame(&twice), "bytes follow");
    let sizeless = |index: &[u8]| {
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        compressor.include_contentsize(false).unwrap();
        compressor.compress(index).unwrap()
    };
    is_frame_fault(frame(&sizeless), "does not record");
    let corrupt = |index: &[u8]| {
        // A block of the reserved type 3 where the frame's only block was.
        let mut frame = compress(index);
        let header = 4 + 1 + 1; // magic, descriptor, content size of one byte
        frame[header] |= 6;
        frame
    };
    is_frame_fault(frame(&corrupt), "");
}

#[test]
fn every_fault_of_an_entry_is_found() {
    let offset = |sample, expected, got| Fault::PayloadOffset {
        sample,
        expected,
        got,
    };
    assert_eq!(index_fault(0, &[97]), offset(0, 96, 97));
    assert_eq!(index_fault(8, &[100]), offset(1, 99, 100));
    assert_eq!(index_fault(8, &[98]), offset(1, 99, 98));
    assert_eq!(
        index_fault(32, &[0]),
        Fault::PayloadEmpty {
            sample: 0,
            offset: 96
        }
    );
    assert_eq!(
        index_fault(36, &[4]),
        Fault::PayloadEnd {
            expected: 104,
            got: 103
        }
    );
    let beyond = Fault::PayloadEnd {
        expected: 104,
        got: 99 + u64::from(u32::MAX),
    };
    assert_eq!(index_fault(36, &[0xff; 4]), beyond);

    let size = |sample, which, width, height| Fault::Dimensions {
        sample,
        which,
        width,
        height,
        max: MAX_PIXELS,
    };
    assert_eq!(index_fault(40, &[0]), size(0, "stored", 0, 11));
    assert_eq!(
        index_fault(52, &[0, 0, 1, 0]),
        size(1, "stored", 20, 65_536)
    );
    assert_eq!(index_fault(60, &[0]), size(1, "source", 0, 41));
    let large = fault(|hand| {
        for at in [56, 64] {
            hand.index[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        }
    });
    assert_eq!(large, size(0, "source", 65_535, 65_535));

    let flags = Fault::SampleFlags {
        sample: 1,
        reserved: 0xff,
        got: 0x80,
    };
    assert_eq!(index_fault(82, &[0x80]), flags);
    assert_eq!(index_fault(85, &[0]), Fault::Codec { sample: 1, got: 0 });
    assert_eq!(index_fault(84, &[4]), Fault::Codec { sample: 0, got: 4 });
    assert_eq!(
        index_fault(86, &[0]),
        Fault::Orientation { sample: 0, got: 0 }
    );
    assert_eq!(
        index_fault(87, &[9]),
        Fault::Orientation { sample: 1, got: 9 }
    );
}

#[test]
fn every_fault_of_a_label_column_is_found() {
    let kind = Fault::LabelType {
        column: 0,
        got: 4,
        offset: 88,
    };
    assert_eq!(index_fault(88, &[4]), kind);
    let reserved = Fault::LabelReserved {
        column: 1,
        got: 0x0100,
        offset: 113,
    };
    assert_eq!(index_fault(114, &[1]), reserved);
    let name = |column, got: &str, offset| Fault::LabelName {
        column,
        got: got.to_owned(),
        offset,
    };
    assert_eq!(index_fault(89, &[0]), name(0, "", 96));
    assert_eq!(index_fault(96, &[0xff]), name(0, "\u{fffd}ath", 96));
    let twice = fault(|hand| {
        hand.index
            .splice(111.., *b"\x03\x04\0\0\x08\0\0\0path\0\0\0\0\0\0\0\0");
    });
    assert_eq!(twice, name(1, "path", 119));

    let end = |column, expected, got, offset| Fault::LabelEnd {
        column,
        expected,
        got,
        offset,
    };
    assert_eq!(fault(|hand| hand.index.truncate(115)), end(1, 8, 4, 111));
    assert_eq!(fault(|hand| hand.index.truncate(119)), end(1, 1, 0, 119));
    assert_eq!(fault(|hand| hand.index.truncate(130)), end(1, 16, 10, 120));
    assert_eq!(
        index_fault(92, &[0xff; 4]),
        end(0, u64::from(u32::MAX), 36, 100)
    );
    let surplus = fault(|hand| hand.index.push(0));
    assert_eq!(
        surplus,
        Fault::IndexEnd {
            expected: 136,
            got: 137
        }
    );

    let length = |column, expected, got, offset| Fault::LabelLength {
        column,
        expected,
        got,
        offset,
    };
    assert_eq!(index_fault(115, &[15]), length(1, 16, 15, 120));
    assert_eq!(index_fault(92, &[7]), length(0, 8, 7, 100));
    assert_eq!(index_fault(104, &[1]), length(0, 9, 11, 100));
    let text = |sample, min, got| Fault::LabelText {
        column: 0,
        sample,
        min,
        max: 3,
        got,
    };
    assert_eq!(index_fault(100, &[2]), text(0, 0, 2)); // inside "é"
    assert_eq!(index_fault(100, &[4]), text(0, 0, 4));
    assert_eq!(index_fault(104, &[0]), text(1, 1, 0));
    assert_eq!(
        index_fault(108, &[0xff]),
        Fault::LabelUtf8 {
            column: 0,
            offset: 108
        }
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
            prop_assert_eq!(shard.payload(i), &payload[..]);
            shard.verify(i).unwrap();
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
                prop_assert!(shard.verify(damaged).is_err());
                prop_assert!(shard.verify(1 - damaged).is_ok());
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
