//! Every fault that a reader must find, one by one.

use super::*;

/// Returns the fault of a shard with other bytes at a place of its header.
fn header_fault(at: usize, bytes: &[u8]) -> Fault {
    fault(|hand| hand.fields.push((at, bytes.to_vec())))
}

/// Returns the fault of a shard with other bytes at a place of its index.
fn index_fault(at: usize, bytes: &[u8]) -> Fault {
    fault(|hand| hand.index[at..at + bytes.len()].copy_from_slice(bytes))
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
